//! Errors of tensor operations, as data; the caller adds the node and the stage.
use crate::DType;

/// Result of a tensor operation.
pub type Result<T, E = TensorError> = std::result::Result<T, E>;

/// A failed operation. Nothing in this crate panics on data.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorError {
    /// Shapes that do not fit the operation or each other.
    #[error("{op}: {what}")]
    Shape {
        /// Name of the operation.
        op: &'static str,
        /// The shapes and why they do not fit.
        what: String,
    },
    /// An element type the operation does not take.
    #[error("{op}: element type {dtype} {what}")]
    DType {
        /// Name of the operation.
        op: &'static str,
        /// The type that was given.
        dtype: DType,
        /// The expected types.
        what: String,
    },
    /// A value in the data that the operation is not defined for (an index out of range, a division by zero).
    #[error("{op}: {what}")]
    Value {
        /// Name of the operation.
        op: &'static str,
        /// The value and its position.
        what: String,
    },
    /// More memory than the limit allows ([`crate::memory::set_limit`]).
    #[error("{op}: needs {} for {what}, where the memory limit of {} leaves {}", bytes(*.needed), bytes(*.limit), bytes(*.left))]
    Memory {
        /// Name of the operation.
        op: &'static str,
        /// What the memory is for.
        what: String,
        /// Bytes that are needed.
        needed: u64,
        /// The limit in bytes.
        limit: u64,
        /// Bytes that the limit still leaves.
        left: u64,
    },
    /// A combination that is not implemented: refused by name.
    #[error("{op}: not supported: {what}")]
    Unsupported {
        /// Name of the operation.
        op: &'static str,
        /// What is not supported.
        what: String,
    },
}

/// Bytes in the unit with one to three digits before the point.
fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
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
