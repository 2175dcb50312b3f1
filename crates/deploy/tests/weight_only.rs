//! Weights alone in few bits, of operators that compute in float: the file computes the simulation, and is read back.
use espalier_deploy as deploy;
mod support;

use deploy::runtime::{SessionOptions, Source};
use deploy::{LowerOptions, Lowered, lift, lower, measure};
use encodings::affine::Affine;
use encodings::codebook::Codebook;
use encodings::ternary::Ternary;
use encodings::{Encodings, Granularity};
use graph::{AttributeValue, Graph, Model, Node, ValueId};
use quantize::{ActivationSettings, QuantizeSettings, quantize};
use std::collections::BTreeMap;
use support::{Builder, dump, noise, onnxruntime};
use technique::{Choice, Settings};
use tensor::Tensor;
use train::{Batch, Executor, Mode, Named};

/// Cells of the recurrent layers, and numbers in a step.
const HIDDEN: usize = 6;
const WIDTH: usize = 5;

fn affine(bits: u32) -> Choice<Encodings> {
    Affine { bits, ..Affine::default() }.choice().unwrap()
}

fn settings(weights: Choice<Encodings>) -> QuantizeSettings {
    QuantizeSettings { weights, activations: ActivationSettings::float(), weight_only: true, ..QuantizeSettings::default() }
}

fn choices() -> Vec<Choice<Encodings>> {
    // A table of one scale gives its reader integers, whose sums with weights of 8 bits saturate by default on x86 without VNNI.
    let tensor = Affine { granularity: Some(Granularity::Tensor), reduce_range: true, ..Affine::default() };
    let codebook = Codebook { bits: 4, ..Codebook::default() };
    let group = |bits, size| Affine { bits, granularity: Some(Granularity::Group(size)), ..Affine::default() }.choice().unwrap();
    vec![
        affine(8),
        affine(5),
        affine(4),
        affine(2),
        tensor.choice().unwrap(),
        codebook.choice().unwrap(),
        Ternary::default().choice().unwrap(),
        group(4, 2),
        group(4, 3),
        group(8, 4),
        group(2, 64),
    ]
}

/// W, R and the bias of a layer in `directions`.
fn recurrent(b: &mut Builder, op: &str, directions: usize, seed: u32) -> [ValueId; 3] {
    let rows = HIDDEN * [("LSTM", 4), ("GRU", 3), ("RNN", 1)].into_iter().find(|(name, _)| *name == op).unwrap().1;
    let w = b.constant(&format!("{op}{seed}_w"), noise(&[directions, rows, WIDTH], seed));
    let r = b.constant(&format!("{op}{seed}_r"), noise(&[directions, rows, HIDDEN], seed + 1));
    [w, r, b.constant(&format!("{op}{seed}_b"), noise(&[directions, 2 * rows], seed + 2))]
}

/// A layer over `[steps, n, WIDTH]` in both directions.
fn layer(op: &str) -> Model {
    let mut b = Builder::new(15);
    let x = b.input("x", &[Some(4), None, Some(WIDTH)]);
    let y = b.output("y", &[Some(4), Some(2), None, Some(HIDDEN)]);
    let [w, r, bias] = recurrent(&mut b, op, 2, 1);
    let node = Node::new(op, "layer", &[x, w, r, bias], &[y]).with("hidden_size", AttributeValue::Int(HIDDEN as i64));
    b.push(node.with("direction", AttributeValue::String(b"bidirectional".to_vec())));
    b.model
}

/// Two branches of an If with an LSTM each, the weights of the first one in the main graph, those of the second one in the branch.
fn branches() -> Model {
    let mut b = Builder::new(15);
    let x = b.input("x", &[Some(4), None, Some(WIDTH)]);
    let y = b.output("y", &[Some(4), Some(1), None, Some(HIDDEN)]);
    let condition = b.constant("condition", Tensor::scalar(true));
    let mut branch = |name: &str, inside: bool| {
        let [w, r, _] = recurrent(&mut b, "LSTM", 1, if inside { 21 } else { 20 }).map(|v| {
            b.model.values[v].name.push_str(name);
            v
        });
        let out = b.inner(&format!("{name}_out"));
        let node = Node::new("LSTM", name, &[x, w, r], &[out]).with("hidden_size", AttributeValue::Int(HIDDEN as i64));
        let constants = if inside { vec![w, r] } else { vec![] };
        b.model.graph.constants.retain(|v| !constants.contains(v));
        Graph { name: name.into(), nodes: vec![node], outputs: vec![out], constants, ..Graph::default() }
    };
    let (yes, no) = (branch("yes", false), branch("no", true));
    let node = Node::new("If", "if", &[condition], &[y]);
    b.push(node.with("then_branch", AttributeValue::Graph(Box::new(yes))).with("else_branch", AttributeValue::Graph(Box::new(no))));
    b.model.remove_dead();
    b.model
}

