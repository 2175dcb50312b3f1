//! Data sets read row by row, preprocessing and augmentation, and the loader that runs them ahead of training.
//!
//! [`open`] recognises a format and gives a [`Dataset`]: rows in any order from any thread, as they are stored. A
//! [`Loader`] turns an order of rows into batches: it decodes, augments and preprocesses on other threads, and the same
//! options give the same batches whatever the number of threads. Memory is bounded by the loader's queue, one Parquet
//! row group and the stated cache, not by the size of the data set; rows and labels take 8 bytes each where they are listed.
//!
//! [`npz`] and [`npy`] read and write NumPy's arrays.
mod augment;
mod batch;
mod classes;
mod dataset;
mod decode;
mod error;
mod feed;
mod loader;
mod memory;
pub mod npy;
pub mod npz;
mod open;
mod part;
mod preprocess;
mod random;
mod relabel;
mod resize;
mod sample;
mod source;
mod stack;
mod wanted;

pub use augment::Augment;
pub use batch::{Batch, Ragged, Targets};
pub use classes::{Holdout, Purpose, Split, check_classes, evenly, split_holdout};
pub use dataset::{Dataset, Place};
pub use error::{DataError, Result};
pub use loader::{Loader, LoaderOptions, Shuffle};
pub use open::{OpenOptions, open};
pub use part::part;
pub use preprocess::{Layout, METADATA_KEY, Preprocess, Size, check_heeded};
pub use relabel::{check_positions, relabel};
pub use resize::{Filter, resize};
pub use sample::{Audio, Content, Image, Sample};
pub use source::arrays::ArraysDataset;
pub use source::cifar::CifarDataset;
pub use source::folder::FolderDataset;
pub use source::generated::GeneratedImages;
pub use source::idx::IdxDataset;
pub use source::parquet::ParquetDataset;
pub use source::ready::ReadyDataset;
pub use source::{Format, formats};
pub use wanted::{TARGET, TARGET_NAMES, Wanted};
