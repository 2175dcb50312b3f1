//! Where a runtime computes the nodes that lowering meant for integers.
use espalier_deploy as deploy;
mod support;

use deploy::runtime::Source;
use deploy::{Count, LowerOptions, Lowered, Placement, lower};
use encodings::affine::{AffineSettings, Precision, fit_range, fit_weight};
use graph::{AttributeValue, Model, Node};
use support::{Builder, noise, onnxruntime};
use tensor::Tensor;

/// Convolution, an activation, Flatten, Gemm, quantized; the grid behind the activation ends at `top`.
fn network(bits: u32, activation: &str, top: f32) -> Model {
    let mut b = Builder::new(21);
    let x = b.input("x", &[None, Some(2), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(3)]);
    let [c, r, f] = ["c", "r", "f"].map(|n| b.inner(n));
    let w = b.constant("w", noise(&[4, 2, 3, 3], 1));
    let v = b.constant("v", noise(&[3, 64], 3));
    b.push(Node::new("Conv", "stem", &[x, w], &[c]));
    let (low, high) = (b.constant("low", Tensor::scalar(0f32)), b.constant("high", Tensor::scalar(6f32)));
    let inputs = if activation == "Clip" { vec![c, low, high] } else { vec![c] };
    b.push(Node::new(activation, "act", &inputs, &[r]));
    b.node("Flatten", &[r], f);
    b.push(Node::new("Gemm", "head", &[f, v], &[y]).with("transB", AttributeValue::Int(1)));
    let mut m = b.model;
    for (value, lo, hi) in [("x", -1.0, 1.0), ("r", 0.0, top), ("y", -4.0, 4.0)] {
        let id = m.find(value).unwrap();
        m.annotations.entry(id).encoding = Some(fit_range(lo, hi, &AffineSettings::activation(8)).unwrap());
    }
    for (value, t) in [("w", noise(&[4, 2, 3, 3], 1)), ("v", noise(&[3, 64], 3))] {
        let id = m.find(value).unwrap();
        m.annotations.entry(id).encoding = Some(fit_weight(&t, &AffineSettings::weight(bits, Some(0)), Precision::WEIGHT, 0.0).unwrap());
    }
    m
}

fn placed(model: &Model) -> Option<(Placement, Lowered)> {
    let runtime = onnxruntime()?;
    let lowered = lower(model, &LowerOptions::default()).unwrap();
    let file = onnx::to_bytes(&lowered.model).unwrap();
    let optimized = runtime.optimized(Source::Bytes(&file)).unwrap().expect("ONNX Runtime tells its graph");
    Some((Placement::of(&optimized, &lowered), lowered))
}

#[test]
fn a_quantized_network_runs_on_integers_its_gemm_too() {
    let Some((placement, _)) = placed(&network(8, "Relu", 3.0)) else { return };
    assert_eq!(placement.operators["Conv"], Count { integer: 1, float: 0 }, "{placement:?}");
    assert_eq!(placement.operators["Gemm"], Count { integer: 1, float: 0 }, "{placement:?}");
    assert!(placement.float_parts.is_empty() && placement.total() == Count { integer: 2, float: 0 }, "{placement:?}");
}

#[test]
fn what_the_runtime_computes_in_float_is_named_with_the_reason() {
    let Some((placement, lowered)) = placed(&network(4, "Relu", 3.0)) else { return };
    assert!(lowered.float_parts.is_empty(), "lowering meant all of it for integers");
    assert_eq!(placement.operators["Conv"], Count { integer: 0, float: 1 }, "{placement:?}");
    let conv = placement.float_parts.iter().find(|p| p.op_type == "Conv").unwrap();
    assert!(conv.node == "stem" && conv.reason.contains("'w' is stored as int4"), "{conv:?}");

    // A grid that extends beyond the activation's bounds: the activation stays, and keeps the layer in float.
    let Some((placement, _)) = placed(&network(8, "Clip", 7.0)) else { return };
    let conv = placement.float_parts.iter().find(|p| p.op_type == "Conv").unwrap();
    assert!(conv.node == "stem" && conv.reason.starts_with("Clip 'act' lies between it and its quantizer"), "{placement:?}");
}

