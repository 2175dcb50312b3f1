use super::super::tests::with;
use super::super::transformer::{CHANNELS, block};
use super::super::{CorrectionInput, correct};
use super::*;
use crate::quantize;
use tensor::{SignalToNoise, random};
use train::{Batch, Executor, Mode};

const SMOOTH: &str = r#"[{ "kind": "smooth_quant", "samples": 32 }]"#;
const INSERT: &str = r#"[{ "kind": "smooth_quant", "samples": 32, "insert_mul": true }]"#;

fn batch(seed: u64) -> Batch {
    let x = random::normal(seed, &[8, 6, CHANNELS], 0.0, 1.0).unwrap();
    Batch { inputs: BTreeMap::from([("input".to_string(), x)]), ..Batch::default() }
}

fn smoothed(model: &Model, settings: &QuantizeSettings) -> (Model, Vec<String>) {
    let mut model = model.clone();
    let samples = || Box::new((0..4).map(|i| Ok(batch(i)))) as Box<dyn Iterator<Item = _>>;
    let report = correct(&mut model, settings, Phase::BeforeFitting, &CorrectionInput::new(&samples)).unwrap();
    (model, report.into_iter().flat_map(|r| r.notes).collect())
}

fn outputs(model: &Model, mode: Mode) -> Vec<f32> {
    let executor = Executor::new(model).unwrap();
    (100..103).flat_map(|seed| executor.run(&batch(seed).inputs, mode).unwrap()["out"].to_f32_vec().unwrap()).collect()
}

/// Signal to noise ratio against a network's outputs, in dB.
fn ratio(float: &Model, model: &Model, mode: Mode) -> f64 {
    let mut sum = SignalToNoise::default();
    sum.add_all(&outputs(float, Mode::FLOAT), &outputs(model, mode));
    sum.db()
}

fn peak(model: &Model, value: &str, channel: usize) -> f64 {
    let id = model.find(value).unwrap();
    let mut peak = ChannelPeak::new(-1);
    let mut see = |seen: ValueId, t: &Tensor| {
        if seen == id {
            super::super::Collector::update(&mut peak, t).unwrap();
        }
    };
    let executor = Executor::unfused(model).unwrap();
    (0..4).for_each(|i| executor.run_observed(&batch(i).inputs, Mode::FLOAT, &mut see).unwrap());
    super::super::Collector::finish(&mut peak).unwrap().to_f64_vec().unwrap()[channel]
}

fn row(model: &Model, weight: &str, channel: usize) -> f64 {
    let weight = model.values.tensor(model.find(weight).unwrap()).unwrap();
    let row = weight.narrow(0, channel, 1).unwrap().to_f32_vec().unwrap();
    row.iter().fold(0.0, |m, v| f64::from(v.abs()).max(m))
}

#[test]
fn the_float_network_stays_the_same_function_and_gets_no_node() {
    let model = block(30.0).unwrap();
    let (smooth, notes) = smoothed(&model, &with(SMOOTH));
    assert!(ratio(&model, &smooth, Mode::FLOAT) > 110.0);
    assert_eq!(smooth.graph.nodes.len(), model.graph.nodes.len());
    assert!(notes[0].starts_with("what 4 layers read is smoothed"), "{notes:?}");
    // What reads the attention's result and the Gelu's is listed.
    assert!(notes[1].starts_with("2 left alone, ") && notes[1].ends_with(": projection; down"), "{notes:?}");
    assert_ne!(smooth.values.tensor(smooth.find("norm1.shift").unwrap()), model.values.tensor(model.find("norm1.shift").unwrap()));
}

