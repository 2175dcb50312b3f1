//! How a target treats a node, and which nodes stay float.
use ops::WeightRule;
use serde::{Deserialize, Serialize};

/// How a runtime treats a node whose data is quantized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuantRule {
    /// Runs on integers if these data inputs are quantized; its output is then quantized too.
    Integer {
        /// Data inputs to quantize.
        data: Vec<usize>,
        /// The weight, if it has one.
        weight: Option<WeightRule>,
    },
    /// Moves or selects elements: the output has the input's grid.
    SameGrid,
    /// An activation that is fused into the node before it (Relu, Clip): the quantizer comes after it.
    FusedActivation,
    /// Stays float, for this reason.
    Float(&'static str),
}

/// A node that computes in float, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatPart {
    /// The node's name.
    pub node: String,
    /// Operator type of the node, such as `Softmax`.
    pub op_type: String,
    /// Why it stays float.
    pub reason: String,
}
