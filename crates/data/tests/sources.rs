//! Each format on tiny files made here, and on damaged ones.
use espalier_data::{Content, DataError, Dataset, Loader, LoaderOptions, OpenOptions, Purpose, Shuffle, check_classes, open};
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

fn png(pixels: &[u8], width: u32, color: png::ColorType) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, width, (pixels.len() / color.samples()) as u32 / width);
    encoder.set_color(color);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}

/// Row groups of rows; a row is an image (or null) and a label (or null).
type Group = Vec<(Option<Vec<u8>>, Option<i64>)>;

fn write_parquet(path: &Path, groups: &[Group]) {
    let schema = "message schema { optional group image { optional binary bytes; optional binary path (UTF8); } optional int64 label; }";
    let features = r#"{"info":{"features":{"image":{"_type":"Image"},"label":{"names":["cat","dog"],"_type":"ClassLabel"}}}}"#;
    let metadata = vec![KeyValue::new("huggingface".to_string(), features.to_string())];
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    for group in groups {
        let mut columns = writer.next_row_group().unwrap();
        let bytes: Vec<ByteArray> = group.iter().filter_map(|row| row.0.clone().map(ByteArray::from)).collect();
        let levels: Vec<i16> = group.iter().map(|row| if row.0.is_some() { 2 } else { 1 }).collect();
        let mut column = columns.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&bytes, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = columns.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; group.len()]), None).unwrap();
        column.close().unwrap();
        let labels: Vec<i64> = group.iter().filter_map(|row| row.1).collect();
        let levels: Vec<i16> = group.iter().map(|row| i16::from(row.1.is_some())).collect();
        let mut column = columns.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, Some(&levels), None).unwrap();
        column.close().unwrap();
        columns.close().unwrap();
    }
    writer.close().unwrap();
}

fn row(value: u8, label: i64) -> (Option<Vec<u8>>, Option<i64>) {
    (Some(png(&[value; 12], 2, png::ColorType::Rgb)), Some(label))
}

fn fail(path: &Path, options: &OpenOptions) -> String {
    open(path, options).map(|_| ()).unwrap_err().to_string()
}

fn load_all(dataset: Arc<dyn Dataset>, workers: usize) -> Result<Vec<f32>, DataError> {
    let options = LoaderOptions { batch: 3, workers, shuffle: Shuffle::Off, ..LoaderOptions::default() };
    let mut values = vec![];
    for batch in Loader::new(dataset, options)? {
        values.extend_from_slice(batch?.inputs["input"].as_slice::<f32>()?);
    }
    Ok(values)
}

#[test]
fn parquet_in_several_files_and_row_groups() {
    let folder = tempfile::tempdir().unwrap();
    write_parquet(&folder.path().join("train-00000-of-00002.parquet"), &[vec![row(0, 0), row(10, 1)], vec![row(20, 0)]]);
    write_parquet(&folder.path().join("train-00001-of-00002.parquet"), &[vec![row(30, 1), row(40, 1)]]);
    write_parquet(&folder.path().join("val-00000-of-00001.parquet"), &[vec![row(50, 1)]]);
    for cache_bytes in [0, 1 << 20] {
        let train = open(folder.path(), &OpenOptions { cache_bytes, ..OpenOptions::split("train") }).unwrap();
        assert_eq!((train.len(), train.class_names()), (5, &["cat".to_string(), "dog".to_string()][..]));
        assert_eq!(train.runs(), if cache_bytes == 0 { vec![0..2, 2..3, 3..5] } else { std::iter::once(0..5).collect() });
        assert_eq!(train.labels().unwrap(), [0, 1, 0, 1, 1].map(Some));
        let values = load_all(train, 2).unwrap();
        assert_eq!(values.iter().step_by(12).map(|v| (v * 255.0).round()).collect::<Vec<_>>(), [0.0, 10.0, 20.0, 30.0, 40.0]);
    }
    let validation = open(folder.path(), &OpenOptions::split("validation")).unwrap();
    assert_eq!(validation.len(), 1);
    let error = check_classes(validation.as_ref(), None, 2, Purpose::Training).unwrap_err().to_string();
    assert!(error.contains("no rows of class 0 (cat), of 2"), "{error}");
    let options = OpenOptions { label_column: Some("fine".into()), ..OpenOptions::split("train") };
    assert!(fail(folder.path(), &options).contains("no column 'fine': there are image.bytes, image.path, label"));
}

