//! Shares of layers: how sensitive the network is to each layer's sparsity, and a scope that knows it.
use super::prune::gradients;
use super::{CompressOn, Tick, metric_record};
use crate::StageError;
use crate::run_dir::{Cache, Key};
use graph::Model;
use prune::{Allocation, Curve, LayerEffects, Place, PruneSensitivity, PruneSettings, Scope, ScopeLayer, Scopes, sensitivity};
use report::record::{MetricRecord, PruneSensitivityRecord, PrunedLayer, SCHEMA_VERSION, SharesRecord, SparsityEffect, readable};
use report::text;
use technique::Choice;
use train::{Batches, Effect, Harm, LoaderBatches};

/// The cache's name for tables of sensitivities to pruning.
const KIND: &str = "prune_sensitivity";

/// How sensitive a network is to the sparsity of each layer alone, by the settings of a prune stage. The network stays as it is.
///
/// # Errors
/// Errors of the settings, the data or the graph.
pub fn prune_sensitivities(
    model: &Model,
    settings: &PruneSettings,
    (sparsities, samples): (&[f64], usize),
    on: &CompressOn,
    tick: Tick,
) -> Result<PruneSensitivityRecord, StageError> {
    let sources = on.sources;
    let (data, taken_from, labelled) = sources.judging(model, samples, on.training.batch, (on.seed, 0))?;
    let entry = on.cache.map(|cache| Ok::<_, StageError>((cache, key(&cache, model, settings, sparsities, on, &data)?))).transpose()?;
    if let Some(known) = entry.as_ref().and_then(|(cache, key)| cache.get(KIND, key)) {
        return Ok(known);
    }
    let task = sources.task().member();
    let judge = labelled.then(|| task.as_ref());
    let mut batch = 0;
    let mut step = |done: u64, all: u64| {
        batch += u64::from(done == 0);
        tick((batch - 1) * all + done, data.batches() * all);
    };
    let criterion = settings.criterion.needs().reads_data();
    let found = gradients(model, on, criterion, &mut |source| {
        Ok(sensitivity(model, settings, sparsities, source, judge, data.epoch(0), &mut step)?)
    })?;
    let record = record(&found, settings, taken_from, labelled.then(|| metric_record(task.as_ref())));
    if let Some((cache, key)) = entry {
        cache.put(KIND, &key, &record)?;
    }
    Ok(record)
}

/// The settings with a scope that knows what each layer costs, if the scope wants to know: measured now. Also the record of the shares, and
/// a sentence for the user.
///
/// # Errors
/// As [`prune_sensitivities`]; for a sparsity that the measured shares do not reach.
#[allow(clippy::type_complexity)]
pub fn measure_scope(
    model: &Model,
    settings: &PruneSettings,
    on: &CompressOn,
    tick: Tick,
) -> Result<Option<(PruneSettings, SharesRecord, String)>, StageError> {
    let Some(wanted) = settings.scope.measure() else { return Ok(None) };
    let table = prune_sensitivities(model, settings, (wanted.sparsities, wanted.samples), on, tick)?;
    let scope = known_scope(&settings.scope, &table)?;
    let sparsity = settings.target();
    let chosen = shares(&*scope, &table, sparsity)?;
    let [least, most] = [f64::min, f64::max].map(|f: fn(f64, f64) -> f64| chosen.iter().copied().reduce(f).unwrap_or_default());
    let note = format!(
        "shares of {} layers by what each alone costs on {} {}: {} to {}",
        chosen.len(),
        table.samples,
        table.taken_from,
        text::percent(least),
        text::percent(most)
    );
    let settings = PruneSettings { scope, ..settings.clone() };
    Ok(Some((settings, SharesRecord { sparsity, sensitivity: table, chosen }, note)))
}

/// A scope with the harm of a table.
///
/// # Errors
/// If it goes by the loss, and the table has none.
pub(crate) fn known_scope(scope: &Choice<Scopes>, table: &PruneSensitivityRecord) -> Result<Choice<Scopes>, StageError> {
    let by = scope.measure().map_or(Harm::Noise, |wanted| wanted.by);
    let curves: Vec<Curve> = of_record(table).curves(by).ok_or_else(|| {
        StageError::from("scope.by = \"loss\" needs samples with labels, and there are none: leave it out, or name labelled data")
    })?;
    Ok(scope.measured(curves).map_err(|fault| fault.under("scope").to_string())?.unwrap_or_else(|| scope.clone()))
}