/// Rows of a table of 40 words, looked up by the data's signs and multiplied.
fn embedding() -> Model {
    let mut b = Builder::new(15);
    let x = b.input("x", &[Some(4), None, Some(WIDTH)]);
    let y = b.output("y", &[Some(4), None, Some(WIDTH), Some(3)]);
    let [scaled, ids, rows] = ["scaled", "ids", "rows"].map(|n| b.inner(n));
    let nineteen = b.constant("nineteen", Tensor::scalar(19f32));
    let table = b.constant("table", noise(&[40, 7], 3));
    let weight = b.constant("weight", noise(&[7, 3], 4));
    b.node("Mul", &[x, nineteen], scaled);
    b.push(Node::new("Cast", "cast", &[scaled], &[ids]).with("to", AttributeValue::Int(7)));
    b.node("Gather", &[table, ids], rows);
    b.node("MatMul", &[rows, weight], y);
    b.model
}

fn input() -> Named {
    BTreeMap::from([("x".to_string(), noise(&[4, 2, WIDTH], 9))])
}

fn run(model: &Model, mode: Mode) -> Named {
    Executor::new(model).unwrap().run(&input(), mode).unwrap()
}

fn quantized(mut model: Model, settings: &QuantizeSettings) -> Model {
    quantize(&mut model, settings, [Ok(Batch { inputs: input(), ..Batch::default() })].into_iter()).unwrap();
    model
}

/// Lowers a model and compares simulation, lowered model, file and lifted file.
fn check(m: &Model, how: &str) -> Lowered {
    let simulated = run(m, Mode::SIMULATED);
    let lowered = lower(m, &LowerOptions::default()).unwrap();
    assert_eq!(run(&lowered.model, Mode::FLOAT), simulated, "{how}");
    let file = onnx::to_bytes(&lowered.model).unwrap();
    if let Some(runtime) = onnxruntime() {
        for options in [SessionOptions::literal(1), SessionOptions::default_arithmetic(1)] {
            let mut session = runtime.load(Source::Bytes(&file), options).unwrap();
            let y = session.run(&input()).unwrap()["y"].to_f32_vec().unwrap();
            for (a, b) in y.iter().zip(simulated["y"].to_f32_vec().unwrap()) {
                // ONNX Runtime multiplies 4 and 8-bit weights by kernels of its own, which round the data.
                assert!((a - b).abs() <= 0.02 * b.abs().max(1.0), "{how}: {a} {b}\n{}", dump(&lowered.model));
            }
        }
    }
    let mut lifted = onnx::from_bytes(&file, None).unwrap();
    lift(&mut lifted).unwrap();
    for (id, encoding) in m.annotations.iter().filter_map(|(id, a)| Some((id, a.encoding.as_ref()?))) {
        let read = lifted.find(&m.values[id].name).and_then(|id| lifted.annotations.encoding(id));
        let read = read.unwrap_or_else(|| panic!("{how}: {}\n{}", m.values[id].name, dump(&lifted)));
        assert_eq!(encodings::decode(read), encodings::decode(encoding), "{how}");
    }
    assert_eq!(run(&lifted, Mode::SIMULATED), simulated, "{how}");
    assert_eq!(run(&lifted, Mode::FLOAT), simulated, "{how}");
    let again = lower(&lifted, &LowerOptions::default()).unwrap().model;
    let counted = |m: &Model| {
        let weights = measure::parameters(m).unwrap().weights;
        weights.into_iter().map(|w| (w.elements, w.zeros, w.bytes, w.stored_as)).collect::<Vec<_>>()
    };
    assert_eq!(counted(&again), counted(&lowered.model), "{how}");
    lowered
}

