//! Intermediate results that a later stage or run may take again. Nothing is lost with one that is gone or damaged.
use super::{Key, KeyBuilder, RunDir, atomic};
use crate::PipelineError;
use serde::{Serialize, de::DeserializeOwned};
use std::path::PathBuf;

/// The cache of a run: files below `store/`, by the hash of all that they depend on.
///
/// A file is one line with the BLAKE3 of the rest, then JSON. One whose hash does not fit is as good as none.
#[derive(Clone, Copy)]
pub struct Cache<'a> {
    dir: &'a RunDir,
    common: &'a KeyBuilder,
}

impl<'a> Cache<'a> {
    /// In a run's folder; `common` is what everything in the run depends on.
    pub fn new(dir: &'a RunDir, common: &'a KeyBuilder) -> Self {
        Cache { dir, common }
    }

    /// The beginning of an address.
    pub fn key(&self) -> KeyBuilder {
        self.common.clone()
    }

    fn path(&self, kind: &str, key: &Key) -> PathBuf {
        self.dir.root().join("store").join(format!("{key}.{kind}"))
    }

    /// What was stored there, if it is there and whole.
    pub fn get<T: DeserializeOwned>(&self, kind: &str, key: &Key) -> Option<T> {
        let bytes = std::fs::read(self.path(kind, key)).ok()?;
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let (hash, body) = (&bytes[..end], &bytes[end + 1..]);
        if blake3::hash(body).to_hex().as_bytes() != hash {
            return None;
        }
        serde_json::from_slice(body).ok()
    }

    /// Stores a value, whole or not at all.
    ///
    /// # Errors
    /// [`PipelineError::File`].
    pub fn put<T: Serialize>(&self, kind: &str, key: &Key, value: &T) -> Result<(), PipelineError> {
        let path = self.path(kind, key);
        let body = serde_json::to_vec(value).map_err(|e| PipelineError::file(&path, e))?;
        let mut bytes = blake3::hash(&body).to_hex().as_bytes().to_vec();
        bytes.push(b'\n');
        bytes.extend(body);
        atomic::write(&path, &bytes)
    }
}
