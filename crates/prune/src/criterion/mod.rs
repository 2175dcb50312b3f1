//! Criteria: how the importance of weights is computed.
mod activity;
mod apoz;
mod bn_scale;
mod context;
mod curvature;
mod flow;
mod fpgm;
mod gradient_flow;
mod grasp;
mod inputs;
mod inverse;
mod lamp;
mod magnitude;
mod movement;
mod obd;
mod obs;
mod random;
mod snip;
mod synflow;
mod taylor;
mod wanda;

pub use apoz::Apoz;
pub use bn_scale::BnScale;
pub use context::{ImportanceContext, Needs};
pub use fpgm::Fpgm;
pub use grasp::Grasp;
pub use lamp::Lamp;
pub use magnitude::Magnitude;
pub use movement::Movement;
pub use obd::Obd;
pub use obs::Obs;
pub use random::Random;
pub use snip::Snip;
pub use synflow::SynFlow;
pub use taylor::Taylor;
pub use wanda::Wanda;

use crate::{Candidate, Result};
use technique::{Entry, Family, Fault};

/// Computes the importance of a weight's elements.
///
/// A criterion is a type that holds its settings, in a file of its own, and a line in [`Criteria::members`]. Connection sensitivity (Lee
/// et al. 2019, arXiv:1810.02340, equation 5; built in as [`Snip`]), whole but for its manual page:
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

    /// In how many rounds pruning at once reaches its sparsity: the importance is computed again before each. After round r of R a share
    /// `(1 - sparsity)^(r / R)` of the weights lives.
    fn rounds(&self) -> u64 {
        1
    }

    /// Why a weight has no importance by this criterion and so stays dense; `None` if it has one.
    fn spares(&self, _context: &ImportanceContext, _candidate: &Candidate) -> Option<String> {
        None
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
        static LIST: &[Entry<dyn Criterion>] = &[
            magnitude::ENTRY,
            taylor::ENTRY,
            lamp::ENTRY,
            obd::ENTRY,
            obs::ENTRY,
            snip::ENTRY,
            grasp::ENTRY,
            synflow::ENTRY,
            wanda::ENTRY,
            movement::ENTRY,
            bn_scale::ENTRY,
            fpgm::ENTRY,
            apoz::ENTRY,
            random::ENTRY,
        ];
        LIST
    }
}

/// Refuses a criterion that would read no batch.
fn at_least_one(batches: u64) -> std::result::Result<(), Fault> {
    match batches {
        0 => Err(Fault::new("batches", "batches = 0: at least one batch is needed")),
        _ => Ok(()),
    }
}
