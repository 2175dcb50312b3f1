//! DoReFa: weights train as hyperbolic tangents.
use super::ScaleLearning;
use graph::Encoding;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Manual, Settings, member};
use tensor::Tensor;

pub(super) const ENTRY: Entry<dyn ScaleLearning> = member!(
    DoReFa as dyn ScaleLearning,
    Manual {
        name: "dorefa",
        summary: "Trains weights as hyperbolic tangents, whose grid always reaches the largest (DoReFa); scales as lsq does.",
        details: "\
A weight on a symmetric grid of integers is, with latent weights v that train and a bound b,

  w = b / qmax * round(qmax * tanh(v) / max|tanh(v)|)

with the maximum over the elements that share a scale. The gradient passes straight through the rounding and follows the formula
elsewhere, the maximum included; b gets dw/db = round(...) / qmax. The grid reaches the largest weight in every step. Below 0.5 tanh is
nearly the identity; larger weights are drawn together. v begins at the calibrated weights (at 2 in layers with larger ones) so that w is
what it was, and after the training the weights are the numbers on the grid.

The paper has b = 1 and levels without zero; here zero is a level, so masked weights stay zero, and layers compute on integers. Activations
and weights in tables are learned as by lsq.

For weights of 3 to 5 bits that train for several epochs; with 2, the level of the largest weight leaves most others at zero. Prune in another stage: magnitudes of tangents are not those of weights.",
        source: "S. Zhou et al., DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients (2016), \
             arXiv:1606.06160, equation 9",
        example: "epochs = 6\nlearn_scales = \"dorefa\"\n",
    }
);

/// Settings of `dorefa`: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DoReFa {}

impl Settings for DoReFa {}

impl ScaleLearning for DoReFa {
    fn weight(&self, weight: &Tensor, encoding: &Encoding) -> encodings::Result<Option<(Tensor, Encoding)>> {
        encodings::affine::with_tanh(weight, encoding)
    }
}
