//! Quantizing networks from the zoo on random data.
use encodings::affine::Precision;
use espalier_quantize::{
    Observers, QuantizeError, QuantizeSettings, check_skip, choose, fit, fold_kept, keep_norms, observe, plan, quantize, refresh_biases,
};
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use technique::{Choice, Family};
use tensor::{Tensor, random};
use train::{Batch, Executor, Mode, TrainError};

fn affine(settings: serde_json::Value) -> Choice<encodings::Encodings> {
    Choice::with("affine", &settings).unwrap()
}

fn model(name: &str) -> Model {
    let entry = zoo::find(name).unwrap();
    let mut m = entry.build(&zoo::ZooOptions { width: 0.25, ..entry.default_options() }).unwrap();
    ops::fold_batch_norm(&mut m).unwrap();
    m
}

fn input(m: &Model, seed: u64) -> Tensor {
    let shape = m.values[m.graph.inputs[0]].shape().unwrap();
    let shape: Vec<usize> = shape.iter().map(|d| d.known().unwrap_or(4)).collect();
    random::uniform(seed, &shape, -1.0, 1.0).unwrap()
}

fn batches(m: &Model) -> Vec<Result<Batch, TrainError>> {
    let one = |seed| Batch { inputs: BTreeMap::from([("input".to_string(), input(m, seed))]), ..Default::default() };
    (0..3).map(|seed| Ok(one(seed))).collect()
}

fn run(m: &Model, mode: Mode) -> Vec<f32> {
    let inputs = BTreeMap::from([("input".to_string(), input(m, 0))]);
    Executor::new(m).unwrap().run(&inputs, mode).unwrap()["logits"].to_f32_vec().unwrap()
}

/// Fits every encoded weight again to its present elements under its mask, then the biases: what folding does to the weight of a
/// normalization that was kept.
fn refit_weights(m: &mut Model, settings: &QuantizeSettings) {
    let weights: Vec<ValueId> = m.annotations.iter().filter(|(_, a)| a.encoding.is_some()).map(|(id, _)| id).collect();
    for id in weights {
        let encoding = m.annotations.encoding(id).unwrap();
        let bias = encodings::affine::AffineSettings::of(encoding).is_ok_and(|s| s.is_bias());
        let Some(tensor) = m.values.tensor(id).filter(|_| !bias) else { continue };
        let fitted = encodings::refit(tensor, m.annotations.mask(id), encoding).unwrap();
        m.annotations.entry(id).encoding = Some(fitted);
    }
    refresh_biases(m, settings).unwrap();
}

#[test]
fn eight_bits_stay_close_to_float() {
    for name in ["mlp", "lenet5", "resnet8", "resnet20", "ds-cnn"] {
        let mut m = model(name);
        let float = run(&m, Mode::FLOAT);
        let data = batches(&m);
        let report = quantize(&mut m, &QuantizeSettings::default(), data.into_iter()).unwrap();
        assert_eq!(report.samples, 12);
        assert_eq!(report.float_parts, vec![], "{name}");
        assert_eq!(run(&m, Mode::FLOAT), float);
        let simulated = run(&m, Mode::SIMULATED);
        let largest = float.iter().fold(0f32, |a, v| a.max(v.abs()));
        let off = float.iter().zip(&simulated).fold(0f32, |a, (f, s)| a.max((f - s).abs()));
        assert!(off > 0.0 && off < 0.05 * largest, "{name}: off by {off} of {largest}");
    }
}

#[test]
fn a_convolution_before_a_relu_is_quantized_behind_it() {
    let m = model("lenet5");
    let plan = plan(&m, &QuantizeSettings::default()).unwrap();
    let planned = |name: &str| plan.activations.contains_key(&m.find(name).unwrap());
    assert!(planned("input") && planned("relu1") && planned("relu3") && planned("logits"));
    // The pooled and the flattened values have the grid of their source.
    assert!(!planned("conv1") && !planned("pool1") && !planned("flatten"));
    assert_eq!((plan.constants.len(), plan.biases.len()), (4, 4));
}

#[test]
fn a_bias_lies_on_the_accumulators_grid() {
    let mut m = model("lenet5");
    let data = batches(&m);
    quantize(&mut m, &QuantizeSettings::default(), data.into_iter()).unwrap();
    let scale = |name: &str| m.annotations.encoding(m.find(name).unwrap()).unwrap().parameters["scale"].to_f32_vec().unwrap();
    let (x, w, b) = (scale("relu1"), scale("conv2.weight"), scale("conv2.bias"));
    assert!(w.iter().zip(&b).all(|(w, b)| x[0] * w == *b));
}

