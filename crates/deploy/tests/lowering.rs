//! The lowered file computes what the simulation computes.
use espalier_deploy as deploy;
mod support;

use deploy::runtime::{SessionOptions, Source};
use deploy::{LowerOptions, lift, lower};
use encodings::affine::{AffineSettings, Precision, fit_bias, fit_range, fit_weight};
use graph::{AttributeValue, Graph, Model, Node, ValueId};
use std::collections::BTreeMap;
use support::{Builder, dump, noise, onnxruntime};
use tensor::Tensor;
use train::{Executor, Mode, Named};

fn run(model: &Model, inputs: &Named, mode: Mode) -> Named {
    Executor::new(model).unwrap().run(inputs, mode).unwrap()
}

fn encode(model: &mut Model, value: &str, encoding: graph::Encoding) -> ValueId {
    let id = model.find(value).unwrap();
    model.annotations.entry(id).encoding = Some(encoding);
    id
}

fn activation(model: &mut Model, value: &str, lo: f32, hi: f32) {
    encode(model, value, fit_range(lo, hi, &AffineSettings::activation(8)).unwrap());
}

/// Convolution, Relu, MaxPool, Flatten, Gemm; everything quantized, half of the first weight masked.
fn network(weight_bits: u32, opset: i64) -> Model {
    let mut b = Builder::new(opset);
    let x = b.input("x", &[None, Some(2), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(3)]);
    let [c, r, p, f] = ["c", "r", "p", "f"].map(|n| b.inner(n));
    let w = b.constant("w", noise(&[4, 2, 3, 3], 1));
    let bias = b.constant("b", noise(&[4], 2));
    let v = b.constant("v", noise(&[3, 16], 3));
    b.node("Conv", &[x, w, bias], c);
    b.node("Relu", &[c], r);
    let pool = Node::new("MaxPool", "pool", &[r], &[p]).with("kernel_shape", AttributeValue::Ints(vec![2, 2]));
    b.push(pool.with("strides", AttributeValue::Ints(vec![2, 2])));
    b.node("Flatten", &[p], f);
    b.push(Node::new("Gemm", "head", &[f, v], &[y]).with("transB", AttributeValue::Int(1)));
    let mut m = b.model;
    activation(&mut m, "x", -1.0, 1.0);
    activation(&mut m, "r", 0.0, 3.0);
    activation(&mut m, "y", -4.0, 4.0);
    let input_scale = m.annotations.encoding(x).unwrap().parameters["scale"].item::<f32>().unwrap();
    let first = fit_weight(m.values.tensor(w).unwrap(), &AffineSettings::weight(weight_bits, Some(0)), Precision::WEIGHT, 0.0).unwrap();
    let (of_bias, _) = fit_bias(m.values.tensor(bias).unwrap(), input_scale, &first.parameters["scale"], true).unwrap();
    m.annotations.entry(bias).encoding = Some(of_bias);
    m.annotations.entry(w).encoding = Some(first);
    m.annotations.entry(w).mask = Some(Tensor::new((0..72).map(|i| i % 2 == 0).collect::<Vec<bool>>(), [4, 2, 3, 3]).unwrap());
    encode(&mut m, "v", fit_weight(&noise(&[3, 16], 3), &AffineSettings::weight(weight_bits, Some(0)), Precision::WEIGHT, 0.0).unwrap());
    m
}

fn input() -> Named {
    BTreeMap::from([("x".to_string(), noise(&[5, 2, 6, 6], 9))])
}

#[test]
fn the_file_computes_the_simulation_to_the_bit() {
    for bits in [8, 4, 2] {
        let m = network(bits, 13);
        let simulated = run(&m, &input(), Mode::SIMULATED);
        assert_ne!(simulated, run(&m, &input(), Mode::FLOAT), "quantization changes something");
        let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
        assert!(lowered.annotations.is_empty());
        assert_eq!(run(&lowered, &input(), Mode::FLOAT), simulated, "{bits} bits");
        // The same after the model was written and read.
        let file = onnx::to_bytes(&lowered).unwrap();
        let read = onnx::from_bytes(&file, None).unwrap();
        assert_eq!(run(&read, &input(), Mode::FLOAT), simulated, "{bits} bits from the file");
    }
}

