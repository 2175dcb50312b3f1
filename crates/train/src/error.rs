//! Errors of running or training a graph, with the node or value.
use ops::OpError;

/// A graph that could not be run or trained.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// A node could not be evaluated.
    #[error("node '{node}' ({op_type}): {source}")]
    Node {
        /// The node's name.
        node: String,
        /// Operator type of the node, such as `Conv`.
        op_type: String,
        /// Why.
        source: OpError,
    },
    /// An operator that is not known.
    #[error("node '{node}': operator {op_type}{} is not known", domain_suffix(.domain))]
    UnknownOperator {
        /// The node's name.
        node: String,
        /// Operator type of the node.
        op_type: String,
        /// Domain of the operator; empty for ONNX's own.
        domain: String,
    },
    /// An annotation that could not be simulated.
    #[error("value '{value}': {what}")]
    Value {
        /// The value's name.
        value: String,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// A fed tensor does not fit the graph's inputs.
    #[error("input '{input}': {what}")]
    Input {
        /// The input's name.
        input: String,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// The graph is not well formed.
    #[error(transparent)]
    Graph(#[from] graph::GraphError),
    /// An operation of a caller's loss, metric or source of batches failed.
    #[error(transparent)]
    Tensor(#[from] tensor::TensorError),
    /// The loss or a gradient is not finite.
    #[error("step {step}: {what}")]
    Step {
        /// Step of the stage, from 0.
        step: u64,
        /// What happened, and what to do about it.
        what: String,
    },
    /// An invalid setting.
    #[error("setting '{setting}': {what}")]
    Setting {
        /// Key of the setting.
        setting: String,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// The data could not be read.
    #[error("data: {0}")]
    Data(String),
    /// A checkpoint could not be written or read.
    #[error("checkpoint {path}: {what}")]
    Checkpoint {
        /// Path of the checkpoint.
        path: String,
        /// What happened.
        what: String,
    },
    /// The user asked to stop; the last checkpoint holds the state.
    #[error("interrupted")]
    Interrupted,
    /// An internal error: a panic that the executor caught.
    #[error("internal error in node '{node}': {what}")]
    Internal {
        /// The node that was running.
        node: String,
        /// The panic's message.
        what: String,
    },
}

fn domain_suffix(domain: &str) -> String {
    if domain.is_empty() { String::new() } else { format!(" of domain '{domain}'") }
}
