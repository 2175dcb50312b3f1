//! Each kind of parameter that an operator does not read directly, on graphs of a few nodes.
use super::*;
use crate::{Executor, Mode, Named, parameters as of_model};
use graph::{AttributeValue, Dim, Value, ValueType};
use tensor::{DType, Tensor, random};

struct Build(Model);

impl Build {
    fn new(shape: &[usize]) -> (Build, ValueId) {
        let mut b = Build(Model::new(17));
        let dims = std::iter::once(Dim::Symbol("N".into())).chain(shape.iter().map(|n| Dim::Known(*n))).collect();
        let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(dims) };
        let x = b.0.values.add(Value { name: "x".into(), ty, ..Value::default() });
        b.0.graph.inputs.push(x);
        (b, x)
    }
    fn constant(&mut self, name: &str, t: Tensor) -> ValueId {
        let id = self.0.values.add_constant(name, t);
        self.0.graph.constants.push(id);
        id
    }
    fn drawn(&mut self, name: &str, shape: &[usize]) -> ValueId {
        self.constant(name, random::normal(name.len() as u64, shape, 0.0, 0.5).unwrap())
    }
    fn push(&mut self, op: &str, inputs: &[ValueId], name: &str) -> ValueId {
        self.with(op, inputs, name, &[])
    }
    fn with(&mut self, op: &str, inputs: &[ValueId], name: &str, attributes: &[(&str, AttributeValue)]) -> ValueId {
        let out = self.0.values.add_named(name);
        let node = attributes.iter().fold(Node::new(op, format!("{name}_node"), inputs, &[out]), |n, (k, v)| n.with(k, v.clone()));
        self.0.graph.nodes.push(node);
        out
    }
    fn ending(mut self, y: ValueId) -> Model {
        self.0.graph.outputs.push(y);
        self.0.verify().unwrap();
        self.0
    }
}

fn run(m: &Model, inputs: &[(&str, Tensor)]) -> Tensor {
    let inputs: Named = inputs.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
    Executor::new(m).unwrap().run(&inputs, Mode::FLOAT).unwrap().into_values().next().unwrap()
}

/// Prepares; the outputs stay the same and a second time changes nothing. Returns the names of what trains, and the notes.
fn prepared(m: &mut Model, inputs: &[(&str, Tensor)]) -> (Vec<String>, Vec<String>) {
    let before = run(m, inputs);
    let notes = prepare(m).unwrap();
    let after = run(m, inputs);
    for (a, b) in before.to_f32_vec().unwrap().iter().zip(after.to_f32_vec().unwrap()) {
        assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} {b}");
    }
    let once = m.clone();
    prepare(m).unwrap();
    assert_eq!(*m, once);
    let names = of_model::trainable(m, &[], false).unwrap().into_iter().map(|p| p.name).collect();
    (names, notes)
}

fn operators(m: &Model) -> Vec<&str> {
    m.graph.nodes.iter().map(|n| n.op_type.as_str()).collect()
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::vector(values.to_vec())
}

fn sample(shape: &[usize]) -> Tensor {
    random::normal(77, shape, 0.0, 1.0).unwrap()
}

#[test]
fn a_weight_behind_any_node_is_a_weight_under_its_own_name() {
    for kind in ["Identity", "Transpose", "Cast", "Reshape", "Unsqueeze", "scaled integers"] {
        let (mut b, x) = Build::new(&[6]);
        let w = match kind {
            "Identity" => {
                let w = b.drawn("w", &[6, 4]);
                b.push("Identity", &[w], "made")
            }
            "Transpose" => {
                let w = b.drawn("w", &[4, 6]);
                b.with("Transpose", &[w], "made", &[("perm", AttributeValue::Ints(vec![1, 0]))])
            }
            "Cast" => {
                let half = random::normal(3, &[6, 4], 0.0, 0.5).unwrap().cast(DType::F16).unwrap();
                let w = b.constant("w", half);
                b.with("Cast", &[w], "made", &[("to", AttributeValue::Int(1))])
            }
            "Reshape" => {
                let (w, shape) = (b.drawn("w", &[24]), b.constant("shape", ints(&[6, 4])));
                b.push("Reshape", &[w, shape], "made")
            }
            "Unsqueeze" => {
                let (w, at) = (b.drawn("w", &[6, 4, 1]), b.constant("axes", ints(&[2])));
                b.push("Squeeze", &[w, at], "made")
            }
            _ => {
                let q: Vec<i8> = (0..24).map(|i| (i * 7 % 23) as i8 - 11).collect();
                let (w, s) = (b.constant("w", Tensor::new(q, [6, 4]).unwrap()), b.drawn("s", &[4]));
                let real = b.with("Cast", &[w], "real", &[("to", AttributeValue::Int(1))]);
                b.push("Mul", &[real, s], "made")
            }
        };
        let y = b.push("MatMul", &[x, w], "y");
        let mut m = b.ending(y);
        let (names, notes) = prepared(&mut m, &[("x", sample(&[3, 6]))]);
        assert_eq!(operators(&m), ["MatMul"], "{kind}");
        let name = if kind == "Identity" { "made" } else { "w" };
        assert_eq!((names, m.graph.constants.len()), (vec![name.to_string()], 1), "{kind}");
        assert!(notes[0].contains("1 parameter was hidden that way") && notes[0].ends_with(name), "{notes:?}");
    }
}

