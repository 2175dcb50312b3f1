//! The training loop of a stage: the recipe's settings, the data, and a teacher if there is one.
use super::Sources;
use crate::StageError;
use crate::recipe::Training;
use distill::{Hinton, HintonSettings};
use graph::Model;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use train::{Batches, Mode, Objective, Participant, TrainContext, TrainReport, TrainSettings, Watch};

/// What a stage teaches, beside its settings.
pub struct Lesson<'a> {
    /// The settings of the loop.
    pub training: &'a Training,
    /// A teacher, the temperature, and the teacher's weight in the loss.
    pub teacher: Option<(&'a Model, f32, f32)>,
    /// Whether masks and encodings are active.
    pub simulate: bool,
    /// Key of the stage's randomness.
    pub stage: u64,
    /// Where the checkpoint is.
    pub checkpoint: Option<PathBuf>,
}

/// Trains a model in place.
///
/// # Errors
/// What the data, the graph or the loss report; [`train::TrainError::Interrupted`] when asked to stop.
pub fn fit(
    model: &mut Model,
    lesson: &Lesson,
    sources: &Sources,
    watch: &mut dyn Watch,
    stop: &AtomicBool,
    participants: &mut [&mut dyn Participant],
) -> Result<TrainReport, StageError> {
    let t = lesson.training;
    let data = sources.training(model, lesson.stage, t.batch)?;
    let settings = TrainSettings {
        epochs: t.epochs,
        optimizer: t.optimizer.clone().unwrap_or_default(),
        schedule: t.schedule.clone(),
        clip_norm: t.clip_norm,
        freeze: t.freeze.clone(),
        learn_scales: t.learn_scales,
        simulate: lesson.simulate,
        seed: lesson.stage,
        keep: t.keep,
        early_stopping: t.early_stopping,
        better: sources.task().main_metric().better,
        freeze_statistics_from: (t.freeze_statistics > 0).then(|| t.epochs.saturating_sub(t.freeze_statistics)),
        memory: t.memory.map(|m| m.0),
    };
    let validation = sources.validation(model)?;
    let mode = if lesson.simulate { Mode::SIMULATED } else { Mode::FLOAT };
    let task = sources.task().member().as_ref();
    let mut judge = validation.map(|held_out| move |m: &Model| Ok(train::score(task, m, held_out.epoch(0), mode)?.value()));
    let mut around = TrainContext {
        validate: judge.as_mut().map(|j| j as &mut dyn FnMut(&Model) -> Result<f64, train::TrainError>),
        watch,
        checkpoint: lesson.checkpoint.clone(),
        stop: Some(stop),
        participants: participants.iter_mut().map(|p| &mut **p as &mut dyn Participant).collect(),
    };
    let loss = task.loss(model, t.label_smoothing as f32)?;
    let Some((teacher, temperature, alpha)) = lesson.teacher else {
        return Ok(train::train(model, &data, loss.as_ref(), &settings, &mut around)?);
    };
    let hinton = Hinton::new(loss, model, teacher, HintonSettings { temperature, alpha, ..HintonSettings::default() })?;
    hinton.hints.iter().for_each(|hint| around.watch.note(hint));
    let objective: &dyn Objective = &hinton;
    Ok(train::train(model, &data, objective, &settings, &mut around)?)
}