/// 2 and 3 bits lie in uint4 and 6 in uint8, whose ends are further out than the grid's.
#[test]
fn grids_that_do_not_fill_their_type_end_where_the_simulation_ends() {
    for bits in [2, 3, 4, 6, 8] {
        let mut m = network(8, 13);
        for (value, lo, hi) in [("x", -0.5, 0.5), ("r", 0.0, 0.4), ("y", -0.5, 0.5)] {
            encode(&mut m, value, fit_range(lo, hi, &AffineSettings::activation(bits)).unwrap());
        }
        let bias = m.find("b").unwrap();
        m.annotations.remove(bias);
        let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
        assert_eq!(run(&lowered, &input(), Mode::FLOAT), run(&m, &input(), Mode::SIMULATED), "{bits} bits");
        let held = lowered.graph.nodes.iter().filter(|n| n.op_type == "Min").count();
        assert_eq!(held, if [2, 3, 6].contains(&bits) { 3 } else { 0 }, "{bits} bits");
    }
}

#[test]
fn onnxruntime_computes_the_simulation_literally() {
    let Some(runtime) = onnxruntime() else { return };
    for bits in [8, 4, 2] {
        let m = network(bits, 13);
        let simulated = run(&m, &input(), Mode::SIMULATED);
        let file = onnx::to_bytes(&lower(&m, &LowerOptions::default()).unwrap().model).unwrap();
        let mut session = runtime.load(Source::Bytes(&file), SessionOptions::literal(1)).unwrap();
        let outputs = session.run(&input()).unwrap();
        let step = m.annotations.encoding(m.find("y").unwrap()).unwrap().parameters["scale"].item::<f32>().unwrap();
        for (a, b) in outputs["y"].as_slice::<f32>().unwrap().iter().zip(simulated["y"].as_slice::<f32>().unwrap()) {
            assert!((a - b).abs() <= 1.01 * step, "{bits} bits: {a} and {b} are more than a step apart");
        }
    }
}

#[test]
fn the_lowered_graph_is_the_pattern_runtimes_expect() {
    let lowered = lower(&network(8, 11), &LowerOptions::default()).unwrap();
    assert_eq!(lowered.notes, ["operator set raised from 11 to 13"]);
    assert_eq!(lowered.float_parts, []);
    insta::assert_snapshot!(dump(&lowered.model));
}

#[test]
fn opset_follows_need() {
    for (bits, opset) in [(8, 13), (4, 21), (2, 25)] {
        let lowered = lower(&network(bits, 11), &LowerOptions::default()).unwrap().model;
        assert_eq!(lowered.onnx_opset(), opset);
    }
    assert_eq!(lower(&network(8, 11), &LowerOptions { opset: Some(17), ..LowerOptions::default() }).unwrap().model.onnx_opset(), 17);
}

#[test]
fn a_mask_alone_writes_zeros() {
    let mut m = network(8, 13);
    let w = m.find("w").unwrap();
    let mask = m.annotations.mask(w).cloned();
    m.annotations = graph::Annotations::default();
    m.annotations.entry(w).mask = mask;
    let simulated = run(&m, &input(), Mode::SIMULATED);
    let lowered = lower(&m, &LowerOptions::default()).unwrap();
    assert_eq!(run(&lowered.model, &input(), Mode::FLOAT), simulated);
    let counted = deploy::measure::parameters(&lowered.model).unwrap();
    assert_eq!((counted.weights[0].elements, counted.weights[0].zeros), (72, 36));
    assert!(lowered.float_parts.is_empty(), "nothing is quantized, so nothing is left over");
}

