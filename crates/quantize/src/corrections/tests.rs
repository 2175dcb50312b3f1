use super::*;
use graph::{AttributeValue, Dim, Node, ValueId, ValueType};
use std::collections::BTreeMap;
use tensor::{DType, random};
use train::{Executor, Mode};

/// Builds a network with weights whose channels differ widely.
struct Build {
    model: Model,
    seed: u64,
}

impl Build {
    fn new(input: &[usize]) -> (Build, ValueId) {
        let mut model = Model::new(17);
        let x = model.values.add_named("input");
        let shape = std::iter::once(Dim::Symbol("n".into())).chain(input.iter().map(|n| Dim::Known(*n))).collect();
        model.values[x].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(shape) };
        model.graph.inputs.push(x);
        (Build { model, seed: 1 }, x)
    }

    fn constant(&mut self, name: &str, shape: &[usize], spread: bool) -> ValueId {
        self.seed += 1;
        let mut x = random::normal(self.seed, shape, 0.0, 0.5).unwrap().into_vec::<f32>().unwrap();
        let run = shape[1..].iter().product::<usize>().max(1);
        if spread {
            // Each first index gets a magnitude of its own, over three decades.
            x.iter_mut().enumerate().for_each(|(i, v)| *v *= 10f32.powf(((i / run * 7) % 5) as f32 * 0.75 - 2.0));
        }
        let id = self.model.values.add_constant(name, Tensor::new(x, shape).unwrap());
        self.model.graph.constants.push(id);
        id
    }

    fn node(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
        self.push(Node::new(op, format!("{op}{}", self.model.graph.nodes.len()), inputs, &[]))
    }

    fn push(&mut self, mut node: Node) -> ValueId {
        let out = self.model.values.add_named(format!("v{}", self.model.graph.nodes.len()));
        node.outputs = vec![Some(out)];
        self.model.graph.nodes.push(node);
        out
    }

    fn conv(&mut self, x: ValueId, shape: &[usize], groups: i64, bias: bool) -> ValueId {
        let at = self.model.graph.nodes.len();
        let w = self.constant(&format!("w{at}"), shape, true);
        let mut inputs = vec![x, w];
        if bias {
            inputs.push(self.constant(&format!("b{at}"), &shape[..1], false));
        }
        self.push(Node::new("Conv", format!("conv{at}"), &inputs, &[]).with("group", AttributeValue::Int(groups)))
    }

    fn gemm(&mut self, x: ValueId, shape: &[usize]) -> ValueId {
        let at = self.model.graph.nodes.len();
        let (w, b) = (self.constant(&format!("w{at}"), shape, true), self.constant(&format!("b{at}"), &shape[1..], false));
        self.push(Node::new("Gemm", format!("gemm{at}"), &[x, w, b], &[]))
    }

    fn done(mut self, out: ValueId) -> Model {
        self.model.values[out].name = "out".into();
        self.model.graph.outputs.push(out);
        self.model.verify().unwrap();
        self.model
    }
}

/// Convolutions with a depthwise one and both kinds of Relu between them, pooled and flattened into a matrix product.
pub(super) fn chain(activation: &str) -> Model {
    let (mut b, x) = Build::new(&[3, 6, 6]);
    let y = b.conv(x, &[8, 3, 3, 3], 1, true);
    let y = b.node(activation, &[y]);
    let y = b.conv(y, &[8, 1, 3, 3], 8, true);
    let slope = b.constant("slope", &[8, 1, 1], false);
    let y = b.node("PRelu", &[y, slope]);
    let y = b.conv(y, &[6, 8, 1, 1], 1, false);
    let y = b.node("Flatten", &[y]);
    let y = b.gemm(y, &[6 * 4, 5]);
    let y = b.node("Relu", &[y]);
    let y = b.gemm(y, &[5, 4]);
    b.done(y)
}

