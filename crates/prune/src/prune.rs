//! Masks for a sparsity: the least important elements are pruned.
use crate::{
    Candidate, Criterion, ImportanceContext, Needs, PruneError, PruneSettings, Result, Scope, SparsityReport, candidates, least_important,
    report,
};
use graph::Model;
use technique::Fault;
use tensor::Tensor;
use train::{GradientSource, gradient_moments};

/// Sets masks so that the given share of the prunable elements is pruned: exactly `round(sparsity * total)` of them (fewer where
/// `min_per_layer` forbids more), ties broken by position. Elements that are masked already are pruned first, so that pruning in
/// steps restores none without need.
///
/// Elements that are zero without a mask (a filter bank, a network that was pruned elsewhere) do not count in the total:
/// otherwise they would use up the requested share. They are masked too, so that they stay zero, and counted separately in the
/// report. A layer of zeros only, which may be a deliberate start, is left as it is.
///
/// For a criterion that needs only the weights; see [`prune_with`] for the others. The schedule of the settings is ignored: the
/// whole sparsity is reached at once.
///
/// # Errors
/// [`PruneError::Setting`] for settings that [`PruneSettings::check`] refuses, a criterion that needs gradients, or nothing to
/// prune; [`PruneError::Weight`] for a weight whose importance is not a number.
pub fn prune(model: &mut Model, settings: &PruneSettings) -> Result<SparsityReport> {
    prune_with(model, settings, None)
}

/// [`prune`] by a criterion that may need gradients: they are computed over the source's batches, with the model's present masks
/// and encodings.
///
/// # Errors
/// As [`prune`]; [`PruneError::Train`] for errors of computing gradients.
pub fn prune_with(model: &mut Model, settings: &PruneSettings, source: Option<&GradientSource>) -> Result<SparsityReport> {
    settings.check()?;
    to_sparsity(model, settings, settings.sparsity, source, false)
}

