//! Filter: all weights of one output.
use super::{Granularity, GroupNorm, Units, grouped};
use crate::Candidate;
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Granularity> = member!(
    Filter as dyn Granularity,
    Manual {
        name: "filter",
        summary: "All weights of one output: a filter of a convolution, a unit of a matrix layer.",
        details: "\
Sets the weights of whole output channels to zero and leaves the network's shape as it is: the channel then is a constant (its bias, and what a
normalization adds). With criterion = \"magnitude\" and norm = \"l1\" the filters of least L1 norm go, with \"l2\" (the default) those of least L2
norm, each by the filter's size. A weight of a recurrent layer loses single gates this way.",
        source: "Li et al. 2017, arXiv:1608.08710",
        example: "granularity = \"filter\"",
    }
);

/// All weights of one output: a filter of a convolution, a unit of a matrix layer.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// How the importance of a filter follows from that of its elements.
    pub norm: GroupNorm,
}

impl Settings for Filter {}

impl Granularity for Filter {
    fn units(&self, candidate: &Candidate) -> Units {
        grouped(candidate, |_, output, _, _| output)
    }

    fn norm(&self) -> GroupNorm {
        self.norm
    }
}
