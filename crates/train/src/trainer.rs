//! The training loop: one step is forward through the annotated graph, loss, backward, update of master weights and of
//! the encodings' own parameters. Masks and quantizers are part of the values, so the loop knows nothing of them.
use crate::checkpoint::Checkpoint;
use crate::loss_parameters::LossParameters;
use crate::objective::{Batch, Objective};
use crate::optimizer::{Optimizer, OptimizerSettings};
use crate::parameters::{self, Parameter, Part};
use crate::recompute::{self, Recomputation};
use crate::schedule::Schedule;
use crate::{Executor, Mode, RunOutput, TrainError, diagnosis};
use graph::{Model, ValueId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use tensor::{Tensor, profile};

/// Which epoch's weights a stage ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The best by the validation split, of equals the last; without a split, the last.
    Best,
    /// The last.
    #[default]
    Last,
}

/// Settings of one training.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSettings {
    /// Passes over the data.
    pub epochs: u64,
    /// Optimizer.
    pub optimizer: OptimizerSettings,
    /// Learning rate over the stage.
    pub schedule: Schedule,
    /// Largest L2 norm of all gradients together; larger ones are scaled down to it.
    pub clip_norm: Option<f64>,
    /// Patterns of parameter names that stay as they are.
    pub freeze: Vec<String>,
    /// Train the encodings' own parameters (scales) too.
    pub learn_scales: bool,
    /// Simulate masks and encodings.
    pub simulate: bool,
    /// Key of the stage's randomness.
    pub seed: u64,
    /// Which epoch to end with.
    pub keep: Keep,
    /// Stop after so many epochs without a better validation figure.
    pub early_stopping: Option<u64>,
    /// Normalizations use and keep their running statistics from this epoch on.
    pub freeze_statistics_from: Option<u64>,
    /// Bytes that a step may hold: weights, gradients, the optimizer's state and activations, as far as they are tensors.
    /// Where they would be more, activations are computed again in the backward pass. Results do not depend on it. Refused on a
    /// GPU, whose memory it does not bound.
    pub memory: Option<u64>,
}

impl Default for TrainSettings {
    fn default() -> Self {
        TrainSettings {
            epochs: 1,
            optimizer: OptimizerSettings::default(),
            schedule: Schedule::default(),
            clip_norm: None,
            freeze: vec![],
            learn_scales: false,
            simulate: true,
            seed: 0,
            keep: Keep::Last,
            early_stopping: None,
            freeze_statistics_from: None,
            memory: None,
        }
    }
}

/// What an epoch brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct EpochRecord {
    /// Epoch of the stage, from 0.
    pub epoch: u64,
    /// Mean loss over its samples.
    pub loss: f64,
    /// Share of its samples that were right while it trained, 0..1.
    pub train_accuracy: Option<f64>,
    /// The validation figure after it (higher is better).
    pub validation: Option<f64>,
    /// Learning rate of its last step.
    pub lr: f64,
}

/// The best epoch so far, of equals the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Which.
    pub epoch: u64,
    /// Its validation figure.
    pub metric: f64,
}

/// Where batches come from. An epoch's batches follow from its number alone.
pub trait Batches {
    /// Batches an epoch has.
    fn batches(&self) -> u64;
    /// The batches of an epoch in order. Those that belong to one step say so: [`crate::Portion::continues`].
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_>;
    /// True if a step has as many runs as samples, or nearly: the model fixes its batch, or each row is a run of its own.
    /// Statistics of such a run mean nothing.
    fn runs_alone(&self) -> bool {
        false
    }
}

/// Hears how a training goes.
pub trait Watch {
    /// After each step.
    fn step(&mut self, _step: u64, _steps: u64, _loss: f64, _samples: usize) {}
    /// After each epoch.
    fn epoch(&mut self, _record: &EpochRecord) {}
    /// Something the user should know.
    fn note(&mut self, _text: &str) {}
}

/// Hears nothing.
pub struct Silent;
impl Watch for Silent {}

/// The surroundings of a training.
pub struct Surroundings<'a> {
    /// Judges a model after an epoch; higher is better.
    pub validate: Option<&'a mut dyn FnMut(&Model) -> Result<f64, TrainError>>,
    /// Hears how it goes.
    pub watch: &'a mut dyn Watch,
    /// Where the checkpoint is kept, and resumed from if it exists.
    pub checkpoint: Option<PathBuf>,
    /// Set to stop after the present step.
    pub stop: Option<&'a AtomicBool>,
}

/// What a training brought.
#[derive(Clone, Debug, Default)]
pub struct TrainReport {
    /// One record an epoch.
    pub history: Vec<EpochRecord>,
    /// The best epoch by validation.
    pub best: Option<Best>,
    /// Epoch whose weights were kept.
    pub kept: u64,
}

