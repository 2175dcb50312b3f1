//! The error type of the commands: what went wrong, the exit code, and a hint.
use deploy::DeployError;
use pipeline::PipelineError;
use quantize::QuantizeError;
use train::TrainError;

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
    Train(#[from] TrainError),
    /// Data.
    #[error(transparent)]
    Data(#[from] data::DataError),
    /// Quantization.
    #[error(transparent)]
    Quantize(#[from] quantize::QuantizeError),
    /// Pruning.
    #[error(transparent)]
    Prune(#[from] prune::PruneError),
    /// A runtime, or lowering for it.
    #[error(transparent)]
    Deploy(#[from] DeployError),
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
    /// A setting of a technique.
    #[error(transparent)]
    Setting(#[from] technique::Fault),
    /// A graph that is not well formed.
    #[error(transparent)]
    Graph(#[from] graph::GraphError),
    /// Any other invalid input.
    #[error("{0}")]
    Input(String),
}

impl From<pipeline::recipe::RecipeError> for Error {
    fn from(e: pipeline::recipe::RecipeError) -> Self {
        Error::Pipeline(e.into())
    }
}

/// True if a panic in an operator is the cause. Errors that wrap another one show no source of their own, so these are matched by
/// name.
fn is_defect(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<TrainError>() {
        return matches!(error, TrainError::Internal { .. });
    }
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(QuantizeError::Run(inner)), _) => is_defect(inner.as_ref()),
        (_, Some(DeployError::Train(inner))) => is_defect(inner),
        _ => error.source().is_some_and(is_defect),
    }
}

impl Error {
    /// Exit code: 1 for the user's input, recipe or model; 70 for an internal error; 130 if stopped by Ctrl-C, as in shells.
    pub fn exit_code(&self) -> u8 {
        let defect = match self {
            Error::Pipeline(PipelineError::Interrupted { .. }) => return 130,
            Error::Pipeline(e) => is_defect(e),
            Error::Train(e) => is_defect(e),
            Error::Deploy(e) => is_defect(e),
            _ => false,
        };
        if defect { 70 } else { 1 }
    }

    /// A hint for the user.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Pipeline(PipelineError::Recipe(e)) => e.hint.clone(),
            Error::Pipeline(PipelineError::Interrupted { .. }) => {
                Some("run the same command again: finished stages are kept, training goes on after its last full epoch".into())
            }
            Error::Tensor(tensor::TensorError::Unsupported { op: "device", .. }) => {
                Some("--device cpu needs neither feature nor driver".into())
            }
            Error::Deploy(DeployError::RuntimeAbsent { .. }) => Some("--runtime reference needs nothing installed".into()),
            // Some layers in between keep only the text of an error.
            other if other.to_string().contains("the memory limit of") => {
                Some("--memory-limit SIZE sets another limit; smaller batches and inputs need less".into())
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_defect_is_told_from_bad_input_however_deep_it_lies() {
        let defect = || TrainError::Internal { node: "conv1".into(), what: "index out of bounds".into() };
        let input = || TrainError::Input { input: "x".into(), what: "is missing".into() };
        assert_eq!(Error::from(defect()).exit_code(), 70);
        assert_eq!(Error::from(DeployError::Train(defect())).exit_code(), 70);
        for stage in [PipelineError::stage("a", defect()), PipelineError::stage("a", QuantizeError::from(defect()))] {
            assert_eq!(Error::from(stage).exit_code(), 70);
        }
        assert_eq!(Error::from(PipelineError::stage("a", QuantizeError::from(input()))).exit_code(), 1);
        assert_eq!(Error::Input("no".into()).exit_code(), 1);
    }
}
