//! Figures of a stage's result: size, sparsity, error of each weight, accuracy.
use super::counted::counted;
use super::{Sources, Tick};
use crate::stages::StageError;
use deploy::measure::{macs, parameters};
use graph::{Model, ValueId};
use report::record::{LayerRecord, Metrics};
use tensor::Tensor;
use train::{Mode, evaluate};

/// What a model weighs: parameters, those that are not zero, multiply-accumulates for one sample; masks count as zeros.
///
/// # Errors
/// What counting or running one sample reports.
pub fn weigh(model: &Model, sources: &Sources) -> Result<Metrics, StageError> {
    let layers = layers(model)?;
    let total: u64 = layers.iter().map(|l| l.elements).sum();
    let zeros: f64 = layers.iter().map(|l| l.sparsity * l.elements as f64).sum();
    let counted = parameters(model)?;
    let masked: u64 = model.annotations.iter().filter_map(|(id, a)| Some(newly_masked(model.values.tensor(id)?, a.mask.as_ref()?))).sum();
    let inputs = sources.one_sample(model)?;
    Ok(Metrics {
        parameters: Some(counted.total),
        nonzeros: Some(counted.nonzero.saturating_sub(masked)),
        // Of one sample, however many a run takes.
        macs: Some(macs(model, &inputs)?.total / sources.feeding(model)?.fixed().unwrap_or(1) as u64),
        sparsity: (total > 0).then(|| zeros / total as f64),
        ..Metrics::default()
    })
}

/// Elements that are not zero but masked.
fn newly_masked(weight: &Tensor, mask: &Tensor) -> u64 {
    let (Ok(w), Ok(m)) = (weight.as_slice::<f32>(), mask.as_slice::<bool>()) else { return 0 };
    w.iter().zip(m).filter(|(w, live)| **w != 0.0 && !**live).count() as u64
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
    let zeros = kept.iter().filter(|v| **v == 0.0).count();
    let signal: f64 = kept.iter().map(|v| f64::from(*v).powi(2)).sum();
    let noise: f64 = kept.iter().zip(&stored).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    Ok(LayerRecord {
        name: name.to_string(),
        elements: weight.len() as u64,
        sparsity: zeros as f64 / weight.len().max(1) as f64,
        encoding: annotation.encoding.as_ref().map(encodings::describe),
        sqnr_db: (annotation.encoding.is_some() && noise > 0.0).then(|| 10.0 * (signal / noise).log10()),
    })
}

/// Accuracy on the test images with annotations simulated; `None` where there are none.
///
/// # Errors
/// What running the model or reading the data reports.
pub fn accuracy(model: &Model, sources: &Sources, tick: Tick) -> Result<Option<f64>, StageError> {
    let Some(test) = sources.test(model)? else { return Ok(None) };
    Ok(Some(evaluate(model, counted(&test, tick), Mode::SIMULATED)?.accuracy()))
}

/// Accuracy on the test and validation images, with annotations simulated; absent where there are no such images.
///
/// # Errors
/// What running the model or reading the data reports.
pub fn score(model: &Model, sources: &Sources, metrics: &mut Metrics, tick: Tick) -> Result<(), StageError> {
    if let Some(test) = sources.test(model)? {
        let score = evaluate(model, counted(&test, tick), Mode::SIMULATED)?;
        metrics.accuracy = Some(score.accuracy());
        metrics.images = Some(score.total as u64);
    }
    if let Some(held_out) = sources.validation(model)? {
        metrics.validation_accuracy = Some(evaluate(model, counted(&held_out, tick), Mode::SIMULATED)?.accuracy());
    }
    Ok(())
}
