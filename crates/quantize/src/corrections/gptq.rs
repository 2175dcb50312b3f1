//! GPTQ: a layer's weights are rounded one input after the other, and those not rounded yet make up for the error.
use super::bias_correction::{BiasCorrection, BiasTarget, Form};
use super::compensate::{Compensation, LayerWeights, Rounded, Rounding, RoundingOrder, Step};
use super::{Correction, CorrectionContext, Phase, Want, layerwise};
use crate::bias::fit_biases;
use crate::diagnosis::without_encodings;
use crate::{QuantPlan, QuantizeError, QuantizeSettings, Result};
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Fault, Manual, Settings, member, within};
use tensor::Tensor;
use train::{InputPower, Layerwise};

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

sweeps = N: up to N times more each weight in turn goes to the number with the least error given all others (coordinate descent, by H).
scales = true: the scale of each output is that of those tried with which the least error is left. It needs a scale for each output, and with
processor_safe only larger ones are tried.
asymmetry = a: the weights to round are not W but those of least error |W X_float - Q X|^2 for a = 1, X_float [k, n] the inputs in the
float network; W (a X_float X^T + (1 - a) X X^T) (X X^T)^-1 in general. So a layer also makes up for the errors of those before it.
biases = true: right after its weights are rounded, a layer's bias is corrected as bias_correction does it after the activation; the
layers behind are then rounded on what the corrected layer gives.

For weights of 4 bits and fewer in convolutions and matrix products, on grids of integers and in codebooks and other tables of levels.",
        source: "E. Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers (2022), arXiv:2210.17323, \
             algorithm 1; sweeps: as P. Nair and A. Suggala, CDQuant (2024), arXiv:2406.17542, but each weight in turn, not the best one \
             first; asymmetry: Y. Li et al., GPTAQ (2025), \
             arXiv:2504.02692, section 3",
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
    /// Most passes of coordinate descent over a layer's weights afterwards; 0: none.
    pub sweeps: usize,
    /// Also searches the scale of each output.
    pub scales: bool,
    /// How much a layer makes up for the errors of those before it, 0..1.
    pub asymmetry: f64,
    /// Also corrects each layer's bias once its weights are rounded.
    pub biases: bool,
}

impl Default for Gptq {
    fn default() -> Self {
        Gptq { samples: 128, damping: 0.01, order: RoundingOrder::Power, sweeps: 0, scales: false, asymmetry: 0.0, biases: false }
    }
}

impl Settings for Gptq {
    fn check(&self) -> std::result::Result<(), Fault> {
        self.walk().check()?;
        within("sweeps", self.sweeps as f64, 0.0, 1e6, "so many passes over the weights")?;
        within("asymmetry", self.asymmetry, 0.0, 1.0, "0 takes the simulation's inputs for both sides, 1 the float network's for the goal")
    }
}

impl Correction for Gptq {
    fn phase(&self) -> Phase {
        Phase::AfterFitting
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn wants(&self, model: &mut Model, settings: &QuantizeSettings) -> Result<Vec<Want>> {
        if self.biases { self.bias_correction().wants(model, settings) } else { Ok(vec![]) }
    }

    fn apply(&self, model: &mut Model, cx: &CorrectionContext) -> Result<Vec<String>> {
        let float = || -> Result<(Model, Layerwise)> {
            let float = without_encodings(model);
            let states = layerwise(&float, cx.samples, self.samples)?;
            Ok((float, states))
        };
        let mut biases: Vec<(BiasTarget, &Tensor)> = BiasTarget::all(model).into_iter().zip(cx.collected).collect();
        biases.sort_by_key(|(target, _)| std::cmp::Reverse(target.node));
        let mut refined = Refined {
            gptq: self,
            float: (self.asymmetry > 0.0).then(float).transpose()?,
            plan: crate::plan(model, cx.settings)?,
            biases,
            exact: cx.settings.exact,
            processor_safe: cx.settings.processor_safe,
        };
        self.walk().run(model, cx, &mut refined)
    }
}

impl Gptq {
    fn walk(&self) -> Compensation {
        Compensation { samples: self.samples, damping: self.damping, order: self.order }
    }

    fn bias_correction(&self) -> BiasCorrection {
        BiasCorrection { samples: self.samples, form: Form::AfterActivation }
    }