/// Trains a model in place.
///
/// # Errors
/// [`TrainError::Step`] for a loss or gradient that is not finite; [`TrainError::Interrupted`] when asked to stop (the
/// last epoch's checkpoint then holds the state); [`TrainError::Setting`] for a setting that cannot be, a memory budget
/// that does not suffice among them; whatever the graph, the data or the disk report.
pub fn train(
    model: &mut Model,
    data: &dyn Batches,
    objective: &dyn Objective,
    settings: &TrainSettings,
    around: &mut Surroundings,
) -> Result<TrainReport, TrainError> {
    settings.optimizer.check()?;
    settings.schedule.check()?;
    refuse_integers(model)?;
    let parameters = parameters::trainable(model, &settings.freeze, settings.learn_scales)?;
    if parameters.is_empty() {
        return Err(TrainError::Setting { setting: "freeze".into(), what: "leaves nothing that trains".into() });
    }
    let mut optimizer = Optimizer::new(settings.optimizer.clone());
    let mut of_loss = LossParameters::of(objective);
    let mut state = Checkpoint::default();
    let names = state_names(model, &parameters);
    if let Some(path) = around.checkpoint.as_ref().filter(|p| p.exists()) {
        state = Checkpoint::load(path)?;
        restore(model, &names, &state.values)?;
        follow_statistics(model)?;
        of_loss.restore(std::mem::take(&mut state.objective))?;
        optimizer.restore(std::mem::take(&mut state.optimizer), state.steps_done);
        around.watch.note(&format!("goes on after epoch {}", state.epochs_done));
    }
    let total = settings.epochs * data.batches();
    let taps = objective.taps();
    let alone = data.runs_alone();
    let mut told = alone;
    if alone {
        around.watch.note(&runs_alone_note(model, "samples run one after the other"));
    }
    let mut recomputation = settings.memory.map(Recomputation::new).transpose()?;
    while state.epochs_done < settings.epochs {
        if stopped_early(&state, settings) {
            break;
        }
        let epoch = state.epochs_done;
        let mut sums = Sums::default();
        let mut batches = data.epoch(epoch);
        while let Some(runs) = next_step(&mut batches)? {
            if runs.len() > 1 && !told {
                around.watch.note(&runs_alone_note(model, "samples of different shapes run one shape after the other"));
                told = true;
            }
            let factor = settings.schedule.factor(state.steps_done, total);
            let training_norms = settings.freeze_statistics_from.is_none_or(|from| epoch < from);
            let mode = Mode {
                training: training_norms && !alone && runs.len() == 1,
                simulate: settings.simulate,
                seed: tensor::random::derive(settings.seed, state.steps_done),
            };
            let forward = |step: recompute::Step| match &mut recomputation {
                Some(within) => within.forward(step, around.watch),
                None => Executor::with_taps(step.model, step.taps)?.run_with(&step.batch.inputs, step.overrides, step.mode, None),
            };
            let loss = step(
                model,
                forward,
                &parameters,
                &taps,
                (objective, &mut of_loss),
                &runs,
                &mut optimizer,
                mode,
                factor,
                settings.clip_norm,
                state.steps_done,
                &mut sums,
            )?;
            sums.lr = settings.optimizer.lr() * factor;
            state.steps_done += 1;
            around.watch.step(state.steps_done, total, loss, runs.iter().map(Batch::len).sum());
            if around.stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
                return Err(TrainError::Interrupted);
            }
        }
        let validation = match &mut around.validate {
            Some(judge) => Some(judge(model)?),
            None => None,
        };
        let record = sums.record(epoch, validation);
        around.watch.epoch(&record);
        state.history.push(record);
        state.epochs_done += 1;
        state.values = snapshot(model, &names)?;
        // Of equals the last: a small held-out split cannot tell them apart, and the later one learned at a lower rate.
        if let Some(metric) = validation
            && state.best.as_ref().is_none_or(|(b, _)| metric >= b.metric)
        {
            state.best = Some((Best { epoch, metric }, state.values.clone()));
        }
        if let Some(path) = &around.checkpoint {
            state.optimizer = optimizer.state().0.clone();
            state.objective = of_loss.state();
            state.save(path)?;
            state.optimizer.clear();
        }
    }
    let best = state.best.as_ref().map(|b| b.0.clone());
    let mut kept = state.epochs_done.saturating_sub(1);
    if settings.keep == Keep::Best
        && let Some((best, values)) = &state.best
    {
        restore(model, &names, values)?;
        follow_statistics(model)?;
        kept = best.epoch;
    }
    ops::mark_kept_norms(model, alone || settings.freeze_statistics_from.is_some_and(|from| kept >= from));
    Ok(TrainReport { history: state.history, best, kept })
}

