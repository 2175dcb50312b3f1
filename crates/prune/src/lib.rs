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
    /// Least share of each layer's elements that lives, 0..1, whatever the scope.
    #[serde(default)]
    pub min_per_layer: f64,
    /// Names of weights to leave alone; `*` stands for any run of characters.
    #[serde(default)]
    pub skip: Vec<String>,
}

fn default_method() -> String {
    magnitude::Magnitude.name().to_string()
}

/// Sets masks so that the given share of the prunable elements is dead: exactly `round(sparsity * total)` of them (fewer
/// where `min_per_layer` forbids more), ties broken by position. Elements that a mask holds dead already die first, so
/// pruning in steps never revives what it need not.
///
/// Elements that are zero by themselves (a filter bank, a network that was pruned elsewhere) are no part of the total: they
/// would be taken for the share that was asked for. They are masked too, so that they stay zero, and counted apart in the
/// report; a layer of zeros alone, which may be meant to begin there, is left as it is.
///
/// # Errors
/// [`PruneError::Setting`] for a sparsity or a `min_per_layer` outside 0..1, an unknown criterion, or nothing to prune;
/// [`PruneError::Weight`] for a weight whose importance is not a number.
pub fn prune(model: &mut Model, settings: &PruneSettings) -> Result<SparsityReport> {
    if !(0.0..1.0).contains(&settings.sparsity) {
        let what = format!("is {}; it must be at least 0 and below 1", settings.sparsity);
        return Err(PruneError::Setting { setting: "sparsity", what });
    }
    if !(0.0..=1.0).contains(&settings.min_per_layer) {
        let what = format!("is {}; it is a share of a layer's weights, 0..1", settings.min_per_layer);
        return Err(PruneError::Setting { setting: "min_per_layer", what });
    }
    let criterion = find(&settings.method)?;
    let list = candidates(model, &settings.skip)?;
    if list.is_empty() {
        return Err(PruneError::Setting { setting: "skip", what: "leaves no weight to prune".into() });
    }
    let layers = list.iter().map(|c| Layer::read(model, criterion, c, settings.min_per_layer)).collect::<Result<Vec<_>>>()?;
    let count = |total: usize| (settings.sparsity * total as f64).round() as usize;
    let live: Vec<Vec<bool>> = match settings.scope {
        Scope::Global => {
            let joined = layers.iter().flat_map(|l| l.ranked.iter().copied()).collect::<Vec<_>>();
            let (total, most) = (joined.len(), layers.iter().map(Layer::most).sum());
            let mut alive = least_important(&joined, count(total).min(most)).into_iter();
            layers.iter().map(|layer| layer.mask(&mut alive)).collect()
        }
        Scope::Layer => {
            let alone = |l: &Layer| l.mask(&mut least_important(&l.ranked, count(l.ranked.len()).min(l.most())).into_iter());
            layers.iter().map(alone).collect()
        }
    };
    let zero_before = layers.iter().map(|l| l.zeros).sum();
    let mut emptied = vec![];
    for ((candidate, live), layer) in list.iter().zip(live).zip(&layers) {
        if layer.ranked.is_empty() {
            continue;
        }
        if !live.contains(&true) {
            emptied.push(candidate.name.clone());
        }
        let shape = model.values.tensor(candidate.weight).map(|t| t.shape().to_vec()).unwrap_or_default();
        let mask = Tensor::new(live, shape).map_err(|source| PruneError::Tensor { weight: candidate.name.clone(), source })?;
        model.annotations.entry(candidate.weight).mask = Some(mask);
    }
    Ok(SparsityReport { zero_before, emptied, ..report(model, &list) })
}

/// A weight's elements in the order of their importance.
struct Layer {
    /// Where an element may be pruned: it is not zero by itself.
    prunable: Vec<bool>,
    /// Importance of those, the ones that must live at infinity.
    ranked: Vec<f32>,
    /// Those that must live.
    floor: usize,
    /// Elements that are zero by themselves.
    zeros: usize,
}

impl Layer {
    fn read(model: &Model, criterion: &dyn Criterion, candidate: &Candidate, floor: f64) -> Result<Layer> {
        let importance = ranked(model, criterion, candidate)?;
        let read = |t: &Tensor| t.to_f32_vec().map_err(|source| PruneError::Tensor { weight: candidate.name.clone(), source });
        let weight = model.values.tensor(candidate.weight).map(read).transpose()?.unwrap_or_default();
        let prunable: Vec<bool> = weight.iter().map(|w| *w != 0.0).collect();
        let mut ranked: Vec<f32> = importance.into_iter().zip(&prunable).filter(|(_, p)| **p).map(|(v, _)| v).collect();
        let floor = ((floor * prunable.len() as f64).ceil() as usize).min(ranked.len());
        let weak = least_important(&ranked, ranked.len() - floor);
        if floor > 0 {
            ranked.iter_mut().zip(weak).filter(|(_, must_live)| *must_live).for_each(|(v, _)| *v = f32::INFINITY);
        }
        let zeros = prunable.len() - ranked.len();
        Ok(Layer { prunable, ranked, floor, zeros })
    }

    /// Elements that may die.
    fn most(&self) -> usize {
        self.ranked.len() - self.floor
    }

    /// Which elements live; `alive` says it of those that may be pruned, in their order.
    fn mask(&self, alive: &mut impl Iterator<Item = bool>) -> Vec<bool> {
        self.prunable.iter().map(|prunable| *prunable && alive.next().unwrap_or(true)).collect()
    }
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
