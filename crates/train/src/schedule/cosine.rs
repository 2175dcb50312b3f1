//! A learning rate that falls along half a cosine.
use super::{Schedule, fraction};
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual, Settings};

/// Half a cosine from 1 to `floor`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cosine {
    /// Fraction of the stage over which it rises linearly from 0, 0..1.
    pub warm_up: f64,
    /// Factor at the end, 0..1.
    pub floor: f64,
}

pub(super) const COSINE: Manual = Manual {
    name: "cosine",
    summary: "Half a cosine from 1 to floor.",
    details: "floor + (1 - floor) (1 + cos(pi t)) / 2, with t the fraction of what follows the warm-up that is over.",
    source: "Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, one period",
    example: "schedule = { kind = \"cosine\", warm_up = 0.1 }",
};

impl Settings for Cosine {
    fn check(&self) -> Result<(), Fault> {
        fraction("warm_up", self.warm_up)?;
        fraction("floor", self.floor)
    }
}

impl Schedule for Cosine {
    fn warm_up(&self) -> f64 {
        self.warm_up
    }

    fn shape(&self, done: f64) -> f64 {
        let t = ((done - self.warm_up) / (1.0 - self.warm_up).max(1e-9)).clamp(0.0, 1.0);
        self.floor + (1.0 - self.floor) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
    }
}
