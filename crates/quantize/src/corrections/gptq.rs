//! GPTQ: a layer's weights are rounded one input after the other, and those not rounded yet make up for the error.
use super::points::Points;
use super::reconstruct::encoded_layers;
use super::{Correction, CorrectionContext, Phase, layerwise};
use crate::error::named;
use crate::{QuantizeError, Result};
use graph::{Model, ValueId};
use ops::Products;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Fault, Manual, Settings, member, within};
use tensor::{DType, Tensor};
use train::{InputPower, LayerInputs, inverse_factor};

pub(super) const ENTRY: Entry<dyn Correction> = member!(
    Gptq as dyn Correction,
    Manual {
        name: "gptq",
        summary: "Rounds a layer's weights one input after the other; those not rounded yet make up for the error. No labels.",
        details: "\
For each layer, in the order of the graph, with W [out, k] (a convolution's kernel flattened, each group by itself), X [k, n] what it
multiplies in the simulation with the layers before it rounded already, H = X X^T + damping * mean(diag H) * I, and U the upper
triangular factor of the inverse of H (U^T U): for j = 1 .. k

  q_j = the nearest number to w_j that the encoding has,  w_i <- w_i - (w_j - q_j) U_ji / U_jj  for all i > j

which is the best that the weights left can do about the error |(W - Q) X|^2. Inputs with the largest power come first (order =
\"power\"), as errors made late are made up for least. Masked weights stay zero. A layer keeps rounding to nearest where that is
nearer. One pass and no learning; results usually lie between adaround and rounding to nearest.

For weights of 4 bits and fewer in convolutions and matrix products, on grids of integers and in codebooks and other tables of levels.",
        source: "E. Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers (2022), arXiv:2210.17323, \
             algorithm 1",
        example: "weights = { bits = 4 }\ncorrections = [{ kind = \"gptq\", samples = 128 }]",
    }
);

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

/// Settings of `gptq`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gptq {
    /// Calibration samples, in whole batches.
    pub samples: usize,
    /// Share of the mean power of the inputs that is added to each.
    pub damping: f64,
    /// The order in which inputs are rounded.
    pub order: RoundingOrder,
}

impl Default for Gptq {
    fn default() -> Self {
        Gptq { samples: 128, damping: 0.01, order: RoundingOrder::Power }
    }
}

impl Settings for Gptq {
    fn check(&self) -> std::result::Result<(), Fault> {
        within("samples", self.samples as f64, 1.0, 1e9, "the power of inputs is taken over at least one sample")?;
        within("damping", self.damping, 1e-8, 1e3, "it is a share of the mean power")
    }
}

