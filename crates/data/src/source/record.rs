//! Files of equally long records: read record by record from disk, or held in memory where they are compressed.
use crate::{DataError, Result};
use bytes::Bytes;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A file, read in pieces at any offset.
pub(crate) struct RecordFile {
    path: PathBuf,
    store: Store,
}

enum Store {
    Disk(Mutex<File>, u64),
    Memory(Bytes),
}

impl RecordFile {
    /// Opens a file; a gzip file (known by its first bytes) is decompressed into memory, since it cannot be read from the middle.
    /// Unpacks at most `most` bytes, and at most the length that the first `header` bytes announce.
    pub(crate) fn open(path: &Path, most: u64, header: usize, announced: &dyn Fn(&[u8]) -> Result<Option<u64>>) -> Result<Self> {
        let mut file = File::open(path).map_err(DataError::io(path))?;
        let mut start = [0u8; 2];
        let gzip = file.read_exact(&mut start).is_ok() && start == [0x1f, 0x8b];
        file.rewind().map_err(DataError::io(path))?;
        let store = if gzip {
            let damaged = |e: std::io::Error| DataError::format(path, format!("gzip data is damaged: {e}"));
            let mut unpacked = flate2::read::MultiGzDecoder::new(std::io::BufReader::new(file));
            let mut bytes = Vec::new();
            unpacked.by_ref().take(header as u64).read_to_end(&mut bytes).map_err(damaged)?;
            let announced = announced(&bytes)?;
            let length = announced.unwrap_or(most);
            let too_large = |told: &str| {
                let what = format!(
                    "unpacks to {told} bytes, and at most {most} may be kept in memory (cache): gunzip it, to have it read from disk"
                );
                DataError::format(path, what)
            };
            if length > most {
                return Err(too_large(&length.to_string()));
            }
            // Reading one byte more tells whether there is more.
            let rest = (length + 1).saturating_sub(bytes.len() as u64);
            unpacked.take(rest).read_to_end(&mut bytes).map_err(damaged)?;
            if bytes.len() as u64 > length {
                return Err(match announced {
                    Some(length) => DataError::format(path, format!("unpacks to more than the {length} bytes that its header announces")),
                    None => too_large(&format!("more than {length}")),
                });
            }
            Store::Memory(bytes.into())
        } else {
            let length = file.metadata().map_err(DataError::io(path))?.len();
            Store::Disk(Mutex::new(file), length)
        };
        Ok(RecordFile { path: path.to_path_buf(), store })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file, decompressed.
    pub(crate) fn len(&self) -> u64 {
        match &self.store {
            Store::Disk(_, length) => *length,
            Store::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// `length` bytes from `offset` on.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.len());
        if end.is_none() {
            return Err(DataError::format(
                &self.path,
                format!("truncated: {length} bytes at {offset} are beyond its {} bytes", self.len()),
            ));
        }
        match &self.store {
            Store::Memory(bytes) => Ok(bytes[offset as usize..offset as usize + length].to_vec()),
            Store::Disk(file, _) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let mut record = vec![0; length];
                file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut record)).map_err(DataError::io(&self.path))?;
                Ok(record)
            }
        }
    }
}
