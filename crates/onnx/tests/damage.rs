//! Damaged files give errors: at every truncation, with any byte changed, with false lengths and shapes.
use espalier_onnx as onnx;
use graph::{AttributeValue, Dim, Model, Node, Value, ValueType};
use proptest::prelude::*;
use tensor::{DType, Tensor};

/// A small model with an initializer, attributes and a subgraph.
fn small() -> Vec<u8> {
    let mut m = Model::new(17);
    let shape = Some(vec![Dim::Symbol("N".into()), Dim::Known(3)]);
    let x = m.values.add(Value { name: "x".into(), ty: ValueType::Tensor { dtype: DType::F32, shape }, ..Value::default() });
    m.graph.inputs.push(x);
    let w = m.values.add_constant("w", Tensor::new(vec![1f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]).unwrap());
    m.graph.constants.push(w);
    let h = m.values.add_named("h");
    m.graph
        .nodes
        .push(Node::new("Gemm", "gemm", &[x, w], &[h]).with("transB", AttributeValue::Int(1)).with("alpha", AttributeValue::Float(0.5)));
    let c = m.values.add_constant("c", Tensor::scalar(true));
    m.graph.constants.push(c);
    let inner = m.values.add_named("inner");
    let branch = graph::Graph {
        name: "branch".into(),
        nodes: vec![Node::new("Relu", "relu", &[h], &[inner])],
        outputs: vec![inner],
        ..graph::Graph::default()
    };
    let y = m.values.add_named("y");
    let both = |n: Node| {
        n.with("then_branch", AttributeValue::Graph(Box::new(branch.clone())))
            .with("else_branch", AttributeValue::Graph(Box::new(branch.clone())))
    };
    m.graph.nodes.push(both(Node::new("If", "if", &[c], &[y])));
    m.graph.outputs.push(y);
    onnx::to_bytes(&m).unwrap()
}

