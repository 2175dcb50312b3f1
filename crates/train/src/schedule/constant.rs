//! The same learning rate throughout.
use super::{Schedule, fraction};
use serde::{Deserialize, Serialize};
use technique::{Fault, Manual, Settings};

/// The same learning rate throughout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Constant {
    /// Fraction of the stage over which it rises linearly from 0, 0..1.
    pub warm_up: f64,
}

pub(super) const CONSTANT: Manual = Manual {
    name: "constant",
    summary: "The same learning rate throughout.",
    details: "",
    source: "",
    example: "schedule = { kind = \"constant\", warm_up = 0.05 }",
};

impl Settings for Constant {
    fn check(&self) -> Result<(), Fault> {
        fraction("warm_up", self.warm_up)
    }
}

impl Schedule for Constant {
    fn warm_up(&self) -> f64 {
        self.warm_up
    }

    fn shape(&self, _: f64) -> f64 {
        1.0
    }
}
