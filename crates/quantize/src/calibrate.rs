//! Observation: one pass over the data for all observers, with memory bounded by the model and one batch. Ranges are computed
//! from the statistics afterwards, so that another observer or width does not run the data again.
use crate::bias::fit_biases;
use crate::corrections::{CorrectionInput, CorrectionReport, Phase, correct, samples_wanted};
use crate::earlier::{Earlier, keep_earlier};
use crate::error::named;
use crate::masks::MASKED;
use crate::observer::{Statistics, grid_error};
use crate::processor_safe::widen;
use crate::shared::unshare;
use crate::sums::{Largest, Sums};
use crate::weights::fit_constants;
use crate::{QuantPlan, QuantizeError, QuantizeSettings, Result, plan};
use encodings::affine::{AffineSettings, Precision, fit_least};
use encodings::binary::fit_activation;
use graph::{Model, Node, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use target::FloatPart;
use technique::Fault;
use tensor::{DType, Tensor};
use train::{Batch, Executor, Mode, TrainError};

/// Weight of a clipping error relative to a rounding error: clipping errors have one sign, and hit the most important elements.
/// Measured on residual networks, where 1 loses up to 1 dB.
const CLIPPED: f64 = 3.0;

/// The range of an activation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ActivationRange {
    /// The value's name.
    pub value: String,
    /// Smallest real that is not clipped.
    pub low: f32,
    /// Largest real that is not clipped.
    pub high: f32,
}

/// The result of a calibration.
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct CalibrationReport {
    /// Number of calibration samples.
    pub samples: usize,
    /// Constants with a grid.
    pub constants: usize,
    /// Number of biases in int32.
    pub biases: usize,
    /// Activations with their ranges, in the order of value ids.
    pub activations: Vec<ActivationRange>,
    /// Nodes that stay float, each with its reason.
    pub float_parts: Vec<FloatPart>,
    /// Layers that `skip` leaves out and that keep their earlier encodings.
    #[serde(default)]
    pub kept: Vec<String>,
    /// Channels of weights whose scale was raised so that no sum saturates on x86 processors without VNNI.
    #[serde(default)]
    pub widened: usize,
    /// Warnings with their remedies, as sentences.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Reports of the corrections.
    #[serde(default)]
    pub corrections: Vec<CorrectionReport>,
}

/// The statistics of a pass over the data: enough for every observer and width.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Observations {
    /// Number of samples.
    pub samples: usize,
    /// Statistics of the planned activations, by value id.
    values: BTreeMap<u32, Statistics>,
    /// Largest results of the planned sums, by the result's id.
    largest: BTreeMap<u32, Largest>,
    /// Ids of the values that hold floats.
    floats: BTreeSet<u32>,
}

/// Quantizes a model: plans, fits weights to their own elements, runs the data through the float graph (with masks) to fit the
/// activations, and fits the biases. Existing encodings are replaced except in layers that `skip` leaves out; masks stay.
/// BatchNormalization should have been folded. The same as [`prepare`], [`correct`], [`observe`], [`fit`], [`keep_earlier`] and
/// [`correct`] again. Batches that corrections use are kept in memory until then.
///
/// # Errors
/// As these functions.
pub fn quantize(
    model: &mut Model,
    settings: &QuantizeSettings,
    mut batches: impl Iterator<Item = std::result::Result<Batch, TrainError>>,
) -> Result<CalibrationReport> {
    let earlier = prepare(model, settings)?;
    crate::check_skip(model, settings)?;
    let first = first(&mut batches, samples_wanted(settings))?;
    let samples = || Box::new(first.iter().cloned().map(Ok)) as Box<dyn Iterator<Item = _>>;
    let input = CorrectionInput::new(&samples);
    let mut corrections = correct(model, settings, Phase::BeforeFitting, &input)?;
    let seen = observe(model, settings, first.iter().cloned().map(Ok).chain(batches))?;
    let mut report = fit(model, settings, &seen)?;
    keep_earlier(model, settings, &earlier, &mut report)?;
    corrections.extend(correct(model, settings, Phase::AfterFitting, &input)?);
    report.corrections = corrections;
    Ok(report)
}

/// The batches that corrections look at.
fn first(batches: &mut impl Iterator<Item = std::result::Result<Batch, TrainError>>, wanted: usize) -> Result<Vec<Batch>> {
    let (mut first, mut samples) = (vec![], 0);
    while samples < wanted
        && let Some(batch) = batches.next().transpose()?
    {
        samples += batch.len();
        first.push(batch);
    }
    Ok(first)
}

/// Makes the float graph to observe: inlines functions, removes encodings, which it returns, and copies constants that integer
/// nodes share with float nodes, and separates what layers read in other bits than the rest (`reads` of a rule). Of the settings
/// only `skip` and the rules matter.
///
/// # Errors
/// [`QuantizeError::Graph`] for functions that cannot be inlined.
pub fn prepare(model: &mut Model, settings: &QuantizeSettings) -> Result<Earlier> {
    if !model.functions.is_empty() {
        *model = graph::inline_functions(model)?;
    }
    let earlier = Earlier::take(model);
    unshare(model, settings);
    crate::reads::separate(model, settings)?;
    Ok(earlier)
}

