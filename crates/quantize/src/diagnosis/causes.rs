//! A layer's own error, and what causes it.
//!
//! With the layer `f(x, w)`, its data `x` and its weights `w` as the float network has them, `c` clipping to the ends of a grid and `q`
//! the stored value, the error `f(q(x), q(w)) - f(x, w)` is the sum of four:
//!
//! ```text
//! data clipped     f(c(x), w) - f(x, w)
//! data rounded     f(q(x), w) - f(c(x), w)
//! weights clipped  f(q(x), c(w)) - f(q(x), w)
//! weights rounded  f(q(x), q(w)) - f(q(x), c(w))      (with the bias as it is stored)
//! ```
//!
//! The power of the error is the square of its mean in each channel, which `bias_correction` takes away, and its variance within them.
//! The variance of a sum is the sum of the covariances of its terms with it, so each cause has a share, and all shares add up to one. A
//! share is below zero where a cause works against the others.
use super::parts::Part;
use crate::error::named;
use crate::{QuantizeError, Result};
use encodings::simulate;
use graph::{Annotation, Encoding, Model, ValueId, ValueType};
use ops::{ChannelAxis, LayerChannels};
use std::collections::{BTreeSet, HashMap};
use tensor::{SignalToNoise, Tensor, TensorError};
use train::{Executor, Mode, Named, Overrides, TrainError};

/// Number of causes besides the shift.
const CAUSES: usize = 4;

/// How far beyond the largest element a value is that shows where a grid ends.
const BEYOND: f32 = 1000.0;

/// Shares of a layer's own error by cause. They add up to 1, or are all 0 where there is no error.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Causes {
    /// Data beyond the ends of their grid.
    pub data_clipped: f64,
    /// Data rounded to the steps of their grid.
    pub data_rounded: f64,
    /// Weights beyond the ends of their grid.
    pub weights_clipped: f64,
    /// Weights rounded to their levels.
    pub weights_rounded: f64,
    /// The mean of the error in each channel, whatever its cause.
    pub shift: f64,
}

pub(super) type Values = HashMap<ValueId, Tensor>;

/// Measures one layer, batch by batch.
pub(super) struct Meter {
    part: Part,
    /// The node alone, with what moves its constants.
    executor: Executor<'static>,
    /// The values that it is fed.
    fed: Vec<(ValueId, String)>,
    output: ValueId,
    name: String,
    /// The grids of its data and of its result.
    grids: HashMap<ValueId, Encoding>,
    /// Its weights, clipped and as they are stored, biases stored with the latter.
    clipped: Overrides,
    stored: Overrides,
    axis: Option<ChannelAxis>,
    sums: Sums,
}