#[test]
fn masks_are_held_and_zeros_stay_zeros() {
    let mut m = model("lenet5");
    let id = m.find("fc1.weight").unwrap();
    let weight = m.values.tensor(id).unwrap().clone();
    let live = weight.as_slice::<f32>().unwrap().iter().map(|w| w.abs() > 0.02).collect();
    m.annotations.entry(id).mask = Some(Tensor::new(live, weight.shape()).unwrap());
    let data = batches(&m);
    quantize(&mut m, &QuantizeSettings::default(), data.into_iter()).unwrap();
    let stored = encodings::simulate(&weight, m.annotations.get(id).unwrap()).unwrap();
    let mask = m.annotations.mask(id).unwrap().as_slice::<bool>().unwrap();
    assert!(stored.as_slice::<f32>().unwrap().iter().zip(mask).all(|(v, live)| *live || *v == 0.0));
    // Fitted again without the data's statistics: the same precision, and no larger error.
    let before = m.annotations.clone();
    refit_weights(&mut m, &QuantizeSettings::default());
    for (id, annotation) in before.iter() {
        let after = m.annotations.get(id).unwrap();
        assert_eq!(annotation.mask, after.mask);
        let scales = |a: &graph::Annotation| a.encoding.as_ref().unwrap().parameters["scale"].to_f32_vec().unwrap();
        let bias = encodings::affine::AffineSettings::of(after.encoding.as_ref().unwrap()).unwrap().is_bias();
        assert!(bias || Precision::of(&scales(after)) <= Precision::of(&scales(annotation)));
        // The scale with the least error of the weights alone; before, the mean of the data mattered too.
        if let Some(weight) = m.values.tensor(id).filter(|_| !bias) {
            let mask = graph::Annotation { mask: after.mask.clone(), encoding: None };
            let live = encodings::simulate(weight, &mask).unwrap().to_f32_vec().unwrap();
            let error = |a: &graph::Annotation| {
                let stored = encodings::simulate(weight, a).unwrap().to_f32_vec().unwrap();
                stored.iter().zip(&live).map(|(s, w)| f64::from(s - w).powi(2)).sum::<f64>()
            };
            assert!(error(after) <= 1.0001 * error(annotation));
        }
    }
    let again = m.annotations.clone();
    refit_weights(&mut m, &QuantizeSettings::default());
    assert_eq!(m.annotations, again);
}

#[test]
fn what_stays_float_is_listed_with_its_reason() {
    let mut m = model("lenet5");
    let settings = QuantizeSettings { skip: vec!["/fc2".into()], ..Default::default() };
    let data = batches(&m);
    let report = quantize(&mut m, &settings, data.into_iter()).unwrap();
    assert_eq!(report.float_parts.len(), 1);
    assert_eq!((report.float_parts[0].node.as_str(), report.float_parts[0].op_type.as_str()), ("/fc2", "Gemm"));
    assert!(m.annotations.encoding(m.find("fc2.weight").unwrap()).is_none());
}

#[test]
fn what_cannot_be_calibrated_is_an_error_by_name() {
    let mut m = model("mlp");
    let settings = QuantizeSettings::default();
    assert_eq!(quantize(&mut m, &settings, std::iter::empty()), Err(QuantizeError::NoData));
    let mut broken = batches(&m).remove(0).unwrap();
    let x = broken.inputs.get_mut("input").unwrap();
    x.as_mut_slice::<f32>().unwrap()[5] = f32::NAN;
    let message = quantize(&mut m, &settings, std::iter::once(Ok(broken))).unwrap_err().to_string();
    assert!(message.contains("'input'") && message.contains("element 5"), "{message}");
    let skip = QuantizeSettings { skip: vec!["nothing".into()], ..Default::default() };
    assert!(check_skip(&m, &skip).unwrap_err().to_string().contains("nothing"));
    let mut wide = QuantizeSettings::default();
    wide.activations.bits = 17;
    assert!(plan(&m, &wide).unwrap_err().to_string().contains("activations.bits"));
    assert!(Choice::<encodings::Encodings>::with("affine", &serde_json::json!({ "bits": 17 })).is_err());
}