/// Runs the data through a prepared model and keeps statistics of each activation that the settings quantize. Of the
/// settings only `skip` and the observer's momentum matter.
///
/// # Errors
/// [`QuantizeError::NoData`] without a batch; [`QuantizeError::Value`] for a value that is NaN or infinite, by name;
/// whatever running the graph or the batches report.
pub fn observe(
    model: &Model,
    settings: &QuantizeSettings,
    batches: impl Iterator<Item = std::result::Result<Batch, TrainError>>,
) -> Result<Observations> {
    let plan = plan(model, settings)?;
    let values = plan.activations.keys().map(|id| (id.0, Statistics::new(settings.observer.momentum()))).collect();
    let largest = plan.sums.iter().map(|s| (s.output.0, Largest::default())).collect();
    let mut seen = Observations { samples: 0, values, largest, floats: BTreeSet::new() };
    let mut sums = SumsSeen::of(&plan);
    let executor = Executor::unfused(model)?;
    let mut size = 0;
    for batch in batches {
        let batch = batch?;
        // The activations of a smaller last batch would be kept beside those of the other batches.
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
                let what = format!("{what}{}", remedy(model, id));
                failure.get_or_insert(QuantizeError::Value { value: model.values[id].name.clone(), what });
            }
            sums.update(id, tensor, &mut seen.largest);
        };
        executor.run_observed(&batch.inputs, Mode::SIMULATED, &mut watch)?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        seen.samples += batch.len();
        // Without activations to fit, one batch shows which values are floats.
        if seen.values.is_empty() {
            break;
        }
    }
    tensor::release_kept();
    if seen.samples == 0 {
        return Err(QuantizeError::NoData);
    }
    Ok(seen)
}

/// Fits the grids of weights, activations and biases of a prepared model.
///
/// # Errors
/// [`QuantizeError::Value`] for an activation that the statistics do not have: they belong to another model or other
/// settings; [`QuantizeError::Setting`] for a setting out of range.
pub fn fit(model: &mut Model, settings: &QuantizeSettings, seen: &Observations) -> Result<CalibrationReport> {
    let plan = plan(model, settings)?;
    let observer = &settings.observer;
    if !observer.candidates().is_empty() {
        let what = format!("'{}' is a choice among observers that has not been made", observer.kind());
        return Err(Fault::new("observer", what).hint("choose() makes it, on data held back").into());
    }
    if plan.constants.is_empty() && plan.activations.is_empty() {
        let what = match settings.all_rules().is_empty() {
            true => "the model has no operator that computes on integers",
            false => "leaves nothing to quantize",
        };
        return Err(Fault::new("skip", what).into());
    }
    let mut ranges = BTreeMap::new();
    for (id, grid) in &plan.activations {
        let Some(statistics) = seen.values.get(&id.0) else {
            let value = model.values[*id].name.clone();
            return Err(QuantizeError::Value { value, what: "was not observed in this calibration".into() });
        };
        let range = plan.fixed.get(id).copied().or_else(|| observer.range(statistics, grid));
        ranges.extend(range.map(|range| (*id, range)));
    }
    let data = data_precisions(model, settings, seen, &plan, &ranges)?;
    let other = if settings.exact { Precision::up_to(f64::INFINITY) } else { Precision::FULL };
    let clips = clips(model);
    let mut report = CalibrationReport { samples: seen.samples, constants: plan.constants.len(), ..Default::default() };
    for (id, grid) in &plan.activations {
        let name = model.values[*id].name.clone();
        let (Some(statistics), Some((low, high))) = (seen.values.get(&id.0), ranges.get(id).copied()) else { continue };
        let histogram = statistics.histogram();
        if let Some(estimator) = plan.two_levels.get(id) {
            let middle = |(edge, count): (f64, u64)| (edge + 0.5 * histogram.width(), count as f64);
            let encoding = fit_activation(&histogram.bins().map(middle).collect::<Vec<_>>(), *estimator).map_err(named(&name))?;
            model.annotations.entry(*id).encoding = Some(encoding);
            report.activations.push(ActivationRange { value: name, low, high });
            continue;
        }
        let error = |scale: f32, zero_point: f32| match clips.get(id) {
            Some(clip) if !covers(*clip, scale, zero_point, grid) => f64::INFINITY,
            _ => grid_error(histogram, f64::from(scale), f64::from(zero_point), grid, CLIPPED),
        };
        let precision = data.get(id).copied().unwrap_or(other);
        let encoding = match plan.fixed.contains_key(id) {
            true => fixed((low, high), grid),
            false => fit_least((low, high), grid, precision, error).map_err(named(&name))?,
        };
        model.annotations.entry(*id).encoding = Some(encoding);
        report.warnings.extend(looks_masked(model, *id, low, high));
        report.activations.push(ActivationRange { value: name, low, high });
    }
    let divided = crate::division::tie(model, &plan, &clips);
    let (weights, inexact) = match settings.exact {
        true => Sums { model, plan: &plan, largest: &seen.largest, values: &seen.values }.of_weights()?,
        false => Default::default(),
    };
    let evenness = Sums { model, plan: &plan, largest: &seen.largest, values: &seen.values }.evenness();
    fit_constants(model, &plan, &weights, other, &evenness)?;
    if settings.processor_safe {
        report.widened = widen(model, &plan, &seen.values, (&weights, other))?;
    }
    report.warnings.extend(inexact.into_iter().map(|node| {
        format!(
            "'{node}': its sums are too long for f32 to be exact with any scales, so the deployed file may differ from the \
             simulation in last places"
        )
    }));
    report.biases = fit_biases(model, &plan, settings.exact)?;
    let is_float = |outputs: &[ValueId]| outputs.iter().any(|v| seen.floats.contains(&v.0) && !divided.contains(v));
    report.float_parts = plan.float_parts.into_iter().filter(|(_, outputs)| is_float(outputs)).map(|(part, _)| part).collect();
    model.verify()?;
    Ok(report)
}

