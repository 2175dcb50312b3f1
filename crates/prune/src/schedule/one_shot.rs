//! One shot: the whole sparsity before the training.
use crate::SparsitySchedule;
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn SparsitySchedule> = member!(
    OneShot as dyn SparsitySchedule,
    Manual {
        name: "one_shot",
        summary: "Reaches the whole sparsity at once, before the stage trains.",
        details: "Needs no training. Enough for moderate sparsities; above 80 % or so a gradual schedule loses less.",
        source: "",
        example: "sparsity_schedule = \"one_shot\"",
    }
);

/// The whole sparsity at once, before the stage trains.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OneShot {}

impl Settings for OneShot {}
impl SparsitySchedule for OneShot {}