/// The batches of the next step: one, or the runs that it is cut into.
fn next_step(batches: &mut dyn Iterator<Item = Result<Batch, TrainError>>) -> Result<Option<Vec<Batch>>, TrainError> {
    let mut runs = vec![];
    for batch in batches {
        let batch = batch?;
        let last = !batch.portion.continues;
        runs.push(batch);
        if last {
            break;
        }
    }
    Ok((!runs.is_empty()).then_some(runs))
}

/// What a user should know where samples do not run together.
fn runs_alone_note(model: &Model, what: &str) -> String {
    let mut kinds = std::collections::BTreeSet::new();
    model.graph.visit(&mut |n| {
        if matches!(n.op_type.as_str(), "BatchNormalization" | "Dropout") {
            kinds.insert(n.op_type.clone());
        }
    });
    let mut text = format!("{what}, and a step adds up their gradients: it takes longer than one run on all of them");
    if kinds.contains("BatchNormalization") {
        text += "; BatchNormalization uses its running statistics, and keeps them";
    }
    if kinds.contains("Dropout") {
        text += "; Dropout drops nothing";
    }
    text
}

/// Operators that pass values through integers stop every gradient: a model that holds them is refused by name rather than
/// trained in part.
fn refuse_integers(model: &Model) -> Result<(), TrainError> {
    let mut found = None;
    model.graph.visit(&mut |n| {
        let op = n.op_type.as_str();
        let integers =
            matches!(op, "QuantizeLinear" | "DynamicQuantizeLinear" | "QGemm" | "DynamicQuantizeLSTM") || op.starts_with("QLinear");
        if found.is_none() && integers {
            found = Some(TrainError::Value {
                value: n.label(&model.values),
                what: format!(
                    "{op} computes with integers and lets no gradient through: train the float network that the file was made from, or \
                     lift quantization operators to annotations first, where it has float weights behind them"
                ),
            });
        }
    });
    found.map_or(Ok(()), Err)
}

fn stopped_early(state: &Checkpoint, settings: &TrainSettings) -> bool {
    match (settings.early_stopping, &state.best) {
        (Some(patience), Some((best, _))) => {
            let reached = state.history.iter().find(|r| r.validation == Some(best.metric)).map_or(best.epoch, |r| r.epoch);
            state.epochs_done > reached + patience
        }
        _ => false,
    }
}

#[derive(Default)]
struct Sums {
    loss: f64,
    samples: usize,
    correct: Option<usize>,
    lr: f64,
}

impl Sums {
    fn record(&self, epoch: u64, validation: Option<f64>) -> EpochRecord {
        let n = self.samples.max(1) as f64;
        EpochRecord { epoch, loss: self.loss / n, train_accuracy: self.correct.map(|c| c as f64 / n), validation, lr: self.lr }
    }
}

/// One step of training, in place, on one run or on several whose gradients are added up. Returns the loss.
fn step(
    model: &mut Model,
    mut forward: impl FnMut(recompute::Step) -> Result<RunOutput, TrainError>,
    parameters: &[Parameter],
    taps: &[ValueId],
    (objective, of_loss): (&dyn Objective, &mut LossParameters),
    runs: &[Batch],
    optimizer: &mut Optimizer,
    mode: Mode,
    factor: f64,
    clip_norm: Option<f64>,
    step: u64,
    sums: &mut Sums,
) -> Result<f64, TrainError> {
    let at = |e: tensor::TensorError| TrainError::Step { step, what: e.to_string() };
    let (overrides, mut leaves) = parameters::track(model, parameters)?;
    let objective = &of_loss.track(objective)?;
    leaves.extend(objective.leaves.iter().cloned());
    let samples: usize = runs.iter().map(Batch::len).sum();
    let (mut total, mut updates) = (0.0, vec![]);
    let mut gradients: Vec<Option<Tensor>> = vec![None; leaves.len()];
    for batch in runs {
        let settings = optimizer.settings();
        let out = forward(recompute::Step { model, parameters, optimizer: settings, objective, taps, batch, overrides: &overrides, mode })?;
        updates.extend(out.updates);
        let values = batch.counted_values(out.values)?;
        let loss = profile::section(|| "loss forward".into(), || objective.loss(&values, batch))?;
        let value = loss.to_f32_vec().map_err(at)?.first().copied().unwrap_or(f32::NAN) as f64;
        if !value.is_finite() {
            let place = diagnosis::not_finite(model, parameters, taps, objective, batch, mode);
            return Err(TrainError::Step { step, what: format!("the loss is {value}: the training diverges{place}") });
        }
        sums.loss += value * batch.len() as f64;
        sums.samples += batch.len();
        if let Some(correct) = objective.correct(&values, batch) {
            sums.correct = Some(sums.correct.unwrap_or(0) + correct);
        }
        // The mean over a step's samples is that of its runs, each by its share of them.
        let share = batch.len() as f64 / samples.max(1) as f64;
        total += share * value;
        let mut found = loss.backward().map_err(at)?;
        drop((values, loss));
        for (sum, leaf) in gradients.iter_mut().zip(&leaves) {
            let Some(mut gradient) = found.take(leaf) else { continue };
            if runs.len() > 1 {
                gradient = gradient.mul_scalar(share).map_err(at)?;
            }
            *sum = Some(match sum.take() {
                Some(sum) => sum.add(&gradient).map_err(at)?,
                None => gradient,
            });
        }
    }
    drop((overrides, leaves));
    let place = || {
        let mut places = runs.iter().map(|batch| diagnosis::not_finite(model, parameters, taps, objective, batch, mode));
        places.find(|place| !place.is_empty()).unwrap_or_default()
    };
    let clip = clip_factor(&gradients, clip_norm, step, place)?;
    optimizer.begin_step();
    of_loss.update(optimizer, gradients.drain(parameters.len()..), clip, factor)?;
    for (p, gradient) in parameters.iter().zip(gradients) {
        let Some(mut gradient) = gradient else { continue };
        if clip < 1.0 {
            gradient = gradient.mul_scalar(clip).map_err(at)?;
        }
        let mut value = take(model, p)?;
        let before = matches!(p.id.part, Part::Encoding(_)).then(|| value.clone());
        profile::section(|| "update".into(), || optimizer.update(&p.name, p.decays(), &mut value, &gradient, factor))?;
        if let Some(before) = before {
            value = parameters::held(model, p, &before, value)?;
        }
        parameters::put(model, &p.id, value);
    }
    for (id, t) in updates {
        model.values.set_tensor(id, t);
    }
    follow_statistics(model)?;
    Ok(total)
}

