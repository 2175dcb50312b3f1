//! LSQ: the step of every grid is learned.
use super::ScaleLearning;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn ScaleLearning> = member!(
    Lsq as dyn ScaleLearning,
    Manual {
        name: "lsq",
        summary: "Learns the scale of every quantizer, of weights and of activations (LSQ).",
        details: "\
With q = clamp(round(x / s) + z, qmin, qmax) and y = (q - z) s, the gradient that a scale gets of an element is

  dy/ds = q - z - x / s  within the range,  qmin - z  below it,  qmax - z  above it

summed over the elements that share it; x gets dy/dx = 1 within and 0 beyond. The zero point stays. In place of the paper's factor
1 / sqrt(elements qmax), a step takes a scale to half of its value at most. Also trains the centroids of codebooks and the scales of
powers of two and of ternary weights.

For 2 to 8 bits, with weights that train; learn_scales = true means the same.",
        source: "S. K. Esser et al., Learned Step Size Quantization (2020), arXiv:1902.08153, equation 3",
        example: "epochs = 6\nlearn_scales = \"lsq\"\n",
    }
);

/// Settings of `lsq`: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lsq {}

impl Settings for Lsq {}

impl ScaleLearning for Lsq {}
