//! Why a quantized network is worse than the float one: for each layer the error that it has, where it comes from, and what it costs.
//!
//! [`reference()`] makes the float network with the values of the quantized one, so that both can be compared value by value.
//! [`diagnose`] runs both, each layer alone, and the network with one layer quantized after the other.
mod causes;
mod parts;
mod ranges;
mod reference;
mod saturation;

pub use causes::Causes;
pub use ranges::BetterRange;
pub use reference::{reference, without_encodings};

use crate::{QuantizeError, Result};
use causes::{Meter, Values};
use graph::{Model, Setting, ValueId};
use parts::{Part, parts};
use ranges::{Ranges, better, by_channel};
use saturation::Saturation;
use std::collections::{BTreeMap, BTreeSet};
use tensor::{SignalToNoise, Tensor};
use train::{Batch, Effect, EffectMeter, Executor, Mode, Overrides, Task, TrainError};

/// What was found out about one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerDiagnosis {
    /// Name of the node.
    pub node: String,
    /// Its operator.
    pub op: String,
    /// How its weights are stored, each once: `int4 per channel`. Empty for a node without weights.
    pub weights: Vec<String>,
    /// Least bits of its weights.
    pub weight_bits: Option<u32>,
    /// How its data are stored.
    pub data: Vec<String>,
    /// Least bits of its data.
    pub data_bits: Option<u32>,
    /// Its result in the quantized network against the float network.
    pub path: SignalToNoise,
    /// Its result where this layer alone is quantized, against the float network.
    pub own: SignalToNoise,
    /// What the error of `own` comes from.
    pub causes: Causes,
    /// What sums that saturate at 16 bits take from its result, squared, over the squared error of `own`, which does not have it: on x86
    /// processors with AVX2 alone. `None` where nothing saturates.
    pub saturated: Option<f64>,
    /// The range that would suit its data best: of several data that of the one with most to gain, and what is left of all.
    pub range: Option<BetterRange>,
    /// What a scale for each channel would leave of the squared error of its weights, 0..1, where it has one for all.
    pub by_channel: Option<f64>,
    /// What the network does with this layer alone quantized.
    pub alone: Effect,
}

/// What was found out about a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// Samples that it was measured on.
    pub samples: usize,
    /// The float network.
    pub float: Effect,
    /// The quantized network.
    pub quantized: Effect,
    /// The nodes that read values in few bits, in the order of the graph.
    pub layers: Vec<LayerDiagnosis>,
}

/// Compares a quantized network with the float network of the same values (see [`reference()`]), layer by layer. With a `task`, samples that
/// have its targets also give loss and metric. What a layer reads counts as its own, so what several layers read counts for each of
/// them. Keeps the values of one batch in memory. `tick` gets how many runs of a batch are done and, for the batch in hand, all.
///
/// # Errors
/// [`QuantizeError::NoData`] without a batch; errors of running the graphs and of the task.
pub fn diagnose(
    float: &Model,
    quantized: &Model,
    target: &target::Choice,
    task: Option<&dyn Task>,
    batches: impl Iterator<Item = Result<Batch, TrainError>>,
    tick: &mut dyn FnMut(u64, u64),
) -> Result<Diagnosis> {
    let mut rows = vec![];
    for part in parts(quantized, target) {
        if let Some(meter) = Meter::new(&part, float, quantized)? {
            rows.push(Row::new(part, meter, float, quantized, task)?);
        }
    }
    let needed: BTreeSet<ValueId> = rows.iter().flat_map(|row| row.meter.needs()).collect();
    let mut judges = (EffectMeter::new(float, task), EffectMeter::new(quantized, task));
    let (mut samples, mut done, all) = (0, 0, rows.len() as u64);
    for batch in batches {
        let batch = batch?;
        samples += batch.len();
        let values = observed(float, &batch, &needed)?;
        let outputs: BTreeSet<ValueId> = rows.iter().map(|row| row.meter.output()).collect();
        let stored = observed(quantized, &batch, &outputs)?;
        for row in &mut rows {
            row.along(&values, &stored)?;
        }
        let right = judges.0.run(float, &batch)?;
        judges.0.add(&right, &right, &batch)?;
        let got = judges.1.run(quantized, &batch)?;
        judges.1.add(&right, &got, &batch)?;
        for row in &mut rows {
            tick(done % all.max(1), all);
            let got = row.judge.run(&row.alone, &batch)?;
            row.judge.add(&right, &got, &batch)?;
            done += 1;
        }
    }
    tensor::release_kept();
    if samples == 0 {
        return Err(QuantizeError::NoData);
    }
    let layers = rows.into_iter().map(|row| row.finish(float, quantized)).collect::<Result<_>>()?;
    Ok(Diagnosis { samples, float: judges.0.effect(), quantized: judges.1.effect(), layers })
}