/// A network whose normalizations do something, negative and vanishing factors included.
fn normalized(name: &str) -> Model {
    let entry = zoo::find(name).unwrap();
    let mut m = entry.build(&zoo::ZooOptions { width: 0.25, ..entry.default_options() }).unwrap();
    let mut parameters = vec![];
    m.graph.visit(&mut |n| {
        if n.op_type == "BatchNormalization" {
            parameters.push((1..5).map(|i| n.input(i).unwrap()).collect::<Vec<_>>());
        }
    });
    for (i, ids) in parameters.iter().enumerate() {
        for (j, (id, (lo, hi))) in ids.iter().zip([(-0.4, 1.2), (-0.3, 0.3), (-0.3, 0.3), (0.3, 2.0)]).enumerate() {
            let n = m.values.tensor(*id).unwrap().len();
            let mut t = random::uniform((10 * i + j) as u64, &[n], lo, hi).unwrap();
            if j == 0 {
                t.as_mut_slice::<f32>().unwrap()[0] = 0.0;
            }
            m.values.set_tensor(*id, t);
        }
    }
    m
}

/// The graph with its normalizations, and the folded one, quantized on the same data.
fn both(name: &str, settings: &QuantizeSettings) -> (Model, Model) {
    let m = normalized(name);
    let data = batches(&m);
    let mut folded = m.clone();
    ops::fold_batch_norm(&mut folded).unwrap();
    quantize(&mut folded, settings, data.into_iter()).unwrap();
    (keep_norms(m, &folded).unwrap(), folded)
}

#[test]
fn a_kept_normalization_simulates_the_folded_weight_and_folds_to_the_same_graph() {
    let settings = QuantizeSettings::default();
    for name in ["resnet8", "resnet20", "ds-cnn"] {
        let (mut kept, folded) = both(name, &settings);
        let has_norms = |m: &Model| m.graph.nodes.iter().any(|n| n.op_type == "BatchNormalization");
        assert!(has_norms(&kept) && !has_norms(&folded));
        let b = run(&folded, Mode::SIMULATED);
        // Biases are rounded in the folded graph only; the remaining difference is in the last places, which decide few ties.
        let mut exact_biases = folded.clone();
        for (_, annotation) in exact_biases.annotations.iter_mut() {
            annotation.encoding = annotation.encoding.take().filter(|e| e.settings.get("bits") != Some(&graph::Setting::Int(32)));
        }
        let (float, a, b_exact) = (run(&kept, Mode::FLOAT), run(&kept, Mode::SIMULATED), run(&exact_biases, Mode::SIMULATED));
        let rms = |x: &[f32], y: &[f32]| (x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / x.len() as f64).sqrt();
        assert!(rms(&float, &b) > 0.0 && rms(&a, &b_exact) < 0.2 * rms(&float, &b), "{name}: {} of {}", rms(&a, &b_exact), rms(&float, &b));
        fold_kept(&mut kept, &settings).unwrap();
        assert!(!has_norms(&kept) && !ops::keeps_norms(&kept));
        assert_eq!(run(&kept, Mode::SIMULATED), b, "{name}");
        let encodings = |m: &Model| m.annotations.iter().filter(|(_, a)| a.encoding.is_some()).count();
        assert_eq!(encodings(&kept), encodings(&folded));
    }
}

