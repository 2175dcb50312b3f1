//! A file for a target without float computation.
use espalier_deploy as deploy;
mod support;

use deploy::format::{Artifact, ExportOptions, Formats};
use deploy::runtime::{Reference, Runtime, SessionOptions};
use deploy::{LowerOptions, Placement};
use graph::{AttributeValue, Model, Node, ValueId};
use quantize::QuantizeSettings;
use std::collections::BTreeMap;
use support::{Builder, noise};
use technique::Choice;
use tensor::DType;
use train::{Batch, Executor, Mode, Named};

/// Convolution and Relu, a fully connected layer with its bias in an Add, and the given node behind it.
fn network(behind: &str) -> Model {
    let mut b = Builder::new(17);
    let x = b.input("x", &[None, Some(2), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(3)]);
    let [c, r, g, f, t, s] = ["c", "r", "g", "f", "t", "s"].map(|n| b.inner(n));
    let (w, bias) = (b.constant("w", noise(&[4, 2, 3, 3], 1)), b.constant("b", noise(&[4], 2)));
    let (head, head_bias) = (b.constant("head", noise(&[4, 3], 4)), b.constant("head_bias", noise(&[3], 5)));
    b.push(Node::new("Conv", "stem", &[x, w, bias], &[c]));
    b.node("Relu", &[c], r);
    b.push(Node::new("GlobalAveragePool", "mean", &[r], &[g]));
    b.node("Flatten", &[g], f);
    b.push(Node::new("MatMul", "head", &[f, head], &[t]));
    b.push(Node::new("Add", "bias", &[t, head_bias], &[s]));
    b.push(Node::new(behind, "behind", &[s], &[y]));
    b.model
}

fn batches() -> impl Iterator<Item = Result<Batch, train::TrainError>> {
    let of = |seed| Batch { inputs: BTreeMap::from([("x".to_string(), noise(&[8, 2, 6, 6], seed))]), ..Batch::default() };
    (10..14).map(move |seed| Ok(of(seed)))
}

fn target() -> target::Choice {
    target::Choice::named("integer_only").unwrap()
}

fn quantized(mut model: Model, settings: QuantizeSettings) -> Model {
    quantize::quantize(&mut model, &QuantizeSettings { target: target(), ..settings }, batches()).unwrap();
    model
}

fn exported(model: &Model, format: &str) -> Result<Artifact, deploy::DeployError> {
    let lower = LowerOptions { target: target(), ..LowerOptions::default() };
    Choice::<Formats>::named(format).unwrap().export(model, &ExportOptions { lower, ..ExportOptions::default() })
}

/// The type of the integers that a DequantizeLinear reads.
fn stored(model: &Model, node: &Node) -> Option<DType> {
    let tensor = |v: ValueId| model.values.tensor(v).map(|t| t.dtype());
    node.input(2).and_then(tensor).or_else(|| tensor(node.input(0)?))
}

#[test]
fn all_is_int8_biases_int32_and_softmax_has_the_scale_of_its_kernel() {
    let model = quantized(network("Softmax"), QuantizeSettings::default());
    let artifact = exported(&model, "qdq").unwrap();
    let m = &artifact.lowered.model;
    assert!(artifact.lowered.float_parts.is_empty(), "{:?}", artifact.lowered.float_parts);
    for node in m.graph.nodes.iter().filter(|n| n.op_type == "DequantizeLinear") {
        let (of, name) = (stored(m, node).unwrap(), m.values[node.output(0).unwrap()].name.clone());
        assert_eq!(of, if ["b", "head_bias"].contains(&name.as_str()) { DType::I32 } else { DType::I8 }, "{name}");
        let scales = m.values.tensor(node.input(1).unwrap()).unwrap().len();
        assert_eq!(scales, if name == "w" || name == "b" { 4 } else { 1 }, "{name}");
    }
    let y = model.annotations.encoding(model.find("y").unwrap()).unwrap();
    let parameter = |name: &str| y.parameters[name].item::<f32>().unwrap();
    assert_eq!((parameter("scale"), parameter("zero_point")), (1.0 / 256.0, -128.0));
}

#[test]
fn no_node_computes_in_float_in_onnx_runtime_and_the_file_computes_the_simulation() {
    let model = quantized(network("Softmax"), QuantizeSettings::default());
    let input: Named = BTreeMap::from([("x".to_string(), noise(&[64, 2, 6, 6], 99))]);
    let simulated = Executor::new(&model).unwrap().run(&input, Mode::SIMULATED).unwrap();
    let artifact = exported(&model, "qdq").unwrap();
    let literal = Reference.load(artifact.source(), SessionOptions::literal(1)).unwrap().run(&input).unwrap();
    assert_eq!(literal, simulated);
    let runtime = deploy::runtime::of_target(&**target().member()).unwrap().runtime;
    if runtime.name() == "reference" {
        eprintln!("skipped: ONNX Runtime is not there");
        return;
    }
    let placement = Placement::of(&runtime.optimized(artifact.source()).unwrap().unwrap(), &artifact.lowered);
    assert!(placement.float_parts.is_empty() && placement.total().float == 0, "{placement:?}");
}

#[test]
fn what_it_has_no_kernel_for_is_refused_with_operator_node_reason_and_remedy() {
    let model = quantized(network("HardSigmoid"), QuantizeSettings::default());
    for format in ["qdq", "qoperator"] {
        let error = exported(&model, format).unwrap_err().to_string();
        assert!(error.starts_with("target 'integer_only': it computes nothing in float"), "{error}");
        assert!(error.contains("HardSigmoid 'behind' (there is no int8 kernel for it)") && error.contains("Sigmoid, Softmax"), "{error}");
    }
    let skipped = quantized(network("Softmax"), QuantizeSettings { skip: vec!["mean".into()], ..QuantizeSettings::default() });
    let error = exported(&skipped, "qdq").unwrap_err().to_string();
    assert!(error.contains("GlobalAveragePool 'mean'") && error.contains("take them out of skip"), "{error}");
}

#[test]
fn other_widths_and_a_float_model_are_refused() {
    let error = exported(&network("Softmax"), "qdq").unwrap_err().to_string();
    assert!(error.contains("nothing in the model is quantized") && error.contains("put a quantize stage before"), "{error}");
    let weights = technique::Choice::with("affine", &encodings::affine::Affine { bits: 4, ..Default::default() }).unwrap();
    let settings = QuantizeSettings { weights, ..QuantizeSettings::default() };
    let error = exported(&quantized(network("Softmax"), settings), "qdq").unwrap_err().to_string();
    assert!(error.contains("is stored as int4") && error.contains("bits = 8"), "{error}");
    // Quantized for ONNX Runtime, deployed for this target.
    let mut model = network("Sigmoid");
    quantize::quantize(&mut model, &QuantizeSettings::default(), batches()).unwrap();
    assert!(exported(&model, "qdq").is_err());
}

#[test]
fn three_spatial_axes_are_refused() {
    let mut b = Builder::new(17);
    let x = b.input("x", &[None, Some(1), Some(4), Some(4), Some(4)]);
    let y = b.output("y", &[None, Some(2), Some(2), Some(2), Some(2)]);
    let w = b.constant("w", noise(&[2, 1, 3, 3, 3], 1));
    b.push(Node::new("Conv", "deep", &[x, w], &[y]).with("kernel_shape", AttributeValue::Ints(vec![3, 3, 3])));
    let rule = target().rule(&b.model.graph.nodes[0], &b.model);
    assert_eq!(rule, target::QuantRule::Float("there is an int8 kernel for one and two spatial axes alone"));
}