#[test]
fn parquet_rows_at_fault_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test-00000-of-00001.parquet");
    let mut torn = row(1, 0);
    torn.0.as_mut().unwrap().truncate(50);
    for (bad, says) in [
        ((None, Some(0)), "row 4: its bytes are null"),
        (torn, "row 4: undecodable PNG"),
        ((Some(b"GIF89a".to_vec()), Some(0)), "row 4: neither PNG nor JPEG nor WebP"),
        ((Some(vec![0xff, 0xd8, 0xff, 0xe0, 0, 16]), Some(0)), "row 4: undecodable JPEG"),
        ((Some(b"RIFF\x10\0\0\0WAVE".to_vec()), Some(0)), "row 4: undecodable WAV"),
        (row(1, 2), "row 4: label 2 is out of range: there are 2 classes, 0..1"),
        (row(1, -1), "row 4: label -1 is out of range"),
        (
            (Some(png(&[0; 8], 2, png::ColorType::Grayscale)), Some(0)),
            "row 4: its input is [1, 4, 2], that of the rows before it [3, 2, 2]",
        ),
    ] {
        write_parquet(&file, &[vec![row(0, 0); 3], vec![row(0, 0), bad]]);
        let error = load_all(open(folder.path(), &OpenOptions::default()).unwrap(), 1).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("test-00000-of-00001.parquet"), "{error}");
    }
    write_parquet(&file, &[vec![row(0, 0), (row(0, 0).0, None)]]);
    let error = check_classes(open(&file, &OpenOptions::default()).unwrap().as_ref(), None, 2, Purpose::Evaluation).unwrap_err();
    assert!(error.to_string().contains("row 1: has no label"), "{error}");
}

#[test]
fn damaged_parquet_gives_errors_not_panics() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("train.parquet");
    write_parquet(&file, &[vec![row(0, 0), row(1, 1)], vec![row(2, 0)]]);
    let whole = fs::read(&file).unwrap();
    for length in (0..whole.len()).step_by(7) {
        fs::write(&file, &whole[..length]).unwrap();
        assert!(fail(&file, &OpenOptions::default()).contains("train.parquet: not readable as Parquet"));
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        fs::write(&file, &damaged).unwrap();
        if let Ok(dataset) = open(&file, &OpenOptions::default()) {
            let _ = dataset.labels();
            let _ = load_all(dataset, 0);
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn idx_plain_and_gzipped_and_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1];
    images.extend([1, 2, 3, 4]);
    let labels = vec![0, 0, 8, 1, 0, 0, 0, 2, 7, 9];
    let (image_file, label_file) = (folder.path().join("train-images-idx3-ubyte"), folder.path().join("train-labels-idx1-ubyte"));
    let compressed = folder.path().join("train-images-idx3-ubyte.gz");
    fs::write(&image_file, &images).unwrap();
    fs::write(&label_file, &labels).unwrap();
    let set = open(folder.path(), &OpenOptions::default()).unwrap();
    let second = set.read(1).unwrap();
    assert!(matches!(second.content, Content::Image(image) if image.pixels == [3, 4] && image.height == 2));
    assert_eq!((second.label, set.len()), (Some(9), 2));

    fs::remove_file(&image_file).unwrap();
    let whole = gzip(&images);
    fs::write(&compressed, &whole).unwrap();
    assert_eq!(open(folder.path(), &OpenOptions::default()).unwrap().labels().unwrap(), [Some(7), Some(9)]);
    for length in 2..whole.len() {
        fs::write(&compressed, &whole[..length]).unwrap();
        assert!(fail(folder.path(), &OpenOptions::default()).contains("train-images-idx3-ubyte.gz: gzip data is damaged"));
    }
    fs::write(&compressed, gzip(&images[..19])).unwrap();
    assert!(fail(folder.path(), &OpenOptions::default()).contains("19 bytes, but its header announces elements of [2, 2, 1]"));
    images[7] = 200;
    fs::write(&compressed, gzip(&images)).unwrap();
    assert!(fail(folder.path(), &OpenOptions::default()).contains("header announces elements of [200, 2, 1]"));
    fs::write(&compressed, gzip(b"not idx at all, but long")).unwrap();
    assert!(fail(folder.path(), &OpenOptions::default()).contains("not IDX of unsigned bytes"));
}