#[test]
fn parameters_zeros_and_macs_are_counted_behind_dequantize_linear() {
    let m = network(8, 13);
    let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
    let counted = deploy::measure::parameters(&lowered).unwrap();
    assert_eq!(counted.total, 72 + 4 + 48);
    assert!(counted.weights[0].zeros >= 36);
    let inputs = BTreeMap::from([("x".to_string(), noise(&[1, 2, 6, 6], 9))]);
    let (float, deployed) = (deploy::measure::macs(&m, &inputs).unwrap(), deploy::measure::macs(&lowered, &inputs).unwrap());
    assert_eq!((float.total, deployed.total), (72 * 16 + 48, 72 * 16 + 48));
    assert!(deployed.effective <= 36 * 16 + 48 && float.effective > deployed.effective);
}

#[test]
fn lifting_is_the_inverse_of_lowering() {
    let m = network(8, 13);
    let simulated = run(&m, &input(), Mode::SIMULATED);
    let mut lifted = lower(&m, &LowerOptions::default()).unwrap().model;
    // x, r, its two followers on the same grid, y; two weights, a bias.
    assert_eq!(lift(&mut lifted).unwrap(), 8);
    lifted.verify().unwrap();
    assert!(lifted.graph.nodes.iter().all(|n| !n.op_type.ends_with("eLinear")), "{}", dump(&lifted));
    assert_eq!(run(&lifted, &input(), Mode::SIMULATED), simulated);
    let again = lower(&lifted, &LowerOptions::default()).unwrap().model;
    assert_eq!(run(&again, &input(), Mode::FLOAT), simulated);
}

/// Integers, scales and zero points that are also graph inputs are defaults: another grid may be fed.
#[test]
fn a_grid_that_can_be_fed_is_not_lifted() {
    let lowered = lower(&network(8, 13), &LowerOptions::default()).unwrap().model;
    let named = |part: &str| {
        let mut m = lowered.clone();
        let fed: Vec<ValueId> = m.graph.constants.iter().copied().filter(|v| m.values[*v].name.ends_with(part)).collect();
        assert!(!fed.is_empty(), "{part}: {}", dump(&m));
        m.graph.inputs.extend(fed);
        lift(&mut m).unwrap()
    };
    assert_eq!([named("_scale"), named("_zero_point"), named("_quantized")], [0, 2, 5]);
}

#[test]
fn a_value_read_on_two_grids_keeps_both_when_lifted() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(4)]);
    let y = b.output("y", &[None, Some(4)]);
    let r = b.inner("r");
    b.node("Relu", &[x], r);
    let mut branch = |scale: f32, name: &str| {
        let s = b.constant(&format!("{name}_s"), Tensor::scalar(scale));
        let z = b.constant(&format!("{name}_z"), Tensor::scalar(0u8));
        let (q, d) = (b.inner(&format!("{name}_q")), b.inner(&format!("{name}_d")));
        b.node("QuantizeLinear", &[r, s, z], q);
        b.node("DequantizeLinear", &[q, s, z], d);
        d
    };
    let (first, second) = (branch(0.1, "a"), branch(0.25, "b"));
    b.node("Add", &[first, second], y);
    let mut m = b.model;
    let inputs = BTreeMap::from([("x".to_string(), noise(&[3, 4], 4))]);
    let before = run(&m, &inputs, Mode::FLOAT);
    assert_eq!(lift(&mut m).unwrap(), 2);
    m.verify().unwrap();
    assert_eq!(m.graph.nodes.iter().filter(|n| n.op_type == "Identity").count(), 2);
    assert_eq!(run(&m, &inputs, Mode::SIMULATED), before);
}

