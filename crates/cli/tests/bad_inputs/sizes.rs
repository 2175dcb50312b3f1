//! Sizes that a model asks for and the machine does not have, and windows whose sizes pass 64 bits.
use crate::support::{Folder, one_node};
use espalier::graph::{AttributeValue, Dim, Model, Node, Value, ValueId, ValueType};
use espalier::onnx;
use espalier::tensor::{DType, Tensor};

/// A node 'big' of `op_type` from `x` and constants (or from constants alone) to `y`.
fn big(op_type: &str, takes_x: bool, constants: &[Tensor], attributes: &[(&str, AttributeValue)]) -> Model {
    let mut node = Node::new(op_type, "big", &[], &[]);
    for (name, value) in attributes {
        node.attributes.set(name, value.clone());
    }
    let mut model = one_node(13, node);
    let x = model.graph.inputs[0];
    let constants: Vec<ValueId> =
        constants.iter().enumerate().map(|(i, t)| model.values.add_constant(format!("c{i}"), t.clone())).collect();
    model.graph.constants.extend(&constants);
    let inputs: Vec<ValueId> = takes_x.then_some(x).into_iter().chain(constants).collect();
    model.graph.nodes[0].inputs = inputs.into_iter().map(Some).collect();
    let y = model.graph.outputs[0];
    model.values[y].ty = ValueType::Unknown;
    model
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::vector(values.to_vec())
}

/// Runs a model through the commands that evaluate it, with room for 64 MB.
#[track_caller]
fn refused(model: &Model, x: Tensor, message: &str) {
    let folder = Folder::new();
    onnx::save(model, &folder.path("big.onnx")).unwrap();
    folder.arrays("in.npz", &[("x", x)]);
    folder.fails("execute big.onnx --input in.npz --output out.npz --memory-limit 64MB", 1, message);
    assert!(!folder.path("out.npz").exists());
    // Commands that only count may infer the shapes without computing them; they may not end by a signal.
    for line in ["inspect big.onnx --memory-limit 64MB", "convert big.onnx --clean -o clean.onnx --memory-limit 64MB"] {
        let code = folder.espalier(line).status.code();
        assert!(matches!(code, Some(0 | 1)), "espalier {line}: {code:?}");
    }
}

#[test]
fn a_result_larger_than_the_memory_limit() {
    let x = || Tensor::full(1f32, [1, 4]).unwrap();
    let list = |v: &[i64]| AttributeValue::Ints(v.to_vec());
    let number = |v: i64| Tensor::scalar(v);
    for (op, takes_x, constants, attributes) in [
        ("Expand", true, vec![ints(&[1 << 14, 1 << 14, 4])], vec![]),
        ("ConstantOfShape", false, vec![ints(&[1 << 14, 1 << 14])], vec![]),
        ("Range", false, vec![number(0), number(1 << 28), number(1)], vec![]),
        ("Tile", true, vec![ints(&[1 << 14, 1 << 14])], vec![]),
        ("Pad", true, vec![ints(&[0, 0, 1 << 28, 0])], vec![]),
        ("OneHot", true, vec![number(1 << 28), Tensor::vector(vec![0f32, 1.0])], vec![]),
        ("Resize", true, vec![Tensor::vector::<f32>(vec![]), Tensor::vector(vec![1e4f32, 1e4])], vec![]),
        ("RandomNormal", false, vec![], vec![("shape", list(&[1 << 14, 1 << 14]))]),
        ("Gather", true, vec![Tensor::full(0i64, [1 << 12, 1 << 10]).unwrap()], vec![("axis", AttributeValue::Int(0))]),
    ] {
        refused(&big(op, takes_x, &constants, &attributes), x(), &format!("node 'big' ({op}): "));
    }
    let model = big("Expand", true, &[ints(&[1 << 14, 1 << 14, 4])], &[]);
    refused(&model, x(), "needs 4.3 GB for a tensor of shape [16384, 16384, 4], where the memory limit of 64.0 MB leaves");
    refused(&model, x(), "--memory-limit SIZE sets another limit");
}

#[test]
fn attributes_that_no_tensor_fits() {
    let most = AttributeValue::Int(1 << 40);
    let split = big("Split", true, &[], &[("num_outputs", most.clone())]);
    refused(&split, Tensor::full(1f32, [1, 4]).unwrap(), "attribute 'num_outputs'");
    for op in ["DepthToSpace", "SpaceToDepth"] {
        let mut model = big(op, true, &[], &[("blocksize", most.clone())]);
        let x = model.graph.inputs[0];
        model.values[x].ty = ValueType::Tensor { dtype: DType::F32, shape: None };
        refused(&model, Tensor::full(1f32, [1, 4, 2, 2]).unwrap(), "attribute 'blocksize'");
    }
}

