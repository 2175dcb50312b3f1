//! Rounding with compensation: a layer's weights are rounded one input after the other, and
//! those not rounded yet make up for the error. What is chosen for a weight is up to a [`Rounding`].
use super::input_products::Inputs;
use super::points::Points;
use super::reconstruct::encoded_layers;
use super::{CorrectionContext, layerwise};
use crate::error::named;
use crate::{QuantizeError, Result};
use graph::{Model, ValueId};
use ops::Products;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use technique::{Fault, within};
use tensor::{DType, Tensor};
use train::{InputPower, LayerInputs};

/// The order in which inputs are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RoundingOrder {
    /// From the largest power to the smallest.
    #[default]
    Power,
    /// As the weight has them.
    Stored,
}

/// A layer's weights as `[outputs, row]`, a row in the order in which the layer multiplies it.
pub(super) struct Rows<'a> {
    pub(super) points: &'a Points,
    pub(super) outputs: usize,
    pub(super) row: usize,
    /// Rounded to nearest.
    pub(super) nearest: &'a [f32],
}

/// What a weight is rounded to. Called for one layer after another, in each for one output after another.
pub(super) trait Rounding {
    /// A layer begins.
    fn begin(&mut self, _rows: &Rows) {}

    /// Outputs follow that multiply the same inputs; `costs` is by how much an error of one in each weight of a row raises the squared
    /// error of the result, the inputs after it having made up for it.
    fn group(&mut self, _rows: &Rows, _outputs: Range<usize>, _costs: &[f64]) {}

    /// The number for a live weight that would best be `w`. `cost`: as in [`Rounding::group`].
    fn choose(&mut self, rows: &Rows, output: usize, input: usize, w: f64, cost: f64) -> f64;

    /// What a row costs besides its error, in the error's unit.
    fn price(&self, _rows: &Rows, _output: usize, _row: &[f32]) -> f64 {
        0.0
    }

    /// The row of an output is this.
    fn settle(&mut self, _rows: &Rows, _output: usize, _row: &[f32]) {}
}

/// The layers of a model, rounded in the order of the graph, each on what it reads once the layers before it are rounded.
pub(super) struct Compensation {
    /// Calibration samples, in whole batches.
    pub(super) samples: usize,
    /// Share of the mean power of the inputs that is added to each.
    pub(super) damping: f64,
    pub(super) order: RoundingOrder,
}

impl Compensation {
    /// Checks ranges.
    ///
    /// # Errors
    /// A [`Fault`] at the setting.
    pub(super) fn check(&self) -> std::result::Result<(), Fault> {
        within("samples", self.samples as f64, 1.0, 1e9, "the power of inputs is taken over at least one sample")?;
        within("damping", self.damping, 1e-8, 1e3, "it is a share of the mean power")
    }

    /// Rounds all layers. Returns sentences for the user.
    ///
    /// # Errors
    /// [`QuantizeError::NoData`] without a batch; errors of running the graph.
    pub(super) fn run(&self, model: &mut Model, cx: &CorrectionContext, rounding: &mut dyn Rounding) -> Result<Vec<String>> {
        let (layers, mut left) = encoded_layers(model);
        let mut states = layerwise(model, cx.samples, self.samples)?;
        let (mut ratios, all) = (vec![], layers.len() as u64);
        for (done, (at, weight)) in layers.into_iter().enumerate() {
            let node = model.graph.nodes[at].clone();
            let shape = model.values.tensor(weight).map(|t| t.shape().to_vec()).unwrap_or_default();
            match (Products::of(&node, &shape), node.input(0)) {
                (Some(products), Some(data)) => {
                    let layer = LayerInputs::new(model, &node, products, &shape)?;
                    let mut power = InputPower::new(&layer);
                    for state in states.before(model, at)? {
                        let x = state.get(&data).or(model.values.tensor(data)).ok_or(QuantizeError::NoData)?;
                        power.add(&layer, x)?;
                    }
                    match self.round(model, weight, (&layer, power), rounding)? {
                        Some((nearest, rounded)) if nearest > 0.0 && rounded > 0.0 => ratios.push(rounded / nearest),
                        Some(_) => {}
                        None => left.push(node.label(&model.values)),
                    }
                    tensor::release_kept();
                }
                _ => left.push(node.label(&model.values)),
            }
            (cx.progress)(done as u64 + 1, all);
        }
        let mean = (ratios.iter().map(|r: &f64| r.ln()).sum::<f64>() / ratios.len().max(1) as f64).exp();
        let mut notes = vec![format!(
            "{} layers: error of a layer's result {mean:.2} times that of rounding to nearest (geometric mean)",
            ratios.len()
        )];
        if !left.is_empty() {
            let why = "left alone, since their weights are shared, fed, or of a transposed convolution, or their scales lie along another axis than the outputs";
            notes.push(format!("{why}: {}", left.join(", ")));
        }
        Ok(notes)
    }