impl Meter {
    /// For a row of `quantized`; `float` is the same graph without encodings.
    pub(super) fn new(part: &Part, float: &Model, quantized: &Model) -> Result<Option<Meter>> {
        let node = &float.graph.nodes[part.at];
        let Some(output) = node.output(0) else { return Ok(None) };
        let mut alone = float.clone();
        alone.source = None;
        alone.graph.value_info.clear();
        alone.graph.nodes = part.movers.iter().chain([&part.at]).map(|at| float.graph.nodes[*at].clone()).collect();
        let made: BTreeSet<ValueId> = alone.graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        let direct = alone.graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied());
        let inner = alone.graph.nodes.iter().flat_map(|n| n.subgraphs().flat_map(outer));
        let read: BTreeSet<ValueId> = direct.chain(inner).collect();
        let fed: Vec<ValueId> = read.into_iter().filter(|v| !made.contains(v) && float.values.tensor(*v).is_none()).collect();
        fed.iter().for_each(|v| alone.values[*v].ty = ValueType::Unknown);
        (alone.graph.inputs, alone.graph.outputs) = (fed.clone(), vec![output]);
        let grid = |id: &ValueId| Some((*id, quantized.annotations.encoding(*id)?.clone()));
        let grids = part.data.iter().map(|(_, carrier)| carrier).chain(&part.result).filter_map(grid).collect();
        let (mut clipped, mut stored) = (Overrides::default(), Overrides::default());
        for id in part.weights.iter().chain(&part.biases) {
            let (Some(right), Some(kept), Some(annotation)) =
                (float.values.tensor(*id), quantized.values.tensor(*id), quantized.annotations.get(*id))
            else {
                continue;
            };
            let fail = named(&quantized.values[*id].name);
            let got = simulate(kept, annotation).map_err(&fail)?;
            if part.weights.contains(id)
                && let Some(encoding) = &annotation.encoding
                && let Some(within) = clip(right, &got, encoding, true).map_err(&fail)?
            {
                clipped.constants.insert(*id, within);
            }
            stored.constants.insert(*id, got);
        }
        let weight = node.input(1).and_then(|w| float.values.tensor(w));
        let axis = weight.and_then(|w| LayerChannels::of(node, w.shape())).map(|channels| channels.at);
        let name = node.label(&float.values);
        let fed = fed.into_iter().map(|v| (v, float.values[v].name.clone())).collect();
        let executor = Executor::owned(alone)?;
        Ok(Some(Meter { part: part.clone(), executor, fed, output, name, grids, clipped, stored, axis, sums: Sums::default() }))
    }

    /// The values of the float network that it needs.
    pub(super) fn needs(&self) -> impl Iterator<Item = ValueId> {
        self.fed.iter().map(|(v, _)| *v).chain([self.output])
    }

    /// The layer's result.
    pub(super) fn output(&self) -> ValueId {
        self.output
    }

    /// Adds a batch, of which `values` has what [`Meter::needs`] names.
    pub(super) fn add(&mut self, values: &Values) -> Result<()> {
        let missing = |v: ValueId| QuantizeError::Value { value: self.named(v), what: "was not computed".into() };
        let right = values.get(&self.output).ok_or_else(|| missing(self.output))?;
        let mut data = Values::new();
        for (v, _) in &self.fed {
            data.insert(*v, values.get(v).ok_or_else(|| missing(*v))?.clone());
        }
        let (mut within, mut rounded) = (data.clone(), data.clone());
        let mut beyond = false;
        for (input, carrier) in &self.part.data {
            let (Some(x), Some(grid)) = (data.get(input), self.grids.get(carrier)) else { continue };
            let fail = |e| named(&self.named(*carrier))(e);
            let got = on(x, grid).map_err(fail)?;
            if let Some(clipped) = clip(x, &got, grid, false).map_err(fail)? {
                within.insert(*input, clipped);
                beyond = true;
            }
            rounded.insert(*input, got);
        }
        let none = Overrides::default();
        let mut steps = vec![right.clone()];
        steps.push(if beyond { self.run(&within, &none)? } else { right.clone() });
        steps.push(if self.part.data.is_empty() { right.clone() } else { self.run(&rounded, &none)? });
        steps.push(if self.clipped.constants.is_empty() { steps[2].clone() } else { self.run(&rounded, &self.clipped)? });
        steps.push(if self.stored.constants.is_empty() { steps[3].clone() } else { self.run(&rounded, &self.stored)? });
        let mut terms: Vec<(usize, Tensor, Tensor)> =
            (0..CAUSES).map(|cause| (cause, steps[cause].clone(), steps[cause + 1].clone())).collect();
        if let Some(grid) = self.part.result.and_then(|v| self.grids.get(&v)) {
            // What is made and stored without a reader of its own counts as data.
            let fail = |e| named(&self.name)(e);
            let last = steps[CAUSES].clone();
            let got = on(&last, grid).map_err(fail)?;
            let clipped = clip(&last, &got, grid, false).map_err(fail)?.unwrap_or_else(|| last.clone());
            terms.extend([(0, last, clipped.clone()), (1, clipped, got)]);
        }
        self.sums.add(right, &terms, self.axis).map_err(|e| QuantizeError::from(TrainError::from(e)))
    }

    fn named(&self, v: ValueId) -> String {
        self.executor.model().values[v].name.clone()
    }

    fn run(&self, data: &Values, constants: &Overrides) -> Result<Tensor> {
        let inputs: Named = self.fed.iter().filter_map(|(v, name)| Some((name.clone(), data.get(v)?.clone()))).collect();
        let mut out = self.executor.run_with(&inputs, constants, Mode::SIMULATED, None)?;
        out.values.remove(&self.output).ok_or_else(|| QuantizeError::Value { value: self.name.clone(), what: "was not computed".into() })
    }

    /// Signal to noise of the layer's result with its own error alone, and the shares of the causes.
    pub(super) fn finish(self) -> (SignalToNoise, Causes) {
        self.sums.finish()
    }
}

/// Values that a subgraph reads from outside.
fn outer(graph: &graph::Graph) -> Vec<ValueId> {
    let made: BTreeSet<ValueId> =
        graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).chain(graph.inputs.clone()).collect();
    let mut read: BTreeSet<ValueId> = graph.nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied()).collect();
    read.extend(graph.outputs.iter().copied());
    read.extend(graph.nodes.iter().flat_map(|n| n.subgraphs().flat_map(outer)));
    read.into_iter().filter(|v| !made.contains(v)).collect()
}

/// A value as an encoding stores it.
fn on(x: &Tensor, encoding: &Encoding) -> encodings::Result<Tensor> {
    simulate(x, &Annotation { mask: None, encoding: Some(encoding.clone()) })
}

