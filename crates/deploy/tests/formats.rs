//! The same model in each format.
use espalier_deploy as deploy;
mod support;

use deploy::LowerOptions;
use deploy::format::{Artifact, ExportOptions, Formats};
use deploy::measure::Difference;
use deploy::runtime::{Reference, Runtime, SessionOptions};
use graph::{AttributeValue, Model, Node};
use quantize::QuantizeSettings;
use std::collections::BTreeMap;
use support::{Builder, noise, onnxruntime};
use technique::Choice;
use train::{Batch, Executor, Mode, Named};

/// A residual block with pooling, activations and a fully connected layer; a MatMul and a Softmax behind it.
fn network() -> Model {
    let mut b = Builder::new(17);
    let x = b.input("x", &[None, Some(2), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(3)]);
    let names = ["c", "r", "p", "d", "s", "l", "n", "g", "f", "h", "m", "t"];
    let [c, r, p, d, s, l, n, g, f, h, m, t] = names.map(|n| b.inner(n));
    let w = b.constant("w", noise(&[4, 2, 3, 3], 1));
    let bias = b.constant("b", noise(&[4], 2));
    let deep = b.constant("deep", noise(&[4, 1, 3, 3], 3));
    let head = b.constant("head", noise(&[5, 8], 4));
    let head_bias = b.constant("head_bias", noise(&[5], 5));
    let last = b.constant("last", noise(&[5, 3], 6));
    let pads = |node: Node| node.with("pads", AttributeValue::Ints(vec![1, 1, 1, 1]));
    b.push(pads(Node::new("Conv", "stem", &[x, w, bias], &[c])));
    b.node("Relu", &[c], r);
    let pool = Node::new("MaxPool", "pool", &[r], &[p]).with("kernel_shape", AttributeValue::Ints(vec![2, 2]));
    b.push(pool.with("strides", AttributeValue::Ints(vec![2, 2])));
    b.push(pads(Node::new("Conv", "depthwise", &[p, deep], &[d])).with("group", AttributeValue::Int(4)));
    b.push(Node::new("Add", "residual", &[d, p], &[s]));
    b.push(Node::new("Sigmoid", "gate", &[s], &[l]));
    b.push(Node::new("Concat", "both", &[s, l], &[n]).with("axis", AttributeValue::Int(1)));
    b.push(Node::new("GlobalAveragePool", "mean", &[n], &[g]));
    b.node("Flatten", &[g], f);
    b.push(Node::new("Gemm", "head", &[f, head, head_bias], &[h]).with("transB", AttributeValue::Int(1)));
    b.push(Node::new("LeakyRelu", "leaky", &[h], &[m]));
    b.push(Node::new("MatMul", "last", &[m, last], &[t]));
    b.push(Node::new("Softmax", "softmax", &[t], &[y]));
    b.model
}

fn batches() -> impl Iterator<Item = Result<Batch, train::TrainError>> {
    let of = |seed| Batch { inputs: BTreeMap::from([("x".to_string(), noise(&[8, 2, 6, 6], seed))]), ..Batch::default() };
    (10..14).map(move |seed| Ok(of(seed)))
}

fn quantized(settings: &QuantizeSettings) -> Model {
    let mut model = network();
    quantize::quantize(&mut model, settings, batches()).unwrap();
    model
}

fn exported(model: &Model, format: &str) -> Artifact {
    Choice::<Formats>::named(format).unwrap().export(model, &ExportOptions::default()).unwrap()
}

fn input() -> Named {
    BTreeMap::from([("x".to_string(), noise(&[64, 2, 6, 6], 99))])
}

fn operators(model: &Model) -> Vec<&str> {
    model.graph.nodes.iter().map(|n| n.op_type.as_str()).collect()
}

fn apart(a: &Named, b: &Named) -> Difference {
    let mut difference = Difference::default();
    difference.add(&a["y"], &b["y"]).unwrap();
    difference
}

#[test]
fn operators_between_quantizers_become_operators_on_integers() {
    let artifact = exported(&quantized(&QuantizeSettings::default()), "qoperator");
    let expected = [
        "QuantizeLinear",
        "QLinearConv",
        "MaxPool",
        "QLinearConv",
        "QLinearAdd",
        "QLinearSigmoid",
        "QLinearConcat",
        "QLinearGlobalAveragePool",
        "Flatten",
        "QGemm",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "DequantizeLinear",
        "Softmax",
    ];
    let model = &artifact.lowered.model;
    assert_eq!(operators(model), expected);
    assert_eq!(model.opset("com.microsoft"), Some(1));
    assert_eq!(artifact.lowered.float_parts.iter().map(|p| p.op_type.as_str()).collect::<Vec<_>>(), ["Softmax"]);
    let kept = model.graph.nodes.iter().find(|n| n.op_type == "QLinearConv").unwrap();
    assert_eq!((kept.name.as_str(), kept.inputs.len()), ("stem", 9), "name and bias are the layer's");
}

