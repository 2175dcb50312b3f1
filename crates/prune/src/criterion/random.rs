//! Random: what any criterion has to beat.
use crate::{Candidate, Criterion, ImportanceContext, Result};
use technique::{Entry, Manual, Settings, member};
use tensor::random;

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Random as dyn Criterion,
    Manual {
        name: "random",
        summary: "Removes weights at random: the yardstick for the other criteria, and a start for rigl.",
        details: "\
Importance is a number drawn evenly from 0..1 for each element, by `seed`, the weight's name and the element's place: the same in every
step of a gradual schedule.",
        source: "",
        example: "criterion = { kind = \"random\", seed = 7 }",
    }
);

/// A random number for each element.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Random {
    /// Seed of the numbers.
    pub seed: u64,
}

impl Settings for Random {}

impl Criterion for Random {
    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let weight = context.read(candidate, candidate.weight)?;
        let seed = candidate.name.bytes().fold(self.seed, |seed, byte| random::derive(seed, u64::from(byte)));
        // A weight that holds NaN is refused, as by the other criteria.
        Ok(weight.iter().enumerate().map(|(i, w)| if w.is_nan() { f32::NAN } else { random::unit(seed, i as u64) as f32 }).collect())
    }
}
