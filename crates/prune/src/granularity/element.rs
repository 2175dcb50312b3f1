//! Element: each weight by itself.
use super::{Granularity, Units};
use crate::Candidate;
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Granularity> = member!(
    Element as dyn Granularity,
    Manual {
        name: "element",
        summary: "Each weight by itself.",
        details: "\
Keeps the most accuracy at a given share of zeros. Zeros scattered like this make a file smaller where it is compressed; common runtimes
compute them like other numbers, so it rarely saves time.",
        source: "",
        example: "granularity = \"element\"",
    }
);

/// Each weight by itself.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Element {}

impl Settings for Element {}

impl Granularity for Element {
    fn units(&self, _: &Candidate) -> Units {
        Units::Elements
    }
}