#[test]
fn recurrent_layers_and_embeddings_are_stored_in_few_bits() {
    for weights in choices() {
        for (name, model, count) in
            [("LSTM", layer("LSTM"), 2), ("GRU", layer("GRU"), 2), ("RNN", layer("RNN"), 2), ("words", embedding(), 2)]
        {
            let how = format!("{name}, {weights}");
            let m = quantized(model, &settings(weights.clone()));
            let lowered = check(&m, &how);
            let counted = measure::parameters(&lowered.model).unwrap();
            assert_eq!(counted.weights.len(), count, "{how}: {counted:?}");
            for weight in &counted.weights {
                assert!(weight.stored_as.is_some(), "{how}: {weight:?}");
            }
        }
    }
}

#[test]
fn each_row_of_a_gate_and_each_row_of_a_table_has_a_scale() {
    let axes = |model: Model, names: &[&str]| {
        let m = quantized(model, &settings(affine(8)));
        names.iter().map(|n| encodings::describe(m.annotations.encoding(m.find(n).unwrap()).unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(axes(layer("LSTM"), &["LSTM1_w", "LSTM1_r"]), ["int8 per channel"; 2]);
    assert_eq!(axes(embedding(), &["table", "weight"]), ["int8 per channel"; 2]);
    let m = quantized(layer("GRU"), &settings(affine(8)));
    assert_eq!(m.annotations.encoding(m.find("GRU1_w").unwrap()).unwrap().parameters["scale"].len(), 3 * HIDDEN);
    assert!(m.annotations.encoding(m.find("GRU1_b").unwrap()).is_none());
    let m = quantized(embedding(), &settings(affine(8)));
    assert_eq!(m.annotations.encoding(m.find("table").unwrap()).unwrap().parameters["scale"].len(), 40);
}

#[test]
fn weights_in_branches_are_stored_too() {
    for weights in choices() {
        let m = quantized(branches(), &settings(weights.clone()));
        assert_eq!(m.annotations.iter().filter(|(_, a)| a.encoding.is_some()).count(), 4, "{weights}");
        check(&m, &weights.to_string());
    }
}

#[test]
fn integers_are_decoded_once_where_the_runtime_folds_casts_alone() {
    let m = quantized(layer("LSTM"), &settings(affine(8)));
    let operators = |target: &str| {
        let options = LowerOptions { target: Choice::named(target).unwrap(), ..LowerOptions::default() };
        let lowered = lower(&m, &options).unwrap().model;
        assert_eq!(run(&lowered, Mode::FLOAT), run(&m, Mode::SIMULATED), "{target}");
        lowered.graph.nodes.iter().map(|n| n.op_type.clone()).collect::<Vec<_>>()
    };
    assert_eq!(operators("onnxruntime"), ["Cast", "Mul", "Cast", "Mul", "LSTM"]);
    assert_eq!(operators("integer_only"), ["DequantizeLinear", "DequantizeLinear", "LSTM"]);
    // A layer that has a kernel on integers keeps the form that is known for it, unless the options say otherwise.
    let words = quantized(embedding(), &settings(affine(8)));
    let made = |decode_once: bool| {
        let lowered = lower(&words, &LowerOptions { decode_once, ..LowerOptions::default() }).unwrap().model;
        assert_eq!(run(&lowered, Mode::FLOAT), run(&words, Mode::SIMULATED));
        let weight = lowered.find("weight").unwrap();
        lowered.graph.linked().maker(weight).unwrap().op_type.clone()
    };
    assert_eq!((made(false).as_str(), made(true).as_str()), ("DequantizeLinear", "Mul"));
}

#[test]
fn a_masked_recurrent_weight_keeps_its_zeros() {
    let mut model = layer("LSTM");
    let w = model.find("LSTM1_w").unwrap();
    let shape = model.values.tensor(w).unwrap().shape().to_vec();
    let live = (0..shape.iter().product()).map(|i: usize| i.is_multiple_of(3)).collect::<Vec<bool>>();
    model.annotations.entry(w).mask = Some(Tensor::new(live, shape.as_slice()).unwrap());
    let lowered = check(&quantized(model, &settings(affine(4))), "masked");
    let counted = measure::parameters(&lowered.model).unwrap();
    let stored = counted.weights.iter().find(|c| c.name.starts_with("LSTM1_w")).unwrap();
    assert!(stored.zeros * 3 >= stored.elements * 2, "{stored:?}");
}
