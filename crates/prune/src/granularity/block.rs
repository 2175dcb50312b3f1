//! Block: rectangles of outputs and input channels.
use super::{Granularity, GroupNorm, Units, grouped};
use crate::Candidate;
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Granularity> = member!(
    Block as dyn Granularity,
    Manual {
        name: "block",
        summary: "Rectangles of neighbouring outputs and input channels.",
        details: "\
A block is `rows` neighbouring outputs by `columns` neighbouring input channels, for a convolution at one place of its kernel; those at
the ends are smaller. Its importance is the norm of its elements' importance, by its size. For kernels on block-sparse matrices, which
gain time from 80 % of zeros or so on; loses more accuracy than single elements at the same share.",
        source: "Gray et al. 2017, GPU Kernels for Block-Sparse Weights; Narang et al. 2017, arXiv:1711.02782",
        example: "granularity = { kind = \"block\", rows = 4, columns = 1 }",
    }
);

/// Rectangles of `rows` outputs by `columns` input channels.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Block {
    /// Neighbouring outputs of a block.
    pub rows: usize,
    /// Neighbouring input channels of a block.
    pub columns: usize,
    /// How the importance of a block follows from that of its elements.
    pub norm: GroupNorm,
}

impl Default for Block {
    fn default() -> Self {
        Block { rows: 4, columns: 4, norm: GroupNorm::default() }
    }
}

impl Settings for Block {
    fn check(&self) -> Result<(), Fault> {
        for (key, size) in [("rows", self.rows), ("columns", self.columns)] {
            if size == 0 {
                return Err(Fault::new(key, format!("{key} = 0: a block holds at least one weight")));
            }
        }
        Ok(())
    }
}

impl Granularity for Block {
    fn units(&self, candidate: &Candidate) -> Units {
        grouped(candidate, |view, output, input, place| {
            let wide = view.inputs.div_ceil(self.columns);
            ((output / self.rows) * view.places + place) * wide + input / self.columns
        })
    }

    fn norm(&self) -> GroupNorm {
        self.norm
    }
}