/// A residual block whose channels are shared by three convolutions.
pub(crate) fn residual() -> Model {
    let (mut b, x) = Build::new(&[3, 6, 6]);
    let stem = b.conv(x, &[8, 3, 1, 1], 1, true);
    let stem = b.node("Relu", &[stem]);
    let branch = b.conv(stem, &[8, 8, 1, 1], 1, true);
    let branch = b.node("Relu", &[branch]);
    let branch = b.conv(branch, &[8, 8, 1, 1], 1, true);
    let sum = b.node("Add", &[branch, stem]);
    let sum = b.node("Relu", &[sum]);
    let y = b.conv(sum, &[4, 8, 1, 1], 1, true);
    b.done(y)
}

/// Two products, and only then what is added to each.
pub(super) fn products_before_their_biases() -> Model {
    let (mut b, x) = Build::new(&[3, 6, 6]);
    let [w, v] = ["w", "v"].map(|name| b.constant(name, &[6, 4], false));
    let [c, d] = ["c", "d"].map(|name| b.constant(name, &[4], false));
    let [p, q] = [w, v].map(|weight| b.node("MatMul", &[x, weight]));
    let [p, q] = [(p, c), (q, d)].map(|(product, bias)| b.node("Add", &[product, bias]));
    let y = b.node("Mul", &[p, q]);
    b.done(y)
}

pub(super) fn batch(shape: &[usize], seed: u64) -> Batch {
    let x = random::uniform(seed, shape, -1.0, 1.0).unwrap();
    Batch { inputs: BTreeMap::from([("input".to_string(), x)]), ..Batch::default() }
}

pub(crate) fn output(model: &Model, seed: u64, mode: Mode) -> Vec<f32> {
    Executor::new(model).unwrap().run(&batch(&[4, 3, 6, 6], seed).inputs, mode).unwrap()["out"].to_f32_vec().unwrap()
}

pub(crate) fn with(corrections: &str) -> QuantizeSettings {
    let mut settings = QuantizeSettings { corrections: serde_json::from_str(corrections).unwrap(), ..QuantizeSettings::default() };
    settings.weights = technique::Choice::with("affine", &serde_json::json!({ "granularity": "tensor" })).unwrap();
    settings
}

fn before(model: &mut Model, settings: &QuantizeSettings) -> Vec<CorrectionReport> {
    correct(model, settings, Phase::BeforeFitting, &CorrectionInput::new(&|| Box::new(std::iter::empty()))).unwrap()
}

pub(crate) fn quantized(mut model: Model, settings: &QuantizeSettings) -> (Model, crate::CalibrationReport) {
    let report = crate::quantize(&mut model, settings, (0..4).map(|i| Ok(batch(&[8, 3, 6, 6], i)))).unwrap();
    (model, report)
}