impl Correction for Gptq {
    fn phase(&self) -> Phase {
        Phase::AfterFitting
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn apply(&self, model: &mut Model, cx: &CorrectionContext) -> Result<Vec<String>> {
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
                    match self.round(model, weight, &layer, power)? {
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
}

impl Gptq {
    /// Rounds a weight; returns the error of rounding to nearest and the one that is left. `None`: it cannot be rounded.
    fn round(&self, model: &mut Model, id: ValueId, layer: &LayerInputs, power: InputPower) -> Result<Option<(f64, f64)>> {
        let fault = |e: encodings::EncodingError| named(&model.values[id].name)(e);
        let (Some(weight), Some(annotation)) = (model.values.tensor(id), model.annotations.get(id)) else { return Ok(None) };
        let Some(encoding) = &annotation.encoding else { return Ok(None) };
        let nearest = encodings::simulate(weight, annotation).map_err(fault)?;
        let original = encodings::live(weight, annotation.mask.as_ref()).map_err(fault)?;
        let rows = |t: &Tensor| layer.rows(t).and_then(|t| t.to_f32_vec()).map_err(|e| fault(e.into()));
        let live = match &annotation.mask {
            Some(mask) => rows(&mask.cast(DType::F32).map_err(|e| fault(e.into()))?)?.iter().map(|m| *m != 0.0).collect(),
            None => vec![true; weight.len()],
        };
        let (original, nearest) = (rows(&original)?, rows(&nearest)?);
        let Some(points) = Points::of(encoding, layer.products, layer.outputs).map_err(fault)? else { return Ok(None) };
        let k = layer.row;
        let per_group = layer.outputs / layer.groups;
        let (mut new, mut before, mut after) = (nearest.clone(), 0.0, 0.0);
        for (group, mut h) in power.groups.into_iter().enumerate() {
            let plain = h.clone();
            let order = self.prepare(&mut h, k);
            let Some(u) = inverse_factor(&permuted(&h, &order)) else { continue };
            for output in group * per_group..(group + 1) * per_group {
                let span = output * k..(output + 1) * k;
                let found = compensate(&original[span.clone()], &live[span.clone()], &order, &u, |w| points.nearest(output, w));
                let error = |rounded: &[f32]| result_error(&original[span.clone()], rounded, &plain);
                let (old, fresh) = (error(&nearest[span.clone()]), error(&found));
                before += old;
                after += old.min(fresh);
                if fresh < old {
                    new[span].copy_from_slice(&found);
                }
            }
        }
        let stored = layer.restored(new, weight.shape()).map_err(|e| fault(e.into()))?;
        model.values.set_tensor(id, stored);
        Ok(Some((before, after)))
    }

    /// Adds the damping; inputs that are never other than zero take part without effect. Returns the order of rounding.
    fn prepare(&self, h: &mut [f64], k: usize) -> Vec<usize> {
        let damping = self.damping * (0..k).map(|i| h[i * k + i]).sum::<f64>() / k.max(1) as f64;
        for i in 0..k {
            h[i * k + i] += if damping > 0.0 { damping } else { 1.0 };
        }
        let mut order: Vec<usize> = (0..k).collect();
        if self.order == RoundingOrder::Power {
            order.sort_by(|a, b| h[b * k + b].total_cmp(&h[a * k + a]));
        }
        order
    }
}

/// A symmetric matrix with its rows and columns in an order.
fn permuted(h: &[f64], order: &[usize]) -> Vec<f64> {
    let k = order.len();
    order.iter().flat_map(|i| order.iter().map(move |j| h[i * k + j])).collect()
}

/// The weights of one output, rounded in an order; `u` has rows and columns in that order.
fn compensate(weights: &[f32], live: &[bool], order: &[usize], u: &[f64], nearest: impl Fn(f64) -> f64) -> Vec<f32> {
    let k = order.len();
    let mut w: Vec<f64> = order.iter().map(|i| f64::from(weights[*i])).collect();
    let mut out = vec![0f32; k];
    for j in 0..k {
        let q = if live[order[j]] { nearest(w[j]) } else { 0.0 };
        out[order[j]] = q as f32;
        let error = (w[j] - q) / u[j * k + j];
        w[j + 1..].iter_mut().zip(&u[j * k + j + 1..(j + 1) * k]).for_each(|(w, u)| *w -= error * u);
    }
    out
}

/// `d H d^T` of the difference `d` of one output's weights.
fn result_error(original: &[f32], rounded: &[f32], h: &[f64]) -> f64 {
    let d: Vec<f64> = original.iter().zip(rounded).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
    let k = d.len();
    (0..k).map(|i| d[i] * h[i * k..(i + 1) * k].iter().zip(&d).map(|(h, d)| h * d).sum::<f64>()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, chain, quantized, residual, sqnr, with};
    use super::*;
    use crate::QuantizeSettings;
    use train::{Executor, Mode, Named};

    const GPTQ: &str = r#"[{"kind": "gptq", "samples": 32}]"#;

    fn low(corrections: &str, bits: u32) -> QuantizeSettings {
        stored_as(corrections, "affine", serde_json::json!({ "bits": bits }))
    }

    fn stored_as(corrections: &str, kind: &str, weights: serde_json::Value) -> QuantizeSettings {
        let mut settings = with(corrections);
        settings.weights = technique::Choice::with(kind, &weights).unwrap();
        settings
    }

    #[test]
    fn the_columns_of_a_layer_times_its_weight_are_its_result() {
        for model in [chain("Relu"), residual()] {
            let batch = batch(&[4, 3, 6, 6], 3);
            let mut seen = std::collections::HashMap::new();
            let executor = Executor::unfused(&model).unwrap();
            executor.run_observed(&batch.inputs, Mode::FLOAT, &mut |id, t| drop(seen.insert(id, t.clone()))).unwrap();
            for node in model.graph.nodes.iter().filter(|n| n.op_type == "Conv" || n.op_type == "Gemm") {
                let weight = model.values.tensor(node.input(1).unwrap()).unwrap();
                let products = Products::of(node, weight.shape()).unwrap();
                let layer = LayerInputs::new(&model, node, products, weight.shape()).unwrap();
                let columns =
                    layer.columns().run(&Named::from([("x".into(), seen[&node.input(0).unwrap()].clone())]), Mode::FLOAT).unwrap();
                let rows = layer.rows(weight).unwrap();
                let per_group = layer.outputs / layer.groups;
                let mut result: Vec<Vec<f32>> = vec![];
                for g in 0..layer.groups {
                    let part = rows.narrow(0, g * per_group, per_group).unwrap();
                    let product = part.matmul(&layer.group(&columns["y"], g).unwrap()).unwrap();
                    result.extend(product.to_f32_vec().unwrap().chunks(product.shape()[1]).map(<[f32]>::to_vec));
                }
                let bias = node.input(2).and_then(|b| model.values.tensor(b)).map(|b| b.to_f32_vec().unwrap());
                let y = &seen[&node.output(0).unwrap()];
                let axes: Vec<usize> = std::iter::once(1).chain([0]).chain(2..y.rank()).collect();
                let wanted = y.transpose(&axes).unwrap().to_f32_vec().unwrap();
                for (channel, (got, wanted)) in result.iter().zip(wanted.chunks(wanted.len() / layer.outputs)).enumerate() {
                    let b = bias.as_ref().map_or(0.0, |b| b[channel]);
                    assert!(got.iter().zip(wanted).all(|(g, w)| (g + b - w).abs() <= 1e-4 * w.abs().max(1.0)), "{}", node.name);
                }
            }
        }
    }

    #[test]
    fn it_is_nearer_to_the_float_network_than_rounding_to_nearest() {
        for (model, bits) in [(chain("Relu"), 4), (residual(), 3)] {
            let measure = |corrections: &str| sqnr(&model, &quantized(model.clone(), &low(corrections, bits)).0);
            let (nearest, corrected) = (measure("[]"), measure(GPTQ));
            assert!(corrected > nearest + 0.5, "{nearest:.2} dB to nearest, {corrected:.2} dB");
        }
    }

    #[test]
    fn weights_of_every_encoding_with_levels_are_rounded() {
        let kinds = [
            ("codebook", serde_json::json!({ "bits": 2, "channel_scale": false })),
            ("codebook", serde_json::json!({ "bits": 3 })),
            ("ternary", serde_json::json!({})),
            ("power_of_two", serde_json::json!({ "bits": 3 })),
            ("additive_power_of_two", serde_json::json!({ "bits": 3 })),
        ];
        for (kind, settings) in kinds {
            let (model, report) = quantized(residual(), &stored_as(GPTQ, kind, settings.clone()));
            let note = &report.corrections[0].notes[0];
            let ratio = note.strip_prefix("4 layers: error of a layer's result ").and_then(|n| n.split(' ').next()?.parse::<f64>().ok());
            assert!(ratio.is_some_and(|r| (0.01..0.9).contains(&r)), "{kind} {settings}: {note}");
            for name in ["w0", "w2", "w4", "w7"] {
                let id = model.find(name).unwrap();
                let (weight, annotation) = (model.values.tensor(id).unwrap(), model.annotations.get(id).unwrap());
                assert_eq!(&encodings::simulate(weight, annotation).unwrap(), weight, "{kind} {name}");
            }
        }
    }

    #[test]
    fn weights_lie_on_their_grids_and_masked_ones_stay_zero() {
        let mut model = residual();
        let id = model.find("w2").unwrap();
        let shape = model.values.tensor(id).unwrap().shape().to_vec();
        let live: Vec<bool> = (0..shape.iter().product()).map(|i| i % 3 != 0).collect();
        model.annotations.entry(id).mask = Some(Tensor::new(live.clone(), shape).unwrap());
        let float = model.clone();
        let (model, report) = quantized(model, &low(GPTQ, 3));
        assert!(report.corrections[0].notes[0].starts_with("4 layers: "), "{report:?}");
        for name in ["w0", "w2", "w4", "w7"] {
            let id = model.find(name).unwrap();
            let (weight, annotation) = (model.values.tensor(id).unwrap(), model.annotations.get(id).unwrap());
            assert_eq!(&encodings::simulate(weight, annotation).unwrap(), weight, "{name}");
        }
        let stored = model.values.tensor(id).unwrap().to_f32_vec().unwrap();
        assert!(stored.iter().zip(&live).all(|(v, live)| *live || *v == 0.0));
        // What a mask hides is no error to make up for: zeros below it give the same.
        let mut zeroed = float;
        let below = encodings::live(zeroed.values.tensor(id).unwrap(), zeroed.annotations.mask(id)).unwrap();
        assert_ne!(Some(&below), zeroed.values.tensor(id));
        zeroed.values.set_tensor(id, below);
        let (zeroed, _) = quantized(zeroed, &low(GPTQ, 3));
        assert_eq!(model.values.tensor(id), zeroed.values.tensor(id));
    }
}