/// As exporters put recurrent weights together: gates sliced and concatenated in another order, two biases joined.
#[test]
fn weights_put_together_of_slices_are_plain_weights() {
    let (mut b, x) = Build::new(&[5, 3]);
    let (w, r, bi, bh) = (b.drawn("w_ih", &[12, 3]), b.drawn("w_hh", &[12, 4]), b.drawn("b_ih_", &[12]), b.drawn("b_hh__", &[12]));
    let axis0 = b.constant("zero", ints(&[0]));
    let steps = b.0.values.add_named("steps");
    b.0.graph.nodes.push(Node::new("Transpose", "time first", &[x], &[steps]).with("perm", AttributeValue::Ints(vec![1, 0, 2])));
    let turned = |b: &mut Build, v: ValueId, n: &str| {
        let gate = |b: &mut Build, from: i64, to: i64| {
            let (s, e) = (b.constant(&format!("{n}{from}s"), ints(&[from])), b.constant(&format!("{n}{to}e{from}"), ints(&[to])));
            b.push("Slice", &[v, s, e, axis0], &format!("{n}_{from}"))
        };
        let parts = [gate(b, 4, 8), gate(b, 0, 4), gate(b, 8, 12)];
        b.with("Concat", &parts, &format!("{n}_joined"), &[("axis", AttributeValue::Int(0))])
    };
    let (wt, rt, bit, bht) = (turned(&mut b, w, "w"), turned(&mut b, r, "r"), turned(&mut b, bi, "bi"), turned(&mut b, bh, "bh"));
    let both = b.with("Concat", &[bit, bht], "both", &[("axis", AttributeValue::Int(0))]);
    let [wu, ru, bu] = [(wt, "wu"), (rt, "ru"), (both, "bu")].map(|(v, n)| b.push("Unsqueeze", &[v, axis0], n));
    let y = b.with("GRU", &[steps, wu, ru, bu], "y", &[("hidden_size", AttributeValue::Int(4))]);
    let mut m = b.ending(y);
    let (names, _) = prepared(&mut m, &[("x", sample(&[2, 5, 3]))]);
    assert_eq!(names, ["w_ih", "w_hh", "b_ih_+b_hh__"]);
    assert_eq!(operators(&m), ["Transpose", "GRU"]);
    let elements: usize = parameters(&m).iter().map(|v| m.values.tensor(*v).unwrap().len()).sum();
    assert_eq!(elements, 12 * 3 + 12 * 4 + 24);
}

/// The bounds of a Slice that follow from a declared shape, as in unoptimized exports; the batch's own size stays open.
#[test]
fn a_weight_cut_by_a_declared_size_is_a_weight() {
    let (mut b, x) = Build::new(&[4]);
    let (w, zero) = (b.drawn("w", &[7, 3]), b.constant("zero", ints(&[0])));
    let width = b.with("Shape", &[x], "width", &[("start", AttributeValue::Int(1))]);
    let cut = b.push("Slice", &[w, zero, width, zero], "cut");
    let y = b.push("MatMul", &[x, cut], "y");
    let mut m = b.ending(y);
    let (names, _) = prepared(&mut m, &[("x", sample(&[2, 4]))]);
    assert_eq!((names, operators(&m)), (vec!["w".to_string()], vec!["MatMul"]));
}

#[test]
fn a_tied_weight_stays_one_with_two_readers() {
    let (mut b, x) = Build::new(&[6]);
    let ids = b.0.values.add(Value {
        name: "ids".into(),
        ty: ValueType::Tensor { dtype: DType::I64, shape: Some(vec![Dim::Symbol("N".into())]) },
        ..Value::default()
    });
    b.0.graph.inputs.push(ids);
    let table = b.drawn("table", &[9, 6]);
    let rows = b.push("Gather", &[table, ids], "rows");
    let sum = b.push("Add", &[rows, x], "sum");
    let turned = b.with("Transpose", &[table], "turned", &[("perm", AttributeValue::Ints(vec![1, 0]))]);
    let y = b.push("MatMul", &[sum, turned], "y");
    let mut m = b.ending(y);
    let inputs = [("x", sample(&[2, 6])), ("ids", ints(&[3, 8]))];
    let (names, notes) = prepared(&mut m, &inputs);
    assert_eq!((names, notes), (vec!["table".to_string()], vec![]));
    assert_eq!(operators(&m), ["Gather", "Add", "Transpose", "MatMul"]);
}