/// Weights that are stored folded, while their BatchNormalization stays, follow its running statistics.
fn follow_statistics(model: &mut Model) -> Result<(), TrainError> {
    ops::refresh_kept_norms(model).map_err(|e| TrainError::Value { value: "BatchNormalization".into(), what: e.to_string() })
}

/// Takes a parameter's tensor out of the model, so that the update writes it in place.
fn take(model: &mut Model, p: &Parameter) -> Result<Tensor, TrainError> {
    let value = parameters::get(model, &p.id)?;
    parameters::put(model, &p.id, Tensor::vector(Vec::<f32>::new()));
    Ok(value)
}

/// Factor that brings the norm of all gradients together down to `clip_norm`; checks that they are finite (`place` tells where
/// they are not).
fn clip_factor(gradients: &[Option<Tensor>], clip_norm: Option<f64>, step: u64, place: impl FnOnce() -> String) -> Result<f64, TrainError> {
    let at = |e: tensor::TensorError| TrainError::Step { step, what: e.to_string() };
    let squares = tensor::sum_squares(&gradients.iter().flatten().collect::<Vec<_>>()).map_err(at)?;
    if !squares.is_finite() {
        return Err(TrainError::Step { step, what: format!("a gradient is not finite: the training diverges{}", place()) });
    }
    Ok(clip_norm.map_or(1.0, |limit| (limit / squares.sqrt().max(1e-12)).min(1.0)))
}

/// What a checkpoint holds: parameters, and the running statistics of normalizations.
fn state_names(model: &Model, parameters: &[Parameter]) -> BTreeMap<String, parameters::ParameterId> {
    let mut names: BTreeMap<String, parameters::ParameterId> = parameters.iter().map(|p| (p.name.clone(), p.id.clone())).collect();
    model.graph.visit(&mut |node| {
        let Some(op) = ops::find(&node.domain, &node.op_type) else { return };
        for (i, v) in node.inputs.iter().enumerate() {
            if let Some(v) = v
                && op.role(node, i) == ops::Role::Statistic
                && model.values.tensor(*v).is_some()
            {
                names.insert(model.values[*v].name.clone(), parameters::ParameterId { value: *v, part: Part::Master });
            }
        }
    });
    names
}

fn snapshot(model: &Model, names: &BTreeMap<String, parameters::ParameterId>) -> Result<BTreeMap<String, Tensor>, TrainError> {
    names.iter().map(|(name, id)| Ok((name.clone(), parameters::get(model, id)?))).collect()
}

fn restore(
    model: &mut Model,
    names: &BTreeMap<String, parameters::ParameterId>,
    values: &BTreeMap<String, Tensor>,
) -> Result<(), TrainError> {
    for (name, id) in names {
        let t = values.get(name).ok_or_else(|| TrainError::Value { value: name.clone(), what: "is not in the checkpoint".into() })?;
        parameters::put(model, id, t.clone());
    }
    Ok(())
}
