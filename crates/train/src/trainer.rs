//! The training loop: epochs of steps, validation, checkpoints, and the choice of the final epoch.
use crate::checkpoint::Checkpoint;
use crate::loss_parameters::LossParameters;
use crate::objective::{Batch, Objective};
use crate::optimizer::{OptimizerState, Optimizers, Sgd};
use crate::parameters::{self, Parameter, Part};
use crate::participant::keys;
use crate::recompute::Recomputation;
use crate::schedule::Schedules;
use crate::step::{Steps, Sums, follow_statistics, follow_weights, share};
use crate::{Batches, Better, LearnScales, Mode, Penalties, StepContext, TrainContext, TrainError, scales};
use graph::Model;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use technique::Choice;
use tensor::Tensor;

/// Which epoch's weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The best by the validation split, the later one of ties; without a split, the last. Epochs in which a participant was not
    /// done yet ([`crate::Participant::settled`]: a sparsity that still rises) are left out.
    Best,
    /// The weights after the last epoch.
    #[default]
    Last,
}

/// Settings of one training.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSettings {
    /// Passes over the data.
    pub epochs: u64,
    /// The optimizer: `Sgd { .. }.choice()?`, or read from a recipe.
    pub optimizer: Choice<Optimizers>,
    /// The learning-rate schedule: `Cosine { .. }.choice()?`, or read from a recipe.
    pub schedule: Choice<Schedules>,
    /// Largest L2 norm of all gradients together; larger ones are scaled down to it.
    pub clip_norm: Option<f64>,
    /// Patterns of parameter names that are not trained.
    pub freeze: Vec<String>,
    /// Whether and how the encodings' own parameters (scales) are trained too: `true.into()` for LSQ.
    pub learn_scales: LearnScales,
    /// Terms of the loss that depend on weights alone.
    pub penalties: Vec<Choice<Penalties>>,
    /// Simulates masks and encodings.
    pub simulate: bool,
    /// Seed of the stage's random numbers.
    pub seed: u64,
    /// Which epoch's weights to keep.
    pub keep: Keep,
    /// Stops after this many epochs without a better validation metric, counted from the first epoch that may be kept.
    pub early_stopping: Option<u64>,
    /// Whether larger or smaller validation metrics are better.
    pub better: Better,
    /// Normalizations use and keep their running statistics from this epoch on.
    pub freeze_statistics_from: Option<u64>,
    /// Memory budget of a step in bytes: weights, gradients, the optimizer's state and activations, as far as they are tensors.
    /// To stay below it, activations are recomputed in the backward pass. Results do not depend on it. Refused on a GPU, whose
    /// memory it does not limit.
    pub memory: Option<u64>,
}

impl Default for TrainSettings {
    fn default() -> Self {
        TrainSettings {
            epochs: 1,
            optimizer: Sgd::for_random_weights(),
            schedule: Choice::default(),
            clip_norm: None,
            freeze: vec![],
            learn_scales: LearnScales::default(),
            penalties: vec![],
            simulate: true,
            seed: 0,
            keep: Keep::Last,
            early_stopping: None,
            better: Better::Higher,
            freeze_statistics_from: None,
            memory: None,
        }
    }
}

/// The results of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
pub struct EpochRecord {
    /// Epoch of the stage, from 0.
    pub epoch: u64,
    /// Mean loss over its samples.
    pub loss: f64,
    /// Share of its samples that were right during training, 0..1.
    pub train_accuracy: Option<f64>,
    /// The validation metric after it.
    pub validation: Option<f64>,
    /// Learning rate of its last step.
    pub lr: f64,
}

/// The best epoch so far; of ties the later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Number of the epoch, from 0.
    pub epoch: u64,
    /// Its validation metric.
    pub metric: f64,
}

/// The results of a training.
#[derive(Clone, Debug, Default)]
pub struct TrainReport {
    /// One record for each epoch.
    pub history: Vec<EpochRecord>,
    /// The best epoch by validation.
    pub best: Option<Best>,
    /// Epoch whose weights were kept.
    pub kept: u64,
}