#[test]
fn subgraphs_are_lowered_too() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(3)]);
    let y = b.output("y", &[None, Some(2)]);
    let condition = b.constant("condition", Tensor::scalar(true));
    let mut branch = |name: &str, seed: u32| {
        let w = b.model.values.add_constant(format!("{name}_w"), noise(&[3, 2], seed));
        let out = b.inner(&format!("{name}_out"));
        let encoding = fit_weight(&noise(&[3, 2], seed), &AffineSettings::weight(8, Some(1)), Precision::WEIGHT, 0.0).unwrap();
        b.model.annotations.entry(w).encoding = Some(encoding);
        let node = Node::new("MatMul", format!("{name}_matmul"), &[x, w], &[out]);
        Graph { name: name.into(), nodes: vec![node], outputs: vec![out], constants: vec![w], ..Graph::default() }
    };
    let (yes, no) = (branch("yes", 1), branch("no", 2));
    let node = Node::new("If", "if", &[condition], &[y]);
    b.push(node.with("then_branch", AttributeValue::Graph(Box::new(yes))).with("else_branch", AttributeValue::Graph(Box::new(no))));
    let mut m = b.model;
    activation(&mut m, "x", -1.0, 1.0);
    let inputs = BTreeMap::from([("x".to_string(), noise(&[2, 3], 5))]);
    let simulated = run(&m, &inputs, Mode::SIMULATED);
    let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
    assert_eq!(run(&lowered, &inputs, Mode::FLOAT), simulated);
    assert!(onnx::to_bytes(&lowered).is_ok());
}

/// Convolution and BatchNormalization, the weight in 8 bits.
fn normalized() -> Model {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(2), Some(4), Some(4)]);
    let y = b.output("y", &[None, Some(2), Some(4), Some(4)]);
    let w = b.constant("w", noise(&[2, 2, 1, 1], 1));
    let numbers = ["scale", "bias", "mean", "var"].map(|n| b.constant(n, Tensor::vector(vec![1.5f32, 0.5])));
    let c = b.inner("c");
    b.node("Conv", &[x, w], c);
    b.node("BatchNormalization", &[c, numbers[0], numbers[1], numbers[2], numbers[3]], y);
    let mut m = b.model;
    encode(&mut m, "w", fit_weight(&noise(&[2, 2, 1, 1], 1), &AffineSettings::weight(8, Some(0)), Precision::WEIGHT, 0.0).unwrap());
    m
}

#[test]
fn a_normalization_that_stays_computes_in_float_and_is_listed() {
    let mut m = normalized();
    let x = BTreeMap::from([("x".to_string(), noise(&[3, 2, 4, 4], 5))]);
    let c = m.find("c").unwrap();
    m.graph.outputs.push(c);
    let simulated = run(&m, &x, Mode::SIMULATED);
    let lowered = lower(&m, &LowerOptions::default()).unwrap();
    assert_eq!(run(&lowered.model, &x, Mode::FLOAT), simulated);
    let norm = lowered.float_parts.iter().find(|p| p.op_type == "BatchNormalization").unwrap();
    assert!(norm.reason.contains("has another reader, or is an output"), "{}", norm.reason);
}

#[test]
fn a_weight_that_stands_for_its_folded_form_is_refused_by_name() {
    let mut m = normalized();
    let w = m.find("w").unwrap();
    let scale = m.annotations.encoding(w).unwrap().parameters["scale"].clone();
    m.annotations.entry(w).encoding.as_mut().unwrap().parameters.insert(graph::FOLDED_SCALE.into(), scale);
    let error = lower(&m, &LowerOptions::default()).unwrap_err().to_string();
    assert!(error.starts_with("value 'w' cannot be lowered") && error.contains("fold it first"), "{error}");
}

