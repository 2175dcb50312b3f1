//! LSQ+: the offset of a grid is learned beside its step.
use super::ScaleLearning;
use graph::Encoding;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn ScaleLearning> = member!(
    LsqPlus as dyn ScaleLearning,
    Manual {
        name: "lsq_plus",
        summary: "Learns scales, and the offsets of activations that can be negative (LSQ+).",
        details: "\
As lsq; an activation whose grid holds negative numbers also learns b, the real number that its smallest integer stands for:

  y = (q - z) s,  z = round(qmin - b / s)
  dy/db = 0 within the range, 1 beyond it;  dy/ds = q - (x - b) / s within it, the integer at its end beyond it, counted from qmin

The paper's grid lies anywhere; here z is rounded in every step, since a file holds an integer, and the gradient passes straight
through that rounding. Activations that are never negative (behind Relu) keep their zero point, and so do symmetric grids and weights.

For activations with few, important negative values (Swish, HardSwish, Gelu, sums) in 2 to 4 bits.",
        source: "Y. Bhalgat et al., LSQ+: Improving Low-bit Quantization through Learnable Offsets and Better Initialization (2020), \
             arXiv:2004.09576, section 3.1",
        example: "epochs = 6\nlearn_scales = \"lsq_plus\"\n",
    }
);

/// Settings of `lsq_plus`: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LsqPlus {}

impl Settings for LsqPlus {}

impl ScaleLearning for LsqPlus {
    fn activation(&self, encoding: &Encoding) -> encodings::Result<Option<Encoding>> {
        encodings::affine::with_offset(encoding)
    }
}