#[test]
fn integer_and_float_forms_of_an_operator_are_counted_apart_and_moves_are_not() {
    let mut b = Builder::new(21);
    let x = b.input("x", &[None, Some(2), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(3)]);
    let scale = b.constant("s", Tensor::scalar(0.1f32));
    let zero = b.constant("z", Tensor::scalar(0u8));
    let w = b.constant("w", Tensor::zeros(tensor::DType::I8, &[2, 2, 1, 1]).unwrap());
    let [q, t, c, d, f, s] = ["q", "t", "c", "d", "f", "s"].map(|n| b.inner(n));
    let contrib = |op: &str, name: &str, inputs: &[graph::ValueId], output| {
        let mut node = Node::new(op, name, inputs, &[output]);
        node.domain = "com.microsoft".into();
        node
    };
    b.push(Node::new("QuantizeLinear", "quantize", &[x, scale, zero], &[q]));
    b.push(Node::new("Transpose", "move", &[q], &[t]));
    b.push(contrib("QLinearConv", "a_token_1", &[t, scale, zero, w, scale, zero, scale, zero], c));
    b.push(Node::new("DequantizeLinear", "dequantize", &[c, scale, zero], &[d]));
    b.push(contrib("FusedConv", "fused", &[d, w], f));
    b.push(Node::new("Shape", "shape", &[f], &[s]));
    b.push(Node::new("Reshape", "reshape", &[f, s], &[y]));
    let lowered = Lowered { model: Model::new(21), float_parts: vec![], notes: vec![] };
    let placement = Placement::of(&b.model, &lowered);
    assert_eq!(placement.operators, [("Conv".to_string(), Count { integer: 1, float: 1 })].into());
    assert_eq!((placement.conversions, placement.float_parts.len()), (2, 1));
    assert_eq!(placement.float_parts[0].node, "fused");
}

/// An If whose branches hold a MatMul each, beside a value of the outer graph.
#[test]
fn what_a_branch_computes_in_float_is_seen_behind_it() {
    let mut b = Builder::new(21);
    let x = b.input("x", &[None, Some(2)]);
    let y = b.output("y", &[None, Some(2)]);
    let condition = b.constant("c", Tensor::scalar(true));
    let w = b.constant("w", Tensor::zeros(tensor::DType::F32, &[2, 2]).unwrap());
    let [chosen, then_made, else_made] = ["chosen", "then_made", "else_made"].map(|n| b.inner(n));
    let branch = |name: &str, made| graph::Graph {
        name: name.into(),
        nodes: vec![Node::new("MatMul", format!("{name}_product"), &[x, w], &[made])],
        outputs: vec![made],
        ..graph::Graph::default()
    };
    let mut node = Node::new("If", "if", &[condition], &[chosen]);
    node.attributes.set("then_branch", AttributeValue::Graph(Box::new(branch("then", then_made))));
    node.attributes.set("else_branch", AttributeValue::Graph(Box::new(branch("else", else_made))));
    b.push(node);
    b.push(Node::new("Sqrt", "root", &[chosen], &[y]));
    let lowered = Lowered { model: Model::new(21), float_parts: vec![], notes: vec![] };
    let placement = Placement::of(&b.model, &lowered);
    let float = |n| Count { integer: 0, float: n };
    assert_eq!(placement.operators, [("MatMul".to_string(), float(2)), ("Sqrt".to_string(), float(1))].into());
}

