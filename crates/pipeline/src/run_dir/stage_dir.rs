//! The folder of one stage's result.
use super::atomic::{self, sync_folder};
use super::key::Key;
use crate::PipelineError;
use report::record::StageRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

const MODEL: &str = "model.onnx";
const STAGE: &str = "stage.json";
const CHECKPOINT: &str = "checkpoint";

/// A folder with a stage's result, or its checkpoint until the result is complete.
#[derive(Clone, Debug)]
pub struct StageDir {
    store: PathBuf,
    done: PathBuf,
    partial: PathBuf,
}

/// Content of `stage.json`.
#[derive(Serialize, Deserialize)]
struct Manifest {
    /// BLAKE3 of each file of the result.
    files: BTreeMap<String, String>,
    record: StageRecord,
}

/// A stored result.
#[derive(Clone, Debug)]
pub struct StoredResult {
    /// The graph after the stage, with its annotations.
    pub model: PathBuf,
    /// Further files by name.
    pub files: BTreeMap<String, PathBuf>,
    /// The stage's record.
    pub record: StageRecord,
}

/// Removes a folder, or a file in its place.
fn remove(path: &Path) {
    if std::fs::remove_dir_all(path).is_err() {
        std::fs::remove_file(path).ok();
    }
}

impl StageDir {
    pub(crate) fn new(store: &Path, key: &Key) -> Self {
        StageDir { store: store.to_path_buf(), done: store.join(key.to_string()), partial: store.join(format!("{key}.partial")) }
    }

    /// True if there is a result; whether it is complete is not checked.
    pub fn is_there(&self) -> bool {
        self.done.join(STAGE).is_file()
    }

    /// The result, if it exists and its files have the hashes of the manifest; a damaged one is removed.
    pub fn result(&self) -> Option<StoredResult> {
        if !self.done.exists() {
            return None;
        }
        let whole = self.read();
        if whole.is_none() {
            remove(&self.done);
        }
        whole
    }

    fn read(&self) -> Option<StoredResult> {
        let manifest: Manifest = serde_json::from_slice(&std::fs::read(self.done.join(STAGE)).ok()?).ok()?;
        for (name, hash) in &manifest.files {
            // A manifest from elsewhere must not read or publish files outside its folder.
            if Path::new(name).components().ne([Component::Normal(OsStr::new(name))]) {
                return None;
            }
            let bytes = std::fs::read(self.done.join(name)).ok()?;
            if blake3::hash(&bytes).to_hex().as_str() != hash {
                return None;
            }
        }
        let mut files: BTreeMap<String, PathBuf> = manifest.files.keys().map(|n| (n.clone(), self.done.join(n))).collect();
        Some(StoredResult { model: files.remove(MODEL)?, files, record: manifest.record })
    }

    /// The path of an unfinished stage's checkpoint, from which training resumes if it exists. The folder is created.
    ///
    /// # Errors
    /// [`PipelineError::File`] if the folder cannot be made.
    pub fn checkpoint_path(&self) -> Result<PathBuf, PipelineError> {
        if self.partial.is_file() {
            remove(&self.partial);
        }
        std::fs::create_dir_all(&self.partial).map_err(|e| PipelineError::file(&self.partial, e))?;
        Ok(self.partial.join(CHECKPOINT))
    }

    /// Publishes a complete result: files are written and synced in a temporary folder, which is then renamed.
    ///
    /// # Errors
    /// [`PipelineError::File`]; then there is no result, and the checkpoint is still there.
    pub fn commit(&self, model: &[u8], files: &BTreeMap<String, Vec<u8>>, record: &StageRecord) -> Result<StoredResult, PipelineError> {
        let new = self.done.with_extension("new");
        remove(&new);
        let written = self.write(&new, model, files, record);
        if written.is_err() {
            remove(&new);
        }
        written?;
        remove(&self.partial);
        self.read().ok_or_else(|| PipelineError::file(&self.done, "the result cannot be read back"))
    }

    fn write(&self, new: &Path, model: &[u8], files: &BTreeMap<String, Vec<u8>>, record: &StageRecord) -> Result<(), PipelineError> {
        std::fs::create_dir_all(new).map_err(|e| PipelineError::file(new, e))?;
        let all: BTreeMap<&str, &[u8]> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).chain([(MODEL, model)]).collect();
        let mut hashes = BTreeMap::new();
        for (name, bytes) in all {
            atomic::write(&new.join(name), bytes)?;
            hashes.insert(name.to_string(), blake3::hash(bytes).to_hex().to_string());
        }
        let manifest = Manifest { files: hashes, record: record.clone() };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|e| PipelineError::file(&new.join(STAGE), e))?;
        atomic::write(&new.join(STAGE), &text)?;
        remove(&self.done);
        std::fs::rename(new, &self.done).map_err(|e| PipelineError::file(&self.done, format!("cannot be written: {e}")))?;
        sync_folder(&self.store)
    }
}
