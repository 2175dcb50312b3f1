//! Measurements of a stage's result: size, sparsity, error of each weight, and the task's metrics.
use super::counted::counted;
use super::{Sources, Tick, metric_record};
use crate::StageError;
use deploy::measure::{macs, parameters};
use graph::{Model, ValueId};
use report::record::{ClassRecord, ClassesRecord, Confused, LayerRecord, Metrics};
use std::cell::Cell;
use tensor::{SignalToNoise, Tensor};
use train::{Batch, Confusion, Figures, Mode, Named, TrainError};

/// Size of a model: parameters, those that are nonzero as stored (masked ones are zero, and so are those within half a step of
/// zero), and multiply-accumulates for one sample.
///
/// # Errors
/// Errors of counting, or of running one sample.
pub fn weigh(model: &Model, sources: &Sources) -> Result<Metrics, StageError> {
    let layers = layers(model)?;
    let total: u64 = layers.iter().map(|l| l.elements).sum();
    let zeros: f64 = layers.iter().map(|l| l.sparsity * l.elements as f64).sum();
    let counted = parameters(&as_stored(model)?)?;
    let inputs = sources.one_sample(model)?;
    Ok(Metrics {
        parameters: Some(counted.total),
        nonzeros: Some(counted.nonzero),
        macs: Some(macs_of_one(model, &inputs, sources)?),
        sparsity: (total > 0).then(|| zeros / total as f64),
        ..Metrics::default()
    })
}

/// Multiply-accumulates for one sample, however many a run takes.
pub(super) fn macs_of_one(model: &Model, inputs: &Named, sources: &Sources) -> Result<u64, StageError> {
    Ok(macs(model, inputs)?.total / sources.feeding(model)?.fixed().unwrap_or(1) as u64)
}

/// The model with its annotated constants replaced by their stored values.
fn as_stored(model: &Model) -> Result<Model, StageError> {
    let mut stored = model.clone();
    for (id, annotation) in model.annotations.iter().filter(|(_, a)| !a.is_empty()) {
        if let Some(tensor) = model.values.tensor(id) {
            stored.values.set_tensor(id, encodings::simulate(tensor, annotation)?);
        }
    }
    Ok(stored)
}

/// One record for each weight that may be pruned: its zeros, how it is stored, and what storing it costs.
///
/// # Errors
/// If an encoding cannot be simulated.
pub fn layers(model: &Model) -> Result<Vec<LayerRecord>, StageError> {
    let mut out = vec![];
    for candidate in prune::candidates(model, &[])? {
        let Some(weight) = model.values.tensor(candidate.weight) else { continue };
        out.push(layer(model, candidate.weight, &candidate.name, weight)?);
    }
    Ok(out)
}

fn layer(model: &Model, id: ValueId, name: &str, weight: &Tensor) -> Result<LayerRecord, StageError> {
    let annotation = model.annotations.get(id).cloned().unwrap_or_default();
    let kept = encodings::simulate(weight, &graph::Annotation { mask: annotation.mask.clone(), encoding: None })?.to_f32_vec()?;
    let stored = encodings::simulate(weight, &annotation)?.to_f32_vec()?;
    let zeros = stored.iter().filter(|v| **v == 0.0).count();
    let mut ratio = SignalToNoise::default();
    ratio.add_all(&kept, &stored);
    Ok(LayerRecord {
        name: name.to_string(),
        elements: weight.len() as u64,
        sparsity: zeros as f64 / weight.len().max(1) as f64,
        encoding: annotation.encoding.as_ref().map(encodings::describe),
        sqnr_db: (annotation.encoding.is_some() && ratio.noise > 0.0).then(|| ratio.db()),
    })
}

/// The task's metrics on the test samples, or on `chosen` evenly chosen ones, with annotations simulated; `None` if there are no
/// samples, or they have no targets.
///
/// # Errors
/// Errors of running the model or reading the data; a test set in which only some rows have a target.
pub fn figures(model: &Model, sources: &Sources, chosen: Option<usize>, tick: Tick) -> Result<Option<Figures>, StageError> {
    let Some(test) = sources.some_test(model, chosen)? else { return Ok(None) };
    let target = sources.task().target();
    let unlabelled = Cell::new(false);
    let labelled = |batch: &Result<Batch, TrainError>| {
        let has = batch.as_ref().map_or(true, |b| b.targets.contains_key(target));
        unlabelled.set(!has);
        has
    };
    let batches = counted(&test, tick).take_while(labelled);
    let figures = train::score(sources.task().member().as_ref(), model, batches, Mode::SIMULATED)?.figures();
    let scored = figures.samples > 0;
    if unlabelled.get() && scored {
        let path = test.dataset().path().display().to_string();
        return Err(format!("{path}: some rows have a {target} and some have none: give one to all of them, or to none").into());
    }
    Ok(Some(figures).filter(|_| scored))
}

/// The task's metrics on the test and validation samples, with annotations simulated, and per-class counts on the test samples;
/// absent if there are no such samples, or they have no targets.
///
/// # Errors
/// As [`figures`].
pub fn score(model: &Model, sources: &Sources, metrics: &mut Metrics, tick: Tick) -> Result<Option<ClassesRecord>, StageError> {
    let seen = figures(model, sources, None, tick)?;
    if let Some(figures) = &seen {
        keep(metrics, figures);
    }
    if let Some(held_out) = sources.validation(model)? {
        let task = sources.task();
        let score = train::score(task.member().as_ref(), model, counted(&held_out, tick), Mode::SIMULATED)?;
        metrics.keep_validation(&metric_record(task.member().as_ref()), score.value());
    }
    let names = sources.class_names_for(model)?;
    Ok(seen.and_then(|s| Some(by_class(s.confusion.as_ref()?, &names))))
}

/// Stores the metrics on the test set, with the number of samples.
pub fn keep(metrics: &mut Metrics, figures: &Figures) {
    metrics.keep(&figures.values);
    metrics.intervals = figures.intervals.iter().map(|(key, (low, high))| (key.to_string(), [*low, *high])).collect();
    metrics.images = Some(figures.samples);
    metrics.nan_images = Some(figures.nan).filter(|n| *n > 0);
}

/// The per-class counts as a record.
pub(super) fn by_class(confusion: &Confusion, names: &[String]) -> ClassesRecord {
    let class = |(label, samples): (&usize, &u64)| ClassRecord {
        label: *label as u64,
        name: names.get(*label).cloned(),
        images: *samples,
        correct: confusion.correct_of(*label),
    };
    let pairs = confusion.taken.iter().filter(|((label, taken), _)| label != taken);
    let mut confused: Vec<Confused> =
        pairs.map(|((label, taken), n)| Confused { label: *label as u64, taken_for: *taken as u64, images: *n }).collect();
    confused.sort_by_key(|c| std::cmp::Reverse(c.images));
    let more = confused.len() > ClassesRecord::MOST_PAIRS;
    confused.truncate(ClassesRecord::MOST_PAIRS);
    ClassesRecord { classes: confusion.samples.iter().map(class).collect(), confused, more }
}
