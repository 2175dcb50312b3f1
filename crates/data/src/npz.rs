//! NumPy's archive of named arrays (`.npz`): a zip file with one `NAME.npy` an array.
use crate::{DataError, Result, memory, npy};
use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};
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
    read_some(path, |_| true, memory::most())
}

/// Reads those of these arrays that an archive has.
///
/// # Errors
/// As [`read`].
pub fn read_only(path: &Path, names: &[&str]) -> Result<BTreeMap<String, Tensor>> {
    read_some(path, |name| names.contains(&name), memory::most())
}

fn read_some(path: &Path, wanted: impl Fn(&str) -> bool, most: u64) -> Result<BTreeMap<String, Tensor>> {
    let file = std::fs::File::open(path).map_err(DataError::io(path))?;
    let mut archive =
        ZipArchive::new(std::io::BufReader::new(file)).map_err(|e| DataError::format(path, format!("not an npz archive: {e}")))?;
    // All headers first: what they announce together must fit before anything is unpacked.
    let (mut names, mut announced) = (vec![], 0u64);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|e| DataError::format(path, format!("entry {index}: {e}")))?;
        let name = entry.name().map_err(|e| DataError::format(path, format!("entry {index}: {e}")))?.into_owned();
        let Some(array) = name.strip_suffix(".npy") else {
            return Err(DataError::format(path, format!("entry '{name}' is not a NumPy array")));
        };
        if wanted(array) {
            let one = npy::announced(&mut entry).map_err(|what| DataError::format(path, format!("array '{array}': {what}")))?;
            announced = announced.saturating_add(one);
            names.push((index, array.to_string()));
        }
    }
    memory::check(announced, most).map_err(|what| DataError::format(path, what))?;
    let mut arrays = BTreeMap::new();
    for (index, array) in names {
        let mut entry = archive.by_index(index).map_err(|e| DataError::format(path, format!("entry {index}: {e}")))?;
        let tensor = npy::decode(&mut entry).map_err(|what| DataError::format(path, format!("array '{array}': {what}")))?;
        // Reading on makes the archive check the entry's checksum; what lies behind the array is not unpacked.
        let more = std::io::copy(&mut entry.take(1), &mut std::io::sink());
        match more.map_err(|e| DataError::format(path, format!("array '{array}': {e}")))? {
            0 => arrays.insert(array, tensor),
            _ => return Err(DataError::format(path, format!("array '{array}': there is more than its header announces"))),
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::DType;

    #[test]
    fn what_is_announced_is_weighed_before_it_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.npz");
        let zeros = Tensor::zeros(DType::F32, &[1000, 1000]).unwrap();
        write(&path, &BTreeMap::from([("a".to_string(), zeros.clone()), ("b".to_string(), zeros)])).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 20_000);
        assert_eq!(read_some(&path, |_| true, 16_000_000).unwrap().len(), 2);
        let error = read_some(&path, |_| true, 15_999_999).unwrap_err().to_string();
        assert!(error.contains("large.npz") && error.contains("take 16000000 bytes in memory, and at most 15999999"), "{error}");
        assert_eq!(read_some(&path, |name| name == "a", 8_000_000).unwrap().len(), 1);
        // Text takes more in memory than in the file.
        let text = Tensor::full(String::new(), [1000]).unwrap();
        write(&path, &BTreeMap::from([("t".to_string(), text)])).unwrap();
        assert!(read_some(&path, |_| true, 31_999).is_err() && read_some(&path, |_| true, 32_000).is_ok());
    }
}
