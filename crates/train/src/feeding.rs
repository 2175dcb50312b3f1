//! How rows of data become the inputs of a model's runs: the only place that knows the sample axis of each input, how many
//! samples a run takes, and which inputs the data do not hold.
//!
//! A model with a fixed batch runs on as many samples as it was exported for, one run after another; users of the batches
//! ([`crate::measure`], calibration, a proof, a training) see only runs. The last run is filled up by repeating a sample, and
//! [`Batch::counted`] removes the repetitions from the results.
use crate::{Batch, Executor, Mode, Named, Portion, TrainError};
use data::Place;
use graph::{Dim, Model};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tensor::{DType, Tensor, TensorError};

/// The rule for an input, if neither its declared shape nor the data's names determine it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputRule {
    /// A number that every run gets, in the input's shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The output that is fed back: each run gets the float network's output of the run before. Rows then run in their order, and
    /// the first gets zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<String>,
    /// With `carried`: starts with zeros again after this many rows; absent: only at the beginning of each pass over the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<usize>,
    /// The axis of the samples; absent: the axis whose declared size has the name of the first input's first axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis: Option<usize>,
    /// One array in the data serves all samples.
    #[serde(default)]
    pub held: bool,
}

/// Key of the rules in a model's metadata; their value is JSON.
pub const INPUTS_KEY: &str = "espalier.inputs";

/// Key of the class names in a model's metadata, in the order of its outputs; their value is JSON.
pub const CLASSES_KEY: &str = "espalier.classes";

/// Rules by input.
pub type InputRules = BTreeMap<String, InputRule>;

/// One input of the model.
#[derive(Clone, Debug)]
struct Intake {
    name: String,
    dtype: Option<DType>,
    dims: Option<Vec<Dim>>,
    axis: Option<usize>,
    rule: InputRule,
}

/// How samples become a model's inputs.
#[derive(Clone, Debug)]
pub struct Feeding {
    intakes: Vec<Intake>,
    main: usize,
    fixed: Option<usize>,
}

/// How an input is made of some rows.
enum Given {
    /// Samples along an axis.
    Stacked(Tensor, usize),
    /// Whole inputs along a new first axis, one a row.
    EachRow(Tensor),
    /// One array for all.
    Same(Tensor),
}

fn wrong(input: &str, what: impl Into<String>) -> TrainError {
    TrainError::Input { input: input.to_string(), what: what.into() }
}

/// The sample axis of an input, as far as the declared shapes tell: the first, unless the outputs begin with an open size that
/// the input has at a later axis (time first, as in recurrent layers: `[5, N, 8]` to `[N, 4]`).
pub(crate) fn main_axis(model: &Model, input: graph::ValueId) -> usize {
    let shapes = model.graph.outputs.iter().map(|v| model.values[*v].shape());
    let Some(outputs) = shapes.collect::<Option<Vec<_>>>() else { return 0 };
    let (Some(dims), Some(Dim::Symbol(samples))) = (model.values[input].shape(), outputs.first().and_then(|s| s.first())) else { return 0 };
    let is = |d: &Dim| matches!(d, Dim::Symbol(s) if s == samples);
    let led = outputs.iter().all(|s| s.first().is_some_and(is));
    let first_is_lost = dims.first().is_some_and(|d| d.known().is_some() || !outputs.iter().any(|s| s.contains(d)));
    dims.iter().position(is).filter(|_| led && first_is_lost).unwrap_or(0)
}

