//! Errors of quantization, with the value's name.
use encodings::EncodingError;
use train::TrainError;

/// Result of quantizing.
pub type Result<T, E = QuantizeError> = std::result::Result<T, E>;

/// Quantization failed because of the model, a setting or the calibration data.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuantizeError {
    /// A setting out of range, or a pattern that matches nothing.
    #[error("setting '{}': {}", .0.path.join("."), .0)]
    Setting(#[from] technique::Fault),
    /// A value that cannot be observed or encoded.
    #[error("value '{value}': {what}")]
    Value {
        /// The value's name.
        value: String,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// Running the model on the calibration data failed.
    #[error("calibration: {0}")]
    Run(Box<TrainError>),
    /// The graph is not well formed.
    #[error(transparent)]
    Graph(#[from] graph::GraphError),
    /// A normalization is not well formed.
    #[error(transparent)]
    Op(#[from] ops::OpError),
    /// No batch was given.
    #[error("calibration needs at least one batch of data; none was given")]
    NoData,
}

impl From<TrainError> for QuantizeError {
    fn from(e: TrainError) -> Self {
        QuantizeError::Run(Box::new(e))
    }
}

/// Adds a value's name to an error of its encoding.
pub(crate) fn named(value: &str) -> impl Fn(EncodingError) -> QuantizeError + '_ {
    move |e| QuantizeError::Value { value: value.to_string(), what: e.to_string() }
}
