//! Row: a row of a kernel.
use super::{Granularity, GroupNorm, Units, grouped};
use crate::Candidate;
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Granularity> = member!(
    Row as dyn Granularity,
    Manual {
        name: "row",
        summary: "A row of a convolution's kernel; of another layer all weights of one output.",
        details: "\
The finest part of a convolution that is more than an element: the neighbours along the kernel's last axis, for one output and one
input channel. The importance of a row is the norm of its elements' importance, by its length.",
        source: "Mao et al. 2017, arXiv:1705.08922 (vectors)",
        example: "granularity = \"row\"",
    }
);

/// A row of a convolution's kernel; of another layer all weights of one output.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Row {
    /// How the importance of a row follows from that of its elements.
    pub norm: GroupNorm,
}

impl Settings for Row {}

impl Granularity for Row {
    fn units(&self, candidate: &Candidate) -> Units {
        grouped(candidate, |view, output, input, place| match view.places {
            1 => output,
            places => (output * view.inputs + input) * (places / view.width) + place / view.width,
        })
    }

    fn norm(&self) -> GroupNorm {
        self.norm
    }
}