#[test]
fn grids_pass_through_operators_with_several_outputs() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(4)]);
    let ends = ["a", "b"].map(|n| b.output(n, &[None, Some(2)]));
    let parts = b.constant("parts", Tensor::vector(vec![2i64, 2]));
    b.push(Node::new("Split", "split", &[x, parts], &ends).with("axis", AttributeValue::Int(1)));
    let dropped = ["d", "mask"].map(|n| b.output(n, &[None, Some(4)]));
    b.push(Node::new("Dropout", "dropout", &[x], &dropped));
    let mut m = b.model;
    activation(&mut m, "x", -1.0, 1.0);
    let inputs = BTreeMap::from([("x".to_string(), noise(&[3, 4], 5))]);
    let simulated = run(&m, &inputs, Mode::SIMULATED);
    let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
    let quantizers = lowered.graph.nodes.iter().filter(|n| n.op_type == "QuantizeLinear").count();
    assert_eq!(quantizers, 4, "x, both parts and what dropout hands on, but not its mask: {}", dump(&lowered));
    assert_eq!(run(&lowered, &inputs, Mode::FLOAT), simulated);
}

/// A file that another tool quantized: one of its nodes has the name that a new node would get.
#[test]
fn names_of_nodes_are_unique() {
    let mut m = network(8, 13);
    m.graph.nodes[0].name = "r_QuantizeLinear".into();
    m.graph.nodes[1].name = "w_DequantizeLinear".into();
    let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
    let mut names: Vec<&str> = lowered.graph.nodes.iter().map(|n| n.name.as_str()).filter(|n| !n.is_empty()).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{}", dump(&lowered));
}

/// A body returns its input under the same name, with its encoding.
#[test]
fn a_value_that_passes_through_a_body_is_lowered() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(3)]);
    let outs = ["y", "w_end"].map(|n| b.output(n, &[None, Some(3)]));
    let (trip, yes) = (b.constant("trip", Tensor::scalar(3i64)), b.constant("yes", Tensor::scalar(true)));
    let w = b.constant("w", noise(&[3, 3], 2));
    let [i, cond, h, inner_w, next, go] = ["i", "cond", "h", "w ", "next", "go"].map(|n| b.inner(n));
    let nodes = vec![Node::new("Identity", "go", &[cond], &[go]), Node::new("MatMul", "step", &[h, inner_w], &[next])];
    let body =
        Graph { name: "body".into(), inputs: vec![i, cond, h, inner_w], outputs: vec![go, next, inner_w], nodes, ..Graph::default() };
    b.push(Node::new("Loop", "loop", &[trip, yes, x, w], &outs).with("body", AttributeValue::Graph(Box::new(body))));
    let mut m = b.model;
    let grid = fit_range(-1.0, 1.0, &AffineSettings::activation(8)).unwrap();
    for v in [h, inner_w, next] {
        m.annotations.entry(v).encoding = Some(grid.clone());
    }
    let inputs = BTreeMap::from([("x".to_string(), noise(&[2, 3], 5))]);
    let simulated = run(&m, &inputs, Mode::SIMULATED);
    let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
    assert_eq!(run(&lowered, &inputs, Mode::FLOAT), simulated);
}

#[test]
fn arithmetic_on_shapes_is_no_float_part() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(4)]);
    let y = b.output("y", &[None, Some(4)]);
    let one = b.constant("one", Tensor::scalar(1i64));
    let [shape, more] = ["shape", "more"].map(|n| b.inner(n));
    b.node("Shape", &[x], shape);
    b.node("Mul", &[shape, one], more);
    b.node("Reshape", &[x, more], y);
    let mut m = b.model;
    activation(&mut m, "x", -1.0, 1.0);
    assert_eq!(lower(&m, &LowerOptions::default()).unwrap().float_parts, []);
}