#[test]
fn multiplications_that_pass_64_bits_are_counted_as_the_most_there_are() {
    let folder = Folder::new();
    let mut model = one_node(13, Node::new("MatMul", "first", &[], &[]));
    let (x, y) = (model.graph.inputs[0], model.graph.outputs[0]);
    let mut declared = |v: ValueId| {
        model.values[v].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Known(1 << 31), Dim::Known(1 << 31)]) };
    };
    declared(x);
    declared(y);
    let between = model.values.add_named("between");
    model.graph.nodes = vec![Node::new("MatMul", "first", &[x, x], &[between]), Node::new("MatMul", "second", &[between, x], &[y])];
    onnx::save(&model, &folder.path("big.onnx")).unwrap();
    let output = folder.espalier("inspect big.onnx --json");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&u64::MAX.to_string()), "{said}");
}

#[test]
fn a_declared_input_larger_than_the_memory_limit() {
    let folder = Folder::new();
    let mut model = one_node(13, Node::new("Relu", "act", &[], &[]));
    for v in [model.graph.inputs[0], model.graph.outputs[0]] {
        model.values[v].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Known(1 << 15); 2]) };
    }
    onnx::save(&model, &folder.path("wide.onnx")).unwrap();
    folder.fails("bench infer wide.onnx --memory-limit 64MB", 1, "input 'x': full: needs 4.3 GB");
    let code = folder.espalier("inspect wide.onnx --memory-limit 64MB").status.code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
}

/// A convolution of 16 channels with a weight of ones in `[o, c / groups, 1, 1]`.
fn convolution(op_type: &str, groups: i64, strides: [usize; 2], pads: [usize; 4], image: [usize; 2]) -> (Model, Tensor) {
    let list = |v: &[usize]| AttributeValue::Ints(v.iter().map(|n| *n as i64).collect());
    let weight = Tensor::full(1f32, [16, 16 / groups as usize, 1, 1]).unwrap();
    let attributes = [("group", AttributeValue::Int(groups)), ("strides", list(&strides)), ("pads", list(&pads))];
    let mut model = big(op_type, true, &[weight], &attributes);
    let shape = [1, 16, image[0], image[1]];
    let x = model.graph.inputs[0];
    let declared = Some(shape.iter().map(|n| Dim::Known(*n)).collect());
    model.values[x] = Value { ty: ValueType::Tensor { dtype: DType::F32, shape: declared }, ..model.values[x].clone() };
    (model, Tensor::full(7f32, shape).unwrap())
}

#[test]
fn windows_whose_sizes_pass_64_bits() {
    // Padded planes of 2^64 pixels and a few.
    for b in [3usize, 17, 1 << 20] {
        let a = (1u128 << 64).div_ceil(b as u128) as usize;
        let (model, x) = convolution("Conv", 16, [a - 1, b - 1], [0, 0, a - 1, b - 1], [1, 1]);
        refused(&model, x, "node 'big' (Conv)");
    }
    // Three steps that overflow to 2 beyond 2^64.
    for groups in [1, 16] {
        let (model, x) = convolution("ConvTranspose", groups, [(1u128 << 64).div_ceil(3) as usize, 1], [0; 4], [4, 1]);
        refused(&model, x, "node 'big' (ConvTranspose)");
    }
}

#[test]
fn a_kernel_of_thousands_of_millions() {
    let list = |v: &[i64]| AttributeValue::Ints(v.to_vec());
    let x = Tensor::full(1f32, [1, 1, 4]).unwrap();
    let n = 1_000_000_000;
    for (op, attributes) in [
        ("MaxPool", vec![("kernel_shape", list(&[n]))]),
        ("MaxPool", vec![("kernel_shape", list(&[i64::MAX])), ("pads", list(&[i64::MAX, 0]))]),
        ("AveragePool", vec![("kernel_shape", list(&[n])), ("pads", list(&[n, n]))]),
    ] {
        let mut model = big(op, true, &[], &attributes);
        let input = model.graph.inputs[0];
        model.values[input].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Known(1), Dim::Known(1), Dim::Known(4)]) };
        refused(&model, x.clone(), &format!("node 'big' ({op})"));
    }
}