/// Largest difference, as a share of the largest magnitude.
fn off(a: &[f32], b: &[f32]) -> f32 {
    let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

/// Signal to noise ratio of the simulation on data that calibration did not see, in dB.
pub(super) fn sqnr(float: &Model, model: &Model) -> f64 {
    let mut sum = tensor::SignalToNoise::default();
    for seed in 100..104 {
        sum.add_all(&output(float, seed, Mode::FLOAT), &output(model, seed, Mode::SIMULATED));
    }
    sum.db()
}

/// Largest magnitude of each output channel of a convolution and of each input channel of another.
fn peaks(model: &Model, weight: &str, axis: usize) -> Vec<f32> {
    let weight = model.values.tensor(model.find(weight).unwrap()).unwrap();
    let all = encodings::affine::channels(weight, Some(axis)).unwrap();
    all.iter().map(|c| c.iter().fold(0f32, |m, v| m.max(v.abs()))).collect()
}

#[test]
fn equalized_networks_compute_the_same_function_and_share_their_ranges() {
    for activation in ["Relu", "LeakyRelu"] {
        let model = chain(activation);
        let mut equalized = model.clone();
        let report = before(&mut equalized, &with("[\"equalize\"]"));
        assert_eq!(report[0].notes, ["4 pairs or groups of layers equalized"]);
        assert!(off(&output(&model, 1, Mode::FLOAT), &output(&equalized, 1, Mode::FLOAT)) < 2e-6);
        // Both sides of a pair have the same range in each channel.
        for ((a, b), scaled) in peaks(&equalized, "w0", 0).iter().zip(peaks(&equalized, "w2", 0)).zip(peaks(&model, "w0", 0)) {
            assert!((a / b).ln().abs() < 1e-2, "{a} {b}");
            assert!((a / scaled).ln().abs() > 1e-3);
        }
    }
}

#[test]
fn residual_branches_are_scaled_as_one_group_where_that_is_asked_for() {
    let model = residual();
    let mut pairs = model.clone();
    let notes = &before(&mut pairs, &with("[\"equalize\"]"))[0].notes;
    assert_eq!(notes[0], "1 pairs or groups of layers equalized");
    let shared = "1 left alone, since more than two layers share their channels (residual = true scales them together): ";
    assert!(notes[1].starts_with(shared) && notes[1].contains("conv7"), "{notes:?}");
    let mut groups = model.clone();
    let notes = &before(&mut groups, &with("[{\"kind\": \"equalize\", \"residual\": true}]"))[0].notes;
    assert_eq!(notes[..], ["2 pairs or groups of layers equalized"]);
    for scaled in [pairs, groups] {
        assert_ne!(scaled.values.tensor(scaled.find("w2").unwrap()), model.values.tensor(model.find("w2").unwrap()));
        assert!(off(&output(&model, 1, Mode::FLOAT), &output(&scaled, 1, Mode::FLOAT)) < 2e-6);
    }
}

/// One scale for both channels rounds the weights of the second to zero: what is left is its bias. With the mean in front of the Relu
/// restored nothing passes.
#[test]
fn a_channel_whose_signal_is_lost_is_not_silenced_by_the_correction_after_the_activation() {
    let (mut b, x) = Build::new(&[3, 6, 6]);
    let y = b.conv(x, &[2, 3, 1, 1], 1, true);
    let y = b.node("Relu", &[y]);
    let mut model = b.done(y);
    let set = |m: &mut Model, name: &str, values: Vec<f32>, shape: &[usize]| {
        let id = m.find(name).unwrap();
        m.values.set_tensor(id, Tensor::new(values, shape).unwrap());
    };
    set(&mut model, "w0", vec![30.0, 20.0, -25.0, 0.05, 0.05, 0.05], &[2, 3, 1, 1]);
    set(&mut model, "b0", vec![1.0, -0.03], &[2]);
    let mean = |m: &Model, mode| {
        // On the samples of the calibration: the correction is about their mean.
        let of = |seed| Executor::new(m).unwrap().run(&batch(&[8, 3, 6, 6], seed).inputs, mode).unwrap()["out"].to_f32_vec().unwrap();
        let all: Vec<f32> = (0..4).flat_map(of).collect();
        let second: Vec<f64> = all.chunks(36).skip(1).step_by(2).flatten().map(|v| f64::from(*v)).collect();
        second.iter().sum::<f64>() / second.len() as f64
    };
    let corrected = |form: &str| {
        let corrections = format!("[{{\"kind\": \"bias_correction\", \"form\": \"{form}\"}}]");
        let settings = QuantizeSettings { activations: crate::ActivationSettings::float(), ..with(&corrections) };
        mean(&quantized(model.clone(), &settings).0, Mode::SIMULATED)
    };
    let wanted = mean(&model, Mode::FLOAT);
    assert!(wanted > 5e-3);
    assert_eq!((corrected("empirical"), corrected("analytic")), (0.0, 0.0));
    let after = corrected("after_activation");
    assert!((after - wanted).abs() < 0.1 * wanted, "{after} {wanted}");
}

/// A chain with ReLU6 in the place of its first Relu.
fn bounded() -> Model {
    let mut model = chain("Relu");
    let bounds = [0f32, 6.0].map(|v| {
        let id = model.values.add_constant(format!("bound{v}"), Tensor::scalar(v));
        model.graph.constants.push(id);
        Some(id)
    });
    let node = model.graph.nodes.iter_mut().find(|n| n.op_type == "Relu").unwrap();
    node.op_type = "Clip".into();
    node.inputs.extend(bounds);
    model
}

#[test]
fn a_bound_stops_a_pair_or_is_replaced() {
    let model = bounded();
    let mut kept = model.clone();
    let notes = &before(&mut kept, &with("[\"equalize\"]"))[0].notes;
    assert_eq!(notes[0], "3 pairs or groups of layers equalized");
    assert_eq!(notes[1], "1 left alone, cut off at 6 (a bound for each channel is not possible): conv0 -> conv2");
    assert!(off(&output(&model, 1, Mode::FLOAT), &output(&kept, 1, Mode::FLOAT)) < 2e-6);
    let mut replaced = model.clone();
    let notes = &before(&mut replaced, &with("[{\"kind\": \"equalize\", \"replace_clips\": true}]"))[0].notes;
    assert_eq!(notes[0], "4 pairs or groups of layers equalized");
    assert!(notes[1].contains("1 bounds"), "{notes:?}");
    assert!(off(&output(&chain("Relu"), 1, Mode::FLOAT), &output(&replaced, 1, Mode::FLOAT)) < 2e-6);
}

#[test]
fn what_is_left_out_or_shared_or_masked_stays_as_it_is() {
    let model = chain("Relu");
    let mut skipped = model.clone();
    let settings = QuantizeSettings { skip: vec!["conv2".into()], ..with("[\"equalize\"]") };
    let notes = &before(&mut skipped, &settings)[0].notes;
    assert!(notes[0].starts_with("2 pairs"), "{notes:?}");
    let weight = |m: &Model, name: &str| m.values.tensor(m.find(name).unwrap()).unwrap().to_f32_vec().unwrap();
    assert_eq!(weight(&skipped, "w2"), weight(&model, "w2"));
    assert_eq!(weight(&skipped, "w0"), weight(&model, "w0"));
    // Zeros of a mask stay zeros, and do not count.
    let mut masked = model.clone();
    let id = masked.find("w4").unwrap();
    let live: Vec<bool> = weight(&model, "w4").iter().enumerate().map(|(i, _)| i % 3 != 0).collect();
    masked.annotations.entry(id).mask = Some(Tensor::new(live.clone(), model.values.tensor(id).unwrap().shape()).unwrap());
    let float = output(&masked, 1, Mode::SIMULATED);
    before(&mut masked, &with("[\"equalize\"]"));
    assert!(off(&float, &output(&masked, 1, Mode::SIMULATED)) < 2e-6);
    let (masked, _) = quantized(masked, &with("[\"bias_correction\"]"));
    let stored = encodings::simulate(masked.values.tensor(id).unwrap(), masked.annotations.get(id).unwrap()).unwrap();
    assert!(stored.to_f32_vec().unwrap().iter().zip(live).all(|(v, live)| live || *v == 0.0));
}

#[test]
fn corrections_bring_the_simulation_nearer_to_the_float_network() {
    let model = residual();
    let measure = |model: &Model, corrections: &str| sqnr(model, &quantized(model.clone(), &with(corrections)).0);
    let plain = measure(&model, "[]");
    const AFTER: &str = "[{\"kind\": \"bias_correction\", \"form\": \"after_activation\"}]";
    for corrections in ["[\"bias_correction\"]", "[{\"kind\": \"bias_correction\", \"form\": \"analytic\"}]", AFTER, "[\"equalize\"]"] {
        let corrected = measure(&model, corrections);
        assert!(corrected > plain + 3.0, "{corrections}: {plain:.2} dB before, {corrected:.2} dB");
        assert!(measure(&model, "[\"equalize\", \"bias_correction\"]") > corrected);
    }
    let model = chain("Relu");
    assert!(measure(&model, "[\"equalize\"]") > measure(&model, "[]") + 6.0);
}

/// The mean of a layer's result in each channel, over the batches that corrections use.
fn means(model: &Model, value: ValueId, simulate: bool) -> Vec<f64> {
    let mut model = model.clone();
    if !simulate {
        model.annotations.iter_mut().for_each(|(_, a)| a.encoding = None);
    }
    let mut mean = ChannelMean::new(1);
    let executor = Executor::unfused(&model).unwrap();
    for seed in 0..4 {
        let mut see = |id: ValueId, t: &Tensor| {
            if id == value {
                mean.update(t).unwrap();
            }
        };
        executor.run_observed(&batch(&[8, 3, 6, 6], seed).inputs, Mode::SIMULATED, &mut see).unwrap();
    }
    mean.finish().unwrap().to_f64_vec().unwrap()
}

#[test]
fn means_of_every_layer_are_those_of_the_float_network_after_the_empirical_form() {
    for model in [chain("Relu"), residual()] {
        let (plain, _) = quantized(model.clone(), &with("[]"));
        let (corrected, report) = quantized(model.clone(), &with("[\"bias_correction\"]"));
        assert!(report.corrections[0].notes[0].contains("layers corrected"), "{report:?}");
        for node in model.graph.nodes.iter().filter(|n| matches!(n.op_type.as_str(), "Conv" | "Gemm")) {
            let value = node.output(0).unwrap();
            let float = means(&model, value, false);
            let error = |m: &Model| means(m, value, true).iter().zip(&float).fold(0f64, |a, (q, f)| a.max((q - f).abs()));
            // A bias is on a grid too: half of its step remains.
            let bias = corrected.graph.nodes.iter().find(|n| n.output(0) == Some(value)).unwrap().input(2).unwrap();
            let steps = corrected.annotations.encoding(bias).unwrap().parameters["scale"].to_f32_vec().unwrap();
            let left = error(&corrected);
            assert!(
                left < 0.51 * f64::from(steps.iter().fold(0f32, |m, s| m.max(*s))) + 1e-6,
                "{}: {left} of {}",
                node.name,
                error(&plain)
            );
            assert!(left < 0.5 * error(&plain).max(1e-3), "{}: {left} of {}", node.name, error(&plain));
        }
    }
}

#[test]
fn the_run_from_layer_to_layer_is_the_run_of_the_whole() {
    let (model, _) = quantized(residual(), &with("[]"));
    let samples = || Box::new((0..2).map(|i| Ok(batch(&[8, 3, 6, 6], i)))) as Box<dyn Iterator<Item = _>>;
    let mut layers = layerwise(&model, &samples, 16).unwrap();
    for (at, node) in model.graph.nodes.iter().enumerate() {
        let mut seen = vec![];
        layers.run(&model, at, &mut |t| seen.push(t.clone())).unwrap();
        let mut whole = vec![];
        for seed in 0..2 {
            let mut see = |id: ValueId, t: &Tensor| {
                if node.outputs.contains(&Some(id)) {
                    whole.push(t.clone());
                }
            };
            let executor = Executor::unfused(&model).unwrap();
            executor.run_observed(&batch(&[8, 3, 6, 6], seed).inputs, Mode::SIMULATED, &mut see).unwrap();
        }
        assert_eq!(seen, whole, "{}", node.name);
    }
    // The values that a node reads are those of that run.
    let mut layers = layerwise(&model, &samples, 16).unwrap();
    for (at, node) in model.graph.nodes.iter().enumerate() {
        let states = layers.before(&model, at).unwrap();
        let taps: Vec<ValueId> = node.inputs.iter().flatten().copied().filter(|v| model.values.tensor(*v).is_none()).collect();
        let executor = Executor::with_taps(&model, &taps).unwrap();
        for (seed, state) in states.iter().enumerate() {
            let feed = batch(&[8, 3, 6, 6], seed as u64).inputs;
            let whole = executor.run_with(&feed, &Default::default(), Mode::SIMULATED, None).unwrap();
            taps.iter().for_each(|v| assert_eq!(state[v], whole.values[v], "{}", node.name));
        }
    }
}

#[test]
fn every_correction_has_a_page_and_an_example_that_parses() {
    #[derive(serde::Deserialize)]
    struct Example {
        corrections: Vec<Choice<Corrections>>,
    }
    for entry in Corrections::members() {
        let manual = entry.manual;
        assert!(!manual.summary.is_empty() && !manual.details.is_empty() && !manual.source.is_empty(), "{}", manual.name);
        let example: Example = toml::from_str(manual.example).unwrap();
        assert_eq!(example.corrections[0].kind(), manual.name);
    }
    let bad: Result<Choice<Corrections>, _> = Choice::new("bias_correction", serde_json::from_str("{\"samples\": 0}").unwrap());
    assert_eq!(bad.unwrap_err().path, ["samples"]);
}