/// ONNX Runtime's quantizer leaves out a Relu that the quantizer after it covers.
#[test]
fn what_a_foreign_grid_clips_stays_clipped_without_it() {
    for (opset, zero, kept) in [(13, 0f32, true), (10, 0.0, true), (13, 255.0, true), (13, 100.0, false)] {
        let mut b = Builder::new(opset);
        let x = b.input("x", &[None, Some(3)]);
        let y = b.output("y", &[None, Some(3)]);
        let w = b.constant("w", noise(&[3, 3], 2));
        b.node("MatMul", &[x, w], y);
        let mut m = b.model;
        encode(&mut m, "y", AffineSettings::activation(8).encoding(Tensor::scalar(1f32 / 64.0), Tensor::scalar(zero)));
        let inputs = BTreeMap::from([("x".to_string(), noise(&[8, 3], 5).mul_scalar(4.0).unwrap())]);
        let simulated = run(&m, &inputs, Mode::SIMULATED);
        let mut lifted = lower(&m, &LowerOptions::default()).unwrap().model;
        lift(&mut lifted).unwrap();
        lifted.verify().unwrap();
        assert_eq!(run(&lifted, &inputs, Mode::SIMULATED), simulated);
        assert_eq!(lifted.graph.nodes.iter().filter(|n| n.op_type == "Clip").count(), usize::from(kept));
        // Without the grid, its clipping remains.
        lifted.annotations = graph::Annotations::default();
        let float = run(&lifted, &inputs, Mode::FLOAT)["y"].to_f32_vec().unwrap();
        let plain = noise(&[8, 3], 5).mul_scalar(4.0).unwrap().matmul(&noise(&[3, 3], 2)).unwrap().to_f32_vec().unwrap();
        for (a, b) in float.iter().zip(&plain) {
            let expected = if kept { b.clamp(-zero / 64.0, (255.0 - zero) / 64.0) } else { *b };
            assert!((a - expected).abs() <= 1e-5, "{a} for {b} with zero at {zero}");
        }
    }
}

/// Weights as some tools write them: float, with a quantizer and its inverse behind them.
#[test]
fn a_weight_behind_a_pair_is_a_weight() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(3)]);
    let y = b.output("y", &[None, Some(2)]);
    let w = b.constant("w", noise(&[3, 2], 1));
    let scale = b.constant("s", Tensor::vector(vec![0.01f32, 0.02]));
    let zero = b.constant("z", Tensor::vector(vec![0i8, 0]));
    let [q, d] = ["q", "d"].map(|n| b.inner(n));
    b.push(Node::new("QuantizeLinear", "quantize", &[w, scale, zero], &[q]).with("axis", AttributeValue::Int(1)));
    b.push(Node::new("DequantizeLinear", "dequantize", &[q, scale, zero], &[d]).with("axis", AttributeValue::Int(1)));
    b.node("MatMul", &[x, d], y);
    let mut m = b.model;
    let inputs = BTreeMap::from([("x".to_string(), noise(&[4, 3], 5))]);
    let before = run(&m, &inputs, Mode::FLOAT);
    assert_eq!(lift(&mut m).unwrap(), 1);
    m.verify().unwrap();
    assert_eq!(m.graph.nodes.len(), 1, "{}", dump(&m));
    assert!(m.constant(m.graph.nodes[0].input(1).unwrap()).is_some());
    assert_eq!(run(&m, &inputs, Mode::SIMULATED), before);
    // Along an axis of a computed value, the pair stays.
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(2)]);
    let y = b.output("y", &[None, Some(2)]);
    let scale = b.constant("s", Tensor::vector(vec![0.01f32, 0.02]));
    let zero = b.constant("z", Tensor::vector(vec![0i8, 0]));
    let q = b.inner("q");
    b.node("QuantizeLinear", &[x, scale, zero], q);
    b.node("DequantizeLinear", &[q, scale, zero], y);
    assert_eq!(lift(&mut b.model).unwrap(), 0);
}

/// The operator's default axis has no effect with one scale.
#[test]
fn a_scale_of_one_element_without_an_axis_is_for_the_whole_tensor() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(3)]);
    let y = b.output("y", &[None, Some(3)]);
    let integers = b.constant("b_quantized", Tensor::vector(vec![1i32, -2, 3]));
    let scale = b.constant("b_scale", Tensor::vector(vec![0.5f32]));
    let zero = b.constant("b_zero_point", Tensor::vector(vec![0i32]));
    let bias = b.inner("bias");
    b.node("DequantizeLinear", &[integers, scale, zero], bias);
    b.node("Add", &[x, bias], y);
    let mut m = b.model;
    assert_eq!(lift(&mut m).unwrap(), 1);
    assert_eq!(m.values.tensor(bias).unwrap().to_f32_vec().unwrap(), [0.5, -1.0, 1.5]);
}

