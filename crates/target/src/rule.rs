//! What a target does with a node, and what stays float.
use ops::WeightRule;
use serde::{Deserialize, Serialize};

/// What a runtime does with a node whose data is quantized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuantRule {
    /// Runs on integers if these data inputs are quantized; its output is then quantized too.
    Integer {
        /// Data inputs to quantize.
        data: Vec<usize>,
        /// The weight, if it has one.
        weight: Option<WeightRule>,
    },
    /// Moves or selects elements: the output lies on the input's grid and shares its scale.
    SameGrid,
    /// An activation that is fused into the node before it (Relu, Clip): the quantizer goes behind it.
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
