//! Criteria: how the importance of weights is computed.
mod magnitude;
mod taylor;

pub use magnitude::Magnitude;
pub use taylor::Taylor;

use crate::{Candidate, PruneError, Result};
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use technique::{Entry, Family};
use train::GradientMoments;

/// The data that a criterion needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The model only.
    Weights,
    /// The gradient of the training loss by each weight, over several training batches.
    Gradients {
        /// Number of batches.
        batches: u64,
    },
}

/// The data that importance is computed from.
pub struct ImportanceContext<'a> {
    /// The model, with its present masks and encodings.
    pub model: &'a Model,
    /// Moments of the gradient by weight; empty unless the criterion asks for them.
    pub gradients: BTreeMap<ValueId, GradientMoments>,
}

impl<'a> ImportanceContext<'a> {
    /// A context with a model only.
    pub fn new(model: &'a Model) -> Self {
        ImportanceContext { model, gradients: BTreeMap::new() }
    }

    /// Reads a constant as f32, in its own order.
    ///
    /// # Errors
    /// [`PruneError::Weight`] if the graph computes it; [`PruneError::Tensor`] if its elements are not numbers.
    pub fn read(&self, candidate: &Candidate, id: ValueId) -> Result<Vec<f32>> {
        let Some(tensor) = self.model.values.tensor(id) else {
            let what = format!("'{}' is computed by the graph; fold constants first", self.model.values[id].name);
            return Err(PruneError::Weight { weight: candidate.name.clone(), what });
        };
        tensor.to_f32_vec().map_err(|source| PruneError::Tensor { weight: candidate.name.clone(), source })
    }

    /// The moments of a weight's gradient.
    ///
    /// # Errors
    /// [`PruneError::Weight`] if they were not asked for.
    pub fn gradients(&self, candidate: &Candidate) -> Result<&GradientMoments> {
        let missing = || PruneError::Weight { weight: candidate.name.clone(), what: "no gradients were taken for it".into() };
        self.gradients.get(&candidate.weight).ok_or_else(missing)
    }
}

/// Computes the importance of a weight's elements.
///
/// A criterion is a type that holds its settings, in a file of its own, and a line in [`Criteria::members`]. Connection sensitivity (Lee
/// et al. 2019, arXiv:1810.02340, equation 5), whole but for its manual page:
/// ```
/// use espalier_prune::{Candidate, Criterion, ImportanceContext, Needs, Result};
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Snip {
///     /// Training batches that the gradient is the mean of.
///     batches: u64,
/// }
/// impl technique::Settings for Snip {}
/// impl Criterion for Snip {
///     fn needs(&self) -> Needs {
///         Needs::Gradients { batches: self.batches }
///     }
///     fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
///         let weight = context.read(candidate, candidate.weight)?;
///         let gradient = &context.gradients(candidate)?.mean;
///         Ok(weight.iter().zip(gradient).map(|(w, g)| (w * g).abs()).collect())
///     }
/// }
/// let member = technique::member!(Snip as dyn Criterion, technique::Manual { name: "snip", summary: "", details: "", source: "", example: "" });
/// assert_eq!((member.build)(Default::default()).unwrap().needs(), Needs::Gradients { batches: 0 });
/// ```
pub trait Criterion: Send + Sync {
    /// The data that it needs.
    fn needs(&self) -> Needs {
        Needs::Weights
    }

    /// Importance of each element, in the weight's own order: never negative, comparable between layers; the least important
    /// elements are pruned first.
    ///
    /// # Errors
    /// If the weight or what the criterion reads beside it is not f32.
    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>>;
}

/// The family of criteria.
pub struct Criteria;

impl Family for Criteria {
    type Member = dyn Criterion;
    const NAME: &'static str = "criterion";
    const SUMMARY: &'static str = "How the importance of weights is computed: the least important become zero.";
    const DEFAULT: Option<&'static str> = Some("magnitude");
    fn members() -> &'static [Entry<dyn Criterion>] {
        static LIST: &[Entry<dyn Criterion>] = &[magnitude::ENTRY, taylor::ENTRY];
        LIST
    }
}
