//! Block reconstruction: the weights of a block of layers are rounded together so that the block's result changes least.
use super::reconstruct::{Extent, Reconstruction, reconstruct};
use super::{Correction, CorrectionContext, Phase};
use crate::Result;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Correction> = member!(
    BlockReconstruction as dyn Correction,
    Manual {
        name: "block_reconstruction",
        summary: "Learns the rounding of a block's weights and the scales of its activations together, without labels (BRECQ, QDrop).",
        details: "\
As adaround, with a block's result in place of a layer's: the layers between two places of the graph where only one value passes (a
residual block, say), in which errors of one layer can make up for those of another. Chains without a skip, and blocks of more than 12
layers, are taken layer by layer.

In each step an element of an activation, drawn at random with the probability `drop`, is as it is before rounding, inside the block and
at its input: what is learned then holds for more than the errors of the calibration data. With `learn_scales` the scales of the
activations that the block makes learn too (LSQ), and with `learn_biases` the biases of its layers.

With `network_iterations` the whole network follows as one block: its outputs are compared, and what was rounded can be rounded anew.

For activations of 4 bits and fewer, or weights of 3 and fewer.",
        source: "Y. Li et al., BRECQ (2021), arXiv:2102.05426, section 3.2; X. Wei et al., QDrop (2022), arXiv:2203.05740, section 4.3; \
                 S. Esser et al., LSQ (2020), arXiv:1902.08153",
        example: "weights = { bits = 4 }\nactivations = { bits = 4 }\ncorrections = [{ kind = \"block_reconstruction\", iterations = 2000 }]",
    }
);

/// Settings of `block_reconstruction`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BlockReconstruction {
    /// Calibration samples to fit the blocks to, in whole batches.
    pub samples: usize,
    /// Steps for each block.
    pub iterations: usize,
    /// Samples in a step.
    pub batch: usize,
    /// Learning rate of the variables of rounding.
    pub rate: f64,
    /// Factor of the regularization, which drives these variables to a decision.
    pub regularization: f64,
    /// Share of the steps before the regularization begins, 0..1.
    pub warm_up: f64,
    /// Probability that an element of an activation stays unquantized in a step, 0..1.
    pub drop: f64,
    /// Whether scales of activations are trained.
    pub learn_scales: bool,
    /// Whether biases are trained.
    pub learn_biases: bool,
    /// Further steps in which all blocks together are fitted to the network's outputs; 0: none.
    pub network_iterations: usize,
}

impl Default for BlockReconstruction {
    fn default() -> Self {
        BlockReconstruction {
            samples: 1024,
            iterations: 1000,
            batch: 32,
            rate: 0.01,
            regularization: 0.01,
            warm_up: 0.2,
            drop: 0.5,
            learn_scales: true,
            learn_biases: false,
            network_iterations: 0,
        }
    }
}

impl BlockReconstruction {
    fn options(&self, seed: u64) -> Reconstruction {
        Reconstruction {
            extent: Extent::Block,
            samples: self.samples,
            iterations: self.iterations,
            batch: self.batch,
            rate: self.rate,
            regularization: self.regularization,
            beta: [20.0, 2.0],
            warm_up: self.warm_up,
            drop: self.drop,
            learn_scales: self.learn_scales,
            learn_biases: self.learn_biases,
            network_iterations: self.network_iterations,
            seed,
        }
    }
}

impl Settings for BlockReconstruction {
    fn check(&self) -> Result<(), Fault> {
        self.options(0).check("block")
    }
}

impl Correction for BlockReconstruction {
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
