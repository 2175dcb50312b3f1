//! What each layer alone costs at each sparsity: every other layer stays as it is, so that what is measured is its own.
use crate::layer::Layer;
use crate::prune::read_layers;
use crate::{PruneSettings, Result, candidates};
use graph::Model;
use std::collections::BTreeMap;
use technique::Fault;
use tensor::Tensor;
use train::{Batch, Effect, EffectMeter, GradientSource, Harm, Task, TrainError};

/// The effect of one layer's sparsities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerEffects {
    /// The weight's name.
    pub name: String,
    /// Elements that the sparsity is a share of.
    pub elements: usize,
    /// By sparsity, in rising order.
    pub effects: Vec<(f64, Effect)>,
}

/// The effect of each layer's sparsities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PruneSensitivity {
    /// Samples that it was measured on.
    pub samples: usize,
    /// The network as it is.
    pub whole: Effect,
    /// The layers that can be pruned.
    pub layers: Vec<LayerEffects>,
    /// Weights that the granularity or the criterion leaves dense, each with the reason.
    pub dense: Vec<(String, String)>,
}

impl PruneSensitivity {
    /// The curves of harm that [`crate::SensitivityShares`] chooses by; `None` if they need the loss, and the samples had no labels.
    pub fn curves(&self, by: Harm) -> Option<Vec<Curve>> {
        let harm = |effect: &Effect| match by {
            Harm::Noise => Some(effect.noise),
            Harm::Loss => effect.loss.zip(self.whole.loss).map(|(loss, whole)| loss - whole),
        };
        let curve = |layer: &LayerEffects| {
            let points = layer.effects.iter().map(|(sparsity, effect)| Some([*sparsity, harm(effect)?]));
            Some(Curve { weight: layer.name.clone(), points: points.collect::<Option<_>>()? })
        };
        self.layers.iter().map(curve).collect()
    }
}

/// The harm of one layer's sparsities.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// The weight's name.
    pub weight: String,
    /// Sparsity and harm, by rising sparsity.
    pub points: Vec<[f64; 2]>,
}

/// Measures each layer alone at each of `sparsities`, by the criterion and the granularity of the settings; scope, schedule and update have
/// no part in it. What is masked already stays so. A pattern (N:M) has its own sparsity in place of these. A criterion that needs data reads it from `source`. With a `task`,
/// samples that have its targets also give loss and metric. `tick` gets how many runs of a batch are done and, for the batch in hand, all.
///
/// # Errors
/// As [`crate::prune_with`]; without a batch; errors of running the graph and of the task.
pub fn sensitivity(
    model: &Model,
    settings: &PruneSettings,
    sparsities: &[f64],
    source: Option<&GradientSource>,
    task: Option<&dyn Task>,
    batches: impl Iterator<Item = Result<Batch, TrainError>>,
    tick: &mut dyn FnMut(u64, u64),
) -> Result<PruneSensitivity> {
    if let Some(parts) = settings.granularity.parts() {
        let what = format!("each layer is measured alone, and granularity {} takes {} together", settings.granularity.kind(), parts.name);
        return Err(Fault::new("granularity", what).hint("take another granularity").into());
    }
    let list = candidates(model, &settings.skip)?;
    let (layers, dense) = read_layers(model, settings, &list, (source, &BTreeMap::new()), true)?;
    let layers: Vec<_> = layers.into_iter().filter(|(_, layer)| layer.total > 0).collect();
    if layers.is_empty() {
        return Err(Fault::new("skip", "leaves no weight to prune").into());
    }
    let own: Vec<f64> = settings.granularity.sparsity().into_iter().collect();
    let sparsities = if own.is_empty() { sparsities } else { own.as_slice() };
    let mut trials = vec![];
    for (at, (candidate, layer)) in layers.iter().enumerate() {
        for sparsity in sparsities {
            let live = layer.mask(&layer.alone(*sparsity, true));
            let shape = model.values.tensor(candidate.weight).map(|t| t.shape().to_vec()).unwrap_or_default();
            let mut alone = model.clone();
            alone.annotations.entry(candidate.weight).mask = Some(Tensor::new(live, shape).map_err(TrainError::from)?);
            trials.push((at, *sparsity, alone, EffectMeter::new(model, task)));
        }
    }
    let (mut whole, all, mut samples) = (EffectMeter::new(model, task), trials.len() as u64, 0);
    for batch in batches {
        let batch = batch?;
        samples += batch.len();
        let right = whole.run(model, &batch)?;
        whole.add(&right, &right, &batch)?;
        for (done, (_, _, alone, meter)) in trials.iter_mut().enumerate() {
            tick(done as u64, all);
            let got = meter.run(alone, &batch)?;
            meter.add(&right, &got, &batch)?;
        }
    }
    tensor::release_kept();
    if samples == 0 {
        return Err(TrainError::Data("there is no batch to measure sensitivities on".into()).into());
    }
    let effects = |(candidate, layer): &(&crate::Candidate, Layer)| LayerEffects {
        name: candidate.name.clone(),
        elements: layer.total,
        effects: vec![],
    };
    let mut found: Vec<LayerEffects> = layers.iter().map(effects).collect();
    for (at, sparsity, _, meter) in trials {
        found[at].effects.push((sparsity, meter.effect()));
    }
    Ok(PruneSensitivity { samples, whole: whole.effect(), layers: found, dense })
}
