//! Properties of a weight that its encoding may depend on.
use crate::affine::Precision;
use tensor::Tensor;

/// Which elements of a weight share one set of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// The whole tensor.
    Tensor,
    /// Each output channel.
    Channel,
    /// A table of a codebook: so many output channels in a row. A scale of integers: so many elements in a row that a layer multiplies with
    /// its data and sums up. The last group may be smaller.
    Group(usize),
}

/// The elements of a weight that a layer multiplies with its data and sums up into one result, in the order in which groups of them are
/// formed. Of a table of embeddings: the elements of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Along {
    /// Their axis.
    pub axis: usize,
    /// All axes from this one on count as one: the inputs of a convolution and the axes of its kernel.
    pub flat: bool,
}

/// What a weight's encoding may depend on beside the weight.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    /// The axis of the output channels, if every reader has the same.
    pub axis: Option<usize>,
    /// The elements that are summed up, if every reader sums up the same.
    pub along: Option<Along>,
    /// Which elements are kept: bool, of the weight's shape.
    pub mask: Option<&'a Tensor>,
    /// How precise scales may be for the layer's integer sums to stay exact in f32.
    pub precision: Precision,
    /// The squared mean of the layer's data divided by their variance: how much errors of one sign count beside errors that
    /// cancel.
    pub evenness: f64,
}

impl Default for Slot<'_> {
    fn default() -> Self {
        Slot { axis: None, along: None, mask: None, precision: Precision::WEIGHT, evenness: 0.0 }
    }
}