/// Trains a model in place.
///
/// # Errors
/// [`TrainError::Step`] for a loss or gradient that is not finite; [`TrainError::Interrupted`] when asked to stop (the last
/// epoch's checkpoint then holds the state); [`TrainError::Setting`] for an invalid setting, or a memory budget that does not
/// suffice; errors of the graph, the data, a participant or the disk.
pub fn train(
    model: &mut Model,
    data: &dyn Batches,
    objective: &dyn Objective,
    settings: &TrainSettings,
    context: &mut TrainContext,
) -> Result<TrainReport, TrainError> {
    refuse_integers(model)?;
    let Some(learning) = settings.learn_scales.how() else { return train_prepared(model, data, objective, settings, context) };
    scales::begin(model, learning)?;
    let report = train_prepared(model, data, objective, settings, context);
    scales::settle(model)?;
    report
}

/// Trains a model whose encodings are in the form in which they are learned.
fn train_prepared(
    model: &mut Model,
    data: &dyn Batches,
    objective: &dyn Objective,
    settings: &TrainSettings,
    context: &mut TrainContext,
) -> Result<TrainReport, TrainError> {
    let parameters = parameters::trainable(model, &settings.freeze, settings.learn_scales.is_on())?;
    if parameters.is_empty() {
        return Err(TrainError::Setting { setting: "freeze".into(), what: "leaves nothing that trains".into() });
    }
    let mut optimizer = OptimizerState::new(settings.optimizer.clone());
    let mut of_loss = LossParameters::of(objective);
    let mut state = Checkpoint::default();
    let names = state_names(model, &parameters);
    let keys = keys(&context.participants);
    if let Some(path) = context.checkpoint.as_ref().filter(|p| p.exists()) {
        state = Checkpoint::load(path)?;
        restore(model, &names, &state.values)?;
        for (key, participant) in keys.iter().zip(context.participants.iter_mut()) {
            let missing = || TrainError::Checkpoint { path: path.display().to_string(), what: format!("has no state of '{key}'") };
            participant.restore(model, state.participants.get(key).ok_or_else(missing)?)?;
        }
        follow_statistics(model)?;
        of_loss.restore(std::mem::take(&mut state.objective))?;
        optimizer.restore(std::mem::take(&mut state.optimizer), state.steps_done);
        context.watch.note(&format!("goes on after epoch {}", state.epochs_done));
    }
    let total = settings.epochs * data.batches();
    if settings.simulate {
        follow_weights(model, share(state.steps_done, total))?;
    }
    let alone = data.runs_alone();
    let mut told = alone;
    if alone {
        context.watch.note(&runs_alone_note(model, "samples run one after the other"));
    }
    let recomputation = settings.memory.map(Recomputation::new).transpose()?;
    let mut steps = Steps { optimizer, taps: objective.taps(), of_loss, recomputation };
    let mut cx = StepContext {
        model,
        parameters: &parameters,
        objective,
        data,
        settings,
        epoch: state.epochs_done,
        step: state.steps_done,
        steps: total,
        mode: Mode::default(),
        factor: 1.0,
        watch: &mut *context.watch,
    };
    let participants = context.participants.as_mut_slice();
    while state.epochs_done < settings.epochs {
        if stopped_early(&state, settings) {
            break;
        }
        let epoch = state.epochs_done;
        let mut sums = Sums::default();
        let mut batches = data.epoch(epoch);
        while let Some(runs) = next_step(&mut batches)? {
            if runs.len() > 1 && !told {
                cx.watch.note(&runs_alone_note(cx.model, "samples of different shapes run one shape after the other"));
                told = true;
            }
            let training_norms = settings.freeze_statistics_from.is_none_or(|from| epoch < from);
            cx.mode = Mode {
                training: training_norms && !alone && runs.len() == 1,
                simulate: settings.simulate,
                seed: tensor::random::derive(settings.seed, state.steps_done),
            };
            let place = participants.iter().find_map(|p| p.schedule_place(state.steps_done, total));
            let (at, of) = place.unwrap_or((state.steps_done, total));
            cx.factor = settings.schedule.factor(at, of);
            (cx.epoch, cx.step) = (epoch, state.steps_done);
            let loss = steps.step(&mut cx, participants, &runs, &mut sums)?;
            sums.lr = settings.optimizer.lr() * cx.factor;
            state.steps_done += 1;
            cx.watch.step(state.steps_done, total, loss, runs.iter().map(Batch::len).sum());
            if context.stop.is_some_and(|s| s.load(Ordering::Relaxed)) {
                return Err(TrainError::Interrupted);
            }
        }
        cx.step = state.steps_done;
        for participant in participants.iter_mut() {
            participant.after_epoch(&mut cx)?;
        }
        let validation = match &mut context.validate {
            Some(judge) => Some(judge(cx.model)?),
            None => None,
        };
        let record = sums.record(epoch, validation);
        cx.watch.epoch(&record);
        state.history.push(record);
        state.epochs_done += 1;
        state.values = snapshot(cx.model, &names)?;
        let settled = participants.iter().all(|p| p.settled(&cx));
        if !settled {
            state.settled_from = state.epochs_done;
        }
        // Of ties the later epoch: a small held-out split cannot distinguish them, and the later one was trained at a lower rate.
        if let Some(metric) = validation
            && settled
            && state.best.as_ref().is_none_or(|(b, _)| settings.better.as_good(metric, b.metric))
        {
            state.best = Some((Best { epoch, metric }, state.values.clone()));
        }
        if let Some(path) = &context.checkpoint {
            state.optimizer = steps.optimizer.state().0.clone();
            state.objective = steps.of_loss.state();
            state.participants = keys.iter().cloned().zip(participants.iter().map(|p| p.state(cx.model))).collect();
            state.save(path)?;
            state.optimizer.clear();
            state.participants.clear();
        }
    }
    let best = state.best.as_ref().map(|b| b.0.clone());
    let mut kept = state.epochs_done.saturating_sub(1);
    if settings.keep == Keep::Best
        && !participants.iter().any(|p| p.replaces_weights())
        && let Some((best, values)) = &state.best
    {
        restore(cx.model, &names, values)?;
        follow_statistics(cx.model)?;
        kept = best.epoch;
    }
    for participant in participants.iter_mut() {
        participant.finish(&mut cx)?;
    }
    follow_weights(cx.model, 1.0)?;
    ops::mark_kept_norms(cx.model, alone || settings.freeze_statistics_from.is_some_and(|from| kept >= from));
    Ok(TrainReport { history: state.history, best, kept })
}

/// The batches of the next step: one, or its runs.
pub(crate) fn next_step(batches: &mut dyn Iterator<Item = Result<Batch, TrainError>>) -> Result<Option<Vec<Batch>>, TrainError> {
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

/// A note for the user if samples do not run together.
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

/// Operators that pass values through integers stop every gradient: a model with such operators is refused by name instead of
/// being trained in part.
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
                    "{op} computes with integers and passes no gradient: train the float network that the file was made from, or \
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
            let counted = state.history.iter().filter(|r| r.epoch >= state.settled_from);
            let reached = counted.filter(|r| r.validation == Some(best.metric)).map(|r| r.epoch).next().unwrap_or(best.epoch);
            state.epochs_done > reached + patience
        }
        _ => false,
    }
}

/// The tensors of a checkpoint: parameters, and the running statistics of normalizations.
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
        if let Some(own) = parameters::get(model, id).ok().filter(|own| own.shape() != t.shape()) {
            let what =
                format!("is {:?} in the checkpoint and {:?} in the model: the checkpoint is another model's", t.shape(), own.shape());
            return Err(TrainError::Value { value: name.clone(), what });
        }
        parameters::put(model, id, t.clone());
    }
    Ok(())
}
