//! NumPy's archive of named arrays (`.npz`): a zip file with one `NAME.npy` an array.
use crate::{DataError, Result, npy};
use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::path::Path;
use tensor::Tensor;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// From here on an entry needs zip's 64-bit sizes; below 4 GiB, since deflate may grow what does not compress.
const MAX_ZIP32: usize = 0xF000_0000;

/// Reads every array of an archive, stored or deflated.
///
/// # Errors
/// [`DataError::Io`], or [`DataError::Format`] naming the array that is truncated, malformed or of a type that no tensor has.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let file = std::fs::File::open(path).map_err(DataError::io(path))?;
    let mut archive =
        ZipArchive::new(std::io::BufReader::new(file)).map_err(|e| DataError::format(path, format!("not an npz archive: {e}")))?;
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| DataError::format(path, format!("entry {index}: {e}")))?;
        let name = entry.name().map_err(|e| DataError::format(path, format!("entry {index}: {e}")))?.into_owned();
        let Some(array) = name.strip_suffix(".npy") else {
            return Err(DataError::format(path, format!("entry '{name}' is not a NumPy array")));
        };
        let tensor = npy::decode(&mut entry).map_err(|what| DataError::format(path, format!("array '{array}': {what}")))?;
        // Reading to the end makes the archive check the entry's checksum.
        std::io::copy(&mut entry, &mut std::io::sink()).map_err(|e| DataError::format(path, format!("array '{array}': {e}")))?;
        arrays.insert(array.to_string(), tensor);
    }
    Ok(arrays)
}

/// Writes an archive (deflated), which appears complete or not at all. The same arrays give the same bytes.
///
/// # Errors
/// [`DataError::Io`], or [`DataError::Format`] naming an array whose element type NumPy does not have.
pub fn write(path: &Path, arrays: &BTreeMap<String, Tensor>) -> Result<()> {
    files::write_with(path, DataError::io(path), |file| encode(arrays, file).map_err(|what| DataError::format(path, what)))
}

fn encode(arrays: &BTreeMap<String, Tensor>, file: impl Write + Seek) -> Result<(), String> {
    let mut archive = ZipWriter::new(file);
    for (name, tensor) in arrays {
        let bytes = tensor.len().saturating_mul(tensor.dtype().bits().max(8) / 8);
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).large_file(bytes >= MAX_ZIP32);
        archive.start_file(format!("{name}.npy"), options).map_err(|e| format!("array '{name}': {e}"))?;
        npy::encode(tensor, &mut archive).map_err(|what| format!("array '{name}': {what}"))?;
    }
    archive.finish().map(drop).map_err(|e| e.to_string())
}
