//! Masks for a sparsity: the least important elements are pruned.
use crate::layer::{Layer, select};
use crate::schedule::of_round;
use crate::{
    Allocation, Candidate, Criterion, GroupNorm, ImportanceContext, Needs, Parts, PruneError, PruneSettings, Result, ScopeLayer,
    SparsityReport, candidates, report,
};
use graph::{Model, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use technique::Fault;
use tensor::Tensor;
use train::GradientSource;

/// Sets masks so that the given share of the prunable elements is pruned: exactly `round(sparsity * total)` of them (fewer where
/// `min_per_layer` forbids more), ties broken by position. Elements that are masked already are pruned first, so that pruning in
/// steps restores none without need. A criterion with several rounds restores none at all.
///
/// Elements that are zero without a mask (a filter bank, a network that was pruned elsewhere) do not count in the total:
/// otherwise they would use up the requested share. They are masked too, so that they stay zero, and counted separately in the
/// report. A layer of zeros only, which may be a deliberate start, is left as it is.
///
/// Groups of elements (see [`crate::Granularity`]) are counted by their elements, and taken while they come nearest to the share. In
/// them an element that is masked already stays so. A pattern (N:M) reaches its own sparsity.
///
/// The weights that live keep their values, unless the settings have an update.
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
    if settings.criterion.needs() == Needs::Movement {
        let what = format!("{} is known only while a network trains, and this prunes at once", settings.criterion.kind());
        return Err(Fault::new("criterion", what).hint("take a gradual schedule in a stage that trains, or another criterion").into());
    }
    let (target, rounds) = (settings.target(), settings.criterion.rounds().max(1));
    let mut report = SparsityReport::default();
    for round in 1..=rounds {
        report = to_sparsity(model, settings, of_round(target, round, rounds), (source, &BTreeMap::new()), rounds > 1)?;
    }
    if settings.update.needs_data() {
        let Some(source) = source else {
            let what = format!("{} needs data, and there is none to run", settings.update.kind());
            return Err(Fault::new("update", what).hint("prune with a data set, or leave update out").into());
        };
        report.notes.extend(settings.update.apply(model, &settings.skip, source)?);
    }
    Ok(report)
}

/// Sets masks for `sparsity` in place of that of the settings. `movement` is what the training so far did to each weight. With `keep_dead`,
/// no masked element is restored, even where the sparsity or `min_per_layer` would ask for it.
pub(crate) fn to_sparsity(
    model: &mut Model,
    settings: &PruneSettings,
    sparsity: f64,
    (source, movement): (Option<&GradientSource>, &BTreeMap<ValueId, Vec<f32>>),
    keep_dead: bool,
) -> Result<SparsityReport> {
    let list = candidates(model, &settings.skip)?;
    if list.is_empty() {
        return Err(Fault::new("skip", "leaves no weight to prune").into());
    }
    let (layers, dense) = read_layers(model, settings, &list, (source, movement), keep_dead)?;
    let whole = sparsity >= settings.target();
    let live: Vec<Vec<bool>> = match settings.scope.allocate(&sizes(model, &layers), sparsity).map_err(|fault| fault.under("scope"))? {
        Allocation::Together => together(&layers, sparsity, whole, settings.granularity.norm()),
        Allocation::Shares(shares) => layers.iter().zip(shares).map(|((_, layer), share)| layer.alone(share, whole)).collect(),
    };
    let notes = parts_left(settings, &layers, &live).into_iter().collect();
    let zero_before = layers.iter().map(|(_, l)| l.zeros).sum();
    let (mut emptied, mut masks) = (vec![], vec![]);
    for ((candidate, layer), live) in layers.iter().zip(live) {
        if layer.total == 0 {
            continue;
        }
        let live = layer.mask(&live);
        if !live.contains(&true) && layer.part.is_none() {
            emptied.push(candidate.name.clone());
        }
        masks.push((candidate.weight, candidate.name.clone(), live));
    }
    for (weight, name, live) in masks {
        let shape = model.values.tensor(weight).map(|t| t.shape().to_vec()).unwrap_or_default();
        let mask = Tensor::new(live, shape).map_err(|source| PruneError::Tensor { weight: name, source })?;
        model.annotations.entry(weight).mask = Some(mask);
    }
    Ok(SparsityReport { zero_before, emptied, dense, notes, ..report(model, &list) })
}