/// What a quantized network does to the outputs, loss and metric of `float` (without encodings, whatever it has), whose outputs are the
/// same in their order. Also the mean loss of each batch, where samples have targets.
///
/// # Errors
/// [`QuantizeError::NoData`] without a batch; errors of running the graphs and of the task.
pub fn effect(
    float: &Model,
    quantized: &Model,
    task: Option<&dyn Task>,
    batches: impl Iterator<Item = Result<Batch, TrainError>>,
) -> Result<(Effect, Vec<f64>)> {
    let float = without_encodings(float);
    let (runs, mut judge) = (EffectMeter::new(&float, None), EffectMeter::new(quantized, task));
    let mut samples = 0;
    for batch in batches {
        let batch = batch?;
        samples += batch.len();
        let mut right = runs.run(&float, &batch)?;
        let pairs = float.graph.outputs.iter().zip(&quantized.graph.outputs);
        let right: Values = pairs.filter_map(|(from, to)| Some((*to, right.remove(from)?))).collect();
        let got = judge.run(quantized, &batch)?;
        judge.add(&right, &got, &batch)?;
    }
    tensor::release_kept();
    let losses = judge.losses();
    if samples == 0 { Err(QuantizeError::NoData) } else { Ok((judge.effect(), losses)) }
}

/// Values of a run with its annotations, before their own encoding.
fn observed(model: &Model, batch: &Batch, wanted: &BTreeSet<ValueId>) -> Result<Values> {
    let mut values = Values::new();
    let mut keep = |id: ValueId, tensor: &Tensor| {
        if wanted.contains(&id) {
            values.insert(id, tensor.clone());
        }
    };
    Executor::unfused(model)?.run_with(&batch.inputs, &Overrides::default(), Mode::SIMULATED, Some(&mut keep))?;
    Ok(values)
}

/// A layer in the making.
struct Row<'t> {
    part: Part,
    meter: Meter,
    path: SignalToNoise,
    ranges: Vec<(ValueId, Ranges)>,
    saturation: Option<Saturation>,
    /// The float network with this layer's encodings.
    alone: Model,
    judge: EffectMeter<'t>,
}

impl<'t> Row<'t> {
    fn new(part: Part, meter: Meter, float: &Model, quantized: &Model, task: Option<&'t dyn Task>) -> Result<Self> {
        let mut alone = float.clone();
        for id in part.encoded() {
            alone.annotations.entry(id).encoding = quantized.annotations.encoding(id).cloned();
            if let Some(stored) = quantized.values.tensor(id) {
                alone.values.set_tensor(id, stored.clone());
            }
        }
        let grid = |(input, carrier): &(ValueId, ValueId)| Some((*input, Ranges::of(quantized.annotations.encoding(*carrier)?)?));
        let ranges = part.data.iter().filter_map(grid).collect();
        let saturation = Saturation::of(&part, quantized)?;
        Ok(Row { part, meter, path: SignalToNoise::default(), ranges, saturation, alone, judge: EffectMeter::new(float, task) })
    }

    fn along(&mut self, values: &Values, stored: &Values) -> Result<()> {
        self.meter.add(values)?;
        if let (Some(right), Some(got)) = (values.get(&self.meter.output()), stored.get(&self.meter.output())) {
            let of = SignalToNoise::of(right, got).map_err(TrainError::from)?;
            (self.path.signal, self.path.noise) = (self.path.signal + of.signal, self.path.noise + of.noise);
        }
        if let Some(saturation) = &mut self.saturation {
            saturation.add(values)?;
        }
        for (input, ranges) in &mut self.ranges {
            if let Some(x) = values.get(input) {
                ranges.add(x).map_err(TrainError::from)?;
            }
        }
        Ok(())
    }

    fn finish(self, float: &Model, quantized: &Model) -> Result<LayerDiagnosis> {
        let node = &float.graph.nodes[self.part.at];
        let (weights, weight_bits) = stored(quantized, self.part.weights.iter().copied());
        let carriers = self.part.data.iter().map(|(_, carrier)| *carrier);
        let (data, data_bits) = stored(quantized, carriers);
        let mut ratio: Option<f64> = None;
        for weight in &self.part.weights {
            let found = by_channel(self.part.at, *weight, float, quantized)?;
            ratio = found.map_or(ratio, |r| Some(ratio.map_or(r, |known| known.min(r))));
        }
        let (own, causes) = self.meter.finish();
        Ok(LayerDiagnosis {
            node: node.label(&float.values),
            op: node.op_type.clone(),
            weights,
            weight_bits,
            data,
            data_bits,
            path: self.path,
            own,
            causes,
            saturated: self.saturation.and_then(|s| s.over(own.noise)),
            range: better(self.ranges.iter().map(|(_, ranges)| ranges)),
            by_channel: ratio,
            alone: self.judge.effect(),
        })
    }
}

/// How values are stored, each way once, and the least of their bits.
fn stored(model: &Model, ids: impl Iterator<Item = ValueId>) -> (Vec<String>, Option<u32>) {
    let mut ways: BTreeMap<String, Option<u32>> = BTreeMap::new();
    for encoding in ids.filter_map(|id| model.annotations.encoding(id)) {
        let bits = match encoding.settings.get("bits") {
            Some(Setting::Int(bits)) => u32::try_from(*bits).ok(),
            _ => None,
        };
        ways.insert(encodings::describe(encoding), bits);
    }
    let bits = ways.values().flatten().min().copied();
    (ways.into_keys().collect(), bits)
}

#[cfg(test)]
mod tests;
