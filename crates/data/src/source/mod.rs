//! Where rows come from: one format a file, and a line in [`formats`].
pub(crate) mod arrays;
pub(crate) mod cifar;
mod column;
mod features;
pub(crate) mod folder;
pub(crate) mod format;
pub(crate) mod generated;
pub(crate) mod idx;
mod pages;
pub(crate) mod parquet;
pub(crate) mod ready;
mod record;

pub use format::Format;

/// All formats, in the order in which they are tried on a folder.
pub fn formats() -> &'static [Format] {
    static LIST: &[Format] = &[parquet::FORMAT, idx::FORMAT, cifar::FORMAT, arrays::FORMAT, folder::FORMAT];
    LIST
}
