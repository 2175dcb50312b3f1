//! The IDX format of MNIST and its relatives: a big-endian header (`0 0 TYPE RANK`, the sizes), then the elements.
//!
//! Source: <http://yann.lecun.com/exdb/mnist/>. Images are `*-images-idx3-ubyte`, labels `*-labels-idx1-ubyte`, plain or
//! gzipped. Memory: the labels; the images too if they are gzipped (47 MB for MNIST), else one image.
use super::format::{Format, Opener, Splits, canonical, file_name, opener};
use super::record::RecordFile;
use crate::decode::check_size;
use crate::{Content, DataError, Dataset, Image, Result, Sample};
use std::path::{Path, PathBuf};

const UNSIGNED_BYTE: u8 = 8;

/// Images and labels in a pair of IDX files.
pub struct IdxDataset {
    images: RecordFile,
    header: usize,
    height: usize,
    width: usize,
    labels: Vec<u8>,
    class_names: Vec<String>,
}

pub(crate) const FORMAT: Format =
    Format { name: "idx", layouts: &["*-images-idx3-ubyte[.gz] with labels (IDX)"], file: idx_pair, splits: idx_splits };

/// The images, if this is their file, and the labels beside them.
fn idx_pair(images: &Path) -> Option<Opener> {
    let name = file_name(images);
    if !name.contains("-images") || !name.contains("idx3") {
        return None;
    }
    let plain = name.trim_end_matches(".gz").replace("-images", "-labels").replace("idx3", "idx1");
    let labels = [plain.clone(), format!("{plain}.gz")].map(|name| images.with_file_name(name)).into_iter().find(|path| path.is_file())?;
    let images = images.to_path_buf();
    Some(opener(move |_, options| IdxDataset::open(&images, &labels, options.cache_bytes)))
}

fn idx_splits(_: &Path, list: &[PathBuf]) -> Result<Splits> {
    let split = |path: &PathBuf| canonical(file_name(path).split("-images").next().unwrap_or_default()).to_string();
    Ok(list.iter().filter_map(|path| Some((split(path), idx_pair(path)?))).collect())
}

impl IdxDataset {
    /// Opens a pair of files; a gzipped one may unpack to `most` bytes.
    ///
    /// # Errors
    /// [`DataError::Io`], or [`DataError::Format`] if a file is not IDX of unsigned bytes, is cut short, or the counts differ.
    pub fn open(images: &Path, labels: &Path, most: u64) -> Result<Self> {
        let (label_file, label_header, label_dims) = open(labels, 1, most)?;
        let (images, header, dims) = open(images, 3, most)?;
        if dims[0] != label_dims[0] {
            return Err(DataError::format(
                images.path(),
                format!("{} images, but {} labels in {}", dims[0], label_dims[0], labels.display()),
            ));
        }
        let labels = label_file.read(label_header as u64, label_dims[0])?;
        let classes = labels.iter().max().map_or(0, |largest| usize::from(*largest) + 1);
        let class_names = (0..classes).map(|class| class.to_string()).collect();
        Ok(IdxDataset { images, header, height: dims[1], width: dims[2], labels, class_names })
    }
}

/// The file, the length of its header and its dimensions, of which there must be `rank`.
fn open(path: &Path, rank: usize, most: u64) -> Result<(RecordFile, usize, Vec<usize>)> {
    let header = 4 + 4 * rank;
    let file = RecordFile::open(path, most, header, &|bytes| announced(path, bytes, rank).map(|(_, length)| Some(length)))?;
    let (dims, expected) = announced(path, &file.read(0, header.min(file.len() as usize))?, rank)?;
    if expected != file.len() {
        return Err(DataError::format(path, format!("{} bytes, but its header announces elements of {dims:?}", file.len())));
    }
    Ok((file, header, dims))
}

/// The dimensions that a header announces, and the length of the file.
fn announced(path: &Path, bytes: &[u8], rank: usize) -> Result<(Vec<usize>, u64)> {
    let header = 4 + 4 * rank;
    if bytes.len() < header {
        return Err(DataError::format(path, format!("truncated: {} bytes, where its header has {header}", bytes.len())));
    }
    if bytes[..4] != [0, 0, UNSIGNED_BYTE, rank as u8] {
        return Err(DataError::format(path, format!("not IDX of unsigned bytes with {rank} dimensions: begins with {:?}", &bytes[..4])));
    }
    let dims: Vec<usize> = bytes[4..].as_chunks::<4>().0.iter().map(|d| u32::from_be_bytes(*d) as usize).collect();
    if let [_, height, width] = dims[..] {
        check_size(width, height).map_err(|what| DataError::format(path, format!("its images are of {what}")))?;
    }
    let length = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64)).and_then(|n| n.checked_add(header as u64));
    let length =
        length.ok_or_else(|| DataError::format(path, format!("its header announces elements of {dims:?}, more than there can be")))?;
    Ok((dims, length))
}

impl Dataset for IdxDataset {
    fn path(&self) -> &Path {
        self.images.path()
    }
    fn len(&self) -> usize {
        self.labels.len()
    }
    fn class_names(&self) -> &[String] {
        &self.class_names
    }
    fn read(&self, row: usize) -> Result<Sample> {
        let label = *self.labels.get(row).ok_or_else(|| DataError::row(self.path(), row, format!("only {} rows", self.len())))?;
        let size = self.height * self.width;
        let pixels = self.images.read((self.header + row * size) as u64, size)?;
        let image = Image { height: self.height, width: self.width, channels: 1, pixels };
        Ok(Sample::new(Content::Image(image), Some(i64::from(label))))
    }
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        Ok(self.labels.iter().map(|label| Some(i64::from(*label))).collect())
    }
}