    /// The share `asymmetry` of the products of the float network's inputs and the simulation's, the rest of the simulation's with
    /// themselves, and the damping.
    fn mixed(&self, cross: &[f64], h: &[f64], k: usize) -> Vec<f64> {
        let mut out: Vec<f64> = cross.iter().zip(h).map(|(c, h)| self.asymmetry * c + (1.0 - self.asymmetry) * h).collect();
        let damping = self.walk().damping(h, k);
        (0..k).for_each(|i| out[i * k + i] += damping);
        out
    }
}

/// To the nearest number, with the refinements that are asked for.
struct Refined<'a> {
    gptq: &'a Gptq,
    /// The float network and its values, where a layer makes up for the errors of those before it.
    float: Option<(Model, Layerwise)>,
    plan: QuantPlan,
    /// Biases still to correct, the next one last, each with what [`BiasCorrection`] wants to know of the float network.
    biases: Vec<(BiasTarget, &'a Tensor)>,
    exact: bool,
    /// Scales must not become smaller, or sums would saturate again.
    processor_safe: bool,
}

impl Refined<'_> {
    /// `X_float X^T` for each group of the layer's inputs, `None` where it is not wanted.
    fn cross(&mut self, step: &Step) -> Result<Option<InputPower>> {
        let Some((float, states)) = &mut self.float else { return Ok(None) };
        let mut cross = InputPower::new(step.layer);
        for (state, x) in states.before(float, step.node)?.iter().zip(step.inputs) {
            let of_float = state.get(&step.data).or(float.values.tensor(step.data)).ok_or(QuantizeError::NoData)?;
            cross.add_between(step.layer, of_float, x)?;
        }
        Ok(Some(cross))
    }
}

