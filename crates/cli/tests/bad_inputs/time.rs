//! Models that would run for an unbounded time: each command ends, and reports what it did not do.
use crate::support::{Folder, relu};
use espalier::graph::{AttributeValue, Dim, Function, Graph, Model, Node, ValueType};
use espalier::onnx;
use espalier::tensor::{DType, Tensor};

/// `y = Loop(x)` with a condition that is always true.
fn endless() -> Model {
    let mut m = relu();
    let (x, y) = (m.graph.inputs[0], m.graph.outputs[0]);
    let [i, go, state, next] = ["i", "go", "state", "next"].map(|n| m.values.add_named(n));
    let relu = Node::new("Relu", "inner", &[state], &[next]);
    let body = Graph { inputs: vec![i, go, state], nodes: vec![relu], outputs: vec![go, next], ..Graph::default() };
    let mut node = Node::new("Loop", "endless", &[], &[y]).with("body", AttributeValue::Graph(Box::new(body)));
    node.inputs = vec![None, None, Some(x)];
    m.graph.nodes = vec![node];
    m
}

#[test]
fn a_loop_without_an_end_is_inspected() {
    let folder = Folder::new();
    onnx::save(&endless(), &folder.path("loop.onnx")).unwrap();
    let output = folder.espalier("inspect loop.onnx");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("after 1000 iterations") && said.contains("is not counted"), "{said}");
    let output = folder.espalier("convert loop.onnx --clean -o clean.onnx");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Commands that guess the preprocessing run the model, and give up; commands that would run it on a data set report that it does
/// not end.
#[test]
fn a_loop_without_an_end_is_no_end_of_a_first_look() {
    let folder = Folder::new();
    let mut m = endless();
    let pixels = Tensor::full(7u8, [8, 2, 2]).unwrap();
    folder.arrays("d.npz", &[("x", pixels), ("y", Tensor::vector((0..8i64).map(|i| i % 4).collect::<Vec<_>>()))]);
    for (i, batch) in [Dim::Symbol("N".into()), Dim::Known(1)].into_iter().enumerate() {
        for v in [m.graph.inputs[0], m.graph.outputs[0]] {
            let shape = vec![batch.clone(), Dim::Known(1), Dim::Known(2), Dim::Known(2)];
            m.values[v].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(shape) };
        }
        onnx::save(&m, &folder.path("loop.onnx")).unwrap();
        let output = folder.espalier(&format!("init loop.onnx --data d.npz -o r{i}.toml"));
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("run did not finish") && said.contains("node 'endless'") && said.contains("after 1000 iterations"), "{said}");
        let recipe = std::fs::read_to_string(folder.path(&format!("r{i}.toml"))).unwrap();
        assert!(recipe.contains("it could not be tried"), "{recipe}");
    }
    folder.fails("quantize loop.onnx --data d.npz -o small.onnx", 1, "even a run on one sample did not finish");
}

/// Functions f0 to f20, each calling the one before four times.
#[test]
fn functions_that_unfold_without_measure() {
    let folder = Folder::new();
    let mut m = relu();
    let (x, y) = (m.graph.inputs[0], m.graph.outputs[0]);
    for i in 0..21 {
        let mut f = Function { domain: "d".into(), name: format!("f{i}"), opsets: m.opsets.clone(), ..Function::default() };
        let mut last = f.values.add_named("x");
        f.graph.inputs.push(last);
        for k in 0..4 {
            let out = f.values.add_named(format!("y{k}"));
            let call = Node::new(&if i == 0 { "Relu".to_string() } else { format!("f{}", i - 1) }, "", &[last], &[out]);
            f.graph.nodes.push(Node { domain: if i == 0 { String::new() } else { "d".into() }, ..call });
            last = out;
        }
        f.graph.outputs.push(last);
        m.functions.push(f);
    }
    m.graph.nodes = vec![Node { domain: "d".into(), ..Node::new("f20", "call", &[x], &[y]) }];
    onnx::save(&m, &folder.path("deep.onnx")).unwrap();
    let output = folder.espalier("inspect deep.onnx");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(0) && said.contains("unfold to more than 1000000 nodes"), "{said}");
    folder.arrays("in.npz", &[("x", espalier::tensor::Tensor::full(0f32, [1, 4]).unwrap())]);
    folder.fails("execute deep.onnx --input in.npz", 1, "unfold to more than 1000000 nodes");
}

/// Code with quadratic time in the number of nodes takes minutes here.
#[test]
fn a_hundred_thousand_nodes() {
    let folder = Folder::new();
    let mut m = relu();
    let (mut last, y) = (m.graph.inputs[0], m.graph.outputs[0]);
    m.graph.nodes.clear();
    for i in 0..100_000 {
        let out = if i == 99_999 { y } else { m.values.add_named(format!("v{i}")) };
        m.graph.nodes.push(Node::new(if i % 2 == 0 { "Identity" } else { "Relu" }, "", &[last], &[out]));
        last = out;
    }
    onnx::save(&m, &folder.path("long.onnx")).unwrap();
    assert_eq!(folder.espalier("inspect long.onnx").status.code(), Some(0));
    assert_eq!(folder.espalier("convert long.onnx --clean -o clean.onnx").status.code(), Some(0));
    assert_eq!(onnx::load(&folder.path("clean.onnx")).unwrap().graph.nodes.len(), 50_000);
}

/// `y = x + Neg(Neg(... c))`, which is a node and a constant.
#[test]
fn a_hundred_thousand_nodes_of_constants_alone() {
    let folder = Folder::new();
    let mut m = relu();
    let (x, y) = (m.graph.inputs[0], m.graph.outputs[0]);
    let mut last = m.values.add_constant("c", Tensor::vector(vec![1f32, -2.0, 3.0, 0.5]));
    m.graph.constants.push(last);
    m.graph.nodes.clear();
    for i in 0..100_001 {
        let out = m.values.add_named(format!("v{i}"));
        m.graph.nodes.push(Node::new("Neg", "", &[last], &[out]));
        last = out;
    }
    m.graph.nodes.push(Node::new("Add", "sum", &[x, last], &[y]));
    onnx::save(&m, &folder.path("chain.onnx")).unwrap();
    assert_eq!(folder.espalier("convert chain.onnx --clean -o clean.onnx").status.code(), Some(0));
    let clean = onnx::load(&folder.path("clean.onnx")).unwrap();
    let [sum] = clean.graph.nodes.as_slice() else { panic!("{} nodes", clean.graph.nodes.len()) };
    let folded = sum.inputs.iter().flatten().find_map(|v| clean.values.tensor(*v)).unwrap();
    assert_eq!(folded.to_f32_vec().unwrap(), [-1.0, 2.0, -3.0, -0.5]);
}
