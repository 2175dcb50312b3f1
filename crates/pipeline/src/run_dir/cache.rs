//! Intermediate results that a later stage or run may reuse. A missing or damaged file only costs the time to compute it again.
use super::{Key, KeyBuilder, RunDir, atomic};
use crate::PipelineError;
use serde::{Serialize, de::DeserializeOwned};
use std::path::PathBuf;

/// The cache of a run: files below `store/`, named by the hash of everything that they depend on.
///
/// A file is one line with the BLAKE3 of the rest, then JSON. A file whose hash does not match is ignored.
#[derive(Clone, Copy)]
pub struct Cache<'a> {
    dir: &'a RunDir,
    common: &'a KeyBuilder,
}

impl<'a> Cache<'a> {
    /// The cache in a run's folder; `common` is the part of the key that everything in the run shares.
    pub fn new(dir: &'a RunDir, common: &'a KeyBuilder) -> Self {
        Cache { dir, common }
    }

    /// The beginning of a key.
    pub fn key(&self) -> KeyBuilder {
        self.common.clone()
    }

    fn path(&self, kind: &str, key: &Key) -> PathBuf {
        self.dir.root().join("store").join(format!("{key}.{kind}"))
    }

    /// The value stored under a key, if it is there and complete.
    pub fn get<T: DeserializeOwned>(&self, kind: &str, key: &Key) -> Option<T> {
        let bytes = std::fs::read(self.path(kind, key)).ok()?;
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let (hash, body) = (&bytes[..end], &bytes[end + 1..]);
        if blake3::hash(body).to_hex().as_bytes() != hash {
            return None;
        }
        serde_json::from_slice(body).ok()
    }

    /// Stores a value, completely or not at all.
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
