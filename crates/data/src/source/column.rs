//! One column of one row group as a list with one entry a row.
use bytes::Bytes;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};

/// A column of bytes; `levels` is its deepest definition level, at which a value is present.
pub(crate) fn read_bytes(column: ColumnReader, levels: i16, rows: usize) -> Result<Vec<Option<Bytes>>, String> {
    match column {
        ColumnReader::ByteArrayColumnReader(reader) => read(reader, levels, rows, |value: ByteArray| {
            // Without a copy: the value is a slice of its page.
            Bytes::from_owner(value)
        }),
        _ => Err("the input column does not hold bytes".into()),
    }
}

/// A column of integers of either width.
pub(crate) fn read_integers(column: ColumnReader, levels: i16, rows: usize) -> Result<Vec<Option<i64>>, String> {
    match column {
        ColumnReader::Int64ColumnReader(reader) => read(reader, levels, rows, |value| value),
        ColumnReader::Int32ColumnReader(reader) => read(reader, levels, rows, i64::from),
        _ => Err("the label column does not hold integers".into()),
    }
}

fn read<T: DataType, V>(
    mut reader: ColumnReaderImpl<T>,
    levels: i16,
    rows: usize,
    convert: impl Fn(T::T) -> V,
) -> Result<Vec<Option<V>>, String> {
    let (mut present, mut values) = (vec![], vec![]);
    let mut read = 0;
    while read < rows {
        let definition = (levels > 0).then_some(&mut present);
        let (records, _, _) = reader.read_records(rows - read, definition, None, &mut values).map_err(|e| e.to_string())?;
        if records == 0 {
            return Err(format!("it ends after {read} of {rows} rows"));
        }
        read += records;
    }
    let mut values = values.into_iter().map(convert);
    if levels == 0 {
        return Ok(values.map(Some).collect());
    }
    Ok(present.into_iter().map(|level| if level == levels { values.next() } else { None }).collect())
}
