//! The training loop of a stage, from the recipe's settings, the data, and a teacher if there is one.
use super::Sources;
use crate::StageError;
use crate::recipe::Training;
use distill::{Distillation, DistillationSettings};
use graph::Model;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use train::{Batches, Mode, Participant, TrainContext, TrainReport, TrainSettings, Watch};

/// Settings of a stage's training, with additions of the run.
pub struct FitOptions<'a> {
    /// The settings of the loop.
    pub training: &'a Training,
    /// A teacher, with the losses between it and the model.
    pub teacher: Option<(&'a Model, &'a DistillationSettings)>,
    /// Whether masks and encodings are active.
    pub simulate: bool,
    /// Seed of the stage's random numbers.
    pub seed: u64,
    /// Path of the checkpoint.
    pub checkpoint: Option<PathBuf>,
}

/// Trains a model in place.
///
/// # Errors
/// Errors of the data, the graph or the loss; [`train::TrainError::Interrupted`] when asked to stop.
pub fn fit(
    model: &mut Model,
    options: &FitOptions,
    sources: &Sources,
    watch: &mut dyn Watch,
    stop: &AtomicBool,
    participants: &mut [&mut dyn Participant],
) -> Result<TrainReport, StageError> {
    let t = options.training;
    let data = sources.training(model, options.seed, t.batch)?;
    let settings = TrainSettings {
        epochs: t.epochs,
        optimizer: t.optimizer.clone().unwrap_or_default(),
        schedule: t.schedule.clone(),
        clip_norm: t.clip_norm,
        freeze: t.freeze.clone(),
        learn_scales: t.learn_scales.clone(),
        penalties: t.penalties.clone(),
        simulate: options.simulate,
        seed: options.seed,
        keep: t.keep,
        early_stopping: t.early_stopping,
        better: sources.task().main_metric().better,
        freeze_statistics_from: (t.freeze_statistics > 0).then(|| t.epochs.saturating_sub(t.freeze_statistics)),
        memory: t.memory.map(|m| m.0),
    };
    let validation = sources.validation(model)?;
    let mode = if options.simulate { Mode::SIMULATED } else { Mode::FLOAT };
    let task = sources.task().member().as_ref();
    let mut judge = validation.map(|held_out| move |m: &Model| Ok(train::score(task, m, held_out.epoch(0), mode)?.value()));
    let mut around = TrainContext {
        validate: judge.as_mut().map(|j| j as &mut dyn FnMut(&Model) -> Result<f64, train::TrainError>),
        watch,
        checkpoint: options.checkpoint.clone(),
        stop: Some(stop),
        participants: participants.iter_mut().map(|p| &mut **p as &mut dyn Participant).collect(),
    };
    let loss = task.loss(model, t.label_smoothing as f32)?;
    let Some((teacher, losses)) = options.teacher else {
        return Ok(train::train(model, &data, loss.as_ref(), &settings, &mut around)?);
    };
    let objective = Distillation::new(loss, model, teacher, losses, options.seed)?;
    objective.notes.iter().for_each(|note| around.watch.note(note));
    Ok(train::train(model, &data, &objective, &settings, &mut around)?)
}