/// As PyTorch's exporter writes a fresh network: equal tensors are one, with Identity in between or without.
#[test]
fn equal_fresh_parameters_are_taken_apart_and_shared_layers_stay_shared() {
    let (mut b, x) = Build::new(&[3, 5, 5]);
    let (w0, w1) = (b.drawn("0.weight", &[3, 3, 1, 1]), b.drawn("33.weight", &[3, 3, 1, 1]));
    let zeros = b.constant("0.bias", Tensor::full(0f32, [3]).unwrap());
    let ones = b.constant("1.weight", Tensor::full(1f32, [3]).unwrap());
    let [bias, mean] = ["1.bias", "1.running_mean"].map(|n| b.push("Identity", &[zeros], n));
    let var = b.push("Identity", &[ones], "1.running_var");
    let h = b.push("Conv", &[x, w0, zeros], "h");
    let n = b.push("BatchNormalization", &[h, ones, bias, mean, var], "n");
    let h = b.push("Conv", &[n, w1, zeros], "again");
    // A layer that is applied twice, with a bias that is not fresh.
    let shared = b.drawn("2.bias", &[3]);
    let (p, q) = (b.push("Conv", &[h, w0, shared], "p"), b.push("Conv", &[x, w1, shared], "q"));
    let r = b.push("Conv", &[q, w1, shared], "r");
    let y = b.push("Add", &[p, r], "y");
    let mut m = b.ending(y);
    let (names, notes) = prepared(&mut m, &[("x", sample(&[2, 3, 5, 5]))]);
    let read = |node: usize, i: usize| m.graph.nodes[node].input(i).unwrap();
    let ends: Vec<ValueId> = (1..5).map(|i| read(1, i)).chain([read(0, 2), read(2, 2)]).collect();
    assert_eq!(ends.iter().collect::<BTreeSet<_>>().len(), 6, "six parameters, six tensors");
    assert_eq!(ends.iter().map(|v| m.values[*v].name.as_str()).collect::<Vec<_>>()[1..4], ["1.bias", "1.running_mean", "1.running_var"]);
    assert_eq!(read(4, 2), read(5, 2), "one layer, applied twice");
    assert_ne!(read(3, 2), read(4, 2), "another weight, another bias");
    assert!(names.iter().any(|n| n == "33.bias"), "{names:?}");
    assert!(notes.iter().any(|n| n.contains("now with a tensor of their own")), "{notes:?}");
    assert!(notes.iter().any(|n| n == "'33.weight' is read by 3 layers and stays one weight"), "{notes:?}");
}

/// Both branches slice the same weight: one parameter, which both read.
#[test]
fn branches_share_what_they_compute_from_one_weight() {
    let (mut b, x) = Build::new(&[4]);
    let condition = b.0.values.add(Value {
        name: "condition".into(),
        ty: ValueType::Tensor { dtype: DType::Bool, shape: Some(vec![]) },
        ..Value::default()
    });
    b.0.graph.inputs.push(condition);
    let w = b.drawn("w", &[5, 4]);
    let branch = |b: &mut Build, op: &str| {
        let [turned, h, y] = ["turned", "h", "inner"].map(|n| b.0.values.add_named(n));
        let nodes = vec![
            Node::new("Transpose", "", &[w], &[turned]).with("perm", AttributeValue::Ints(vec![1, 0])),
            Node::new("MatMul", "", &[x, turned], &[h]),
            Node::new(op, "", &[h], &[y]),
        ];
        AttributeValue::Graph(Box::new(Graph { nodes, outputs: vec![y], ..Graph::default() }))
    };
    let (then, other) = (branch(&mut b, "Relu"), branch(&mut b, "Tanh"));
    let y = b.with("If", &[condition], "y", &[("then_branch", then), ("else_branch", other)]);
    let mut m = b.ending(y);
    for side in [true, false] {
        let (names, _) = prepared(&mut m, &[("x", sample(&[2, 4])), ("condition", Tensor::scalar(side))]);
        assert_eq!(names, ["w"]);
        assert_eq!(m.values.tensor(m.find("w").unwrap()).unwrap().shape(), [4, 5]);
    }
    let weights: Vec<_> = m.graph.nodes[0].subgraphs().map(|g| g.nodes[0].input(1).unwrap()).collect();
    assert_eq!((weights[0], weights.len()), (weights[1], 2));
}

