//! Errors of graphs.

/// A graph that is not well formed, or an edit that would make it so. Carries node and value by name.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GraphError {
    /// An attribute that is missing or of another type than the operator's schema says.
    #[error("node '{node}' ({op_type}): attribute '{attribute}' {what}")]
    Attribute {
        /// The node's name.
        node: String,
        /// Operator type of the node, such as `Conv`.
        op_type: String,
        /// The attribute's name.
        attribute: String,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// A node that is not well formed.
    #[error("node '{node}' ({op_type}): {what}")]
    Node {
        /// The node's name.
        node: String,
        /// Operator type of the node, such as `Conv`.
        op_type: String,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// A value that is not well formed, or missing.
    #[error("value '{value}': {what}")]
    Value {
        /// The value's name.
        value: String,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// The graph as a whole is not well formed.
    #[error("graph '{graph}': {what}")]
    Graph {
        /// The graph's name.
        graph: String,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
}
