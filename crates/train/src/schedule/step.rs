//! A learning rate that falls at milestones.
use super::{Schedule, fraction};
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual, Settings};

/// Multiplied by `gamma` at each milestone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Fractions of the stage, 0..1.
    pub milestones: Vec<f64>,
    /// Factor at each milestone.
    pub gamma: f64,
    /// Fraction of the stage over which it rises linearly from 0, 0..1.
    pub warm_up: f64,
}

pub(super) const STEP: Manual = Manual {
    name: "step",
    summary: "Multiplied by gamma at each milestone.",
    details: "",
    source: "He et al. 2016, arXiv:1512.03385, section 4.2 (divided by 10 at one half and three quarters of the training)",
    example: "schedule = { kind = \"step\", milestones = [0.5, 0.75], gamma = 0.1 }",
};

impl Default for Step {
    fn default() -> Self {
        Step { milestones: vec![0.5, 0.75], gamma: 0.1, warm_up: 0.0 }
    }
}

impl Settings for Step {
    fn check(&self) -> Result<(), Fault> {
        self.milestones.iter().try_for_each(|m| fraction("milestones", *m))?;
        if !self.gamma.is_finite() {
            return Err(Fault::new("gamma", format!("gamma = {}: a finite number is needed", self.gamma)));
        }
        fraction("warm_up", self.warm_up)
    }
}

impl Schedule for Step {
    fn warm_up(&self) -> f64 {
        self.warm_up
    }

    fn shape(&self, done: f64) -> f64 {
        self.gamma.powi(self.milestones.iter().filter(|m| done >= **m).count() as i32)
    }
}