    /// Rounds a weight; returns the error of rounding to nearest and the one that is left. `None`: it cannot be rounded.
    fn round(
        &self,
        model: &mut Model,
        id: ValueId,
        (layer, power): (&LayerInputs, InputPower),
        rounding: &mut dyn Rounding,
    ) -> Result<Option<(f64, f64)>> {
        let fault = |e: encodings::EncodingError| named(&model.values[id].name)(e);
        let (Some(weight), Some(annotation)) = (model.values.tensor(id), model.annotations.get(id)) else { return Ok(None) };
        let Some(encoding) = &annotation.encoding else { return Ok(None) };
        let nearest = encodings::simulate(weight, annotation).map_err(fault)?;
        let original = encodings::live(weight, annotation.mask.as_ref()).map_err(fault)?;
        let rows = |t: &Tensor| layer.rows(t).and_then(|t| t.to_f32_vec()).map_err(|e| fault(e.into()));
        let live: Vec<bool> = match &annotation.mask {
            Some(mask) => rows(&mask.cast(DType::F32).map_err(|e| fault(e.into()))?)?.iter().map(|m| *m != 0.0).collect(),
            None => vec![true; weight.len()],
        };
        let (original, nearest) = (rows(&original)?, rows(&nearest)?);
        let Some(points) = Points::of(encoding, weight, layer.products, layer.outputs).map_err(fault)? else { return Ok(None) };
        let k = layer.row;
        let per_group = layer.outputs / layer.groups;
        let (mut new, mut before, mut after) = (nearest.clone(), 0.0, 0.0);
        let all = Rows { points: &points, outputs: layer.outputs, row: k, nearest: &nearest };
        rounding.begin(&all);
        for (group, mut h) in power.groups.into_iter().enumerate() {
            let plain = h.clone();
            let order = self.prepare(&mut h, k);
            let Some(inputs) = Inputs::new(plain, h, order) else { continue };
            let outputs = group * per_group..(group + 1) * per_group;
            rounding.group(&all, outputs.clone(), &inputs.costs());
            for output in outputs {
                let span = output * k..(output + 1) * k;
                let wide = |list: &[f32]| list[span.clone()].iter().map(|w| f64::from(*w)).collect::<Vec<f64>>();
                let (wanted, old_row) = (wide(&original), wide(&nearest));
                let found = inputs.compensate(&wanted, &live[span.clone()], |at, w, cost| rounding.choose(&all, output, at, w, cost));
                let found_row: Vec<f32> = found.iter().map(|v| *v as f32).collect();
                let (old, fresh) = (inputs.error(&wanted, &old_row), inputs.error(&wanted, &found));
                let price = |row: &[f32]| rounding.price(&all, output, row);
                before += old;
                if fresh + price(&found_row) < old + price(&nearest[span.clone()]) {
                    new[span.clone()].copy_from_slice(&found_row);
                    after += fresh;
                } else {
                    after += old;
                }
                rounding.settle(&all, output, &new[span]);
            }
        }
        let stored = layer.restored(new, weight.shape()).map_err(|e| fault(e.into()))?;
        model.values.set_tensor(id, stored);
        Ok(Some((before, after)))
    }

    /// What is added to the power of each input, `h` [k, k].
    pub(super) fn damping(&self, h: &[f64], k: usize) -> f64 {
        let damping = self.damping * (0..k).map(|i| h[i * k + i]).sum::<f64>() / k.max(1) as f64;
        if damping > 0.0 { damping } else { 1.0 }
    }

    /// Adds the damping; inputs that are never other than zero take part without effect. Returns the order of rounding.
    pub(super) fn prepare(&self, h: &mut [f64], k: usize) -> Vec<usize> {
        let damping = self.damping(h, k);
        (0..k).for_each(|i| h[i * k + i] += damping);
        let mut order: Vec<usize> = (0..k).collect();
        if self.order == RoundingOrder::Power {
            order.sort_by(|a, b| h[b * k + b].total_cmp(&h[a * k + a]));
        }
        order
    }
}
