//! Errors between an annotated graph and a measured file.
use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = DeployError> = std::result::Result<T, E>;

/// A deployment that failed, with the runtime, node or value by name.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The runtime is not installed, or is too old to be used.
    #[error("{runtime} cannot be used: {what}")]
    RuntimeAbsent {
        /// Name of the runtime.
        runtime: &'static str,
        /// Where it was looked for, what was found, and how to get it.
        what: String,
    },
    /// The runtime refused the model, or failed while it ran it.
    #[error("{runtime} {step}: {what}")]
    Runtime {
        /// Name of the runtime.
        runtime: &'static str,
        /// What it was doing (`cannot load the model`, `cannot run the model`).
        step: &'static str,
        /// Its own message.
        what: String,
    },
    /// An input that was fed, or should have been.
    #[error("input '{input}': {what}")]
    Input {
        /// The input's name.
        input: String,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// An annotation that cannot be written in standard ONNX.
    #[error("value '{value}' cannot be lowered: {what}")]
    Lower {
        /// The value's name.
        value: String,
        /// Why, and what to do about it.
        what: String,
    },
    /// A model that the target cannot run.
    #[error("target '{target}': {what}")]
    Target {
        /// Name of the target.
        target: &'static str,
        /// Nodes or values, why, and what to do about it.
        what: String,
    },
    /// A measurement that cannot be computed from the given data.
    #[error("{what}")]
    Measure {
        /// What is missing or does not fit.
        what: String,
    },
    /// The graph is not well formed.
    #[error(transparent)]
    Graph(#[from] graph::GraphError),
    /// The file cannot be written.
    #[error(transparent)]
    Onnx(#[from] onnx::OnnxError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] tensor::TensorError),
    /// An operator failed.
    #[error(transparent)]
    Op(#[from] ops::OpError),
    /// The interpreter failed, or its input was wrong.
    #[error(transparent)]
    Train(#[from] train::TrainError),
    /// A file that cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}