impl Feeding {
    /// Reads a model's declared inputs.
    ///
    /// # Errors
    /// [`TrainError::Input`] for a rule about an input or output that the model does not have, or about two things at once;
    /// for a model without an input.
    pub fn of(model: &Model, rules: &InputRules) -> Result<Feeding, TrainError> {
        let free = model.free_inputs();
        let names: Vec<&str> = free.iter().map(|v| model.values[*v].name.as_str()).collect();
        for (name, rule) in rules {
            if !names.contains(&name.as_str()) {
                return Err(wrong(name, format!("has a rule, but is not an input of the model; its inputs: {}", names.join(", "))));
            }
            if usize::from(rule.value.is_some()) + usize::from(rule.carried.is_some()) + usize::from(rule.held) > 1 {
                return Err(wrong(name, "value, carried and held exclude each other: give one of them"));
            }
            let outputs: Vec<&str> = model.graph.outputs.iter().map(|v| model.values[*v].name.as_str()).collect();
            if let Some(output) = rule.carried.as_ref().filter(|o| !outputs.contains(&o.as_str())) {
                return Err(wrong(
                    name,
                    format!("carries '{output}', which is not an output of the model; its outputs: {}", outputs.join(", ")),
                ));
            }
        }
        let intake = |v: &graph::ValueId| {
            let value = &model.values[*v];
            let rule = rules.get(&value.name).cloned().unwrap_or_default();
            Intake { name: value.name.clone(), dtype: value.dtype(), dims: value.shape().map(|s| s.to_vec()), axis: None, rule }
        };
        let mut intakes: Vec<Intake> = free.iter().map(intake).collect();
        let sampled = |i: &Intake| {
            i.dims.as_ref().is_none_or(|d| !d.is_empty()) && i.rule.value.is_none() && i.rule.carried.is_none() && !i.rule.held
        };
        let main = intakes.iter().position(sampled).unwrap_or(0);
        let Some(first) = intakes.get(main) else { return Err(wrong("", "the model has no input to feed")) };
        let main_axis = first.rule.axis.unwrap_or_else(|| main_axis(model, free[main]));
        let dim = first.dims.as_ref().and_then(|d| d.get(main_axis)).cloned();
        for (i, intake) in intakes.iter_mut().enumerate() {
            intake.axis = if i == main { Some(main_axis) } else { sample_axis(intake, dim.as_ref()) };
            if let (Some(axis), Some(dims)) = (intake.rule.axis, &intake.dims)
                && axis >= dims.len()
            {
                return Err(wrong(&intake.name, format!("has samples along axis {axis} by its rule, but its rank is {}", dims.len())));
            }
        }
        let fixed = dim.and_then(|d| d.known()).filter(|n| *n > 0);
        Ok(Feeding { intakes, main, fixed })
    }

    /// The input for images, sounds and lone arrays.
    pub fn main(&self) -> &str {
        &self.intakes[self.main].name
    }

    /// Samples of one run, if the model fixes them.
    pub fn fixed(&self) -> Option<usize> {
        self.fixed
    }

    /// True if an output is fed back to an input, so that rows run one at a time and in order.
    pub fn carries(&self) -> bool {
        self.intakes.iter().any(|i| i.rule.carried.is_some())
    }

    /// True if samples may have different shapes: some axis beside the batch is open.
    pub fn ragged(&self) -> bool {
        let open =
            |i: &Intake| i.dims.as_ref().is_some_and(|d| d.iter().enumerate().any(|(a, d)| d.known().is_none() && Some(a) != i.axis));
        self.intakes.iter().any(open)
    }

    /// How arrays are cut into rows, by input.
    pub fn places(&self) -> BTreeMap<String, Place> {
        let place =
            |i: &Intake| Place { rank: i.dims.as_ref().map(Vec::len), axis: i.axis, held: i.rule.held, single: self.fixed == Some(1) };
        self.intakes.iter().map(|i| (i.name.clone(), place(i))).collect()
    }

    /// One sentence for each input: its samples.
    pub fn describe(&self) -> Vec<(String, String)> {
        let tell = |(at, i): (usize, &Intake)| {
            let text = match (&i.rule, i.axis, self.fixed) {
                (InputRule { value: Some(v), .. }, ..) => format!("{v} in every run"),
                (InputRule { carried: Some(o), .. }, ..) => format!("output '{o}' of the run before"),
                (InputRule { held: true, .. }, ..) | (_, None, _) => "one for all samples of a run".into(),
                (_, Some(axis), Some(1)) => format!("one sample a run, along axis {axis}"),
                (_, Some(axis), Some(n)) => format!("{n} samples a run, along axis {axis}"),
                (_, Some(axis), None) => format!("any number of samples, along axis {axis}"),
            };
            let images = at == self.main && self.intakes.len() > 1;
            (i.name.clone(), if images { format!("{text}; images, sounds and lone arrays go here") } else { text })
        };
        self.intakes.iter().enumerate().map(tell).collect()
    }

    /// The runs that some rows make.
    ///
    /// # Errors
    /// [`TrainError::Input`] naming an input that is not there, or cannot be cut.
    pub fn runs(&self, mut batch: data::Batch) -> Result<Vec<Batch>, TrainError> {
        let rows = batch.rows.len();
        if batch.ready {
            return Ok(vec![self.ready(batch)?]);
        }
        let mut given = BTreeMap::new();
        for intake in &self.intakes {
            if let Some(t) = batch.inputs.remove(&intake.name) {
                let one = intake.as_declared(t).and_then(|t| intake.given(t, rows)).map_err(|e| wrong(&intake.name, e.to_string()))?;
                given.insert(intake.name.clone(), one);
            }
        }
        // Unknown inputs are refused by the run, by name.
        let unknown = batch.inputs.into_iter().map(|(name, t)| (name, Given::Stacked(t, 0)));
        given.extend(unknown.collect::<Vec<_>>());
        self.check_given(given.keys())?;
        let continues = batch.continues;
        let targets = Batch::from(data::Batch { inputs: BTreeMap::new(), ..batch }).targets;
        self.cut(given, &targets, rows, continues)
    }

