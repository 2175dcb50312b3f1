//! Granularities: which elements of a weight live and die together.
mod block;
mod column;
mod element;
mod filter;
mod head;
mod kernel;
mod layer;
mod n_m;
mod norm;
mod residual_block;
mod row;

pub use block::Block;
pub use column::Column;
pub use element::Element;
pub use filter::Filter;
pub use head::Head;
pub use kernel::Kernel;
pub use layer::WholeLayer;
pub use n_m::NofM;
pub use norm::GroupNorm;
pub use residual_block::ResidualBlock;
pub use row::Row;

use crate::{Candidate, Result, WeightView};
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use technique::{Entry, Family};

/// How a weight's elements are taken together. Lists have an entry for each element, in the stored order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Units {
    /// Each element by itself.
    Elements,
    /// The group of each element, numbered from 0: a group lives or dies as a whole.
    Groups(Vec<usize>),
    /// The block of each element, numbered from 0: in each at most `keep` elements live, whatever the others of the layer are.
    Blocks {
        /// The block of each element.
        of: Vec<usize>,
        /// Most elements of a block that live.
        keep: usize,
    },
    /// The weight stays as it is, for this reason.
    Dense(String),
}

/// Parts of a network over several weights, each of which lives or dies as a whole.
#[derive(Clone, Copy)]
pub struct Parts {
    /// The number of the part that each weight belongs to, for the weights that belong to one.
    pub of: fn(&Model) -> Result<BTreeMap<ValueId, usize>>,
    /// What they are called.
    pub name: &'static str,
    /// Why the other weights stay dense.
    pub outside: &'static str,
}

/// Says which elements of a weight live and die together.
///
/// A granularity is a type that holds its settings, in a file of its own, and a line in [`Granularities::members`]. Whole input
/// channels, but for the manual page:
/// ```
/// use espalier_prune::{Candidate, Granularity, Units, grouped};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct InputChannel {}
/// impl technique::Settings for InputChannel {}
/// impl Granularity for InputChannel {
///     fn units(&self, candidate: &Candidate) -> Units {
///         grouped(candidate, |view, output, input, _| output / (view.outputs / view.groups) * view.inputs + input)
///     }
/// }
/// let member = technique::member!(
///     InputChannel as dyn Granularity,
///     technique::Manual { name: "input_channel", summary: "", details: "", source: "", example: "" }
/// );
/// assert_eq!((member.build)(Default::default()).unwrap().sparsity(), None);
/// ```
pub trait Granularity: Send + Sync {
    /// How the elements of a weight are taken together.
    fn units(&self, candidate: &Candidate) -> Units;

    /// As [`Granularity::units`], for a granularity that goes by the graph around the weight.
    fn units_in(&self, _model: &Model, candidate: &Candidate) -> Units {
        self.units(candidate)
    }

    /// The parts of the network that live or die as a whole, where a unit has several weights: a weight of a part is no more than one unit.
    fn parts(&self) -> Option<Parts> {
        None
    }

    /// True if all weights of a layer go at once.
    fn empties_layers(&self) -> bool {
        self.parts().is_some()
    }

    /// How the importance of a group follows from that of its elements.
    fn norm(&self) -> GroupNorm {
        GroupNorm::default()
    }

    /// The sparsity that follows from the pattern, if one does: the recipe then need not give it.
    fn sparsity(&self) -> Option<f64> {
        None
    }
}

/// Groups by a number for output, input channel and place in the kernel (see [`WeightView`]); a weight whose elements have no such
/// meaning stays dense.
pub fn grouped(candidate: &Candidate, number: impl Fn(&WeightView, usize, usize, usize) -> usize) -> Units {
    match &candidate.view {
        Some(view) => Units::Groups(view.map(|output, input, place| number(view, output, input, place))),
        None => Units::Dense("its operator sums no products with it".into()),
    }
}

/// The family of granularities.
pub struct Granularities;

