//! The model that a run began with, which a deployed file is compared with.
use super::MemoryProbe;
use crate::StageError;
use deploy::runtime::Source;
use graph::{Annotations, Model};
use std::path::{Path, PathBuf};
use train::Named;

/// A float model: a file as it was given, or the first network that the run trained.
pub struct Original {
    /// Name of the stage that produced it, or `start`.
    pub stage: String,
    /// Its size on disk in bytes, data files included.
    pub file_bytes: u64,
    /// The float network itself.
    pub model: Model,
    place: Place,
}

enum Place {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Original {
    /// A model file as it is.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn file(stage: &str, path: &Path) -> Result<Original, StageError> {
        let model = onnx::load(path)?;
        let file_bytes = onnx::bytes_on_disk(path, &model)?;
        Ok(Original { stage: stage.into(), file_bytes, model, place: Place::File(path.to_path_buf()) })
    }

    /// A stage's result as a float network: without annotations.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn result(stage: &str, path: &Path) -> Result<Original, StageError> {
        let mut model = onnx::load(path)?;
        model.annotations = Annotations::default();
        let bytes = onnx::to_bytes(&model)?;
        Ok(Original { stage: stage.into(), file_bytes: bytes.len() as u64, model, place: Place::Bytes(bytes) })
    }

    /// Memory that loading and running it takes.
    ///
    /// # Errors
    /// As [`MemoryProbe::file`].
    pub fn memory(&self, probe: &MemoryProbe, runtime: &str, threads: usize, inputs: &Named) -> Result<u64, StageError> {
        match &self.place {
            Place::File(path) => probe.file(path, runtime, threads, inputs),
            Place::Bytes(bytes) => probe.bytes_of(bytes, runtime, threads, inputs),
        }
    }

    /// The file for a runtime.
    pub fn source(&self) -> Source<'_> {
        match &self.place {
            Place::File(path) => Source::File(path),
            Place::Bytes(bytes) => Source::Bytes(bytes),
        }
    }
}