    /// A batch that fits the model but for the number of its samples, as the model's runs.
    ///
    /// # Errors
    /// [`TrainError::Input`] for an input that cannot be cut.
    pub fn split(&self, batch: &Batch) -> Result<Vec<Batch>, TrainError> {
        let main = &self.intakes[self.main];
        let rows = batch.inputs.get(&main.name).and_then(|t| t.shape().get(main.axis?).copied()).unwrap_or(1);
        if self.fixed.is_none_or(|n| n == rows) {
            return Ok(vec![batch.clone()]);
        }
        let axis = |name: &String| self.intakes.iter().find(|i| i.name == *name).and_then(|i| i.axis);
        let given = batch.inputs.iter().map(|(name, t)| {
            let along = axis(name).filter(|a| t.shape().get(*a) == Some(&rows));
            (name.clone(), along.map_or_else(|| Given::Same(t.clone()), |a| Given::Stacked(t.clone(), a)))
        });
        self.cut(given.collect(), &batch.targets, rows, batch.portion.continues)
    }

    /// Which input is missing, and how it can be given.
    fn check_given<'a>(&self, names: impl Iterator<Item = &'a String>) -> Result<(), TrainError> {
        let names: BTreeSet<&str> = names.map(String::as_str).collect();
        let missing = self.intakes.iter().find(|i| i.rule.value.is_none() && i.rule.carried.is_none() && !names.contains(i.name.as_str()));
        missing.map_or(Ok(()), |i| {
            let there: Vec<&str> = names.iter().copied().collect();
            Err(wrong(
                &i.name,
                format!(
                    "is not given (given: {}); hold it, or feed an output back to it, by a line in the recipe: [data.inputs] {} = \
                     {{ value = 0 }} or {{ carried = \"OUTPUT\" }}",
                    if there.is_empty() { "nothing".to_string() } else { there.join(", ") },
                    i.name
                ),
            ))
        })
    }

    /// A row that has all inputs of a run.
    fn ready(&self, mut batch: data::Batch) -> Result<Batch, TrainError> {
        let known = |name: &String| self.intakes.iter().any(|i| i.name == *name);
        let foreign: Vec<String> = batch.inputs.keys().filter(|name| !known(name)).cloned().collect();
        // Labels under another name: the only array of integers that is no input.
        if let ([name], None, true) = (foreign.as_slice(), &batch.targets.labels, batch.targets.values.is_empty())
            && batch
                .inputs
                .get(name)
                .is_some_and(|t| t.rank() < 2 && !t.dtype().is_float() && !matches!(t.dtype(), DType::Bool | DType::String))
            && let Some(t) = batch.inputs.remove(name)
        {
            let labels = t.reshape([t.len()]).and_then(|t| t.cast(DType::I64)).map_err(|e| wrong(name, e.to_string()))?;
            batch.targets.labels = Some(labels);
        }
        let valued = batch.targets.values.values().next().and_then(|t| t.shape().first().copied());
        let samples = batch.targets.labels.as_ref().map(Tensor::len).or(valued).unwrap_or(1);
        for intake in &self.intakes {
            if let (false, Some(value)) = (batch.inputs.contains_key(&intake.name), intake.rule.value) {
                batch.inputs.insert(intake.name.clone(), intake.held(value, samples)?);
            }
        }
        for intake in &self.intakes {
            if let Some(t) = batch.inputs.get_mut(&intake.name) {
                *t = intake.as_declared(t.clone()).map_err(|e| wrong(&intake.name, e.to_string()))?;
            }
        }
        self.check_given(batch.inputs.keys())?;
        let portion = Portion { samples: Some(samples), filled: 0, continues: batch.continues };
        Ok(Batch { portion, ..Batch::from(batch) })
    }

    /// Runs of as many samples as the model takes.
    fn cut(
        &self,
        given: BTreeMap<String, Given>,
        targets: &BTreeMap<String, Tensor>,
        rows: usize,
        continues: bool,
    ) -> Result<Vec<Batch>, TrainError> {
        let each_row = self.carries() || given.values().any(|g| matches!(g, Given::EachRow(_)));
        let size = if each_row { 1 } else { self.fixed.unwrap_or(rows) }.max(1);
        let filled_to = if each_row { None } else { self.fixed };
        let mut runs = vec![];
        for start in (0..rows).step_by(size) {
            let count = size.min(rows - start);
            let mut inputs = Named::new();
            for (name, one) in &given {
                let part = one.part(start, count, rows, filled_to).map_err(|e| wrong(name, e.to_string()))?;
                inputs.insert(name.clone(), part);
            }
            for intake in &self.intakes {
                if let (false, Some(value)) = (inputs.contains_key(&intake.name), intake.rule.value) {
                    inputs.insert(intake.name.clone(), intake.held(value, filled_to.unwrap_or(count))?);
                }
            }
            let filled = filled_to.map_or(0, |n| n.saturating_sub(count));
            let last = start + count == rows;
            let portion = Portion { samples: Some(count), filled, continues: continues || !last };
            let targets = if count == rows { targets.clone() } else { part_of_targets(targets, start, count)? };
            runs.push(Batch { inputs, targets, portion });
        }
        Ok(runs)
    }
}

