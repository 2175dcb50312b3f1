//! Errors that stop a run.
use crate::recipe::RecipeError;
use std::path::{Path, PathBuf};

/// The error of a stage; the run adds the stage's name.
pub type StageError = Box<dyn std::error::Error + Send + Sync>;

/// A run that could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The recipe is invalid.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A stage failed.
    #[error("stage '{stage}': {source}")]
    Stage {
        /// The stage's name.
        stage: String,
        /// The stage's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file or folder cannot be used.
    #[error("{}: {what}", path.display())]
    File {
        /// Path of the file or folder.
        path: PathBuf,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// Another run works in the same folder.
    #[error("{}: another run is using this folder; wait for it, or choose another --output", path.display())]
    Locked {
        /// The run's folder.
        path: PathBuf,
    },
    /// The disk has too little free space.
    #[error("{}: {free} are free, about {needed} are needed: make room, or choose another --output", path.display())]
    Space {
        /// A folder on the full file system.
        path: PathBuf,
        /// Bytes needed, as text.
        needed: String,
        /// Bytes free, as text.
        free: String,
    },
    /// The user asked to stop. Finished stages, and the last epoch's checkpoint, are kept.
    #[error("stopped in stage '{stage}'")]
    Interrupted {
        /// The stage that was running.
        stage: String,
    },
}

impl PipelineError {
    /// An error about a file.
    pub fn file(path: &Path, what: impl ToString) -> Self {
        PipelineError::File { path: path.to_path_buf(), what: what.to_string() }
    }

    /// An error of a stage.
    pub fn stage(stage: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        PipelineError::Stage { stage: stage.to_string(), source: source.into() }
    }
}
