//! GPTQ: a layer's weights are rounded one input after the other, and those not rounded yet make up for the error.
use super::compensate::{Compensation, Rounding, RoundingOrder, Rows};
use super::{Correction, CorrectionContext, Phase};
use crate::Result;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Fault, Manual, Settings, member};

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

impl Gptq {
    fn walk(&self) -> Compensation {
        Compensation { samples: self.samples, damping: self.damping, order: self.order }
    }
}

impl Settings for Gptq {
    fn check(&self) -> std::result::Result<(), Fault> {
        self.walk().check()
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
        self.walk().run(model, cx, &mut Nearest)
    }
}

/// To the nearest number.
struct Nearest;

impl Rounding for Nearest {
    fn choose(&mut self, rows: &Rows, output: usize, _input: usize, w: f64, _cost: f64) -> f64 {
        rows.points.nearest(output, w)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, chain, quantized, residual, sqnr, with};
    use crate::QuantizeSettings;
    use ops::Products;
    use tensor::Tensor;
    use train::{Executor, LayerInputs, Mode, Named};

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