/// The sample axis of an input that is not the first.
fn sample_axis(intake: &Intake, batch: Option<&Dim>) -> Option<usize> {
    if intake.rule.held {
        return None;
    }
    let Some(dims) = &intake.dims else { return intake.rule.axis.or(Some(0)) };
    if intake.rule.axis.is_some() || dims.is_empty() {
        return intake.rule.axis;
    }
    let named = batch.filter(|d| **d != Dim::Unknown).and_then(|batch| dims.iter().position(|d| d == batch));
    let open: Vec<usize> = dims.iter().enumerate().filter(|(_, d)| d.known().is_none()).map(|(a, _)| a).collect();
    match (batch, open.as_slice()) {
        // The first axis, if its size may be that of the batch.
        (Some(batch), _) if dims[0] == *batch => Some(0),
        _ if named.is_some() => named,
        (Some(Dim::Known(_)), _) => None,
        (_, open) if open.contains(&0) => Some(0),
        (_, [one]) => Some(*one),
        _ => None,
    }
}

impl Intake {
    /// Floats of another width (float16 arrays for a graph converted to float32), converted to the input's type.
    fn as_declared(&self, t: Tensor) -> Result<Tensor, TensorError> {
        match self.dtype.filter(|d| d.is_float() && t.dtype().is_float() && *d != t.dtype()) {
            Some(dtype) => t.cast(dtype),
            None => Ok(t),
        }
    }

    /// How stacked rows become this input.
    fn given(&self, t: Tensor, rows: usize) -> Result<Given, TensorError> {
        let Some(rank) = self.dims.as_ref().map(Vec::len) else { return Ok(Given::Stacked(t, 0)) };
        let shape = t.shape().to_vec();
        let more = shape.len() == rank + 1;
        let Some(axis) = self.axis else {
            if !more || shape[0] != rows {
                return Ok(Given::Same(t));
            }
            let first = t.narrow(0, 0, 1)?;
            let equal = (1..rows).try_fold(true, |all, row| Ok::<bool, TensorError>(all && t.narrow(0, row, 1)? == first))?;
            return Ok(if equal { Given::Same(first.reshape(&shape[1..])?) } else { Given::EachRow(t) });
        };
        if shape.len() == rank {
            return Ok(Given::Stacked(to_axis(t, axis)?, axis));
        }
        // A row holds the whole input, with an axis for its one sample; or it is a grey image without a channel axis.
        let lone = [axis + 1, rank].into_iter().find(|a| more && shape.get(*a) == Some(&1) && (*a == axis + 1 || rank == 3));
        match lone {
            Some(lone) => {
                let mut without = shape;
                without.remove(lone);
                Ok(Given::Stacked(to_axis(t.reshape(without)?, axis)?, axis))
            }
            None if more => Ok(Given::EachRow(t)),
            None => Ok(Given::Stacked(t, 0)),
        }
    }

    /// A number in the input's shape, for a run of so many samples.
    fn held(&self, value: f64, samples: usize) -> Result<Tensor, TrainError> {
        self.filled(samples, |dtype, shape| Tensor::full(value, shape)?.cast(dtype))
    }

