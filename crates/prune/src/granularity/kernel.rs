//! Kernel: one input channel of one output.
use super::{Granularity, GroupNorm, Units, grouped};
use crate::Candidate;
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Granularity> = member!(
    Kernel as dyn Granularity,
    Manual {
        name: "kernel",
        summary: "All weights between one input channel and one output: a kernel of a convolution.",
        details: "\
A kernel of zeros is a connection between two channels that is gone. In a layer without a kernel this is a single weight.",
        source: "Mao et al. 2017, arXiv:1705.08922",
        example: "granularity = \"kernel\"",
    }
);

/// All weights between one input channel and one output: a kernel of a convolution.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kernel {
    /// How the importance of a kernel follows from that of its elements.
    pub norm: GroupNorm,
}

impl Settings for Kernel {}

impl Granularity for Kernel {
    fn units(&self, candidate: &Candidate) -> Units {
        grouped(candidate, |view, output, input, _| output * view.inputs + input)
    }

    fn norm(&self) -> GroupNorm {
        self.norm
    }
}
