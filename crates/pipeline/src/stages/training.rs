//! Shared code of stages with a training loop: training, progress, and measuring the result.
use super::divergence::{Divergence, advice};
use super::{StageCx, StageError, StageOutput};
use crate::PipelineError;
use crate::actions::{FitOptions, Sources, exported, fit, layers, metric_record, score, settle_biases, settle_norms, weigh};
use crate::run::START;
use distill::DistillationSettings;
use graph::Model;
use prune::channels::GrowingPenalty;
use report::record::{EpochPoint, MetricRecord};
use std::time::Instant;
use train::{EpochRecord, Keep, Participant, TrainError, Watch};

/// Passes the trainer's events on to the run, and keeps the curve.
struct StageWatch<'w, 'a> {
    cx: &'w mut StageCx<'a>,
    epochs: u64,
    epoch_began: Instant,
    images: usize,
    divergence: Divergence,
    metric: MetricRecord,
}

impl Watch for StageWatch<'_, '_> {
    fn step(&mut self, step: u64, steps: u64, loss: f64, samples: usize) {
        self.images += samples;
        self.divergence.step(loss);
        self.cx.progress("train", step, steps, Some(loss));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let mut point = point(record, &self.metric);
        point.images_per_s = Some(self.images as f64 / self.epoch_began.elapsed().as_secs_f64().max(1e-9));
        self.cx.epoch(&point, self.epochs);
        if let Some(warning) = self.divergence.epoch(point.epoch, point.loss) {
            self.cx.note(true, warning);
        }
        if let Some(warning) = self.divergence.stuck(point.epoch, point.loss) {
            self.cx.note(true, warning);
        }
        (self.images, self.epoch_began) = (0, Instant::now());
    }

    fn note(&mut self, text: &str) {
        self.cx.note(false, text);
    }
}

fn point(r: &EpochRecord, metric: &MetricRecord) -> EpochPoint {
    let mut point = EpochPoint { epoch: r.epoch + 1, loss: r.loss, train_accuracy: r.train_accuracy, lr: r.lr, ..EpochPoint::default() };
    point.keep_validation(metric, r.validation);
    point
}

/// Trains `model` if the stage has epochs, and returns the curve. A `teacher` comes with the losses between it and the model.
pub(super) fn train(
    cx: &mut StageCx,
    model: &mut Model,
    teacher: Option<(&Model, &DistillationSettings)>,
    simulate: bool,
    sources: &Sources,
) -> Result<Vec<EpochPoint>, StageError> {
    train_with(cx, model, teacher, simulate, sources, &mut [])
}

