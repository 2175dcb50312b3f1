//! Why a model could not be pruned.
use technique::Fault;
use tensor::TensorError;
use train::TrainError;

/// Result of pruning.
pub type Result<T, E = PruneError> = std::result::Result<T, E>;

/// A model or setting that cannot be pruned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PruneError {
    /// A setting out of range, or a pattern that matches nothing.
    #[error("setting '{}': {_0}", .0.path.join("."))]
    Setting(#[from] Fault),
    /// Gradients could not be taken.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Channels that could not be found or removed.
    #[error("{0}")]
    Graph(String),
    /// A weight that cannot be ranked.
    #[error("weight '{weight}': {what}")]
    Weight {
        /// The weight's name.
        weight: String,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// A tensor of the weight could not be read.
    #[error("weight '{weight}': {source}")]
    Tensor {
        /// The weight's name.
        weight: String,
        /// Why.
        source: TensorError,
    },
}
