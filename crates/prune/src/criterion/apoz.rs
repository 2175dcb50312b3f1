//! APoZ: filters whose activations are zero most of the time.
use super::at_least_one;
use crate::{Candidate, Criterion, ImportanceContext, Needs, Result};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Apoz as dyn Criterion,
    Manual {
        name: "apoz",
        summary: "Removes the filters whose activations are zero most often (average percentage of zeros). For filters and channels.",
        details: "\
    importance of each weight of output o = 1 - (share of zeros in channel o of the layer's activation)

over the places and samples of `batches` training batches, behind the rectifier that alone reads the layer's result, a normalization between
them or not. Layers without such a rectifier stay dense. All weights of an output have the same importance, so it is meant for
granularity = \"filter\", or for prune_channels, where layers without one keep their channels unless others of their group have one. Needs
no labels.",
        source: "Hu et al. 2016, arXiv:1607.03250, equation 1",
        example: "criterion = { kind = \"apoz\", batches = 8 }\ngranularity = \"filter\"",
    }
);

/// The share of a channel's activations that are not zero.
///
/// # Source
/// Hu et al. 2016, arXiv:1607.03250, equation 1.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Apoz {
    /// Number of training batches.
    pub batches: u64,
}

impl Default for Apoz {
    fn default() -> Self {
        Apoz { batches: 8 }
    }
}

impl Settings for Apoz {
    fn check(&self) -> Result<(), Fault> {
        at_least_one(self.batches)
    }
}

impl Criterion for Apoz {
    fn needs(&self) -> Needs {
        Needs::Activity { batches: self.batches }
    }

    fn spares(&self, context: &ImportanceContext, candidate: &Candidate) -> Option<String> {
        let known = context.activity.contains_key(&candidate.weight) && candidate.view.is_some();
        (!known).then(|| "no rectifier alone reads its result".into())
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let live = context.known(candidate, &context.activity, "activity is")?;
        let Some(view) = &candidate.view else { return Ok(vec![]) };
        Ok(view.map(|output, _, _| live.get(output).copied().unwrap_or(1.0)))
    }
}
