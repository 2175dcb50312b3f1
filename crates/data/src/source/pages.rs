//! Sizes that the page headers of a Parquet column announce. The parquet crate reserves that much memory before it reads a page,
//! so a damaged header of a few bytes can ask for 2 GB; here the size is compared with the free memory first.
//!
//! A page header is a struct in Thrift's compact protocol: field 2 is the page's size unpacked, field 3 its size in the file,
//! 32-bit integers both (`PageHeader` in parquet.thrift). Everything else is skipped.
use crate::memory;
use parquet::file::metadata::ColumnChunkMetaData;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// Most levels of nested structs, lists and maps; parquet.thrift needs four.
const DEPTH: usize = 8;

/// Refuses a column whose unpacked pages do not fit in memory.
///
/// # Errors
/// A sentence: the pages announce more than memory holds, or a header is damaged.
pub(crate) fn check(file: &File, column: &ColumnChunkMetaData) -> Result<(), String> {
    let (start, length) = column.byte_range();
    let mut at = start;
    let end = start.saturating_add(length);
    let mut total = 0u64;
    while at < end {
        let mut source = file;
        source.seek(SeekFrom::Start(at)).map_err(|e| e.to_string())?;
        let mut header = Header { source: BufReader::with_capacity(256, source).take(end - at), read: 0 };
        let (unpacked, packed) = header.sizes().ok_or("a page header is damaged")?;
        at = at.saturating_add(header.read).saturating_add(packed);
        total = total.saturating_add(unpacked);
    }
    let room = || usize::try_from(total).is_ok_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
    match total > memory::most() || !room() {
        true => Err(format!("its pages announce {total} bytes, more than there is memory for")),
        false => Ok(()),
    }
}

struct Header<R> {
    source: R,
    read: u64,
}

impl<R: Read> Header<R> {
    /// A page's size unpacked and in the file.
    fn sizes(&mut self) -> Option<(u64, u64)> {
        let (mut unpacked, mut packed) = (None, None);
        let mut id = 0i64;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Some((unpacked?, packed?));
            }
            id = match byte >> 4 {
                0 => self.integer()?,
                step => id + i64::from(step),
            };
            match (id, byte & 15) {
                (2, 5) => unpacked = Some(u64::try_from(self.integer()?).ok()?),
                (3, 5) => packed = Some(u64::try_from(self.integer()?).ok()?),
                (_, kind) => self.skip(kind, 0)?,
            }
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.source.read_exact(&mut byte).ok()?;
        self.read += 1;
        Some(byte[0])
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn bytes(&mut self, count: u64) -> Option<()> {
        let copied = std::io::copy(&mut self.source.by_ref().take(count), &mut std::io::sink()).ok()?;
        self.read += copied;
        (copied == count).then_some(())
    }

    /// Skips a value of a compact type: 1 and 2 booleans in the field's own byte, 3 a byte, 4 to 6 integers, 7 a double, 8 bytes,
    /// 9 a list, 10 a set, 11 a map, 12 a struct.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEPTH {
            return None;
        }
        match kind {
            1 | 2 => Some(()),
            3 => self.bytes(1),
            4..=6 => self.unsigned().map(|_| ()),
            7 => self.bytes(8),
            8 => {
                let length = self.unsigned()?;
                self.bytes(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.unsigned()? } else { u64::from(head >> 4) };
                (0..count).try_for_each(|_| self.element(head & 15, depth))
            }
            11 => {
                let count = self.unsigned()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                (0..count).try_for_each(|_| {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 15, depth)
                })
            }
            12 => loop {
                let byte = self.byte()?;
                if byte == 0 {
                    return Some(());
                }
                if byte >> 4 == 0 {
                    self.integer()?;
                }
                self.skip(byte & 15, depth + 1)?;
            },
            _ => None,
        }
    }

    /// A value in a list or a map, where a boolean takes a byte.
    fn element(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1 | 2 => self.bytes(1),
            kind => self.skip(kind, depth + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Header;

    fn sizes(bytes: &[u8]) -> Option<(u64, u64, u64)> {
        let mut header = Header { source: bytes, read: 0 };
        header.sizes().map(|(unpacked, packed)| (unpacked, packed, header.read))
    }

    #[test]
    fn sizes_are_read_and_the_rest_is_passed_over() {
        // type = 0, 300 unpacked (zigzag 600), 5 packed, a data page header: struct of two integers, a string and a boolean.
        let bytes = [0x15, 0, 0x15, 0xd8, 4, 0x15, 10, 0x2c, 0x15, 2, 0x15, 0, 0x18, 3, 1, 2, 3, 0x11, 0, 0, 99];
        assert_eq!(sizes(&bytes), Some((300, 5, 20)));
    }

    #[test]
    fn damaged_headers_are_none() {
        assert_eq!(sizes(&[]), None);
        assert_eq!(sizes(&[0x15, 0, 0]), None, "no sizes");
        assert_eq!(sizes(&[0x15, 0, 0x15, 1, 0x15, 10, 0]), None, "a size below zero");
        assert_eq!(
            sizes(&[0x15, 0, 0x15, 2, 0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            None,
            "a list that never ends"
        );
    }
}
