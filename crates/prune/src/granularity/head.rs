//! Head: what one head of an attention passes on.
use super::{Granularity, GroupNorm, Units};
use crate::Candidate;
use crate::channels::heads;
use graph::Model;
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Granularity> = member!(
    Head as dyn Granularity,
    Manual {
        name: "head",
        summary: "All weights that read one head of an attention, in the projection behind the heads.",
        details: "\
The layer that projects the joined heads back, W_o, loses all that it reads of a head: nothing passes from that head, which is a mask of zero on the
head. The other weights stay dense. Heads are found by what the graph couples, with one matrix for queries, keys and values or several;
heads that share keys and values count as one. A stage prune_channels with remove = { dead = true } behind it takes the heads out
of the graph with their queries, keys and values.

With criterion = \"taylor\" a head's importance is the estimated loss without it.",
        source: "Michel et al. 2019, arXiv:1905.10650, section 2.2",
        example: "granularity = \"head\"\ncriterion = \"taylor\"\nsparsity = 0.25",
    }
);

/// All weights that read one head of an attention.
///
/// # Source
/// Michel et al. 2019, arXiv:1905.10650, section 2.2.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Head {
    /// How the importance of a head follows from that of its elements.
    pub norm: GroupNorm,
}

impl Settings for Head {}

impl Granularity for Head {
    fn units(&self, _: &Candidate) -> Units {
        Units::Dense("heads are found in the graph alone".into())
    }

    fn units_in(&self, model: &Model, candidate: &Candidate) -> Units {
        let view = candidate.view.as_ref().filter(|view| view.groups == 1);
        match view.zip(heads(model, candidate.weight)) {
            Some((view, heads)) if view.inputs == heads.len() => Units::Groups(view.map(|_, input, _| heads[input])),
            _ => Units::Dense("it is not the projection behind attention heads".into()),
        }
    }

    fn norm(&self) -> GroupNorm {
        self.norm
    }
}