/// Sets masks for `sparsity` in place of that of the settings. With `keep_dead`, no masked element is restored, even where the
/// sparsity or `min_per_layer` would ask for it.
pub(crate) fn to_sparsity(
    model: &mut Model,
    settings: &PruneSettings,
    sparsity: f64,
    source: Option<&GradientSource>,
    keep_dead: bool,
) -> Result<SparsityReport> {
    let criterion: &dyn Criterion = &*settings.criterion;
    let list = candidates(model, &settings.skip)?;
    if list.is_empty() {
        return Err(Fault::new("skip", "leaves no weight to prune").into());
    }
    let context = context(model, settings, &list, source)?;
    let layer = |c: &Candidate| Layer::read(&context, criterion, c, settings.min_per_layer, keep_dead);
    let layers = list.iter().map(layer).collect::<Result<Vec<_>>>()?;
    let count = |total: usize, dead: usize| ((sparsity * total as f64).round() as usize).max(if keep_dead { dead } else { 0 });
    let live: Vec<Vec<bool>> = match settings.scope {
        Scope::Global => {
            let joined = layers.iter().flat_map(|l| l.ranked.iter().copied()).collect::<Vec<_>>();
            let (dead, most) = (layers.iter().map(|l| l.dead).sum(), layers.iter().map(Layer::most).sum());
            let mut alive = least_important(&joined, count(joined.len(), dead).min(most)).into_iter();
            layers.iter().map(|layer| layer.mask(&mut alive)).collect()
        }
        Scope::Layer => {
            let alone = |l: &Layer| l.mask(&mut least_important(&l.ranked, count(l.ranked.len(), l.dead).min(l.most())).into_iter());
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

/// The data that the criterion needs.
fn context<'a>(
    model: &'a Model,
    settings: &PruneSettings,
    list: &[Candidate],
    source: Option<&GradientSource>,
) -> Result<ImportanceContext<'a>> {
    let Needs::Gradients { batches } = settings.criterion.needs() else { return Ok(ImportanceContext::new(model)) };
    let Some(source) = source else {
        let what = format!("{} needs gradients, and there is no data to take them over", settings.criterion.kind());
        return Err(Fault::new("criterion", what).hint("prune with a data set, or by magnitude").into());
    };
    let weights: Vec<_> = list.iter().map(|c| c.weight).collect();
    let gradients = gradient_moments(model, source, &weights, batches)?;
    Ok(ImportanceContext { gradients, ..ImportanceContext::new(model) })
}

/// A weight's elements with their importance.
struct Layer {
    /// Which elements may be pruned: those that are not zero without a mask.
    prunable: Vec<bool>,
    /// Importance of those; infinite for elements that must be kept.
    ranked: Vec<f32>,
    /// Elements that must be kept.
    floor: usize,
    /// Elements that are zero without a mask.
    zeros: usize,
    /// Other elements that are masked already.
    dead: usize,
}

impl Layer {
    fn read(context: &ImportanceContext, criterion: &dyn Criterion, candidate: &Candidate, floor: f64, keep_dead: bool) -> Result<Layer> {
        let importance = ranked(context, criterion, candidate)?;
        let wrong = |source| PruneError::Tensor { weight: candidate.name.clone(), source };
        let tensor = context.model.values.tensor(candidate.weight);
        let weight = tensor.map(|t| t.to_f32_vec().map_err(wrong)).transpose()?.unwrap_or_default();
        let prunable: Vec<bool> = weight.iter().map(|w| *w != 0.0).collect();
        let dead = match context.model.annotations.mask(candidate.weight) {
            Some(mask) => mask.as_slice::<bool>().map_err(wrong)?.iter().zip(&prunable).filter(|(live, p)| !**live && **p).count(),
            None => 0,
        };
        let mut ranked: Vec<f32> = importance.into_iter().zip(&prunable).filter(|(_, p)| **p).map(|(v, _)| v).collect();
        let may_live = if keep_dead { ranked.len() - dead } else { ranked.len() };
        let floor = ((floor * prunable.len() as f64).ceil() as usize).min(may_live);
        let weak = least_important(&ranked, ranked.len() - floor);
        if floor > 0 {
            ranked.iter_mut().zip(weak).filter(|(_, must_live)| *must_live).for_each(|(v, _)| *v = f32::INFINITY);
        }
        let zeros = prunable.len() - ranked.len();
        Ok(Layer { prunable, ranked, floor, zeros, dead })
    }

    /// Number of elements that may be pruned.
    fn most(&self) -> usize {
        self.ranked.len() - self.floor
    }

    /// The mask; `alive` holds it for the elements that may be pruned, in their order.
    fn mask(&self, alive: &mut impl Iterator<Item = bool>) -> Vec<bool> {
        self.prunable.iter().map(|prunable| *prunable && alive.next().unwrap_or(true)).collect()
    }
}

/// Importance of each element; for masked elements below all others.
fn ranked(context: &ImportanceContext, criterion: &dyn Criterion, candidate: &Candidate) -> Result<Vec<f32>> {
    let mut importance = criterion.importance(context, candidate)?;
    if let Some(at) = importance.iter().position(|v| v.is_nan()) {
        let what = format!("the importance of element {at} is not a number; the weight, or what the criterion reads beside it, holds NaN");
        return Err(PruneError::Weight { weight: candidate.name.clone(), what });
    }
    if let Some(mask) = context.model.annotations.mask(candidate.weight) {
        let mask = mask.as_slice::<bool>().map_err(|source| PruneError::Tensor { weight: candidate.name.clone(), source })?;
        // Importance is never negative, so the negated reciprocal sorts masked elements before the others, in their own order.
        for (value, _) in importance.iter_mut().zip(mask).filter(|(_, live)| !**live) {
            *value = -1.0 / value.abs();
        }
    }
    Ok(importance)
}
