//! One error type at the edge: what went wrong, whose fault it is, and what helps.
use pipeline::PipelineError;

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A run.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A model file.
    #[error(transparent)]
    Onnx(#[from] onnx::OnnxError),
    /// Running or training a graph.
    #[error(transparent)]
    Train(#[from] train::TrainError),
    /// Data.
    #[error(transparent)]
    Data(#[from] data::DataError),
    /// Quantization.
    #[error(transparent)]
    Quantize(#[from] quantize::QuantizeError),
    /// A runtime, or lowering for it.
    #[error(transparent)]
    Deploy(#[from] deploy::DeployError),
    /// An operator.
    #[error(transparent)]
    Op(#[from] ops::OpError),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] tensor::TensorError),
    /// An architecture.
    #[error(transparent)]
    Zoo(#[from] zoo::ZooError),
    /// A run record.
    #[error(transparent)]
    Record(#[from] report::RecordError),
    /// Anything else that the user can put right.
    #[error("{0}")]
    Input(String),
}

impl From<pipeline::recipe::RecipeError> for Error {
    fn from(e: pipeline::recipe::RecipeError) -> Self {
        Error::Pipeline(e.into())
    }
}

impl Error {
    /// 1: the user's input, recipe or model; 70: a defect of ours; 130: stopped by Ctrl-C, as shells have it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Pipeline(PipelineError::Interrupted { .. }) => 130,
            Error::Train(train::TrainError::Internal { .. }) => 70,
            Error::Pipeline(PipelineError::Stage { source, .. })
                if matches!(source.downcast_ref(), Some(train::TrainError::Internal { .. })) =>
            {
                70
            }
            _ => 1,
        }
    }

    /// What helps.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Pipeline(PipelineError::Recipe(e)) => e.hint.clone(),
            Error::Pipeline(PipelineError::Interrupted { .. }) => {
                Some("run the same command again: finished stages are kept, training goes on after its last full epoch".into())
            }
            Error::Deploy(deploy::DeployError::RuntimeAbsent { .. }) => Some("--runtime reference needs nothing installed".into()),
            _ => None,
        }
    }

    /// The place in the recipe, with the line underlined.
    pub fn snippet(&self) -> Option<String> {
        match self {
            Error::Pipeline(PipelineError::Recipe(e)) => e.snippet(),
            _ => None,
        }
    }
}
