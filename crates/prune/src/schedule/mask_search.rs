//! Mask search: the mask is trained, and the weights stay as they are.
use crate::SparsitySchedule;
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn SparsitySchedule> = member!(
    MaskSearch as dyn SparsitySchedule,
    Manual {
        name: "mask_search",
        summary: "Prunes before the first step, then trains the mask alone: every weight and every other parameter keeps its value.",
        details: "\
Each weight has a score, which begins as |w| / mean |w| of its layer (those that the stage's criterion prunes below those that live). The weights
with the largest scores of a layer live, as many as at the beginning. Each step moves the scores by the gradient of the loss by the mask,
taken as if the mask were a number (straight through), also where it is zero:

    v = w * dL/d(m * w),   score <- score - rate * f * v / sqrt(mean v^2)

with f the factor of the learning rate's schedule; the optimizer has no part in it. Running statistics of normalizations follow the network. The
mask and the statistics of the last epoch are kept, with validation samples too. Finds subnetworks of a trained network that do well without any training of weights (lottery jackpots), and of a random one. Training the weights
reaches more where that is allowed.

Searches single elements only, so it does not go with patterns and groups.",
        source: "Zhang et al. 2021, arXiv:2104.08700, section 3.2; Ramanujan et al. 2020, arXiv:1911.13299, section 3 (straight through)",
        example: "epochs = 10\nscope = \"layer\"\nsparsity_schedule = { kind = \"mask_search\", rate = 0.05 }",
    }
);

/// A mask that trains while the weights stay.
///
/// # Source
/// Zhang et al. 2021, arXiv:2104.08700, section 3.2.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MaskSearch {
    /// How far a step moves the scores, whose mean begins at 1.
    pub rate: f64,
}

impl Default for MaskSearch {
    fn default() -> Self {
        MaskSearch { rate: 0.05 }
    }
}

impl Settings for MaskSearch {
    fn check(&self) -> Result<(), Fault> {
        match self.rate > 0.0 && self.rate.is_finite() {
            true => Ok(()),
            false => Err(Fault::new("rate", format!("rate = {}: it must be above 0", self.rate))),
        }
    }
}

impl SparsitySchedule for MaskSearch {
    /// The mask moves at every step, so no epoch but the last has the one that is kept.
    fn end(&self, steps: u64) -> Option<u64> {
        Some(steps.saturating_sub(1))
    }

    fn sparsity(&self, step: u64, _: u64, target: f64) -> Option<f64> {
        (step == 0).then_some(target)
    }

    fn search(&self) -> Option<f64> {
        Some(self.rate)
    }
}
