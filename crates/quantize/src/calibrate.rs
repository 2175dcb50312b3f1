//! Calibration: one pass over data for all observers, memory bounded by the model and one batch; ranges are concluded from
//! its statistics afterwards, so that another observer or width does not run the data again.
use crate::bias::fit_biases;
use crate::earlier::{Earlier, keep_earlier};
use crate::error::named;
use crate::observer::{self, Statistics};
use crate::weights::fit_constants;
use crate::{FloatPart, QuantizeError, QuantizeSettings, Result, plan};
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
    /// Layers that `skip` leaves out and that keep what an earlier quantization gave them.
    #[serde(default)]
    pub kept: Vec<String>,
}

/// What a pass over the data showed: enough for every observer and width.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Calibration {
    /// Samples seen.
    pub samples: usize,
    /// Statistics of the planned activations, by value id.
    values: BTreeMap<u32, Statistics>,
    /// Ids of the values that hold floats.
    floats: BTreeSet<u32>,
}

/// Quantizes a model: plans, fits weights to themselves, runs the data through the float graph (masks held) to fit the
/// activations, and fits the biases. Encodings that the model has already are replaced but for layers that `skip` leaves out;
/// masks stay.
/// BatchNormalization should have been folded. The same as [`prepare`], [`observe`],
/// [`fit`] and [`keep_earlier`].
///
/// # Errors
/// As those four.
pub fn quantize(
    model: &mut Model,
    settings: &QuantizeSettings,
    batches: impl Iterator<Item = std::result::Result<Batch, TrainError>>,
) -> Result<CalibrationReport> {
    let earlier = prepare(model)?;
    crate::check_skip(model, settings)?;
    let seen = observe(model, settings, batches)?;
    let mut report = fit(model, settings, &seen)?;
    keep_earlier(model, settings, &earlier, &mut report)?;
    Ok(report)
}

/// Makes the float graph that is observed: functions inlined, encodings removed, which it returns.
///
/// # Errors
/// [`QuantizeError::Graph`] for functions that cannot be inlined.
pub fn prepare(model: &mut Model) -> Result<Earlier> {
    if !model.functions.is_empty() {
        *model = graph::inline_functions(model)?;
    }
    Ok(Earlier::take(model))
}

/// Runs the data through a prepared model and keeps statistics of each activation that the settings quantize. Of the
/// settings only `skip` and `observer.momentum` matter.
///
/// # Errors
/// [`QuantizeError::NoData`] without a batch; [`QuantizeError::Value`] for a value that is NaN or infinite, by name;
/// whatever running the graph or the batches report.
pub fn observe(
    model: &Model,
    settings: &QuantizeSettings,
    batches: impl Iterator<Item = std::result::Result<Batch, TrainError>>,
) -> Result<Calibration> {
    let plan = plan(model, settings)?;
    let values = plan.activations.keys().map(|id| (id.0, Statistics::new(settings.observer.momentum))).collect();
    let mut seen = Calibration { samples: 0, values, floats: BTreeSet::new() };
    let executor = Executor::unfused(model)?;
    let mut size = 0;
    for batch in batches {
        let batch = batch?;
        // A smaller last batch would have its activations beside those kept for the others.
        if std::mem::replace(&mut size, batch.len()) != batch.len() {
            tensor::release_kept();
        }
        let mut failure = None;
        let mut watch = |id: ValueId, tensor: &Tensor| {
            if tensor.dtype().is_float() {
                seen.floats.insert(id.0);
            }
            if let Some(statistics) = seen.values.get_mut(&id.0).filter(|_| tensor.dtype() == DType::F32)
                && let Err(what) = statistics.update(tensor)
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
    tensor::release_kept();
    if seen.samples == 0 {
        return Err(QuantizeError::NoData);
    }
    Ok(seen)
}

/// Gives weights, activations and biases of a prepared model their grids.
///
/// # Errors
/// [`QuantizeError::Value`] for an activation that the statistics do not have: they belong to another model or other
/// settings; [`QuantizeError::Setting`] for a setting out of range.
pub fn fit(model: &mut Model, settings: &QuantizeSettings, seen: &Calibration) -> Result<CalibrationReport> {
    let plan = plan(model, settings)?;
    let observer = observer::find(&settings.observer.kind)?;
    if plan.constants.is_empty() && plan.activations.is_empty() {
        let what =
            if settings.skip.is_empty() { "the model has no operator that computes on integers" } else { "leaves nothing to quantize" };
        return Err(QuantizeError::Setting { setting: "skip", what: what.into() });
    }
    fit_constants(model, &plan)?;
    let mut report = CalibrationReport { samples: seen.samples, constants: plan.constants.len(), ..Default::default() };
    for (id, grid) in &plan.activations {
        let name = model.values[*id].name.clone();
        let Some(statistics) = seen.values.get(&id.0) else {
            return Err(QuantizeError::Value { value: name, what: "was not observed in this calibration".into() });
        };
        let Some((low, high)) = (observer.range)(statistics, &settings.observer, grid) else { continue };
        let encoding = fit_range(low, high, grid).map_err(named(&name))?;
        model.annotations.entry(*id).encoding = Some(encoding);
        report.activations.push(ActivationRange { value: name, low, high });
    }
    report.biases = fit_biases(model, &plan)?;
    let is_float = |outputs: &[ValueId]| outputs.iter().any(|v| seen.floats.contains(&v.0));
    report.float_parts = plan.float_parts.into_iter().filter(|(_, outputs)| is_float(outputs)).map(|(part, _)| part).collect();
    model.verify()?;
    Ok(report)
}
