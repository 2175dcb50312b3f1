//! Errors of the evaluation of an operator.
use graph::{GraphError, Node};
use tensor::TensorError;

/// Why a node could not be evaluated or understood. The executor adds the node's name.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum OpError {
    /// The tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The node contradicts the operator's schema.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The operator, its version, or this combination of attributes is not supported.
    #[error("{op_type} is not supported: {what}")]
    Unsupported {
        /// Operator type of the node, such as `Conv`.
        op_type: String,
        /// What is not supported.
        what: String,
    },
    /// An error inside a subgraph or called function, with the inner node already named.
    #[error("{0}")]
    Inner(String),
}

impl OpError {
    /// An [`OpError::Unsupported`] about a node.
    pub fn unsupported(node: &Node, what: impl Into<String>) -> Self {
        OpError::Unsupported { op_type: node.op_type.clone(), what: what.into() }
    }
}