#[test]
fn an_add_behind_a_layer_is_its_bias() {
    let (mut b, x) = Build::new(&[2, 6, 6]);
    let (k, kb, w, wb) = (b.drawn("k", &[3, 2, 3, 3]), b.drawn("k.b", &[1, 3, 1, 1]), b.drawn("ww", &[48, 4]), b.drawn("ww.b", &[4]));
    let conv = b.push("Conv", &[x, k], "conv");
    let h = b.push("Add", &[conv, kb], "h");
    let flat = b.push("Flatten", &[h], "flat");
    let product = b.push("MatMul", &[flat, w], "product");
    let y = b.push("Add", &[wb, product], "y");
    let mut m = b.ending(y);
    let (names, notes) = prepared(&mut m, &[("x", sample(&[2, 2, 6, 6]))]);
    assert_eq!(operators(&m), ["Conv", "Flatten", "Gemm"]);
    assert_eq!(names, ["k", "k.b", "ww", "ww.b"]);
    assert_eq!(notes, ["added behind a layer, now its bias: k.b, ww.b"]);
    assert_eq!(m.values.tensor(m.find("k.b").unwrap()).unwrap().shape(), [3]);
}

#[test]
fn what_would_grow_or_hide_a_parameter_is_not_folded() {
    let (mut b, x) = Build::new(&[40, 32]);
    let (row, repeats) = (b.drawn("row", &[1, 32]), b.constant("repeats", ints(&[40, 1])));
    let tiled = b.push("Tile", &[row, repeats], "tiled");
    let (table, ids) = (b.drawn("positions", &[50, 32]), b.constant("ids", ints(&(0..40).collect::<Vec<_>>())));
    let rows = b.push("Gather", &[table, ids], "rows");
    let h = b.push("Add", &[x, tiled], "h");
    let y = b.push("Add", &[h, rows], "y");
    let mut m = b.ending(y);
    let (names, notes) = prepared(&mut m, &[("x", sample(&[1, 40, 32]))]);
    assert_eq!(operators(&m), ["Tile", "Gather", "Add", "Add"]);
    assert_eq!((names, notes), (vec!["positions".to_string()], vec![]));
    let missed = unreached(&m);
    assert_eq!((missed.elements, missed.total, missed.names.as_slice()), (32, 32 + 1600, &["row".to_string()][..]));
    assert!(missed.note().unwrap().contains("32 of 1632"), "{:?}", missed.note());
}

#[test]
fn an_annotated_weight_keeps_mask_and_grid_through_a_transpose() {
    let (mut b, x) = Build::new(&[3]);
    let w = b.drawn("w", &[4, 3]);
    let turned = b.with("Transpose", &[w], "turned", &[("perm", AttributeValue::Ints(vec![1, 0]))]);
    let y = b.push("MatMul", &[x, turned], "y");
    let mut m = b.ending(y);
    let settings = encodings::affine::AffineSettings::weight(8, Some(0));
    let encoding =
        encodings::affine::fit_weight(m.values.tensor(w).unwrap(), &settings, encodings::affine::Precision::WEIGHT, 0.0).unwrap();
    m.annotations.entry(w).encoding = Some(encoding);
    m.annotations.entry(w).mask = Some(Tensor::new((0..12).map(|i| i % 5 != 0).collect::<Vec<bool>>(), [4, 3]).unwrap());
    let x = Named::from([("x".to_string(), sample(&[2, 3]))]);
    let simulated = |m: &Model| Executor::new(m).unwrap().run(&x, Mode::SIMULATED).unwrap()["y"].clone();
    let before = simulated(&m);
    prepare(&mut m).unwrap();
    assert_eq!(operators(&m), ["MatMul"]);
    assert_eq!(simulated(&m), before);
}

#[test]
fn a_file_whose_parameters_are_visible_stays_as_it_is() {
    let entry = zoo::find("resnet8").unwrap();
    let mut m = entry.build(&entry.default_options()).unwrap();
    let before = m.clone();
    assert_eq!(prepare(&mut m).unwrap(), Vec::<String>::new());
    assert_eq!(m, before);
}

#[test]
fn an_initializer_that_is_an_input_too_is_a_parameter() {
    let (mut b, x) = Build::new(&[3]);
    let w = b.drawn("w", &[4, 3]);
    b.0.graph.inputs.push(w);
    let turned = b.with("Transpose", &[w], "turned", &[("perm", AttributeValue::Ints(vec![1, 0]))]);
    let y = b.push("MatMul", &[x, turned], "y");
    b.0.ir_version = 3;
    let mut m = b.ending(y);
    let (names, _) = prepared(&mut m, &[("x", sample(&[2, 3]))]);
    assert_eq!((names, m.graph.inputs.len(), m.ir_version), (vec!["w".to_string()], 1, 4));
}