impl Family for Granularities {
    type Member = dyn Granularity;
    const NAME: &'static str = "granularity";
    const SUMMARY: &'static str = "Which elements of a weight become zero together: each by itself, a pattern, or a whole part.";
    const DEFAULT: Option<&'static str> = Some("element");
    fn members() -> &'static [Entry<dyn Granularity>] {
        static LIST: &[Entry<dyn Granularity>] = &[
            element::ENTRY,
            n_m::ENTRY,
            block::ENTRY,
            row::ENTRY,
            column::ENTRY,
            kernel::ENTRY,
            filter::ENTRY,
            head::ENTRY,
            layer::ENTRY,
            residual_block::ENTRY,
        ];
        LIST
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::ValueId;
    use ops::WeightAxes;

    fn candidate(shape: &[usize], input: usize, kernel: &[usize], groups: usize) -> Candidate {
        let axes = WeightAxes { input, kernel: kernel.to_vec(), groups, grouped_by_input: false, data: None };
        let view = Some(WeightView::new(shape, &axes));
        Candidate { weight: ValueId(0), name: "w".into(), axis: None, view, data: None, place: Default::default(), norm: None }
    }

    fn groups(units: Units) -> Vec<usize> {
        match units {
            Units::Groups(of) | Units::Blocks { of, .. } => of,
            other => panic!("{other:?}"),
        }
    }

    /// Sizes of the groups that have elements.
    fn sizes(of: &[usize]) -> Vec<usize> {
        let mut count = std::collections::BTreeMap::<usize, usize>::new();
        of.iter().for_each(|g| *count.entry(*g).or_default() += 1);
        count.into_values().collect()
    }

    #[test]
    fn groups_are_the_parts_that_their_names_say() {
        let conv = candidate(&[4, 3, 2, 5], 1, &[2, 3], 1);
        let dense = candidate(&[6, 4], 0, &[], 1);
        let of = |g: &dyn Granularity, c: &Candidate| groups(g.units(c));
        assert_eq!(sizes(&of(&Filter::default(), &conv)), [30; 4]);
        assert_eq!(sizes(&of(&Kernel::default(), &conv)), [10; 12]);
        assert_eq!((sizes(&of(&WholeLayer::default(), &conv)), sizes(&of(&WholeLayer::default(), &dense))), (vec![120], vec![24]));
        assert_eq!(sizes(&of(&Row::default(), &conv)), [5; 24]);
        assert_eq!(sizes(&of(&Column::default(), &conv)), [4; 30]);
        assert_eq!(of(&Row::default(), &conv)[..10], [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        // `[in, out]`: an output is a column of the stored weight.
        assert_eq!(of(&Filter::default(), &dense)[..5], [0, 1, 2, 3, 0]);
        assert_eq!(of(&Column::default(), &dense)[..5], [0, 0, 0, 0, 1]);
        assert_eq!(sizes(&of(&Block { rows: 2, columns: 4, ..Block::default() }, &dense)), [8, 4, 8, 4]);
        // Outputs of different groups read different channels.
        assert_eq!(sizes(&of(&Column::default(), &candidate(&[4, 3, 1], 1, &[2], 2))), [2; 6]);
    }

    #[test]
    fn patterns_lie_along_the_input_channels() {
        let pattern = NofM::default();
        // Two blocks of four at each of the two places; the last is short.
        let of = groups(pattern.units(&candidate(&[1, 6, 2], 1, &[2], 1)));
        let places = |place: usize| of.iter().skip(place).step_by(2).copied().collect::<Vec<_>>();
        assert_eq!((places(0), places(1)), (vec![0, 0, 0, 0, 1, 1], vec![2, 2, 2, 2, 3, 3]));
        // Columns of a stored `[in, out]` weight.
        assert_eq!(groups(pattern.units(&candidate(&[4, 2], 0, &[], 1))), [0, 1, 0, 1, 0, 1, 0, 1]);
        let narrow = pattern.units(&candidate(&[8, 3, 3, 3], 1, &[2, 3], 1));
        assert_eq!(narrow, Units::Dense("an output sums over 3 input channels, fewer than 4".into()));
        assert_eq!(pattern.sparsity(), Some(0.5));
    }
}