#[test]
fn both_formats_compute_the_simulation_in_every_runtime() {
    // Without it the sums of 8-bit weights saturate by default on x86 without VNNI.
    let model = quantized(&QuantizeSettings { processor_safe: true, ..QuantizeSettings::default() });
    let simulated = Executor::new(&model).unwrap().run(&input(), Mode::SIMULATED).unwrap();
    let float = Executor::new(&model).unwrap().run(&input(), Mode::FLOAT).unwrap();
    let noise = apart(&float, &simulated).rms();
    let runtimes = [onnxruntime(), Some(Box::new(Reference) as Box<dyn Runtime>)];
    for runtime in runtimes.into_iter().flatten() {
        for format in ["qdq", "qoperator"] {
            let artifact = exported(&model, format);
            for options in [SessionOptions::literal(1), SessionOptions::default_arithmetic(1)] {
                let given = runtime.load(artifact.source(), options).unwrap().run(&input()).unwrap();
                let d = apart(&simulated, &given);
                assert!(d.rms() < noise / 3.0, "{} {format} {options:?}: {} of {noise}", runtime.name(), d.rms());
            }
        }
    }
}

#[test]
fn what_does_not_fit_an_operator_on_integers_stays_between_quantizers_and_is_listed() {
    let weights = technique::Choice::with("affine", &encodings::affine::Affine { bits: 4, ..Default::default() }).unwrap();
    let settings = QuantizeSettings { weights, ..QuantizeSettings::default() };
    let artifact = exported(&quantized(&settings), "qoperator");
    let kinds = operators(&artifact.lowered.model);
    assert!(kinds.contains(&"Conv") && kinds.contains(&"QLinearAdd") && !kinds.contains(&"QLinearConv"), "{kinds:?}");
    let stem = artifact.lowered.float_parts.iter().find(|p| p.node == "stem").unwrap();
    assert!(stem.reason.contains("'w' is not stored in 8 bits, and QLinearConv takes only 8 bits"), "{stem:?}");
}

#[test]
fn a_model_that_nothing_was_quantized_in_stays_as_it_is() {
    let (plain, qdq) = (exported(&network(), "qoperator"), exported(&network(), "qdq"));
    assert_eq!(plain.bytes, qdq.bytes);
}

#[test]
fn operators_on_integers_are_lifted_to_the_graph_that_they_were_made_of() {
    let mut settings = QuantizeSettings::default();
    for target in ["onnxruntime", "integer_only"] {
        settings.target = target::Choice::named(target).unwrap();
        let model = quantized(&settings);
        let lower = LowerOptions { target: settings.target.clone(), ..LowerOptions::default() };
        let options = ExportOptions { lower: lower.clone(), ..ExportOptions::default() };
        let artifact = Choice::<Formats>::named("qoperator").unwrap().export(&model, &options).unwrap();
        let mut lifted = onnx::from_bytes(&artifact.bytes, None).unwrap();
        assert!(deploy::lift(&mut lifted).unwrap() > 0);
        let on_integers = |m: &Model| operators(m).into_iter().filter(|op| op.starts_with('Q') || *op == "DequantizeLinear").count();
        assert_eq!(on_integers(&lifted), 0, "{:?}", operators(&lifted));
        // It computes what the quantized model computes, and writing it again gives the same operators.
        let simulated = Executor::new(&model).unwrap().run(&input(), Mode::SIMULATED).unwrap();
        assert_eq!(Executor::new(&lifted).unwrap().run(&input(), Mode::SIMULATED).unwrap(), simulated, "{target}");
        let again = Choice::<Formats>::named("qoperator").unwrap().export(&lifted, &options).unwrap();
        assert_eq!(operators(&again.lowered.model), operators(&artifact.lowered.model), "{target}");
    }
}

#[test]
fn an_operator_on_integers_with_an_output_that_it_cannot_have_stays() {
    let mut model = onnx::from_bytes(&exported(&quantized(&QuantizeSettings::default()), "qoperator").bytes, None).unwrap();
    for i in 0..model.graph.nodes.len() {
        if model.graph.nodes[i].op_type.starts_with("QLinear") {
            let extra = model.values.add_named(format!("extra_{i}"));
            model.graph.nodes[i].outputs.insert(0, Some(extra));
        }
    }
    deploy::lift(&mut model).unwrap();
    model.verify().unwrap();
    assert!(operators(&model).contains(&"QLinearConv"), "{:?}", operators(&model));
}

#[test]
fn a_softmax_between_quantizers_is_one_on_integers() {
    let settings = QuantizeSettings { target: target::Choice::named("integer_only").unwrap(), ..QuantizeSettings::default() };
    let model = quantized(&settings);
    let options = ExportOptions { lower: LowerOptions { target: settings.target, ..LowerOptions::default() }, ..ExportOptions::default() };
    let artifact = Choice::<Formats>::named("qoperator").unwrap().export(&model, &options).unwrap();
    let last = artifact.lowered.model.graph.nodes.iter().rev().nth(1).unwrap();
    assert_eq!((last.op_type.as_str(), last.int_or("opset", 0)), ("QLinearSoftmax", Ok(17)));
    let simulated = Executor::new(&model).unwrap().run(&input(), Mode::SIMULATED).unwrap();
    for runtime in [onnxruntime(), Some(Box::new(Reference) as Box<dyn Runtime>)].into_iter().flatten() {
        let given = runtime.load(artifact.source(), SessionOptions::literal(1)).unwrap().run(&input()).unwrap();
        let d = apart(&simulated, &given);
        assert!(d.largest() <= 2.0 / 256.0 && d.argmax_agreement() > 0.9, "{}: {d:?}", runtime.name());
    }
}
