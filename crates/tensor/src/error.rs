//! What can go wrong in a tensor operation, as data; the caller adds the node and the stage.
use crate::DType;

/// Result of a tensor operation.
pub type Result<T, E = TensorError> = std::result::Result<T, E>;

/// An operation that could not be done. Nothing in this crate panics on data.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorError {
    /// Shapes that do not fit the operation or each other.
    #[error("{op}: {what}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The shapes and why they do not fit.
        what: String,
    },
    /// An element type the operation does not take.
    #[error("{op}: element type {dtype} {what}")]
    DType {
        /// The operation.
        op: &'static str,
        /// The type that was given.
        dtype: DType,
        /// What was expected instead.
        what: String,
    },
    /// A value in the data that the operation is not defined for (an index out of range, a division by zero).
    #[error("{op}: {what}")]
    Value {
        /// The operation.
        op: &'static str,
        /// The value and its position.
        what: String,
    },
    /// A combination that is not implemented: refused by name.
    #[error("{op}: not supported: {what}")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// What is not supported.
        what: String,
    },
}

impl TensorError {
    /// A [`TensorError::Shape`].
    pub fn shape(op: &'static str, what: impl Into<String>) -> Self {
        TensorError::Shape { op, what: what.into() }
    }
    /// A [`TensorError::DType`].
    pub fn dtype(op: &'static str, dtype: DType, what: impl Into<String>) -> Self {
        TensorError::DType { op, dtype, what: what.into() }
    }
    /// A [`TensorError::Value`].
    pub fn value(op: &'static str, what: impl Into<String>) -> Self {
        TensorError::Value { op, what: what.into() }
    }
    /// A [`TensorError::Unsupported`].
    pub fn unsupported(op: &'static str, what: impl Into<String>) -> Self {
        TensorError::Unsupported { op, what: what.into() }
    }
}