/// HardSwish is a function that ONNX Runtime writes out before it optimizes.
#[test]
fn parts_of_a_node_that_the_runtime_writes_out_have_its_name_and_reason() {
    let mut b = Builder::new(21);
    let x = b.input("x", &[None, Some(2)]);
    let y = b.output("y", &[None, Some(2)]);
    b.push(Node::new("HardSwish", "act", &[x], &[y]));
    let part = deploy::FloatPart { node: "act".into(), op_type: "HardSwish".into(), reason: "no integer kernel is expected for it".into() };
    let lowered = Lowered { model: b.model.clone(), float_parts: vec![part], notes: vec![] };
    let gate = b.inner("gate");
    b.model.graph.nodes = vec![Node::new("HardSigmoid", "f_token_9", &[x], &[gate]), Node::new("Mul", "f_token_10", &[x, gate], &[y])];
    let placement = Placement::of(&b.model, &lowered);
    let told: Vec<_> = placement.float_parts.iter().map(|p| (p.node.as_str(), p.reason.as_str())).collect();
    assert_eq!(told, [("act", "no integer kernel is expected for it"); 2]);
}

/// Layers in branches read the outer graph's input and weights: each branch contains their dequantizers, so that a runtime fuses
/// them.
#[test]
fn layers_in_branches_run_on_integers() {
    let mut b = Builder::new(21);
    let x = b.input("x", &[None, Some(8)]);
    let y = b.output("y", &[None, Some(4)]);
    let [most, positive, chosen, act] = ["most", "positive", "chosen", "act"].map(|n| b.inner(n));
    let limit = b.constant("limit", Tensor::scalar(0f32));
    b.push(Node::new("ReduceMax", "largest", &[x], &[most]).with("keepdims", AttributeValue::Int(0)));
    b.push(Node::new("Greater", "compare", &[most, limit], &[positive]));
    let [w_then, w_else, w] = [("w_then", 1), ("w_else", 2), ("w", 3)].map(|(n, seed)| {
        let rows = if n == "w" { 4 } else { 8 };
        b.constant(n, noise(&[rows, 4], seed))
    });
    let made = ["then_made", "else_made"].map(|n| b.inner(n));
    let branch = |name: &str, w, made| graph::Graph {
        name: name.into(),
        nodes: vec![Node::new("MatMul", format!("{name}_layer"), &[x, w], &[made])],
        outputs: vec![made],
        ..graph::Graph::default()
    };
    let mut node = Node::new("If", "if", &[positive], &[chosen]);
    node.attributes.set("then_branch", AttributeValue::Graph(Box::new(branch("then", w_then, made[0]))));
    node.attributes.set("else_branch", AttributeValue::Graph(Box::new(branch("else", w_else, made[1]))));
    b.push(node);
    b.push(Node::new("Relu", "relu", &[chosen], &[act]));
    b.push(Node::new("MatMul", "head", &[act, w], &[y]));
    let mut m = b.model;
    let inputs = train::Named::from([("x".to_string(), noise(&[16, 8], 4))]);
    let negative = train::Named::from([("x".to_string(), Tensor::full(-1f32, [16, 8]).unwrap())]);
    let batches = [&inputs, &negative].map(|i| Ok(train::Batch { inputs: i.clone(), ..train::Batch::default() }));
    quantize::quantize(&mut m, &quantize::QuantizeSettings::default(), batches.into_iter()).unwrap();
    let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
    for inputs in [&inputs, &negative] {
        let run = |m: &Model, mode| train::Executor::new(m).unwrap().run(inputs, mode).unwrap();
        assert_eq!(run(&lowered, train::Mode::FLOAT), run(&m, train::Mode::SIMULATED));
    }
    // Read again, the weights belong to the main graph as before.
    let mut again = lowered.clone();
    deploy::lift(&mut again).unwrap();
    for inputs in [&inputs, &negative] {
        let run = |m: &Model| train::Executor::new(m).unwrap().run(inputs, train::Mode::SIMULATED).unwrap();
        assert_eq!(run(&again), run(&m));
    }
    let weights = |m: &Model| m.graph.constants.iter().filter(|v| m.annotations.encoding(**v).is_some()).count();
    assert_eq!((weights(&again), weights(&m)), (3, 3));
    let Some((placement, _)) = placed(&m) else { return };
    assert_eq!(placement.operators["MatMul"], Count { integer: 3, float: 0 }, "{placement:?}");
}
