//! Random changes to training images. They depend on seed, stage, epoch and row only.
use crate::preprocess::View;
use crate::random::Draws;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Random changes to images, after they have their size and before they are normalised. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Black pixels added on each side, after which the original size is cut out at a random place.
    pub crop_padding: usize,
    /// Mirrors every other image left to right.
    pub flip: bool,
}

/// Salt of the random numbers, so that they differ from those that order the rows.
const SALT: u64 = 1;

impl Augment {
    pub(crate) fn draws(seed: u64, stage: u64, epoch: u64) -> Draws {
        Draws::new(SALT, seed, stage, epoch)
    }

    /// The random change for one row.
    pub(crate) fn view(&self, draws: Draws) -> View {
        let shift = |index| draws.below(index, 2 * self.crop_padding + 1) as isize - self.crop_padding as isize;
        View { down: shift(0), right: shift(1), mirror: self.flip && draws.below(2, 2) == 1 }
    }
}