/// The candidates with their units, ranked; and those that stay dense, each with the reason.
#[allow(clippy::type_complexity)]
pub(crate) fn read_layers<'c>(
    model: &Model,
    settings: &PruneSettings,
    list: &'c [Candidate],
    (source, movement): (Option<&GradientSource>, &BTreeMap<ValueId, Vec<f32>>),
    keep_dead: bool,
) -> Result<(Vec<(&'c Candidate, Layer)>, Vec<(String, String)>)> {
    let criterion: &dyn Criterion = &*settings.criterion;
    let context = ImportanceContext { movement: movement.clone(), ..ImportanceContext::gather(model, &settings.criterion, list, source)? };
    let (mut layers, mut dense) = (vec![], vec![]);
    let parts = match settings.granularity.parts() {
        Some(parts) => (parts.of)(model)?,
        None => BTreeMap::new(),
    };
    if let Some(Parts { name, .. }) = settings.granularity.parts().filter(|_| parts.is_empty()) {
        return Err(Fault::new("granularity", format!("the network has no {name}")).hint("take another granularity").into());
    }
    for candidate in list {
        let part = parts.get(&candidate.weight).copied();
        let read = match settings.granularity.parts().filter(|_| part.is_none()) {
            Some(Parts { outside, .. }) => Err(outside.to_string()),
            None => Layer::read(&context, criterion, candidate, settings, keep_dead, part)?,
        };
        match read {
            Ok(layer) => layers.push((candidate, layer)),
            Err(why) => dense.push((candidate.name.clone(), why)),
        }
    }
    // A part with a weight that stays dense stays as a whole.
    let read: BTreeSet<ValueId> = layers.iter().map(|(candidate, _): &(&Candidate, Layer)| candidate.weight).collect();
    let spared: BTreeMap<usize, &str> = parts
        .iter()
        .filter(|(weight, _)| !read.contains(weight))
        .map(|(weight, part)| (*part, model.values[*weight].name.as_str()))
        .collect();
    layers.retain(|(candidate, layer)| {
        let why = layer.part.and_then(|part| spared.get(&part));
        dense.extend(why.map(|other| (candidate.name.clone(), format!("it goes with '{other}', which stays dense"))));
        why.is_none()
    });
    Ok((layers, dense))
}

/// Chooses among all layers together; for each which of its units live. The units of layers of one part are one.
fn together(layers: &[(&Candidate, Layer)], sparsity: f64, whole: bool, norm: GroupNorm) -> Vec<Vec<bool>> {
    let sum = |of: fn(&Layer) -> usize| layers.iter().map(|(_, l)| of(l)).sum::<usize>();
    let budget = if whole && layers.iter().any(|(_, l)| l.pattern) {
        usize::MAX
    } else {
        Layer::budget(sparsity, sum(|l| l.total), sum(|l| l.dead))
    };
    // For each part the importance of its weights with their numbers of elements, and how many of these may still be pruned.
    let mut parts = BTreeMap::<usize, (Vec<(f32, usize)>, usize)>::new();
    for (_, layer) in layers {
        let Some(part) = layer.part else { continue };
        let (units, open) = parts.entry(part).or_default();
        units.extend(layer.ranked.iter().map(|v| (*v, layer.len())));
        *open += layer.each().sum::<usize>();
    }
    let free = || layers.iter().map(|(_, l)| l).filter(|l| l.part.is_none());
    let joined: Vec<f32> =
        free().flat_map(|l| l.ranked.iter().copied()).chain(parts.values().map(|(units, _)| norm.joined(units))).collect();
    let sizes: Option<Vec<usize>> = layers
        .iter()
        .any(|(_, l)| l.sizes.is_some())
        .then(|| free().flat_map(Layer::each).chain(parts.values().map(|(_, open)| *open)).collect());
    let mut alive = select(&joined, sizes.as_deref(), budget, sum(Layer::most), whole && !parts.is_empty());
    let of_parts: BTreeMap<usize, bool> = parts.keys().copied().zip(alive.split_off(alive.len() - parts.len())).collect();
    let mut alive = alive.into_iter();
    let of = |layer: &Layer| match layer.part {
        Some(part) => vec![of_parts.get(&part).copied().unwrap_or(true); layer.ranked.len()],
        None => alive.by_ref().take(layer.ranked.len()).collect(),
    };
    layers.iter().map(|(_, layer)| layer).map(of).collect()
}

/// How many parts of the network are left, and whose weights are gone.
fn parts_left(settings: &PruneSettings, layers: &[(&Candidate, Layer)], live: &[Vec<bool>]) -> Option<String> {
    let name = settings.granularity.parts()?.name;
    let mut parts = BTreeMap::<usize, (bool, Vec<&str>)>::new();
    for ((candidate, layer), live) in layers.iter().zip(live) {
        let (lives, weights) = parts.entry(layer.part?).or_default();
        // A layer of zeros only is left as it is.
        *lives |= live.contains(&true) || layer.total == 0;
        weights.push(&candidate.name);
    }
    let gone: Vec<String> = parts.values().filter(|(lives, _)| !lives).map(|(_, weights)| weights.join(" + ")).collect();
    let list = match gone.is_empty() {
        true => ", each is too large for this sparsity".to_string(),
        false => format!(", gone: {}", gone.join("; ")),
    };
    Some(format!("{} of {} {name} are left{list}", parts.len() - gone.len(), parts.len())).filter(|_| !parts.is_empty())
}

/// The layers as a scope sees them.
fn sizes<'a>(model: &'a Model, layers: &'a [(&Candidate, Layer)]) -> Vec<ScopeLayer<'a>> {
    let size = |(candidate, layer): &'a (&Candidate, Layer)| ScopeLayer {
        name: &candidate.name,
        elements: layer.total,
        shape: model.values.tensor(candidate.weight).map(|t| t.shape()).unwrap_or_default(),
        view: candidate.view.as_ref(),
        place: candidate.place,
    };
    layers.iter().map(size).collect()
}
