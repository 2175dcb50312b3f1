//! Rounding with compensation: a layer's weights are rounded one input after the other, and those not rounded yet make up for the error. The walk
//! over the layers; what their weights become is up to a [`Rounding`].
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
use std::collections::HashMap;
use technique::{Fault, within};
use tensor::{DType, Tensor};
use train::{InputPower, LayerInputs, Layerwise};

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

/// One output's weights after another, those of an output in the order in which the layer multiplies them: `[outputs, row]`.
pub(super) struct LayerWeights {
    /// The numbers that a weight can be.
    pub(super) points: Points,
    /// As they were, zero where a mask hides them.
    pub(super) original: Vec<f32>,
    /// Rounded to nearest.
    pub(super) nearest: Vec<f32>,
    /// Not masked.
    pub(super) live: Vec<bool>,
}

impl LayerWeights {
    /// `None` if the weight has no levels that each output has to itself.
    fn of(model: &Model, id: ValueId, layer: &LayerInputs) -> Result<Option<LayerWeights>> {
        let fault = |e: encodings::EncodingError| named(&model.values[id].name)(e);
        let (Some(weight), Some(annotation)) = (model.values.tensor(id), model.annotations.get(id)) else { return Ok(None) };
        let Some(encoding) = &annotation.encoding else { return Ok(None) };
        let Some(points) = Points::of(encoding, weight, layer.products, layer.outputs).map_err(fault)? else { return Ok(None) };
        let nearest = encodings::simulate(weight, annotation).map_err(fault)?;
        let original = encodings::live(weight, annotation.mask.as_ref()).map_err(fault)?;
        let rows = |t: &Tensor| layer.rows(t).and_then(|t| t.to_f32_vec()).map_err(|e| fault(e.into()));
        let live = match &annotation.mask {
            Some(mask) => rows(&mask.cast(DType::F32).map_err(|e| fault(e.into()))?)?.iter().map(|m| *m != 0.0).collect(),
            None => vec![true; weight.len()],
        };
        Ok(Some(LayerWeights { points, original: rows(&original)?, nearest: rows(&nearest)?, live }))
    }
}

/// A layer in front of which the walk stands.
pub(super) struct Step<'a> {
    /// Its place among the nodes of the main graph.
    pub(super) node: usize,
    /// What it reads.
    pub(super) data: ValueId,
    pub(super) layer: &'a LayerInputs,
    /// The data, for each batch.
    pub(super) inputs: &'a [Tensor],
    pub(super) weights: LayerWeights,
    /// `X X^T` for each group of the layer's inputs.
    pub(super) power: InputPower,
}

/// What a layer's weights became.
pub(super) struct Rounded {
    /// As [`LayerWeights::original`] is.
    pub(super) weights: Vec<f32>,
    /// A new scale for each output.
    pub(super) scales: Option<Tensor>,
    /// Squared error of the result when rounded to nearest.
    pub(super) before: f64,
    /// Squared error of the result now.
    pub(super) after: f64,
}

/// How the layers of a model are rounded: in the order of the graph, each on what it reads once the layers before it are rounded.
pub(super) trait Rounding {
    /// The weights of one layer.
    fn round(&mut self, step: Step) -> Result<Rounded>;

    /// All layers in front of node `node` are done; `usize::MAX` behind the last one.
    fn reach(&mut self, _model: &mut Model, _states: &mut Layerwise, _node: usize) -> Result<()> {
        Ok(())
    }
}

/// What corrections by compensation have in common.
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
            rounding.reach(model, &mut states, at)?;
            let node = model.graph.nodes[at].clone();
            match step(model, &mut states, (at, weight), rounding)? {
                Some(rounded) => {
                    if rounded.before > 0.0 && rounded.after > 0.0 {
                        ratios.push(rounded.after / rounded.before);
                    }
                }
                None => left.push(node.label(&model.values)),
            }
            tensor::release_kept();
            (cx.progress)(done as u64 + 1, all);
        }
        rounding.reach(model, &mut states, usize::MAX)?;
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

    /// What is added to the power of each input, `h` [k, k].
    pub(super) fn damping(&self, h: &[f64], k: usize) -> f64 {
        let damping = self.damping * (0..k).map(|i| h[i * k + i]).sum::<f64>() / k.max(1) as f64;
        if damping > 0.0 { damping } else { 1.0 }
    }

    /// The power `h` [k, k] of inputs, prepared for rounding: damped, so that inputs that are never other than zero take part without effect,
    /// and in order. `None` if it has no inverse.
    pub(super) fn inputs(&self, plain: Vec<f64>, k: usize) -> Option<Inputs> {
        let (mut h, damping) = (plain.clone(), self.damping(&plain, k));
        (0..k).for_each(|i| h[i * k + i] += damping);
        let mut order: Vec<usize> = (0..k).collect();
        if self.order == RoundingOrder::Power {
            order.sort_by(|a, b| h[b * k + b].total_cmp(&h[a * k + a]));
        }
        Inputs::new(plain, h, order)
    }
}

/// Rounds the weight of node `at`; `None` if it cannot be.
fn step(model: &mut Model, states: &mut Layerwise, (at, id): (usize, ValueId), rounding: &mut dyn Rounding) -> Result<Option<Rounded>> {
    let node = model.graph.nodes[at].clone();
    let shape = model.values.tensor(id).map(|t| t.shape().to_vec()).unwrap_or_default();
    let (Some(products), Some(data)) = (Products::of(&node, &shape), node.input(0)) else { return Ok(None) };
    let layer = LayerInputs::new(model, &node, products, &shape)?;
    let Some(weights) = LayerWeights::of(model, id, &layer)? else { return Ok(None) };
    let of = |state: &HashMap<ValueId, Tensor>| state.get(&data).or(model.values.tensor(data)).cloned().ok_or(QuantizeError::NoData);
    let inputs = states.before(model, at)?.iter().map(of).collect::<Result<Vec<_>>>()?;
    let mut power = InputPower::new(&layer);
    for x in &inputs {
        power.add(&layer, x)?;
    }
    let rounded = rounding.round(Step { node: at, data, layer: &layer, inputs: &inputs, weights, power })?;
    let stored = layer.restored(rounded.weights.clone(), &shape).map_err(|e| named(&model.values[id].name)(e.into()))?;
    model.values.set_tensor(id, stored);
    if let (Some(scales), Some(encoding)) = (&rounded.scales, &mut model.annotations.entry(id).encoding) {
        encoding.parameters.insert("scale".into(), scales.clone());
    }
    Ok(Some(rounded))
}
