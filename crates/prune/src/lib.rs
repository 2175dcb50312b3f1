//! Chooses which weights live. A [`Criterion`] ranks the elements of each weight (one file a criterion), a [`Scope`] says
//! over what a sparsity is reached, and the result is a mask in the model's annotations. Values of weights stay as they
//! are: the mask is part of the value wherever the graph runs in simulation and where it is lowered.
mod candidates;
mod criterion;
mod error;
mod magnitude;
mod report;
mod schedule;
mod select;

pub use candidates::{Candidate, candidates};
pub use criterion::{Criterion, all, find};
pub use error::{PruneError, Result};
pub use report::{LayerSparsity, SparsityReport, report};
pub use schedule::cubic;
pub use select::least_important;

use graph::Model;
use tensor::Tensor;

/// Over what a sparsity is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Over all weights together: layers that matter less lose more.
    #[default]
    Global,
    /// In each layer alike.
    Layer,
}

/// How to prune.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneSettings {
    /// Name of the criterion.
    #[serde(default = "default_method")]
    pub method: String,
    /// Zeros over all elements that may be pruned, 0..1.
    pub sparsity: f64,
    /// Over what the sparsity is reached.
    #[serde(default)]
    pub scope: Scope,
    /// Names of weights to leave alone; `*` stands for any run of characters.
    #[serde(default)]
    pub skip: Vec<String>,
}

fn default_method() -> String {
    magnitude::Magnitude.name().to_string()
}

/// Sets masks so that the given share of the prunable elements is dead: exactly `round(sparsity * total)` of them, ties
/// broken by position. Elements that are dead already die first, so pruning in steps never revives what it need not.
///
/// # Errors
/// [`PruneError::Setting`] for a sparsity outside 0..1, an unknown criterion, or nothing to prune;
/// [`PruneError::Weight`] for a weight whose importance is not a number.
pub fn prune(model: &mut Model, settings: &PruneSettings) -> Result<SparsityReport> {
    if !(0.0..1.0).contains(&settings.sparsity) {
        let what = format!("is {}; it must be at least 0 and below 1", settings.sparsity);
        return Err(PruneError::Setting { setting: "sparsity", what });
    }
    let criterion = find(&settings.method)?;
    let list = candidates(model, &settings.skip)?;
    if list.is_empty() {
        return Err(PruneError::Setting { setting: "skip", what: "leaves no weight to prune".into() });
    }
    let importance = list.iter().map(|c| ranked(model, criterion, c)).collect::<Result<Vec<_>>>()?;
    let count = |total: usize| (settings.sparsity * total as f64).round() as usize;
    let live: Vec<Vec<bool>> = match settings.scope {
        Scope::Global => {
            let joined: Vec<f32> = importance.concat();
            let mut alive = least_important(&joined, count(joined.len())).into_iter();
            importance.iter().map(|layer| alive.by_ref().take(layer.len()).collect()).collect()
        }
        Scope::Layer => importance.iter().map(|layer| least_important(layer, count(layer.len()))).collect(),
    };
    for (candidate, live) in list.iter().zip(live) {
        let shape = model.values.tensor(candidate.weight).map(|t| t.shape().to_vec()).unwrap_or_default();
        let mask = Tensor::new(live, shape).map_err(|source| PruneError::Tensor { weight: candidate.name.clone(), source })?;
        model.annotations.entry(candidate.weight).mask = Some(mask);
    }
    Ok(report(model, &list))
}

/// Importance of each element; below every live one where the element is dead already.
fn ranked(model: &Model, criterion: &dyn Criterion, candidate: &Candidate) -> Result<Vec<f32>> {
    let mut importance = criterion.importance(model, candidate)?;
    if let Some(at) = importance.iter().position(|v| v.is_nan()) {
        let what = format!("the importance of element {at} is not a number; the weight or the statistics of its normalization are broken");
        return Err(PruneError::Weight { weight: candidate.name.clone(), what });
    }
    if let Some(mask) = model.annotations.mask(candidate.weight) {
        let mask = mask.as_slice::<bool>().map_err(|source| PruneError::Tensor { weight: candidate.name.clone(), source })?;
        // Importance is never negative, so the negated reciprocal sorts dead elements before live ones, in their own order.
        for (value, _) in importance.iter_mut().zip(mask).filter(|(_, live)| !**live) {
            *value = -1.0 / value.abs();
        }
    }
    Ok(importance)
}