impl Rounding for Refined<'_> {
    fn round(&mut self, step: Step) -> Result<Rounded> {
        let cross = self.cross(&step)?;
        let gptq = self.gptq;
        let LayerWeights { mut points, original, nearest, live } = step.weights;
        let (k, per_group) = (step.layer.row, step.layer.outputs / step.layer.groups);
        let mut out = Rounded { weights: nearest.clone(), scales: None, before: 0.0, after: 0.0 };
        for (group, h) in step.power.groups.into_iter().enumerate() {
            let cross = cross.as_ref().map(|cross| gptq.mixed(&cross.groups[group], &h, k));
            let Some(inputs) = gptq.walk().inputs(h, k) else { continue };
            for output in group * per_group..(group + 1) * per_group {
                let span = output * k..(output + 1) * k;
                let wide = |list: &[f32]| list[span.clone()].iter().map(|w| f64::from(*w)).collect::<Vec<f64>>();
                let live = &live[span.clone()];
                let wanted = match &cross {
                    Some(cross) => inputs.wanted(&wide(&original), cross),
                    None => wide(&original),
                };
                let one = |scale: Option<f32>| {
                    let found = inputs.compensate(&wanted, live, |at, w, _| points.nearest(output, at, w, scale));
                    (inputs.error(&wanted, &found), found, scale)
                };
                let mut scales = if gptq.scales { points.scales(output) } else { vec![] };
                scales.retain(|s| !self.processor_safe || *s > points.scale(output, 0));
                let tried = std::iter::once(one(None)).chain(scales.into_iter().map(|s| one(Some(s))));
                let Some((_, mut found, scale)) = tried.min_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
                inputs.descend(&wanted, live, &mut found, gptq.sweeps, |at, w| points.nearest(output, at, w, scale));
                let (old, fresh) = (inputs.error(&wanted, &wide(&nearest)), inputs.error(&wanted, &found));
                out.before += old;
                out.after += old.min(fresh);
                if fresh < old {
                    out.weights[span].iter_mut().zip(&found).for_each(|(n, f)| *n = *f as f32);
                    if let Some(scale) = scale {
                        points.set_scale(output, scale);
                    }
                }
            }
        }
        out.scales = points.chosen().filter(|_| gptq.scales);
        Ok(out)
    }

    /// A bias may be added some nodes behind its layer, and its correction runs the network up to there: so not before the walk is behind it.
    fn reach(&mut self, model: &mut Model, states: &mut Layerwise, node: usize) -> Result<()> {
        if self.gptq.scales {
            fit_biases(model, &self.plan, self.exact)?;
        }
        while let Some((target, float)) = self.biases.pop_if(|(target, _)| target.node < node) {
            self.gptq.bias_correction().correct(model, &target, Some(states), float, (&self.plan, self.exact))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{batch, chain, products_before_their_biases, quantized, residual, sqnr, with};
    use super::*;
    use ops::Products;
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

    /// Two products, and only then what is added to each: the second layer lies between the first and its bias.
    #[test]
    fn a_bias_that_is_added_behind_the_next_layer_is_corrected() {
        let float = products_before_their_biases();
        let settings = low(r#"[{"kind": "gptq", "samples": 32, "biases": true}]"#, 3);
        let (model, report) = quantized(float.clone(), &settings);
        assert!(report.corrections[0].notes[0].starts_with("2 layers: "), "{report:?}");
        for name in ["c", "d"] {
            let of = |m: &Model| m.values.tensor(m.find(name).unwrap()).unwrap().clone();
            assert_ne!(of(&float), of(&model), "{name}");
        }
    }

    /// With `processor_safe` scales do not shrink again.
    #[test]
    fn scales_that_must_be_safe_only_grow() {
        let scales = |safe: bool, corrections: &str| {
            let settings = QuantizeSettings { processor_safe: safe, ..low(corrections, 8) };
            let model = quantized(residual(), &settings).0;
            let all =
                ["w0", "w2", "w4", "w7"].map(|n| model.annotations.encoding(model.find(n).unwrap()).unwrap().parameters["scale"].clone());
            all.iter().flat_map(|t| t.to_f32_vec().unwrap()).collect::<Vec<f32>>()
        };
        let searched = r#"[{"kind": "gptq", "samples": 32, "scales": true}]"#;
        let fewer = |safe| scales(safe, "[]").iter().zip(scales(safe, searched)).filter(|(own, new)| new < *own).count();
        assert_eq!(fewer(true), 0);
        assert!(fewer(false) > 0);
    }

    /// Each alone changes the outputs, and none takes them far away.
    #[test]
    fn asymmetry_and_biases_reach_the_outputs() {
        let measure = |more: &str| {
            let settings = low(&format!(r#"[{{"kind": "gptq", "samples": 32{more}}}]"#), 3);
            sqnr(&chain("Relu"), &quantized(chain("Relu"), &settings).0)
        };
        let plain = measure("");
        for more in [r#", "asymmetry": 0.5"#, r#", "biases": true"#] {
            let other = measure(more);
            assert!(other.is_finite() && other > plain - 0.5 && other != plain, "{more}: {plain:.2} dB, then {other:.2} dB");
        }
    }

    #[test]
    fn weights_of_every_encoding_with_levels_are_rounded() {
        let kinds = [
            ("affine", serde_json::json!({ "bits": 3, "granularity": { "group": 8 } })),
            ("codebook", serde_json::json!({ "bits": 2, "channel_scale": false })),
            ("codebook", serde_json::json!({ "bits": 3 })),
            ("ternary", serde_json::json!({})),
            ("power_of_two", serde_json::json!({ "bits": 3 })),
            ("additive_power_of_two", serde_json::json!({ "bits": 3 })),
        ];
        for (kind, settings) in kinds {
            let (model, report) = quantized(residual(), &stored_as(GPTQ, kind, settings.clone()));
            let ratio = ratio(&report);
            assert!((0.01..0.9).contains(&ratio), "{kind} {settings}: {report:?}");
            for name in ["w0", "w2", "w4", "w7"] {
                let id = model.find(name).unwrap();
                let (weight, annotation) = (model.values.tensor(id).unwrap(), model.annotations.get(id).unwrap());
                assert_eq!(&encodings::simulate(weight, annotation).unwrap(), weight, "{kind} {name}");
            }
        }
    }

    /// The error that is left, as a share of that of rounding to nearest.
    fn ratio(report: &crate::CalibrationReport) -> f64 {
        let note = report.corrections[0].notes[0].strip_prefix("4 layers: error of a layer's result ");
        note.and_then(|n| n.split(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
    }

    #[test]
    fn descent_and_scales_leave_less_error_and_a_goal_in_float_brings_the_outputs_nearer() {
        let of = |more: &str| {
            let (model, report) = quantized(residual(), &low(&format!(r#"[{{"kind": "gptq", "samples": 32{more}}}]"#), 3));
            for name in ["w0", "w2", "w4", "w7"] {
                let id = model.find(name).unwrap();
                let (weight, annotation) = (model.values.tensor(id).unwrap(), model.annotations.get(id).unwrap());
                assert_eq!(&encodings::simulate(weight, annotation).unwrap(), weight, "{more}: {name}");
            }
            (ratio(&report), sqnr(&residual(), &model))
        };
        let (plain, base) = of("");
        let (swept, _) = of(r#", "sweeps": 10"#);
        let (scaled, _) = of(r#", "sweeps": 10, "scales": true"#);
        assert!(swept < plain && scaled < swept, "{plain} {swept} {scaled}");
        let (_, all) = of(r#", "sweeps": 10, "scales": true, "biases": true, "asymmetry": 1.0"#);
        assert!(all > base + 0.5, "{base:.2} dB, {all:.2} dB with all of it");
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
