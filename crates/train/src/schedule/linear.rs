//! A learning rate that falls linearly.
use super::{Schedule, fraction};
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual, Settings};

/// A line from 1 to `floor`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Linear {
    /// Fraction of the stage over which it rises linearly from 0, 0..1.
    pub warm_up: f64,
    /// Factor at the end, 0..1.
    pub floor: f64,
}

pub(super) const LINEAR: Manual = Manual {
    name: "linear",
    summary: "A line from 1 to floor.",
    details: "1 - (1 - floor) t, with t the fraction of what follows the warm-up that is over. Usual for fine-tuning transformers.",
    source: "Devlin et al. 2019, arXiv:1810.04805, appendix A.2",
    example: "schedule = { kind = \"linear\", warm_up = 0.1 }",
};

impl Settings for Linear {
    fn check(&self) -> Result<(), Fault> {
        fraction("warm_up", self.warm_up)?;
        fraction("floor", self.floor)
    }
}

impl Schedule for Linear {
    fn warm_up(&self) -> f64 {
        self.warm_up
    }

    fn shape(&self, done: f64) -> f64 {
        let t = ((done - self.warm_up) / (1.0 - self.warm_up).max(1e-9)).clamp(0.0, 1.0);
        1.0 - (1.0 - self.floor) * t
    }
}
