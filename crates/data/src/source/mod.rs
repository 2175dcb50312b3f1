//! Where rows come from: one format a file.
pub(crate) mod idx;
mod record;
