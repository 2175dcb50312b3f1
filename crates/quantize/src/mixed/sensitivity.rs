//! What each group alone costs at each width: everything else stays float, so that what is measured is its own.
use super::{Fitted, Layers};
use crate::{QuantizeError, Result};
use graph::{Model, ValueId};
use std::collections::{BTreeMap, HashMap};
use tensor::{SignalToNoise, Tensor};
use train::{Batch, Executor, Mode, Objective, Overrides, Reads, Score, Task, TrainError};

/// What a change does to a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effect {
    /// Power of the change of the outputs over that of the float outputs, averaged over the outputs: 0.01 is a signal to noise of 20 dB.
    pub noise: f64,
    /// Mean loss, where the samples have targets.
    pub loss: Option<f64>,
    /// The task's main metric, where the samples have targets.
    pub metric: Option<f64>,
}

/// The effect of each group at each width.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sensitivity {
    /// Samples that it was measured on.
    pub samples: usize,
    /// The float network.
    pub float: Effect,
    /// By group, then by width.
    pub groups: Vec<BTreeMap<u32, Effect>>,
}

/// Measures each group alone at each width of `fitted`, on samples that no range was computed from if possible. `model` is the float
/// network (with masks). With a `task`, samples that have its targets also give loss and metric. `tick` gets how many runs of a batch are
/// done and, for the batch in hand, all.
///
/// # Errors
/// [`QuantizeError::NoData`] without a batch; errors of running the graph and of the task.
pub fn sensitivity(
    model: &Model,
    layers: &Layers,
    fitted: &Fitted,
    task: Option<&dyn Task>,
    batches: impl Iterator<Item = Result<Batch, TrainError>>,
    tick: &mut dyn FnMut(u64, u64),
) -> Result<Sensitivity> {
    let mut float = model.clone();
    float.annotations.iter_mut().for_each(|(_, a)| a.encoding = None);
    let trials: Vec<(usize, u32)> = (0..layers.groups.len()).flat_map(|g| fitted.0.keys().map(move |w| (g, *w))).collect();
    let mut judged = Judge::new(model, task);
    let mut judges: Vec<Judge> = trials.iter().map(|_| Judge::new(model, task)).collect();
    let (mut samples, mut done) = (0, 0);
    for batch in batches {
        let batch = batch?;
        samples += batch.len();
        let right = judged.run(&float, &batch)?;
        judged.add(&right, &right, &batch)?;
        for ((group, width), judge) in trials.iter().zip(&mut judges) {
            tick(done % trials.len() as u64, trials.len() as u64);
            let alone = alone(&float, layers, *group, &fitted.0[width]);
            let got = judge.run(&alone, &batch)?;
            judge.add(&right, &got, &batch)?;
            done += 1;
        }
    }
    tensor::release_kept();
    if samples == 0 {
        return Err(QuantizeError::NoData);
    }
    let mut groups = vec![BTreeMap::new(); layers.groups.len()];
    for ((group, width), judge) in trials.into_iter().zip(judges) {
        groups[group].insert(width, judge.effect());
    }
    Ok(Sensitivity { samples, float: judged.effect(), groups })
}

/// The float network with one group in the encodings of a fitted one.
fn alone(float: &Model, layers: &Layers, group: usize, fitted: &Model) -> Model {
    let mut model = float.clone();
    let group = &layers.groups[group];
    for id in group.weights.iter().chain(&group.activations) {
        model.annotations.entry(*id).encoding = fitted.annotations.encoding(*id).cloned();
    }
    model
}

pub(crate) type Values = HashMap<ValueId, Tensor>;

/// Adds up what is measured of one network.
pub(crate) struct Judge<'t> {
    task: Option<&'t dyn Task>,
    outputs: Vec<(ValueId, SignalToNoise)>,
    objective: Option<Box<dyn Objective>>,
    score: Option<Box<dyn Score>>,
    /// Sum of the losses of samples, and how many they are.
    loss: (f64, usize),
    /// Mean loss of each batch.
    losses: Vec<f64>,
}

impl<'t> Judge<'t> {
    pub(crate) fn new(model: &Model, task: Option<&'t dyn Task>) -> Self {
        // A network that the task cannot score has no labels to be judged by.
        let parts = task.and_then(|t| Some((t.loss(model, 0.0).ok()?, t.score(model, Reads::Graph).ok()?)));
        let (objective, score) = parts.unzip();
        let outputs = model.graph.outputs.iter().map(|v| (*v, SignalToNoise::default())).collect();
        Judge { task, outputs, objective, score, loss: (0.0, 0), losses: vec![] }
    }

    pub(crate) fn run(&self, model: &Model, batch: &Batch) -> Result<Values> {
        let mut taps: Vec<ValueId> = self.outputs.iter().map(|(v, _)| *v).collect();
        taps.extend(self.objective.iter().flat_map(|o| o.taps()).chain(self.score.iter().flat_map(|s| s.taps())));
        let out = Executor::with_taps(model, &taps)?.run_with(&batch.inputs, &Overrides::default(), Mode::SIMULATED, None)?;
        Ok(batch.counted_values(out.values)?)
    }

    pub(crate) fn add(&mut self, right: &Values, got: &Values, batch: &Batch) -> Result<()> {
        for (id, sum) in &mut self.outputs {
            let (Some(right), Some(got)) = (right.get(id), got.get(id)) else { continue };
            if right.dtype().is_float() && got.shape() == right.shape() {
                let of = SignalToNoise::of(right, got).map_err(TrainError::from)?;
                (sum.signal, sum.noise) = (sum.signal + of.signal, sum.noise + of.noise);
            }
        }
        let labelled = self.task.is_some_and(|t| batch.targets.contains_key(t.target()));
        if let (true, Some(objective), Some(score)) = (labelled, &self.objective, &mut self.score) {
            let loss = objective.loss(got, batch)?.to_f32_vec().map_err(TrainError::from)?;
            let loss = f64::from(loss.first().copied().unwrap_or(f32::NAN));
            self.losses.push(loss);
            self.loss.0 += loss * batch.len() as f64;
            self.loss.1 += batch.len();
            score.add(got, batch)?;
        }
        Ok(())
    }

    /// Mean loss of each batch, where samples have targets.
    pub(crate) fn losses(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.losses)
    }

    pub(crate) fn effect(self) -> Effect {
        let ratios: Vec<f64> = self.outputs.iter().filter(|(_, s)| s.signal > 0.0).map(|(_, s)| s.noise / s.signal).collect();
        let labelled = self.loss.1 > 0;
        Effect {
            noise: ratios.iter().sum::<f64>() / ratios.len().max(1) as f64,
            loss: labelled.then(|| self.loss.0 / self.loss.1 as f64),
            metric: self.score.filter(|_| labelled).map(|s| s.value()),
        }
    }
}
