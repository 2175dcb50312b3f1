//! AdaRound: each weight is rounded up or down so that the layer's result changes least.
use super::reconstruct::{Extent, Reconstruction, reconstruct};
use super::{Correction, CorrectionContext, Phase};
use crate::Result;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Correction> = member!(
    AdaRound as dyn Correction,
    Manual {
        name: "adaround",
        summary: "Learns for each weight whether it is rounded up or down, layer by layer, without labels.",
        details: "\
Rounding each weight to the nearest point of its grid does not change a layer's result least, since errors of different weights
cancel. For each layer, in the order of the graph, with W [out, in, ...], scale s and a variable V of W's shape:

  W~ = s clamp(floor(W / s) + h(V), qmin, qmax),  h(V) = clamp(1.2 sigmoid(V) - 0.1, 0, 1)
  minimize  |f(W x) - f(W~ x~)|^2 / |f(W x)|^2 * channels  +  regularization * sum over V of 1 - |2 h(V) - 1|^beta

by Adam. x is the layer's input in the float network and x~ in the simulation with the layers before it rounded already; f is the
activation behind the layer. beta falls from 20 to 2, which drives h(V) to 0 or 1. The weights are then stored on their grid, so the
file holds what was simulated. Masked weights stay zero. A unit that rounding to nearest serves better keeps that.

For weights of 4 bits and fewer. Put bias_correction behind it, not in front.",
        source: "M. Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization (2020), arXiv:2004.10568, equations 21 to 25",
        example: "weights = { bits = 4 }\ncorrections = [{ kind = \"adaround\", iterations = 2000 }]",
    }
);

/// Settings of `adaround`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdaRound {
    /// Calibration samples to fit the layers to, in whole batches.
    pub samples: usize,
    /// Steps for each layer.
    pub iterations: usize,
    /// Samples in a step.
    pub batch: usize,
    /// Learning rate of V, the variables of rounding.
    pub rate: f64,
    /// Factor of the regularization, which drives h(V) to 0 or 1.
    pub regularization: f64,
    /// Share of the steps before the regularization begins, 0..1.
    pub warm_up: f64,
}

impl Default for AdaRound {
    fn default() -> Self {
        AdaRound { samples: 1024, iterations: 1000, batch: 32, rate: 0.01, regularization: 0.01, warm_up: 0.2 }
    }
}

impl AdaRound {
    fn options(&self, seed: u64) -> Reconstruction {
        Reconstruction {
            extent: Extent::Layer,
            samples: self.samples,
            iterations: self.iterations,
            batch: self.batch,
            rate: self.rate,
            regularization: self.regularization,
            beta: [20.0, 2.0],
            warm_up: self.warm_up,
            drop: 0.0,
            learn_scales: false,
            learn_biases: false,
            network_iterations: 0,
            seed,
        }
    }
}

impl Settings for AdaRound {
    fn check(&self) -> Result<(), Fault> {
        self.options(0).check("layer")
    }
}

impl Correction for AdaRound {
    fn phase(&self) -> Phase {
        Phase::AfterFitting
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn learns_from(&self) -> usize {
        self.options(0).learns_from()
    }

    fn apply(&self, model: &mut Model, cx: &CorrectionContext) -> Result<Vec<String>> {
        reconstruct(model, cx, &self.options(cx.seed))
    }
}