#[test]
fn a_file_cut_anywhere_is_an_error_or_a_whole_prefix_never_a_panic() {
    let bytes = small();
    assert!(onnx::from_bytes(&bytes, None).is_ok());
    for cut in 0..bytes.len() {
        // A cut between fields can leave a well-formed message; the graph comes late in it, so most cuts lose it.
        if let Ok(m) = onnx::from_bytes(&bytes[..cut], None) {
            m.verify().unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = small();
        for (i, v) in changes {
            let i = i.index(bytes.len());
            bytes[i] = v;
        }
        if let Ok(m) = onnx::from_bytes(&bytes, None) {
            m.verify().unwrap();
            let _ = onnx::to_bytes(&m);
        }
    }
}

fn field(number: u8, wire: u8, rest: &[u8]) -> Vec<u8> {
    [&[number << 3 | wire][..], rest].concat()
}

fn message(number: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    field(number, 2, &[&[body.len() as u8][..], body].concat())
}

/// A model of opset 17 whose graph has the given fields.
fn model_with(graph: &[u8]) -> Vec<u8> {
    [field(1, 0, &[8]), message(7, graph), message(8, &field(2, 0, &[17]))].concat()
}

#[test]
fn lies_are_found_out_and_named() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
    let tensor = |dims: &[u8]| model_with(&message(5, &[message(1, dims), field(2, 0, &[1]), message(8, b"w")].concat()));
    let node = |input: &[u8], output: &[u8]| message(1, &[message(1, input), message(2, output), message(4, b"Relu")].concat());
    let output = |name: &[u8]| message(12, &message(1, name));
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "the file is empty"),
        ("text", b"this is not a model at all".to_vec(), "this is text, not an ONNX model"),
        ("a length that lies", field(7, 2, &huge), "are announced"),
        ("2^62 elements", tensor(&huge), "elements"),
        ("too many elements", tensor(&[&huge[..], &huge[..]].concat()), "has more than"),
        ("a negative dimension", tensor(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), "is negative"),
        ("a cycle", model_with(&[node(b"b", b"a"), node(b"a", b"b"), output(b"b")].concat()), "cycle"),
        ("an undefined input", model_with(&[node(b"q", b"a"), output(b"a")].concat()), "reads 'q', which no node computes"),
        (
            "a value made twice",
            model_with(&[message(11, &message(1, b"x")), node(b"x", b"a"), node(b"x", b"a")].concat()),
            "exists already",
        ),
        ("an output nobody makes", model_with(&output(b"z")), "output 'z' is made by no node"),
        ("opset 29", [field(1, 0, &[8]), message(7, &[]), message(8, &field(2, 0, &[29]))].concat(), "opset 29 is newer than 28"),
        ("opset 6", [field(1, 0, &[3]), message(7, &[]), message(8, &field(2, 0, &[6]))].concat(), "opset 6 is older than 7"),
        ("no graph", message(8, &field(2, 0, &[17])), "holds no graph"),
    ];
    for (what, bytes, expected) in cases {
        let error = onnx::from_bytes(&bytes, None).expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[test]
fn unknown_fields_survive_an_edit() {
    let mut bytes = small();
    bytes.extend(message(15, b"from the future"));
    let mut m = onnx::from_bytes(&bytes, None).unwrap();
    assert_eq!(onnx::to_bytes(&m).unwrap(), bytes);
    m.metadata_set("edited", "yes");
    let edited = onnx::to_bytes(&m).unwrap();
    assert!(edited.windows(15).any(|w| w == b"from the future"));
}

/// Each of these once took quadratic time, so that a file of a few MB took minutes.
#[test]
fn a_hundred_thousand_attributes_constants_or_branches_are_read_at_once() {
    const MANY: usize = 100_000;
    let mut m = Model::new(17);
    let x = m.values.add(Value { name: "x".into(), ..Value::default() });
    let mut node = Node::new("Relu", "many", &[x], &[m.values.add_named("y")]);
    let one = |i: usize| graph::Attribute { name: format!("a{i}"), value: AttributeValue::Int(1), extra: graph::Extra::default() };
    node.attributes.list = (0..MANY).map(one).collect();
    m.graph.inputs.push(x);
    m.graph.nodes.push(node);
    // Initializers that are inputs too, as up to version 3 of the format.
    for i in 0..MANY {
        let c = m.values.add_constant(format!("c{i}"), Tensor::scalar(1f32));
        m.graph.constants.push(c);
        m.graph.inputs.push(c);
    }
    let bytes = onnx::to_bytes(&m).unwrap();
    let back = onnx::from_bytes(&bytes, None).unwrap();
    assert_eq!((back.graph.nodes[0].attributes.list.len(), back.graph.constants.len()), (MANY, MANY));
    m.graph.nodes[0].attributes.list.push(one(7));
    assert!(onnx::from_bytes(&onnx::to_bytes(&m).unwrap(), None).unwrap_err().to_string().contains("attribute 'a7' is given twice"));
}

#[test]
fn a_value_that_is_not_equal_to_itself_is_no_edit() {
    let mut m = Model::new(17);
    let c = m.values.add_constant("c", Tensor::vector(vec![f32::NAN, 1.0]));
    let x = m.values.add_named("x");
    let y = m.values.add_named("y");
    m.graph.constants.push(c);
    m.graph.inputs.push(x);
    m.graph.nodes.push(Node::new("LeakyRelu", "l", &[x], &[y]).with("alpha", AttributeValue::Float(f32::NAN)));
    m.graph.outputs.push(y);
    // Fields in an order that we do not write: the operator sets before the graph, and the version of the format twice.
    let usual = onnx::to_bytes(&m).unwrap();
    let bytes = [&field(1, 0, &[8])[..], &usual[2..], &field(1, 0, &[8])[..]].concat();
    let mut back = onnx::from_bytes(&bytes, None).unwrap();
    assert_eq!(onnx::to_bytes(&back).unwrap(), bytes);
    back.metadata_set("edited", "yes");
    assert_ne!(onnx::to_bytes(&back).unwrap(), bytes);
}