#[test]
fn cifar_binary_files() {
    let folder = tempfile::tempdir().unwrap();
    let record = |label: &[u8], value: u8| [label, &vec![value; 1024], &vec![value + 1; 1024], &vec![value + 2; 1024]].concat();
    fs::write(folder.path().join("data_batch_1.bin"), [record(&[3], 10), record(&[4], 20)].concat()).unwrap();
    fs::write(folder.path().join("data_batch_2.bin"), record(&[5], 30)).unwrap();
    fs::write(folder.path().join("test_batch.bin"), record(&[6], 40)).unwrap();
    let train = open(folder.path(), &OpenOptions::split("train")).unwrap();
    assert_eq!(train.labels().unwrap(), [Some(3), Some(4), Some(5)]);
    let Content::Image(image) = train.read(2).unwrap().content else { panic!("not an image") };
    assert_eq!((&image.pixels[..4], image.channels), (&[30, 31, 32, 30][..], 3));
    fs::write(folder.path().join("test_batch.bin"), [0; 3072]).unwrap();
    assert!(
        fail(folder.path(), &OpenOptions::split("test")).contains("test_batch.bin: 3072 bytes are not a whole number of records of 3073")
    );

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("train.bin"), record(&[1, 77], 10)).unwrap();
    fs::write(folder.path().join("fine_label_names.txt"), "apple\nfish\n").unwrap();
    let train = open(folder.path(), &OpenOptions::default()).unwrap();
    assert_eq!((train.read(0).unwrap().label, train.class_names()[1].as_str()), (Some(77), "fish"));
}

#[test]
fn image_folders_with_and_without_splits() {
    let folder = tempfile::tempdir().unwrap();
    for (class, value) in [("train/bee", 1), ("train/ant", 2), ("test/ant", 3), ("test/bee", 4)] {
        fs::create_dir_all(folder.path().join(class)).unwrap();
        fs::write(folder.path().join(class).join("a.png"), png(&[value; 4], 2, png::ColorType::Grayscale)).unwrap();
    }
    fs::write(folder.path().join("test/bee/notes.txt"), "no image").unwrap();
    let test = open(folder.path(), &OpenOptions::split("test")).unwrap();
    assert_eq!((test.class_names(), test.labels().unwrap()), (&["ant".to_string(), "bee".to_string()][..], vec![Some(0), Some(1)]));
    let train = open(&folder.path().join("train"), &OpenOptions::default()).unwrap();
    assert_eq!(train.len(), 2);
    fs::write(folder.path().join("train/bee/b.jpg"), "not a jpeg").unwrap();
    let error = load_all(open(folder.path(), &OpenOptions::split("train")).unwrap(), 1).unwrap_err().to_string();
    assert!(error.contains("train/bee/b.jpg, row 2: neither PNG nor JPEG"), "{error}");
}

#[test]
fn png_kinds_become_grey_or_colour() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("c")).unwrap();
    for (kind, channels) in
        [(png::ColorType::Grayscale, 1), (png::ColorType::GrayscaleAlpha, 1), (png::ColorType::Rgb, 3), (png::ColorType::Rgba, 3)]
    {
        let pixels: Vec<u8> = (0..4 * kind.samples() as u8).collect();
        fs::write(folder.path().join("c/a.png"), png(&pixels, 2, kind)).unwrap();
        let set = open(folder.path(), &OpenOptions::default()).unwrap();
        let batch = Loader::new(set, LoaderOptions::default()).unwrap().next().unwrap().unwrap();
        let input = &batch.inputs["input"];
        assert_eq!(input.shape(), [1, channels, 2, 2]);
        let second = (input.as_slice::<f32>().unwrap()[1] * 255.0).round() as usize;
        assert_eq!(second, kind.samples(), "the first channel of the second pixel");
    }
}

#[test]
fn what_is_not_a_data_set_says_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    assert!(fail(folder.path(), &OpenOptions::default()).contains("no data set found: looked for NAME-*.parquet"));
    assert!(fail(folder.path(), &OpenOptions::default()).ends_with("there is nothing"));
    fs::write(folder.path().join("readme.txt"), "").unwrap();
    assert!(fail(folder.path(), &OpenOptions::default()).ends_with("there is readme.txt"));
    assert!(fail(&folder.path().join("readme.txt"), &OpenOptions::default()).contains("not a data set by its name"));
    assert!(fail(&folder.path().join("absent"), &OpenOptions::default()).contains("absent"));
}
