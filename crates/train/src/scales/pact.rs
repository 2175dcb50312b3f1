//! PACT: the bound at which activations are clipped is learned.
use super::ScaleLearning;
use graph::Encoding;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Fault, Manual, Settings, member, within};
use tensor::Tensor;

pub(super) const ENTRY: Entry<dyn ScaleLearning> = member!(
    Pact as dyn ScaleLearning,
    Manual {
        name: "pact",
        summary: "Learns the bounds at which activations are clipped, with decay (PACT); other scales as lsq does.",
        details: "\
An activation that is never negative is y = round(min(x, a) (2^k - 1) / a) a / (2^k - 1), and its bound a gets the gradient

  dy/da = 1 where x >= a, else 0;  plus decay * a

so that large values push it up and decay pulls it down; the rounding within the range does not move it, which lsq lets it do. Scales of
weights, and of activations that can be negative, are learned as by lsq; with tanh_weights = true weights train as by dorefa, which is
what the paper combines it with.

For activations behind Relu in 2 to 5 bits. decay is the paper's L2 factor, there the same as the weights' decay.",
        source: "J. Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks (2018), arXiv:1805.06085, equations 1 to \
             3",
        example: "epochs = 6\nlearn_scales = { kind = \"pact\", decay = 2e-4 }\n",
    }
);

/// Settings of `pact`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pact {
    /// Factor of the bounds' squares in the loss, `decay / 2 * a^2`.
    pub decay: f64,
    /// Weights train as hyperbolic tangents, as by `dorefa`: the paper's combination.
    pub tanh_weights: bool,
}

impl Default for Pact {
    fn default() -> Self {
        Pact { decay: 2e-4, tanh_weights: false }
    }
}

impl Settings for Pact {
    fn check(&self) -> Result<(), Fault> {
        within("decay", self.decay, 0.0, 1.0, "it is a small factor, 0 for none")
    }
}

impl ScaleLearning for Pact {
    fn activation(&self, encoding: &Encoding) -> encodings::Result<Option<Encoding>> {
        encodings::affine::with_clip(encoding)
    }

    fn weight(&self, weight: &Tensor, encoding: &Encoding) -> encodings::Result<Option<(Tensor, Encoding)>> {
        if self.tanh_weights { encodings::affine::with_tanh(weight, encoding) } else { Ok(None) }
    }

    fn decay(&self, parameter: &str) -> f64 {
        if parameter == encodings::affine::CLIP { self.decay } else { 0.0 }
    }
}
