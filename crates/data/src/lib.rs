//! Data sets read row by row, preprocessing and augmentation, and the loader that runs them ahead of training.
//!
//! [`open`] recognises a format and gives a [`Dataset`]: rows in any order from any thread, as they are stored. A
//! [`Loader`] turns an order of rows into batches: it decodes, augments and preprocesses on other threads, and the same
//! options give the same batches whatever the number of threads. Memory is bounded by the loader's queue, one Parquet
//! row group and the stated cache, not by the size of the data set; rows and labels take 8 bytes each where they are listed.
//!
//! [`npz`] and [`npy`] read and write NumPy's arrays.
mod atomic;
mod dataset;
mod error;
pub mod npy;
pub mod npz;
mod sample;
mod source;

pub use dataset::Dataset;
pub use error::{DataError, Result};
pub use sample::{Audio, Content, Image, Sample};
pub use source::idx::IdxDataset;
