//! Smallest and largest value seen.
use super::{Observer, Statistics};
use encodings::affine::AffineSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Observer> = member!(
    MinMax as dyn Observer,
    Manual {
        name: "min_max",
        summary: "Smallest and largest value seen.",
        details: "\
Nothing that was seen is clipped. With 8 bits and a scale per channel often the best; a single outlier makes the grid coarse.",
        source: "",
        example: "calibration = { observer = \"min_max\" }",
    }
);

/// The settings: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MinMax {}

impl Settings for MinMax {}

impl Observer for MinMax {
    fn range(&self, seen: &Statistics, _grid: &AffineSettings) -> Option<(f32, f32)> {
        seen.histogram().range()
    }
}
