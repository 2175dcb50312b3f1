//! Column: one summand of every output.
use super::{Granularity, GroupNorm, Units, grouped};
use crate::Candidate;
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Granularity> = member!(
    Column as dyn Granularity,
    Manual {
        name: "column",
        summary: "All weights that multiply the same input: one input channel, at one place of the kernel.",
        details: "\
The weight as a matrix of one row for each output has a column for each input channel and place of the kernel; a column of zeros makes the
matrix product shorter for a runtime that leaves it out. Outputs of different groups of a convolution have columns of their own.",
        source: "Wen et al. 2016, arXiv:1608.03665, section 3.2 (shape-wise sparsity)",
        example: "granularity = \"column\"",
    }
);

/// All weights that multiply the same input: one input channel, at one place of the kernel.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Column {
    /// How the importance of a column follows from that of its elements.
    pub norm: GroupNorm,
}

impl Settings for Column {}

impl Granularity for Column {
    fn units(&self, candidate: &Candidate) -> Units {
        grouped(candidate, |view, output, input, place| {
            let group = output / (view.outputs / view.groups).max(1);
            (group * view.inputs + input) * view.places + place
        })
    }

    fn norm(&self) -> GroupNorm {
        self.norm
    }
}