/// The grid with the ends of a range.
fn fixed((low, high): (f32, f32), grid: &AffineSettings) -> graph::Encoding {
    let scale = (high - low) / (grid.qmax() - grid.qmin()) as f32;
    grid.encoding(Tensor::scalar(scale), Tensor::scalar(grid.qmin() as f32 - (low / scale).round()))
}

/// The precision allowed for the scales of the sums' data.
fn data_precisions(
    model: &Model,
    settings: &QuantizeSettings,
    seen: &Observations,
    plan: &QuantPlan,
    ranges: &BTreeMap<ValueId, (f32, f32)>,
) -> Result<BTreeMap<ValueId, Precision>> {
    if !settings.exact {
        return Ok(BTreeMap::new());
    }
    let step = |(id, grid): (&ValueId, &AffineSettings)| {
        let (low, high) = ranges.get(id)?;
        let width = f64::from(high.max(0.0)) - f64::from(low.min(0.0));
        (width > 0.0).then_some((*id, width / (grid.qmax() - grid.qmin()) as f64))
    };
    let steps = plan.activations.iter().filter_map(step).collect();
    Sums { model, plan, largest: &seen.largest, values: &seen.values }.of_data(&steps)
}

/// The observed sums, and the number of elements in the data of means.
struct SumsSeen<'a> {
    parts: BTreeMap<ValueId, &'a crate::SumPart>,
    elements: BTreeMap<ValueId, usize>,
}

impl<'a> SumsSeen<'a> {
    fn of(plan: &'a QuantPlan) -> Self {
        let means = plan.sums.iter().filter(|s| s.mean_of.is_some()).flat_map(|s| &s.data).map(|v| (*v, 0));
        SumsSeen { parts: plan.sums.iter().map(|s| (s.output, s)).collect(), elements: means.collect() }
    }

    fn update(&mut self, id: ValueId, tensor: &Tensor, largest: &mut BTreeMap<u32, Largest>) {
        if let Some(elements) = self.elements.get_mut(&id) {
            *elements = tensor.len();
        }
        if let (Some(part), Some(largest)) = (self.parts.get(&id), largest.get_mut(&id.0)) {
            let elements = part.data.first().and_then(|v| self.elements.get(v)).copied();
            largest.update(tensor, part, elements);
        }
    }
}

/// The bounds of clipping nodes, by the clipped value.
fn clips(model: &Model) -> BTreeMap<ValueId, (f32, f32)> {
    let mut out = BTreeMap::new();
    model.graph.visit(&mut |node: &Node| out.extend(node.output(0).and_then(|v| Some((v, ops::clip_bounds(model, node)?)))));
    out
}

/// True if the grid clips at the same bounds, so that the Clip has no effect of its own: a runtime then fuses the layer before it
/// with the quantizer after it.
fn covers((min, max): (f32, f32), scale: f32, zero_point: f32, grid: &AffineSettings) -> bool {
    let step = |v: f32| (v / scale).round_ties_even() + zero_point;
    step(min) <= grid.qmin() as f32 && step(max) >= grid.qmax() as f32
}

/// A remedy for a value without a range.
fn remedy(model: &Model, id: ValueId) -> String {
    let mut nodes = vec![];
    model.graph.visit(&mut |node: &Node| {
        if node.outputs.contains(&Some(id)) || node.inputs.contains(&Some(id)) {
            nodes.push(format!("'{}'", node.label(&model.values)));
        }
    });
    match nodes.is_empty() {
        true => String::new(),
        false => format!("; `skip` can leave the nodes that make and read it in float: {}", nodes.join(", ")),
    }
}

/// A warning for a range that reaches far below zero but not above, as masks cause it.
fn looks_masked(model: &Model, id: ValueId, low: f32, high: f32) -> Option<String> {
    if low > MASKED || high > -low / 100.0 || high <= 0.0 {
        return None;
    }
    let name = &model.values[id].name;
    Some(format!(
        "value '{name}' ranges from {low} to {high}: if the lowest values are masked, they should not count, but this cannot be detected \
         here{}",
        remedy(model, id)
    ))
}
