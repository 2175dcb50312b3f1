//! What a change does to a network: to its outputs, its loss and its metric.
use crate::{Batch, Executor, Mode, Objective, Overrides, Reads, Score, Task, TrainError};
use graph::{Model, ValueId};
use std::collections::HashMap;
use tensor::{SignalToNoise, Tensor};

/// What a choice among changes goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// Power of the change of the outputs over that of the outputs. Needs no labels.
    #[default]
    Noise,
    /// Rise of the loss. Needs labels.
    Loss,
}

/// What a change does to a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effect {
    /// Power of the change of the outputs over that of the outputs without it, averaged over the outputs: 0.01 is a signal to noise of 20 dB.
    pub noise: f64,
    /// Mean loss, where the samples have targets.
    pub loss: Option<f64>,
    /// The task's main metric, where the samples have targets.
    pub metric: Option<f64>,
}

/// Measures the effect of a change, batch after batch: outputs beside those of the network as it was, and the task's loss and metric.
pub struct EffectMeter<'t> {
    task: Option<&'t dyn Task>,
    outputs: Vec<(ValueId, SignalToNoise)>,
    objective: Option<Box<dyn Objective>>,
    score: Option<Box<dyn Score>>,
    /// Sum of the losses of samples, and how many they are.
    loss: (f64, usize),
    /// Mean loss of each batch.
    losses: Vec<f64>,
}

impl<'t> EffectMeter<'t> {
    /// For a network of these outputs. With a `task`, samples that have its targets also give loss and metric.
    pub fn new(model: &Model, task: Option<&'t dyn Task>) -> Self {
        // A network that the task cannot score has no labels to be judged by.
        let parts = task.and_then(|t| Some((t.loss(model, 0.0).ok()?, t.score(model, Reads::Graph).ok()?)));
        let (objective, score) = parts.unzip();
        let outputs = model.graph.outputs.iter().map(|v| (*v, SignalToNoise::default())).collect();
        EffectMeter { task, outputs, objective, score, loss: (0.0, 0), losses: vec![] }
    }

    /// Runs a network in simulation: its outputs and what the task reads, without rows that do not count.
    ///
    /// # Errors
    /// Errors of running the graph.
    pub fn run(&self, model: &Model, batch: &Batch) -> Result<HashMap<ValueId, Tensor>, TrainError> {
        let mut taps: Vec<ValueId> = self.outputs.iter().map(|(v, _)| *v).collect();
        taps.extend(self.objective.iter().flat_map(|o| o.taps()).chain(self.score.iter().flat_map(|s| s.taps())));
        let out = Executor::with_taps(model, &taps)?.run_with(&batch.inputs, &Overrides::default(), Mode::SIMULATED, None)?;
        batch.counted_values(out.values)
    }

    /// Adds a batch: the values of the network as it was, and as it is.
    ///
    /// # Errors
    /// Errors of the task.
    pub fn add(&mut self, right: &HashMap<ValueId, Tensor>, got: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<(), TrainError> {
        for (id, sum) in &mut self.outputs {
            let (Some(right), Some(got)) = (right.get(id), got.get(id)) else { continue };
            if right.dtype().is_float() && got.shape() == right.shape() {
                let of = SignalToNoise::of(right, got)?;
                (sum.signal, sum.noise) = (sum.signal + of.signal, sum.noise + of.noise);
            }
        }
        let labelled = self.task.is_some_and(|t| batch.targets.contains_key(t.target()));
        if let (true, Some(objective), Some(score)) = (labelled, &self.objective, &mut self.score) {
            let loss = objective.loss(got, batch)?.to_f32_vec()?;
            let loss = f64::from(loss.first().copied().unwrap_or(f32::NAN));
            self.losses.push(loss);
            self.loss.0 += loss * batch.len() as f64;
            self.loss.1 += batch.len();
            score.add(got, batch)?;
        }
        Ok(())
    }

    /// Mean loss of each batch, where samples have targets.
    pub fn losses(&mut self) -> Vec<f64> {
        std::mem::take(&mut self.losses)
    }

    /// The effect over all batches.
    pub fn effect(self) -> Effect {
        let ratios: Vec<f64> = self.outputs.iter().filter(|(_, s)| s.signal > 0.0).map(|(_, s)| s.noise / s.signal).collect();
        let labelled = self.loss.1 > 0;
        Effect {
            noise: ratios.iter().sum::<f64>() / ratios.len().max(1) as f64,
            loss: labelled.then(|| self.loss.0 / self.loss.1 as f64),
            metric: self.score.filter(|_| labelled).map(|s| s.value()),
        }
    }
}
