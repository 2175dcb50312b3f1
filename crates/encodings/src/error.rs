//! Why a value could not be encoded. The caller adds the value's name.
use tensor::TensorError;

/// Result of an encoding.
pub type Result<T, E = EncodingError> = std::result::Result<T, E>;

/// An encoding that is not well formed or does not fit its value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EncodingError {
    /// No encoding has this name.
    #[error("there is no encoding '{kind}'; known are: {}", known.join(", "))]
    UnknownKind {
        /// The unknown name.
        kind: String,
        /// All names.
        known: Vec<&'static str>,
    },
    /// A setting that is missing, of the wrong type or out of range.
    #[error("encoding '{kind}': setting '{setting}' {what}")]
    Setting {
        /// Name of the encoding.
        kind: &'static str,
        /// Key of the setting.
        setting: &'static str,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// A parameter that is missing or does not fit.
    #[error("encoding '{kind}': parameter '{parameter}' {what}")]
    Parameter {
        /// Name of the encoding.
        kind: &'static str,
        /// Name of the parameter, such as `scale`.
        parameter: &'static str,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// A value that cannot be encoded (NaN, a range without bounds).
    #[error("encoding '{kind}': {what}")]
    Value {
        /// Name of the encoding.
        kind: &'static str,
        /// What is wrong with the value.
        what: String,
    },
    /// A masked value whose encoding cannot store zero.
    #[error(
        "its mask makes elements zero, and its encoding ({how}) stores no zero; take one that does (ternary, or a codebook with zero = true), or leave the weight unpruned"
    )]
    NoZero {
        /// The encoding, in a few words.
        how: String,
    },
    /// The tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
