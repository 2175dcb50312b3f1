//! BN scale: channels that their normalization makes small.
use crate::{Candidate, Criterion, ImportanceContext, PruneError, Result};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    BnScale as dyn Criterion,
    Manual {
        name: "bn_scale",
        summary: "Removes the filters whose batch normalization has the smallest scale (network slimming). For granularity filter.",
        details: "\
    importance of each weight of output o = |gamma_o|

of the BatchNormalization that alone reads the layer's result. All weights of an output have the same importance, so it is meant for
granularity = \"filter\". A layer without such a normalization stays dense. Works best after a training with an L1 penalty on the scales.",
        source: "Liu et al. 2017, arXiv:1708.06519",
        example: "criterion = \"bn_scale\"\ngranularity = \"filter\"",
    }
);

/// The magnitude of the scale of the normalization behind the layer.
///
/// # Source
/// Liu et al. 2017, arXiv:1708.06519.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BnScale {}

impl Settings for BnScale {}

impl Criterion for BnScale {
    fn spares(&self, _: &ImportanceContext, candidate: &Candidate) -> Option<String> {
        (candidate.norm.is_none() || candidate.view.is_none()).then(|| "no batch normalization scales its result".into())
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let wrong = |what: String| PruneError::Weight { weight: candidate.name.clone(), what };
        let (Some(norm), Some(view)) = (candidate.norm, &candidate.view) else {
            return Err(wrong("no batch normalization scales its result".into()));
        };
        let gamma = context.read(candidate, norm.scale)?;
        if gamma.len() != view.outputs {
            return Err(wrong(format!("has {} outputs, and its normalization {} scales", view.outputs, gamma.len())));
        }
        Ok(view.map(|output, _, _| gamma[output].abs()))
    }
}
