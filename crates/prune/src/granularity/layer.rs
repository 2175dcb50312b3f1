//! Layer: all weights of a layer.
use super::{Granularity, GroupNorm, Units};
use crate::Candidate;
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Granularity> = member!(
    WholeLayer as dyn Granularity,
    Manual {
        name: "layer",
        summary: "All weights of a layer: it lives or dies as a whole.",
        details: "\
A layer whose weights are all zero passes nothing on, so this is for networks with a way around it: the branch of a residual block is then the same
whatever its input. A stage prune_channels with remove = { dead = true } behind it takes such a branch out of the graph: the sum reads the shortcut
alone, and the network has a block less. Name the layers that have no way around them in skip: the first, the last, those of
shortcuts with a convolution, those that lead into a stage of the network. Take scope = \"global\" and a criterion that compares
between layers: taylor. granularity = \"residual_block\" takes all layers of a branch together, and finds by itself what has a way around it.",
        source: "Wen et al. 2016, arXiv:1608.03665, section 3.2 (depth-wise sparsity); Chen & Zhao 2018, arXiv:1812.00258 (layers of residual networks)",
        example: "granularity = \"layer\"\nscope = \"global\"\ncriterion = \"taylor\"\nskip = [\"conv1.weight\", \"fc.weight\"]",
    }
);

/// All weights of a layer.
///
/// # Source
/// Wen et al. 2016, arXiv:1608.03665, section 3.2.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WholeLayer {
    /// How the importance of a layer follows from that of its elements.
    pub norm: GroupNorm,
}

impl Settings for WholeLayer {}

impl Granularity for WholeLayer {
    fn units(&self, candidate: &Candidate) -> Units {
        match &candidate.view {
            Some(view) => Units::Groups(vec![0; view.shape.iter().product()]),
            None => Units::Dense("its operator sums no products with it".into()),
        }
    }

    fn empties_layers(&self) -> bool {
        true
    }

    fn norm(&self) -> GroupNorm {
        self.norm
    }
}