/// [`train`], with participants in the training.
pub(super) fn train_with(
    cx: &mut StageCx,
    model: &mut Model,
    teacher: Option<(&Model, &DistillationSettings)>,
    simulate: bool,
    sources: &Sources,
    participants: &mut [&mut dyn Participant],
) -> Result<Vec<EpochPoint>, StageError> {
    let Some(mut training) = cx.training().filter(|t| t.epochs > 0).cloned() else { return Ok(vec![]) };
    let held_out = cx.loaded.recipe.data.as_ref().is_some_and(|d| d.validation > 0.0);
    if training.keep == Keep::Best && held_out && cx.loaded.recipe.pretrained_at(cx.index) {
        training.keep = Keep::Last;
        cx.note(
            true,
            "the last epoch is kept: the network comes from a file and was probably trained on the samples held out of the \
             training data; name unseen ones with data.validation_set to have the best epoch kept",
        );
    }
    if let Some((optimizer, true)) = cx.loaded.recipe.optimizer(cx.index) {
        if cx.loaded.recipe.trained_before(cx.index) {
            let lr = optimizer.lr();
            cx.note(
                false,
                format!(
                    "the recipe names no optimizer: adamw with lr = {lr} is taken, which changes trained weights in small steps; set \
                     optimizer for another"
                ),
            );
        }
        training.optimizer = Some(optimizer);
    }
    let training = &training;
    let options = FitOptions { training, teacher, simulate, seed: cx.seed(), checkpoint: Some(cx.checkpoint()?) };
    let (stop, name) = (cx.stop, cx.name.to_string());
    let metric = metric_record(sources.task().member().as_ref());
    let divergence = Divergence::new(model, sources.task().member().as_ref(), training, teacher.map(|(_, losses)| losses));
    let helps = advice(model, training);
    cx.begin("train");
    let mut watch = StageWatch { cx, epochs: training.epochs, epoch_began: Instant::now(), images: 0, divergence, metric: metric.clone() };
    let mut growing = training.growing_penalty.as_ref().map(GrowingPenalty::new).transpose()?;
    let mut all: Vec<&mut dyn Participant> = participants.iter_mut().map(|p| &mut **p as &mut dyn Participant).collect();
    all.extend(growing.as_mut().map(|p| p as &mut dyn Participant));
    let report = fit(model, &options, sources, &mut watch, stop, &mut all).map_err(|e| match e.downcast_ref::<TrainError>() {
        Some(TrainError::Interrupted) => PipelineError::Interrupted { stage: name }.into(),
        Some(step @ TrainError::Step { .. }) => format!("{step}; {helps}").into(),
        _ => e,
    })?;
    if training.learn_scales.is_on()
        && let Some(stage) = cx.quantize_stage()
    {
        settle_biases(model, &stage, &cx.target())?;
    }
    let epochs = report.history.len() as u64;
    if report.kept + 1 < epochs {
        cx.note(false, format!("epoch {} of {epochs} was kept: the best on the validation samples", report.kept + 1));
    }
    if epochs < training.epochs {
        cx.note(false, format!("stopped after {epochs} of {} epochs: no better on the validation samples", training.epochs));
    }
    Ok(report.history.iter().map(|r| point(r, &metric)).collect())
}

/// Measures a stage's result. Its size is that of the file it would be deployed as.
pub(super) fn measured(cx: &mut StageCx, model: Model, epochs: Vec<EpochPoint>, sources: &Sources) -> Result<StageOutput, StageError> {
    let mut output = figures(cx, model, epochs, sources)?;
    let mut settled = output.model.clone();
    let artifact = settle_norms(&mut settled, cx.quantize_stage().as_ref(), &cx.target())
        .and_then(|_| exported(&settled, sources, &cx.deploy_stage().unwrap_or_default()));
    match artifact {
        Ok(artifact) => output.metrics.file_bytes = Some(artifact.bytes.len() as u64),
        Err(e) => cx.note(false, format!("how large it would be as a deployed file is not known: {e}")),
    }
    Ok(output)
}

/// Measures a model as it is, except for its size.
pub(super) fn figures(cx: &mut StageCx, mut model: Model, epochs: Vec<EpochPoint>, sources: &Sources) -> Result<StageOutput, StageError> {
    cx.check_stop()?;
    // Noted once in a run, with the original model.
    if cx.index == 0 && (cx.name == START || cx.loaded.recipe.begins_with().is_none_or(|m| m.file.is_none())) {
        sources.notes(&model).into_iter().for_each(|note| cx.note(false, note));
    }
    sources.describe(&mut model)?;
    let mut metrics = weigh(&model, sources)?;
    let classes = score(&model, sources, &mut metrics, &mut cx.tick("evaluate"))?;
    if let (Some(nan), Some(images)) = (metrics.nan_images, metrics.images) {
        cx.note(true, format!("{nan} of {images} test samples have NaN among the network's outputs; none of them counts as right"));
    }
    metrics.loss = epochs.last().map(|e| e.loss);
    let layers = layers(&model)?;
    Ok(StageOutput { metrics, layers, epochs, classes, ..StageOutput::new(model) })
}

/// The graph before a stage, which must exist.
pub(super) fn given(input: Option<Model>) -> Result<Model, StageError> {
    input.ok_or_else(|| "there is no graph to work on: give the recipe a [model], or a train stage with a model first".into())
}
