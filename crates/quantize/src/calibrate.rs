//! Calibration: one pass over data, all observers at once, memory bounded by the model and one batch.
use crate::bias::fit_biases;
use crate::error::named;
use crate::observer::{Observer, observer};
use crate::weights::fit_constants;
use crate::{FloatPart, QuantPlan, QuantizeError, QuantizeSettings, Result, plan};
use encodings::affine::fit_range;
use graph::{Model, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use tensor::{DType, Tensor};
use train::{Batch, Executor, Mode, TrainError};

/// The range an activation was given.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ActivationRange {
    /// The value's name.
    pub value: String,
    /// Smallest real that is not clipped.
    pub low: f32,
    /// Largest real that is not clipped.
    pub high: f32,
}

/// What was quantized.
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct CalibrationReport {
    /// Samples seen.
    pub samples: usize,
    /// Constants with a grid.
    pub constants: usize,
    /// Biases in int32.
    pub biases: usize,
    /// Activations with their ranges, in the order of value ids.
    pub activations: Vec<ActivationRange>,
    /// Nodes that stay float, each with its reason.
    pub float_parts: Vec<FloatPart>,
}

/// Quantizes a model: plans, fits weights to themselves, runs the data through the float graph (masks held) to fit the
/// activations, and fits the biases. Encodings that the model has already are replaced; masks stay.
/// BatchNormalization should have been folded.
///
/// # Errors
/// [`QuantizeError::NoData`] without a batch; [`QuantizeError::Value`] for a value that is NaN or infinite, by name;
/// whatever running the graph or the batches report.
pub fn quantize(
    model: &mut Model,
    settings: &QuantizeSettings,
    batches: impl Iterator<Item = std::result::Result<Batch, TrainError>>,
) -> Result<CalibrationReport> {
    if !model.functions.is_empty() {
        *model = graph::inline_functions(model)?;
    }
    let plan = plan(model, settings)?;
    for (_, annotation) in model.annotations.iter_mut() {
        annotation.encoding = None;
    }
    let seen = observe(model, &plan, settings, batches)?;
    fit_constants(model, &plan)?;
    let mut report = CalibrationReport { samples: seen.samples, constants: plan.constants.len(), ..Default::default() };
    for (id, observer) in &seen.observers {
        let name = model.values[*id].name.clone();
        let Some((low, high)) = observer.range() else { continue };
        let encoding = fit_range(low, high, &plan.activations[id]).map_err(named(&name))?;
        model.annotations.entry(*id).encoding = Some(encoding);
        report.activations.push(ActivationRange { value: name, low, high });
    }
    report.biases = fit_biases(model, &plan)?;
    report.float_parts =
        plan.float_parts.into_iter().filter(|(_, outputs)| outputs.iter().any(|v| seen.floats.contains(v))).map(|(p, _)| p).collect();
    model.verify()?;
    Ok(report)
}

/// What a pass over the data showed.
struct Seen {
    observers: BTreeMap<ValueId, Box<dyn Observer>>,
    /// Values that hold floats.
    floats: BTreeSet<ValueId>,
    samples: usize,
}

fn observe(
    model: &Model,
    plan: &QuantPlan,
    settings: &QuantizeSettings,
    batches: impl Iterator<Item = std::result::Result<Batch, TrainError>>,
) -> Result<Seen> {
    let mut seen = Seen { observers: BTreeMap::new(), floats: BTreeSet::new(), samples: 0 };
    for (id, grid) in &plan.activations {
        let levels = u32::try_from(grid.qmax() - grid.qmin() + 1).unwrap_or(u32::MAX);
        seen.observers.insert(*id, observer(&settings.observer, levels)?);
    }
    let executor = Executor::unfused(model)?;
    for batch in batches {
        let batch = batch?;
        let mut failure = None;
        let mut watch = |id: ValueId, tensor: &Tensor| {
            if tensor.dtype().is_float() {
                seen.floats.insert(id);
            }
            if let Some(observer) = seen.observers.get_mut(&id).filter(|_| tensor.dtype() == DType::F32)
                && let Err(what) = observer.update(tensor)
            {
                failure.get_or_insert(QuantizeError::Value { value: model.values[id].name.clone(), what });
            }
        };
        executor.run_observed(&batch.inputs, Mode::SIMULATED, &mut watch)?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        seen.samples += batch.len();
    }
    if seen.samples == 0 {
        return Err(QuantizeError::NoData);
    }
    Ok(seen)
}