#[test]
fn a_dequantizer_with_an_output_too_many_is_left_alone() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(3)]);
    let y = b.output("y", &[None, Some(3)]);
    let integers = b.constant("b_quantized", Tensor::vector(vec![1u8, 2, 3]));
    let scale = b.constant("scale", Tensor::scalar(0.5f32));
    let (bias, other, quantized) = (b.inner("bias"), b.inner("other"), b.inner("quantized"));
    b.node("DequantizeLinear", &[integers, scale], bias);
    b.node("QuantizeLinear", &[x, scale], quantized);
    b.node("DequantizeLinear", &[quantized, scale], other);
    b.node("Add", &[other, bias], y);
    let mut m = b.model;
    let more = m.values.add_named("more");
    for node in m.graph.nodes.iter_mut().filter(|n| n.op_type == "DequantizeLinear") {
        node.outputs.insert(0, Some(more));
    }
    assert_eq!(lift(&mut m).unwrap(), 0);
    assert_eq!(m.graph.nodes.len(), 4);
}

#[test]
fn a_chain_of_pairs_is_lifted_whatever_its_length() {
    let mut b = Builder::new(13);
    let (x, y) = (b.input("x", &[None, Some(3)]), b.output("y", &[None, Some(3)]));
    let scale = b.constant("scale", Tensor::scalar(0.5f32));
    let (mut at, pairs) = (x, 20_000);
    for i in 0..pairs {
        let (quantized, read) = (b.inner(&format!("q{i}")), b.inner(&format!("d{i}")));
        let next = if i + 1 == pairs { y } else { b.inner(&format!("n{i}")) };
        b.node("QuantizeLinear", &[at, scale], quantized);
        b.node("DequantizeLinear", &[quantized, scale], read);
        b.node("Sigmoid", &[read], next);
        at = next;
    }
    let mut m = b.model;
    assert_eq!(lift(&mut m).unwrap(), pairs);
    assert!(m.graph.nodes.iter().all(|n| n.op_type == "Sigmoid" || n.op_type == "Identity" || n.op_type == "Clip"));
}

#[test]
fn an_input_with_a_default_that_nobody_reads_is_not_asked_for() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(3)]);
    let y = b.output("y", &[None, Some(3)]);
    let [read, unread] = ["read", "unread"].map(|n| b.constant(n, noise(&[3], 1)));
    b.node("Add", &[x, read], y);
    b.model.graph.inputs.extend([read, unread]);
    let lowered = lower(&b.model, &LowerOptions::default()).unwrap().model;
    assert_eq!((lowered.graph.inputs, lowered.graph.constants), (vec![x, read], vec![read]));
}

#[test]
fn the_file_shrinks() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(64)]);
    let y = b.output("y", &[None, Some(64)]);
    let w = b.constant("w", noise(&[64, 64], 1));
    b.node("MatMul", &[x, w], y);
    let float = onnx::to_bytes(&b.model).unwrap().len();
    let mut m = b.model;
    m.metadata_set("classes", "a,b");
    for (bits, share) in [(8, 3.5), (4, 6.0)] {
        encode(&mut m, "w", fit_weight(&noise(&[64, 64], 1), &AffineSettings::weight(bits, None), Precision::WEIGHT, 0.0).unwrap());
        let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
        let size = onnx::to_bytes(&lowered).unwrap().len();
        assert!((size as f64) < float as f64 / share, "{bits} bits: {size} of {float} bytes");
        assert_eq!(lowered.metadata_get("classes"), Some("a,b"));
    }
}