#[test]
fn factors_are_those_of_equation_4_over_all_layers_that_read_the_same() {
    let model = block(30.0).unwrap();
    for alpha in [0.0, 0.3, 0.5, 1.0] {
        let (smooth, _) = smoothed(&model, &with(&format!(r#"[{{ "kind": "smooth_quant", "alpha": {alpha} }}]"#)));
        for channel in [0, 3, 29] {
            let weights = ["q.weight", "k.weight", "v.weight"].map(|w| row(&model, w, channel));
            let x = peak(&model, "norm1.out", channel);
            let s = x.powf(alpha) / weights.iter().fold(0f64, |m, w| m.max(*w)).powf(1.0 - alpha);
            assert!((peak(&smooth, "norm1.out", channel) / (x / s) - 1.0).abs() < 1e-4, "alpha {alpha}, channel {channel}");
            for (name, before) in ["q.weight", "k.weight", "v.weight"].iter().zip(weights) {
                assert!((row(&smooth, name, channel) / (before * s) - 1.0).abs() < 1e-5, "alpha {alpha}, {name}, channel {channel}");
            }
        }
    }
}

#[test]
fn int8_with_one_scale_per_tensor_gets_nearer_to_float() {
    let model = block(30.0).unwrap();
    let measure = |corrections: &str| {
        let mut quantized = model.clone();
        quantize(&mut quantized, &with(corrections), (0..4).map(|i| Ok(batch(i)))).unwrap();
        ratio(&model, &quantized, Mode::SIMULATED)
    };
    let (plain, smooth) = (measure("[]"), measure(SMOOTH));
    assert!(smooth > plain + 3.0, "{plain:.2} dB, smoothed {smooth:.2} dB");
}

#[test]
fn a_mul_takes_the_factors_where_nothing_else_can() {
    let model = block(30.0).unwrap();
    let (smooth, notes) = smoothed(&model, &with(INSERT));
    assert_eq!(smooth.graph.nodes.len(), model.graph.nodes.len() + 2);
    assert!(notes[0].starts_with("what 6 layers read is smoothed") && notes[1..] == ["2 Mul inserted"], "{notes:?}");
    assert!(ratio(&model, &smooth, Mode::FLOAT) > 110.0);
    smooth.verify().unwrap();
}

/// `input` -> what `nodes` make of it -> a MatMul. Nodes: operator, constants behind the data.
fn line(nodes: &[(&str, Vec<Tensor>)]) -> Model {
    let mut model = block(1.0).unwrap();
    let x = model.graph.inputs[0];
    model.graph.nodes.clear();
    let weight = model.find("q.weight").unwrap();
    let mut last = x;
    for (at, (op, constants)) in nodes.iter().chain(&[("MatMul", vec![])]).enumerate() {
        let mut inputs = vec![last];
        for (i, constant) in constants.iter().enumerate() {
            inputs.push(model.values.add_constant(format!("c{at}.{i}"), constant.clone()));
            model.graph.constants.push(inputs[i + 1]);
        }
        inputs.extend((at == nodes.len()).then_some(weight));
        last = model.values.add_named(if at == nodes.len() { "result".to_string() } else { format!("v{at}") });
        model.graph.nodes.push(Node::new(op, format!("{op}{at}"), &inputs, &[last]));
    }
    model.values[model.graph.outputs[0]].name = "unused".into();
    model.values[last].name = "out".into();
    model.graph.outputs = vec![last];
    let read = model.graph.use_counts();
    model.graph.constants.retain(|c| read.contains_key(c));
    model.verify().unwrap();
    model
}

fn noise(seed: u64, shape: &[usize]) -> Tensor {
    random::uniform(seed, shape, 0.1, 3.0).unwrap()
}

#[test]
fn factors_go_into_what_makes_the_data_through_nodes_that_keep_channels() {
    let (vector, square) = (|seed| noise(seed, &[CHANNELS]), |seed| noise(seed, &[CHANNELS, CHANNELS]));
    let flat = Tensor::vector(vec![-1i64, CHANNELS as i64]);
    let first = Tensor::scalar(0i64);
    for (nodes, takes) in [
        (vec![("RMSNormalization", vec![vector(1)])], true),
        (vec![("LpNormalization", vec![]), ("Mul", vec![vector(1)]), ("Add", vec![vector(2)])], true),
        (vec![("LayerNormalization", vec![vector(1)]), ("Relu", vec![]), ("Reshape", vec![flat.clone()])], true),
        (vec![("LayerNormalization", vec![vector(1), vector(2)]), ("Gather", vec![first])], true),
        (vec![("MatMul", vec![square(1)]), ("Add", vec![vector(2)]), ("LeakyRelu", vec![])], true),
        (vec![("Gemm", vec![square(1), vector(2)])], true),
        (vec![("LayerNormalization", vec![vector(1)]), ("Sigmoid", vec![])], false),
        (vec![("Mul", vec![Tensor::scalar(2f32)])], false),
        (vec![("Mul", vec![noise(3, &[6, 1])])], false),
        (vec![], false),
    ] {
        let mut nodes = nodes;
        // Gemm reads a matrix.
        if nodes.first().is_some_and(|n| n.0 == "Gemm") {
            nodes.insert(0, ("Reshape", vec![flat.clone()]));
        }
        let mut model = line(&nodes);
        model.opsets[0].version = 24;
        let (smooth, notes) = smoothed(&model, &with(SMOOTH));
        assert_eq!(smooth.graph.nodes, model.graph.nodes, "{nodes:?}");
        let expected = if takes { "what 1 layers read is smoothed" } else { "no layer could be smoothed" };
        assert!(notes[0].starts_with(expected), "{nodes:?}: {notes:?}");
        // A layer that reads the input is left alone itself.
        let left = usize::from(!takes || nodes.iter().any(|n| matches!(n.0, "MatMul" | "Gemm")));
        assert_eq!(notes.len(), 1 + left, "{notes:?}");
        assert!(ratio(&model, &smooth, Mode::FLOAT) > 110.0, "{nodes:?}");
        assert_eq!(row(&smooth, "q.weight", 5) != row(&model, "q.weight", 5), takes, "{nodes:?}");
    }
}

#[test]
fn a_channel_that_is_always_zero_keeps_the_scale_of_the_others() {
    let mut scale = noise(1, &[CHANNELS]).to_f32_vec().unwrap();
    scale[7] = 0.0;
    let model = line(&[("LayerNormalization", vec![Tensor::vector(scale)])]);
    let (smooth, _) = smoothed(&model, &with(SMOOTH));
    let factor = |c: usize| row(&smooth, "q.weight", c) / row(&model, "q.weight", c);
    let logarithms: f64 = (0..CHANNELS).filter(|c| *c != 7).map(|c| factor(c).ln()).sum();
    assert!((factor(7).ln() - logarithms / (CHANNELS - 1) as f64).abs() < 1e-4);
    assert!(smooth.values.tensor(smooth.find("c0.0").unwrap()).unwrap().to_f32_vec().unwrap().iter().all(|v| v.is_finite()));
}

#[test]
fn masked_weights_do_not_count_and_shared_constants_stop_it() {
    let mut model = block(30.0).unwrap();
    let id = model.find("up.weight").unwrap();
    let shape = model.values.tensor(id).unwrap().shape().to_vec();
    let live: Vec<bool> = (0..shape[0] * shape[1]).map(|i| i % shape[1] == 0).collect();
    let tensor = Tensor::new(live, shape).unwrap();
    let zeroed = encodings::live(model.values.tensor(id).unwrap(), Some(&tensor)).unwrap();
    model.annotations.entry(id).mask = Some(tensor);
    let (masked, _) = smoothed(&model, &with(SMOOTH));
    let mut zeros = model.clone();
    zeros.annotations.entry(id).mask = None;
    zeros.values.set_tensor(id, zeroed);
    let (zeros, _) = smoothed(&zeros, &with(SMOOTH));
    let scale = |m: &Model| m.values.tensor(m.find("norm2.scale").unwrap()).unwrap().clone();
    assert_eq!(scale(&masked), scale(&zeros));
    assert_ne!(scale(&masked), scale(&model));
    // Both normalizations with the same scale.
    let mut shared = block(30.0).unwrap();
    let scale = shared.find("norm1.scale").unwrap();
    let second = shared.graph.nodes.iter_mut().find(|n| n.name == "norm2").unwrap();
    second.inputs[1] = Some(scale);
    let (_, notes) = smoothed(&shared, &with(SMOOTH));
    assert_eq!(notes[0], "no layer could be smoothed");
}

#[test]
fn convolutions_are_smoothed_along_their_channels() {
    use super::super::tests::{batch, chain, output, residual};
    for (model, without, with_mul) in [(chain("Relu"), 4, 5), (residual(), 3, 4)] {
        for (corrections, layers) in [(SMOOTH, without), (INSERT, with_mul)] {
            let samples = || Box::new((0..4).map(|i| Ok(batch(&[8, 3, 6, 6], i)))) as Box<dyn Iterator<Item = _>>;
            let mut smooth = model.clone();
            let input = CorrectionInput::new(&samples);
            let report = correct(&mut smooth, &with(corrections), Phase::BeforeFitting, &input).unwrap();
            let notes = &report[0].notes;
            assert!(notes[0].starts_with(&format!("what {layers} layers read is smoothed")), "{notes:?}");
            let (wanted, found) = (output(&model, 1, Mode::FLOAT), output(&smooth, 1, Mode::FLOAT));
            let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(wanted.iter().zip(&found).all(|(a, b)| (a - b).abs() < 2e-6 * largest), "{notes:?}");
            assert_ne!(wanted, found);
        }
    }
}