/// The accumulator of a layer in 2 bits counts in steps as large as the bias itself. In the graph with its normalizations nothing
/// rounds the bias, so what is folded must not either.
#[test]
fn a_kept_normalization_behind_few_bits_keeps_its_shift_when_it_is_folded() {
    for bits in [2, 3, 4] {
        let activations = espalier_quantize::ActivationSettings { bits, ..Default::default() };
        let weights = affine(serde_json::json!({ "bits": bits }));
        let settings = QuantizeSettings { weights, activations, exact: false, ..QuantizeSettings::default() };
        let (mut kept, _) = both("resnet8", &settings);
        let exact: Vec<(String, Tensor)> = {
            let mut folded = kept.clone();
            folded.annotations.iter_mut().for_each(|(_, a)| a.encoding = None);
            ops::fold_batch_norm(&mut folded).unwrap();
            let norms = ops::foldable_norms(&kept).unwrap();
            let biases = norms.iter().map(|n| kept.values[n.weight].name.replace(".weight", ".bias"));
            biases.map(|name| (name.clone(), folded.values.tensor(folded.find(&name).unwrap()).unwrap().clone())).collect()
        };
        fold_kept(&mut kept, &settings).unwrap();
        for (name, exact) in exact {
            let id = kept.find(&name).unwrap();
            let plan = plan(&kept, &settings).unwrap();
            let part = plan.biases[&id];
            let scale = |v| kept.annotations.encoding(v).unwrap().parameters["scale"].to_f64_vec().unwrap();
            let stored = encodings::simulate(kept.values.tensor(id).unwrap(), kept.annotations.get(id).unwrap()).unwrap();
            let (input, weight) = (scale(part.input)[0], scale(part.weight));
            let largest = f64::from((1 << bits) - 1) * f64::from((1 << (bits - 1)) - 1);
            for ((a, b), w) in exact.to_f64_vec().unwrap().iter().zip(stored.to_f64_vec().unwrap()).zip(weight) {
                assert!((a - b).abs() <= input * w * largest / 128.0, "{bits} bits, {name}: {a} is stored as {b}");
            }
        }
    }
}

#[test]
fn a_kept_normalization_whose_statistics_move_takes_the_scale_along_and_is_not_folded() {
    let settings = QuantizeSettings::default();
    let (mut m, _) = both("resnet8", &settings);
    let unit = ops::foldable_norms(&m).unwrap().remove(0);
    let scale = |m: &Model| m.annotations.encoding(unit.weight).unwrap().parameters["scale"].to_f32_vec().unwrap();
    let before = scale(&m);
    let norm = m.graph.nodes.iter().find(|n| n.label(&m.values) == unit.norm).unwrap();
    let variance = norm.input(4).unwrap();
    let four_times = m.values.tensor(variance).unwrap().to_f32_vec().unwrap().iter().map(|v| 4.0 * (v + 1e-5) - 1e-5).collect::<Vec<f32>>();
    m.values.set_tensor(variance, Tensor::vector(four_times));
    ops::refresh_kept_norms(&mut m).unwrap();
    for (i, (a, b)) in before.iter().zip(scale(&m)).enumerate() {
        let expected = if i == 0 { *a } else { 2.0 * a };
        assert!((b - expected).abs() <= 1e-4 * expected, "{i}: {a} {b}");
    }
    ops::mark_kept_norms(&mut m, false);
    let error = fold_kept(&mut m.clone(), &settings).unwrap_err().to_string();
    assert!(error.contains(&unit.norm) && error.contains("freeze_statistics"), "{error}");
    ops::mark_kept_norms(&mut m, true);
    assert!(fold_kept(&mut m, &settings).unwrap() > 0);
}