/// The share of each row at a sparsity of all.
fn shares(scope: &dyn Scope, table: &PruneSensitivityRecord, sparsity: f64) -> Result<Vec<f64>, StageError> {
    let layer = |l: &PrunedLayer| (l.weight.clone(), l.elements as usize);
    let layers: Vec<(String, usize)> = table.layers.iter().map(layer).collect();
    let seen: Vec<ScopeLayer> = layers
        .iter()
        .map(|(name, elements)| ScopeLayer { name, elements: *elements, shape: &[], view: None, place: Place::Inner })
        .collect();
    match scope.allocate(&seen, sparsity).map_err(|fault| fault.under("scope").to_string())? {
        Allocation::Shares(shares) => Ok(shares),
        Allocation::Together => Ok(vec![]),
    }
}

fn key(
    cache: &Cache,
    model: &Model,
    settings: &PruneSettings,
    sparsities: &[f64],
    on: &CompressOn,
    data: &LoaderBatches,
) -> Result<Key, StageError> {
    let options = data.options();
    let rows: Vec<u8> = options.rows.iter().flat_map(|rows| rows.iter()).flat_map(|r| (*r as u64).to_le_bytes()).collect();
    let how = (&settings.criterion, &settings.granularity, settings.min_per_layer, &settings.skip, sparsities);
    Ok(cache
        .key()
        .part(KIND, onnx::to_bytes(model)?)
        .part("settings", serde_json::to_string(&how)?)
        .part("training", serde_json::to_string(&(on.seed, on.training.batch, on.training.label_smoothing))?)
        .part("set", data.dataset().path().display().to_string())
        .part("rows", rows)
        .part("preprocess", serde_json::to_string(&options.preprocess)?)
        .finish())
}

fn record(
    found: &PruneSensitivity,
    settings: &PruneSettings,
    taken_from: String,
    measured: Option<MetricRecord>,
) -> PruneSensitivityRecord {
    let effect = |(sparsity, e): &(f64, Effect)| SparsityEffect {
        sparsity: *sparsity,
        noise: readable(e.noise),
        loss: e.loss.map(readable),
        metric: e.metric,
    };
    let layers = found.layers.iter().map(|layer| PrunedLayer {
        weight: layer.name.clone(),
        elements: layer.elements as u64,
        sparsities: layer.effects.iter().map(effect).collect(),
    });
    let by = match settings.granularity == Choice::default() {
        true => settings.criterion.to_string(),
        false => format!("{}, granularity {}", settings.criterion, settings.granularity),
    };
    PruneSensitivityRecord {
        schema_version: SCHEMA_VERSION,
        name: String::new(),
        by,
        samples: found.samples as u64,
        taken_from,
        measured: measured.filter(|_| found.whole.metric.is_some()),
        whole_loss: found.whole.loss,
        whole_metric: found.whole.metric,
        layers: layers.collect(),
        dense: found.dense.clone(),
    }
}

/// What was measured, from its record.
fn of_record(table: &PruneSensitivityRecord) -> PruneSensitivity {
    let effect = |s: &SparsityEffect| (s.sparsity, Effect { noise: s.noise, loss: s.loss, metric: s.metric });
    let layer = |l: &PrunedLayer| LayerEffects {
        name: l.weight.clone(),
        elements: l.elements as usize,
        effects: l.sparsities.iter().map(effect).collect(),
    };
    PruneSensitivity {
        samples: table.samples as usize,
        whole: Effect { noise: 0.0, loss: table.whole_loss, metric: table.whole_metric },
        layers: table.layers.iter().map(layer).collect(),
        dense: table.dense.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harm_beyond_all_numbers_comes_back_from_json() {
        let effect = |noise, loss| Effect { noise, loss: Some(loss), metric: None };
        let effects = vec![(0.5, effect(0.25, 1.5)), (0.8, effect(f64::INFINITY, f64::NAN))];
        let layers = vec![LayerEffects { name: "w".into(), elements: 4, effects }];
        let found = PruneSensitivity { samples: 8, whole: effect(0.0, 1.0), layers, dense: vec![] };
        let table = record(&found, &PruneSettings::new(0.5), "samples".into(), None);
        let back: PruneSensitivityRecord = serde_json::from_str(&serde_json::to_string(&table).unwrap()).unwrap();
        assert_eq!(back, table);
        for by in [Harm::Noise, Harm::Loss] {
            let points = of_record(&back).curves(by).unwrap()[0].points.clone();
            assert!(points[0][1] < 1.0 && points[1][1] > 1e29, "{points:?}");
        }
    }
}
