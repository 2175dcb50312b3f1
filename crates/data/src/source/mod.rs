//! Where rows come from: one format a file.
pub(crate) mod arrays;
pub(crate) mod cifar;
mod column;
mod features;
pub(crate) mod folder;
pub(crate) mod idx;
mod pages;
pub(crate) mod parquet;
pub(crate) mod ready;
mod record;