#[test]
fn behind_weights_of_few_levels_a_normalization_goes_into_the_scales_of_their_channels() {
    for kind in ["ternary", "binary", "codebook", "additive_power_of_two"] {
        for granularity in ["channel", "tensor"] {
            let weights = Choice::with(kind, &serde_json::json!({ "granularity": granularity })).unwrap();
            let rules = serde_json::from_str(r#"[{ "position": "first", "weights": { "bits": 8 } }]"#).unwrap();
            let activations = espalier_quantize::ActivationSettings::float();
            let settings = QuantizeSettings { weights, rules, activations, ..QuantizeSettings::default() };
            let (mut kept, _) = both("resnet8", &settings);
            // A normalization may change a channel's sign.
            let unit = ops::foldable_norms(&kept).unwrap().remove(1);
            let norm = kept.graph.nodes.iter().find(|n| n.label(&kept.values) == unit.norm).unwrap();
            let gamma = norm.input(1).unwrap();
            let mut turned = kept.values.tensor(gamma).unwrap().to_f32_vec().unwrap();
            turned[1] = -turned[1];
            kept.values.set_tensor(gamma, Tensor::vector(turned));
            let before = run(&kept, Mode::SIMULATED);
            let weight = |m: &Model| m.values.tensor(unit.weight).unwrap().clone();
            let simulated =
                |m: &Model| encodings::simulate(&weight(m), m.annotations.get(unit.weight).unwrap()).unwrap().to_f64_vec().unwrap();
            let wanted = simulated(&kept);
            assert!(fold_kept(&mut kept, &settings).unwrap() > 0);
            assert!(!kept.graph.nodes.iter().any(|n| n.op_type == "BatchNormalization"));
            let per_channel = wanted.len() / unit.factor.len();
            for (i, (a, b)) in wanted.iter().zip(simulated(&kept)).enumerate() {
                let channel = i / per_channel;
                let factor = if channel == 1 { -unit.factor[1] } else { unit.factor[channel] };
                assert!((a * factor - b).abs() <= 1e-6 * b.abs() + 1e-30, "{kind} {granularity} {i}: {a} {factor} {b}");
            }
            let largest = before.iter().fold(0f32, |m, v| m.max(v.abs()));
            for (a, b) in before.iter().zip(run(&kept, Mode::SIMULATED)) {
                assert!((a - b).abs() <= 1e-4 * largest, "{kind} {granularity}: {a} {b}");
            }
        }
    }
}

#[test]
fn a_kept_normalization_needs_a_scale_for_each_channel() {
    let weights = affine(serde_json::json!({ "granularity": "tensor" }));
    let settings = QuantizeSettings { weights, ..QuantizeSettings::default() };
    let m = normalized("resnet8");
    let data = batches(&m);
    let mut folded = m.clone();
    ops::fold_batch_norm(&mut folded).unwrap();
    quantize(&mut folded, &settings, data.into_iter()).unwrap();
    let error = keep_norms(m, &folded).unwrap_err().to_string();
    assert!(error.contains("granularity"), "{error}");
}

#[test]
fn a_layer_that_the_second_quantization_skips_keeps_what_the_first_gave_it() {
    let quantized = |m: &mut Model, bits, skip: &[&str]| {
        let data = batches(m);
        let weights = affine(serde_json::json!({ "bits": bits }));
        let settings = QuantizeSettings { weights, skip: skip.iter().map(|s| s.to_string()).collect(), ..QuantizeSettings::default() };
        quantize(m, &settings, data.into_iter()).unwrap()
    };
    let bits = |m: &Model, name: &str| {
        m.annotations.encoding(m.find(name).unwrap()).map(|e| encodings::affine::AffineSettings::of(e).unwrap().bits)
    };
    let mut m = model("lenet5");
    let report = quantized(&mut m, 8, &["/conv2"]);
    assert_eq!((bits(&m, "conv1.weight"), bits(&m, "conv2.weight"), report.kept.len()), (Some(8), None, 0));
    let before = m.annotations.clone();
    let report = quantized(&mut m, 4, &["/conv1"]);
    assert_eq!(report.kept, ["/conv1"]);
    assert_eq!((bits(&m, "conv1.weight"), bits(&m, "conv2.weight"), bits(&m, "fc1.weight")), (Some(8), Some(4), Some(4)));
    for value in ["conv1.weight", "conv1.bias", "input"] {
        let id = m.find(value).unwrap();
        assert_eq!(m.annotations.encoding(id), before.encoding(id), "{value}");
    }
    assert!(report.float_parts.iter().all(|p| p.node != "/conv1"), "{:?}", report.float_parts);
    // Learned scales move biases of kept layers too.
    let input = m.find("input").unwrap();
    let encoding = m.annotations.entry(input).encoding.as_mut().unwrap();
    let scale = encoding.parameters["scale"].item::<f32>().unwrap() * 2.0;
    encoding.parameters.insert("scale".into(), Tensor::scalar(scale));
    let settings = QuantizeSettings { skip: vec!["/conv1".into()], ..QuantizeSettings::default() };
    espalier_quantize::refresh_biases(&mut m, &settings).unwrap();
    let of = |name: &str| m.annotations.encoding(m.find(name).unwrap()).unwrap().parameters["scale"].to_f32_vec().unwrap();
    assert!(of("conv1.weight").iter().zip(of("conv1.bias")).all(|(w, b)| scale * w == b));
}

#[test]
fn leaving_out_everything_is_refused() {
    let mut m = model("mlp");
    let data = batches(&m);
    let settings = QuantizeSettings { skip: vec!["*".into()], ..QuantizeSettings::default() };
    let error = quantize(&mut m, &settings, data.into_iter()).unwrap_err();
    assert_eq!(error.to_string(), "setting 'skip': leaves nothing to quantize");
}

#[test]
fn the_observer_with_the_least_error_on_data_it_has_not_seen_is_chosen() {
    // One element in a thousand is a hundred times as large: a range of all elements wastes the grid. The network clips.
    let m = model("mlp");
    let spiky = |m: &Model, seed: u64| {
        let t = input(m, seed);
        let values = t.to_f32_vec().unwrap();
        let values = values.iter().enumerate().map(|(i, v)| if i % 997 == seed as usize { 100.0 * v } else { *v });
        Ok(Batch {
            inputs: BTreeMap::from([("input".to_string(), Tensor::new(values.collect(), t.shape()).unwrap())]),
            ..Default::default()
        })
    };
    let mut prepared = m.clone();
    espalier_quantize::prepare(&mut prepared, &QuantizeSettings::default()).unwrap();
    let settings = QuantizeSettings { observer: Choice::known("auto"), ..Default::default() };
    let seen = observe(&prepared, &settings, (0..3).map(|s| spiky(&m, s))).unwrap();
    let open = fit(&mut prepared.clone(), &settings, &seen).unwrap_err().to_string();
    assert!(open.contains("'auto' is a choice among observers that has not been made"), "{open}");
    let plain = |seed: u64| Ok(Batch { inputs: BTreeMap::from([("input".to_string(), input(&m, seed))]), ..Default::default() });
    let choice = choose(&prepared, &settings, &seen, (10..12).map(plain)).unwrap();
    assert_eq!(choice.samples, 8);
    assert_eq!(choice.errors.len(), Observers::members().len() - 1);
    assert!(choice.errors.windows(2).all(|w| w[0].1 <= w[1].1) && choice.errors[0].0 == choice.observer.kind(), "{choice:?}");
    let error = |kind: &str| choice.errors.iter().find(|(name, _)| name == kind).unwrap().1;
    // More than half of the error of min_max remains, whose scale is no longer rounded up to few bits.
    assert!(error(choice.observer.kind()) < 0.7 * error("min_max"), "{choice:?}");
    // The error is that of the model which the chosen observer gives.
    let mut chosen = prepared.clone();
    let taken = QuantizeSettings { observer: choice.observer.clone(), ..Default::default() };
    fit(&mut chosen, &taken, &seen).unwrap();
    let (mut noise, mut signal) = (0f64, 0f64);
    for seed in 10..12 {
        let inputs = BTreeMap::from([("input".to_string(), input(&m, seed))]);
        let run = |mode| Executor::new(&chosen).unwrap().run(&inputs, mode).unwrap()["logits"].to_f32_vec().unwrap();
        for (f, s) in run(Mode::FLOAT).iter().zip(run(Mode::SIMULATED)) {
            noise += f64::from(f - s).powi(2);
            signal += f64::from(*f).powi(2);
        }
    }
    assert!(((noise / signal).sqrt() - error(choice.observer.kind())).abs() < 1e-9);
    assert!(matches!(choose(&prepared, &settings, &seen, std::iter::empty()), Err(QuantizeError::NoData)));
}

/// A mask is part of the quantized network: with a mask, and with zeros in its place, the errors are the same.
#[test]
fn observers_are_judged_against_the_pruned_network() {
    let mut masked = model("mlp");
    espalier_quantize::prepare(&mut masked, &QuantizeSettings::default()).unwrap();
    let mut zeros = masked.clone();
    for id in masked.graph.constants.clone() {
        let Some(weight) = masked.values.tensor(id).filter(|t| t.rank() == 2).cloned() else { continue };
        let live: Vec<bool> = (0..weight.len()).map(|i| i % 2 == 0).collect();
        let pruned = weight.to_f32_vec().unwrap().iter().zip(&live).map(|(v, live)| if *live { *v } else { 0.0 }).collect();
        masked.annotations.entry(id).mask = Some(Tensor::new(live, weight.shape()).unwrap());
        zeros.values.set_tensor(id, Tensor::new::<f32>(pruned, weight.shape()).unwrap());
    }
    let settings = QuantizeSettings { observer: Choice::known("auto"), ..Default::default() };
    let errors = |m: &Model| {
        let seen = observe(m, &settings, batches(m).into_iter()).unwrap();
        choose(m, &settings, &seen, batches(m).into_iter()).unwrap().errors
    };
    assert_eq!(errors(&masked), errors(&zeros));
    assert!(errors(&masked)[0].1 < 0.1);
}

/// One filter a channel: the first axis of the weight counts them. Other groups have no axis that does.
#[test]
fn depthwise_transposed_convolutions_are_stored_per_channel() {
    for (groups, shape, axis) in [(4, [4, 1, 2, 2], Some(0)), (2, [4, 1, 2, 2], None), (1, [4, 3, 2, 2], Some(1))] {
        let mut m = Model::new(17);
        let [x, y] = ["x", "y"].map(|n| m.values.add_named(n));
        let w = m.values.add_constant("w", random::uniform(1, &shape, -1.0, 1.0).unwrap());
        m.graph.constants.push(w);
        (m.graph.inputs, m.graph.outputs) = (vec![x], vec![y]);
        let node = graph::Node::new("ConvTranspose", "up", &[x, w], &[y]);
        m.graph.nodes.push(node.with("group", graph::AttributeValue::Int(groups)));
        let plan = plan(&m, &QuantizeSettings::default()).unwrap();
        assert_eq!(plan.constants[&w].axis(), axis, "{groups} groups");
    }
}

/// The graph as the user knows it has this node; it was folded into a layer, but must not be called unknown.
#[test]
fn a_node_that_was_folded_away_may_be_named() {
    let mut m = normalized("resnet8");
    let norm = m.graph.nodes.iter().find(|n| n.op_type == "BatchNormalization").unwrap().label(&m.values);
    let settings = QuantizeSettings { skip: vec![norm], ..Default::default() };
    check_skip(&m, &settings).unwrap();
    ops::fold_batch_norm(&mut m).unwrap();
    assert!(plan(&m, &settings).is_ok());
}

#[test]
fn rules_decide_layer_by_layer_and_the_last_one_counts() {
    let rules = r#"[
        { "op": "Conv", "weights": { "kind": "codebook", "bits": 3 } },
        { "position": "first", "weights": { "bits": 8 }, "activations": false },
        { "position": "last", "weights": { "bits": 4, "granularity": "tensor" } },
        { "match": "/conv2*", "skip": true }
    ]"#;
    let settings = QuantizeSettings { rules: serde_json::from_str(rules).unwrap(), ..Default::default() };
    let mut m = model("lenet5");
    check_skip(&m, &settings).unwrap();
    let data = batches(&m);
    quantize(&mut m, &settings, data.into_iter()).unwrap();
    let mut stored = vec![];
    m.graph.visit(&mut |node| {
        if matches!(node.op_type.as_str(), "Conv" | "Gemm" | "MatMul") {
            let how = node.input(1).and_then(|w| m.annotations.encoding(w)).map_or("float".to_string(), encodings::describe);
            let made = node.output(0).and_then(|v| m.annotations.encoding(v)).is_some();
            stored.push((node.op_type.clone(), how, made));
        }
    });
    let hows: Vec<&str> = stored.iter().map(|s| s.1.as_str()).collect();
    assert_eq!((hows[0], hows[1], hows[hows.len() - 1]), ("int8 per channel", "float", "int4 per tensor"), "{stored:?}");
    assert!(!stored[0].2, "{stored:?}");
    let nothing = QuantizeSettings { rules: serde_json::from_str(r#"[{"op":"LSTM","skip":true}]"#).unwrap(), ..Default::default() };
    assert!(check_skip(&m, &nothing).unwrap_err().to_string().contains("op = \"LSTM\""));
}

#[test]
fn weights_alone_are_stored_where_activations_stay_float() {
    for weights in [affine(serde_json::json!({ "bits": 4 })), Choice::named("codebook").unwrap()] {
        let settings = QuantizeSettings { weights, activations: espalier_quantize::ActivationSettings::float(), ..Default::default() };
        let mut m = model("resnet8");
        ops::fold_batch_norm(&mut m).unwrap();
        let data = batches(&m);
        let report = quantize(&mut m, &settings, data.into_iter()).unwrap();
        assert!(report.activations.is_empty() && report.biases == 0 && report.constants >= 9, "{report:?}");
        let all: Vec<_> = m.annotations.iter().filter(|(_, a)| a.encoding.is_some()).collect();
        assert!(all.iter().all(|(id, _)| m.values.tensor(*id).is_some()) && all.len() == report.constants);
        let before = m.clone();
        refit_weights(&mut m, &settings);
        assert_eq!(m.annotations.len(), before.annotations.len());
    }
}
