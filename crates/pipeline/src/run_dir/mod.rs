//! The run's folder: results of stages under the hash of everything that they depend on, for one run at a time.
//!
//! ```text
//! OUT/run.json, report.html     the record of the last run, and its page
//! OUT/recipe.toml               the recipe of the last run
//! OUT/NAME.onnx                 each stage's result, for reading
//! OUT/store/KEY/                the same by address: model.onnx, stage.json, further files
//! OUT/store/KEY.partial/        a stage that is not finished: its checkpoint
//! OUT/store/KEY.statistics      what calibration saw, for any observer and width
//! OUT/lock                      held while a run is at work
//! ```
//! A result appears by one rename of a folder whose files are synced, so after a kill it is either absent or complete.
mod atomic;
mod cache;
mod key;
mod own;
mod space;
mod stage_dir;

pub use atomic::write as write_atomically;
pub use cache::Cache;
pub use key::{Key, KeyBuilder, code_version, fingerprint};
pub use stage_dir::{StageDir, StoredResult};

use crate::PipelineError;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// A run's folder; the lock is held until this is dropped.
pub struct RunDir {
    root: PathBuf,
    /// Inputs of the run, which are never overwritten.
    inputs: Vec<PathBuf>,
    _lock: File,
}

impl RunDir {
    /// Creates the folder if necessary, takes the lock, removes incomplete files of killed runs, and checks that the folder is
    /// writable and has `needed` bytes of free space.
    ///
    /// # Errors
    /// [`PipelineError::Locked`], [`PipelineError::Space`], or [`PipelineError::File`] where it cannot be written or holds
    /// something that is not a run's.
    pub fn open(root: &Path, needed: u64) -> Result<RunDir, PipelineError> {
        own::check(root)?;
        let store = root.join("store");
        std::fs::create_dir_all(&store).map_err(|e| PipelineError::file(root, format!("cannot be created: {e}")))?;
        let path = root.join("lock");
        let unwritable = |e: std::io::Error| PipelineError::file(root, format!("cannot be written: {e}"));
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PipelineError::Locked { path: root.to_path_buf() }),
            Err(TryLockError::Error(e)) => return Err(PipelineError::file(&path, format!("cannot be locked: {e}"))),
        }
        own::clear_leftovers(root);
        space::check(root, needed)?;
        let probe = store.join("probe");
        atomic::write(&probe, &[0; 4096])?;
        std::fs::remove_file(&probe).map_err(unwritable)?;
        Ok(RunDir { root: root.to_path_buf(), inputs: vec![], _lock: lock })
    }

    /// [`RunDir::open`] for a run that reads these files and folders, none of which is overwritten.
    ///
    /// # Errors
    /// As [`RunDir::open`], and [`PipelineError::File`] if one of `outputs` is an input, or the folder lies inside one.
    pub fn reading(root: &Path, needed: u64, inputs: Vec<PathBuf>, outputs: &[String]) -> Result<RunDir, PipelineError> {
        if let Some(around) = inputs.iter().find(|i| own::holds(i, root)) {
            let what = format!("lies inside the data set {}, which the run would change: choose another --output", around.display());
            return Err(PipelineError::file(root, what));
        }
        let dir = RunDir { inputs, ..RunDir::open(root, needed)? };
        outputs.iter().try_for_each(|name| dir.spared(name))?;
        Ok(dir)
    }

    /// Refuses a name that is the path of an input of the run.
    fn spared(&self, name: &str) -> Result<(), PipelineError> {
        let path = self.root.join(name);
        match files::destroyed(&path, self.inputs.iter().map(PathBuf::as_path)) {
            Some(_) => Err(PipelineError::file(&path, "is read by this run and would be written over: choose another --output")),
            None => Ok(()),
        }
    }

    /// Path of the run's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The place of a stage's result.
    pub fn stage(&self, key: &Key) -> StageDir {
        StageDir::new(&self.root.join("store"), key)
    }

    /// Writes a file of the run, completely or not at all.
    ///
    /// # Errors
    /// [`PipelineError::File`], also for a file that the run reads.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PipelineError> {
        self.spared(name)?;
        atomic::write(&self.root.join(name), bytes)
    }

    /// Publishes a stored result under a readable name, completely or not at all.
    ///
    /// # Errors
    /// [`PipelineError::File`].
    pub fn publish(&self, stored: &Path, name: &str) -> Result<PathBuf, PipelineError> {
        let bytes = std::fs::read(stored).map_err(|e| PipelineError::file(stored, e))?;
        self.write(name, &bytes)?;
        Ok(self.root.join(name))
    }
}

#[cfg(test)]
mod tests;