/// A value within the ends of its levels; `None` where it is, and where the levels depend on the value itself. `stored` is the value as
/// it is stored. Elements have ends of their own where `by_element`, else one pair holds for all.
fn clip(x: &Tensor, stored: &Tensor, encoding: &Encoding, by_element: bool) -> encodings::Result<Option<Tensor>> {
    let (values, stored) = (x.to_f32_vec()?, stored.to_f32_vec()?);
    let most = BEYOND * values.iter().fold(0f32, |m, v| m.max(v.abs()));
    if !(most.is_finite() && most > 0.0) {
        return Ok(None);
    }
    let shape = if by_element { x.shape() } else { &[] };
    let count = shape.iter().product();
    let end =
        |sign: f32| on(&Tensor::new(vec![sign * most; count], shape)?, encoding)?.to_f32_vec().map_err(encodings::EncodingError::from);
    let (low, high) = (end(-1.0)?, end(1.0)?);
    let within = |(v, (a, b)): (&f32, (&f32, &f32))| *a <= *v && *v <= *b;
    let ends = || low.iter().zip(&high).cycle();
    if !stored.iter().zip(ends()).all(within) || values.iter().zip(ends()).all(within) {
        return Ok(None);
    }
    let clipped = values.iter().zip(ends()).map(|(v, (a, b))| v.clamp(*a, *b)).collect::<Vec<f32>>();
    Ok(Some(Tensor::new(clipped, x.shape())?))
}

/// Sums over elements, for each channel.
#[derive(Default)]
struct Sums {
    whole: SignalToNoise,
    /// Sums of the products of each cause's error with the whole error.
    products: [f64; CAUSES],
    /// For each channel the sums of each cause's error, and how many elements.
    channels: Vec<([f64; CAUSES], f64)>,
}

impl Sums {
    /// Adds the errors `after - before` of causes, on a result `right`.
    fn add(&mut self, right: &Tensor, terms: &[(usize, Tensor, Tensor)], axis: Option<ChannelAxis>) -> Result<(), TensorError> {
        let right_values = right.to_f32_vec()?;
        let mut errors = vec![[0f32; CAUSES]; right_values.len()];
        for (cause, before, after) in terms {
            let (before, after) = (before.to_f32_vec()?, after.to_f32_vec()?);
            if before.len() != errors.len() || after.len() != errors.len() {
                return Err(TensorError::shape("diagnosis", format!("{} elements against {}", after.len(), errors.len())));
            }
            errors.iter_mut().zip(before.iter().zip(&after)).for_each(|(e, (b, a))| e[*cause] += a - b);
        }
        let axis = axis.map(|axis| match axis {
            ChannelAxis::Second => 1,
            ChannelAxis::Last => right.rank().saturating_sub(1),
        });
        let (count, run) = match axis.filter(|axis| *axis < right.rank()) {
            Some(axis) => (right.shape()[axis].max(1), right.shape()[axis + 1..].iter().product::<usize>().max(1)),
            None => (0, right_values.len().max(1)),
        };
        if self.channels.len() != count {
            self.channels = vec![([0.0; CAUSES], 0.0); count];
        }
        for (piece, (errors, right)) in errors.chunks(run).zip(right_values.chunks(run)).enumerate() {
            let mut sums = [0f64; CAUSES];
            for (e, y) in errors.iter().zip(right) {
                let whole: f64 = e.iter().map(|v| f64::from(*v)).sum();
                self.whole.add(f64::from(*y), whole);
                for (cause, v) in e.iter().enumerate() {
                    sums[cause] += f64::from(*v);
                    self.products[cause] += f64::from(*v) * whole;
                }
            }
            if count > 0 {
                let channel = &mut self.channels[piece % count];
                sums.iter().enumerate().for_each(|(cause, sum)| channel.0[cause] += sum);
                channel.1 += errors.len() as f64;
            }
        }
        Ok(())
    }

    fn finish(self) -> (SignalToNoise, Causes) {
        let noise = self.whole.noise;
        if noise <= 0.0 || !noise.is_finite() {
            return (self.whole, Causes::default());
        }
        let mut powers = self.products;
        let mut shift = 0.0;
        for (sums, count) in self.channels.iter().filter(|c| c.1 > 0.0) {
            let whole: f64 = sums.iter().sum();
            shift += whole * whole / count;
            powers.iter_mut().zip(sums).for_each(|(power, sum)| *power -= sum * whole / count);
        }
        let [data_clipped, data_rounded, weights_clipped, weights_rounded] = powers.map(|p| p / noise);
        (self.whole, Causes { data_clipped, data_rounded, weights_clipped, weights_rounded, shift: shift / noise })
    }
}