    fn filled(&self, samples: usize, fill: impl Fn(DType, Vec<usize>) -> Result<Tensor, TensorError>) -> Result<Tensor, TrainError> {
        let undeclared = || wrong(&self.name, "has no declared shape and type, so no number can be fed to it");
        let dims = self.dims.as_ref().ok_or_else(undeclared)?;
        let size = |(axis, dim): (usize, &Dim)| match dim.known() {
            Some(n) => Ok(n),
            None if self.axis == Some(axis) => Ok(samples),
            None => Err(wrong(&self.name, format!("axis {axis} has no declared size, so no number can be fed to it"))),
        };
        let shape = dims.iter().enumerate().map(size).collect::<Result<Vec<usize>, _>>()?;
        fill(self.dtype.ok_or_else(undeclared)?, shape).map_err(|e| wrong(&self.name, e.to_string()))
    }
}

/// Samples along axis 0, moved to another axis.
fn to_axis(t: Tensor, axis: usize) -> Result<Tensor, TensorError> {
    if axis == 0 {
        return Ok(t);
    }
    let mut order: Vec<usize> = (1..t.rank()).collect();
    order.insert(axis.min(order.len()), 0);
    t.transpose(&order)
}

impl Given {
    /// The input of a run on `count` samples from `start` on, filled up to a number of samples by repeating the last.
    fn part(&self, start: usize, count: usize, rows: usize, filled_to: Option<usize>) -> Result<Tensor, TensorError> {
        match self {
            Given::Same(t) => Ok(t.clone()),
            Given::EachRow(t) => t.narrow(0, start, 1)?.reshape(&t.shape()[1..]),
            Given::Stacked(t, axis) => {
                if t.shape().get(*axis) != Some(&rows) {
                    return Ok(t.clone());
                }
                let part = if count == rows { t.clone() } else { t.narrow(*axis, start, count)? };
                let Some(missing) = filled_to.and_then(|size| size.checked_sub(count)).filter(|n| *n > 0) else { return Ok(part) };
                let last = part.narrow(*axis, count - 1, 1)?;
                let list: Vec<Tensor> = std::iter::once(part).chain(std::iter::repeat_n(last, missing)).collect();
                Tensor::concat(&list, *axis)
            }
        }
    }
}

/// The targets of some samples.
fn part_of_targets(targets: &BTreeMap<String, Tensor>, start: usize, count: usize) -> Result<BTreeMap<String, Tensor>, TrainError> {
    let mut out = BTreeMap::new();
    for (name, t) in targets.iter().filter(|(name, _)| !name.ends_with(crate::objective::OFFSETS)) {
        let at = |e: TensorError| wrong(name, e.to_string());
        let offsets = format!("{name}{}", crate::objective::OFFSETS);
        let Some(bounds) = targets.get(&offsets) else {
            out.insert(name.clone(), t.narrow(0, start, count).map_err(at)?);
            continue;
        };
        let own = bounds.as_slice::<i64>().map_err(at)?.get(start..=start + count).unwrap_or_default().to_vec();
        let (Some(first), Some(last)) = (own.first().copied(), own.last().copied()) else { continue };
        out.insert(name.clone(), t.narrow(0, first as usize, (last - first) as usize).map_err(at)?);
        out.insert(offsets, Tensor::vector(own.iter().map(|o| o - first).collect::<Vec<i64>>()));
    }
    Ok(out)
}

/// The outputs fed back from run to run: those of the network without annotations.
pub(crate) struct Carry<'m> {
    executor: Executor<'m>,
    feeding: &'m Feeding,
    state: Named,
    runs: usize,
}

impl<'m> Carry<'m> {
    /// Starts with zeros.
    pub(crate) fn new(model: &'m Model, feeding: &'m Feeding) -> Result<Self, TrainError> {
        Ok(Carry { executor: Executor::new(model)?, feeding, state: Named::new(), runs: 0 })
    }

    /// Gives a run its state, and stores the next one.
    pub(crate) fn feed(&mut self, batch: &mut Batch) -> Result<(), TrainError> {
        let carried = || self.feeding.intakes.iter().filter_map(|i| Some((i, i.rule.carried.as_ref()?)));
        for (intake, _) in carried() {
            let anew = intake.rule.reset.is_some_and(|n| n > 0 && self.runs.is_multiple_of(n));
            let state = match self.state.get(&intake.name).filter(|_| !anew) {
                Some(state) => state.clone(),
                None => intake.filled(batch.len(), |dtype, shape| Tensor::zeros(dtype, &shape))?,
            };
            batch.inputs.insert(intake.name.clone(), state);
        }
        let mut outputs = self.executor.run(&batch.inputs, Mode::FLOAT)?;
        let next = carried().filter_map(|(i, output)| Some((i.name.clone(), outputs.remove(output)?))).collect();
        (self.state, self.runs) = (next, self.runs + 1);
        Ok(())
    }
}
