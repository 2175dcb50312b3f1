//! Embeddings, biases in an Add and tied weights, from a graph as exporters write it to a deployed file: the file computes the
//! simulation to the bit, and stores the right integers.
use espalier::deploy::runtime::{OnnxRuntime, Runtime, SessionOptions, Source, by_name};
use espalier::graph::{AttributeValue, Dim, Graph, Model, Node, Value, ValueId, ValueType};
use espalier::quantize::{QuantizeSettings, quantize};
use espalier::tensor::{DType, SignalToNoise, Tensor, random};
use espalier::train::{Batch, Executor, Mode, Named, parameters::trainable, prepare};
use espalier::{deploy, onnx, prune};

struct Build(Model);

impl Build {
    fn input(name: &str, dtype: DType, shape: &[usize]) -> (Build, ValueId) {
        let mut m = Model::new(17);
        m.graph.name = "g".into();
        let dims = std::iter::once(Dim::Symbol("N".into())).chain(shape.iter().map(|n| Dim::Known(*n))).collect();
        let id = m.values.add(Value { name: name.into(), ty: ValueType::Tensor { dtype, shape: Some(dims) }, ..Value::default() });
        m.graph.inputs.push(id);
        (Build(m), id)
    }
    fn constant(&mut self, name: &str, t: Tensor) -> ValueId {
        let id = self.0.values.add_constant(name, t);
        self.0.graph.constants.push(id);
        id
    }
    fn drawn(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let t = random::normal(name.len() as u64, shape, 0.0, 0.4).unwrap();
        self.constant(name, t)
    }
    fn push(&mut self, op: &str, inputs: &[ValueId], name: &str) -> ValueId {
        let out = self.0.values.add_named(name);
        self.0.graph.nodes.push(Node::new(op, format!("{name}_node"), inputs, &[out]));
        out
    }
    fn ending(mut self, y: ValueId, shape: &[usize]) -> Model {
        let dims = std::iter::once(Dim::Symbol("N".into())).chain(shape.iter().map(|n| Dim::Known(*n))).collect();
        self.0.values[y].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(dims) };
        self.0.graph.outputs.push(y);
        self.0.verify().unwrap();
        self.0
    }
}

fn ids(seed: u64, shape: &[usize], below: usize) -> Tensor {
    let drawn = random::uniform(seed, shape, 0.0, below as f32).unwrap();
    Tensor::new(drawn.as_slice::<f32>().unwrap().iter().map(|v| *v as i64).collect::<Vec<_>>(), shape.to_vec()).unwrap()
}

/// Quantizes on the inputs and deploys; runs the file literally and compares with the simulation, and that with the float graph.
/// Returns the file's model.
fn deployed(m: &mut Model, inputs: &Named) -> Model {
    let lowered = deployed_pruned(m, inputs);
    let simulated = Executor::new(m).unwrap().run(inputs, Mode::SIMULATED).unwrap();
    let float = Executor::new(m).unwrap().run(inputs, Mode::FLOAT).unwrap();
    for (name, f) in &float {
        let ratio = SignalToNoise::of(f, &simulated[name]).unwrap();
        assert!(ratio.signal > 1000.0 * ratio.noise, "{name}: {} dB", ratio.db());
    }
    lowered
}

/// As [`deployed`], for a pruned network: its float graph differs.
fn deployed_pruned(m: &mut Model, inputs: &Named) -> Model {
    let batch = Batch { inputs: inputs.clone(), ..Batch::default() };
    quantize(m, &QuantizeSettings::default(), std::iter::once(Ok(batch))).unwrap();
    let simulated = Executor::new(m).unwrap().run(inputs, Mode::SIMULATED).unwrap();
    let lowered = deploy::lower(m, &deploy::LowerOptions::default()).unwrap().model;
    let bytes = onnx::to_bytes(&lowered).unwrap();
    let runtimes: Vec<Box<dyn Runtime>> =
        std::iter::once(by_name("reference").unwrap()).chain(OnnxRuntime::find().ok().map(|r| Box::new(r) as Box<dyn Runtime>)).collect();
    for runtime in runtimes {
        let said = runtime.load(Source::Bytes(&bytes), SessionOptions::literal(1)).unwrap().run(inputs).unwrap();
        assert_eq!(said, simulated, "{}", runtime.name());
    }
    lowered
}

/// Type of the stored tensor behind the DequantizeLinear that computes a value.
fn stored(m: &Model, name: &str) -> (DType, usize) {
    let node = m.graph.nodes.iter().find(|n| n.output(0).is_some_and(|v| m.values[v].name == name)).unwrap();
    assert_eq!(node.op_type, "DequantizeLinear");
    (m.values.tensor(node.input(0).unwrap()).unwrap().dtype(), m.values.tensor(node.input(1).unwrap()).unwrap().len())
}

/// Names of the operators that read the output of the node `name`.
fn readers<'m>(m: &'m Model, name: &str) -> Vec<&'m str> {
    let node = m.graph.nodes.iter().find(|n| n.name == name).unwrap();
    m.graph.consumers(node.output(0).unwrap()).into_iter().map(|i| m.graph.nodes[i].op_type.as_str()).collect()
}

#[test]
fn an_embedding_with_positions_and_a_layer_on_three_axes() {
    let (mut b, x) = Build::input("ids", DType::I64, &[6]);
    let (table, p, w, bias, v) =
        (b.drawn("table", &[20, 8]), b.drawn("p", &[1, 6, 8]), b.drawn("w", &[8, 5]), b.drawn("bias", &[1, 1, 5]), b.drawn("vv", &[5, 3]));
    let rows = b.push("Gather", &[table, x], "rows");
    let sum = b.push("Add", &[rows, p], "sum");
    let product = b.push("MatMul", &[sum, w], "product");
    let biased = b.push("Add", &[product, bias], "biased");
    let h = b.push("Relu", &[biased], "h");
    let y = b.push("MatMul", &[h, v], "y");
    let mut m = b.ending(y, &[6, 3]);
    prepare(&mut m).unwrap();
    let trained: Vec<String> = trainable(&m, &[], false).unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(trained, ["table", "p", "w", "bias", "vv"]);
    let file = deployed(&mut m, &[("ids".to_string(), ids(4, &[9, 6], 20))].into());
    assert_eq!((stored(&file, "table"), stored(&file, "bias")), ((DType::U8, 1), (DType::I32, 5)));
    // The looked-up rows are integers for their reader; the product is rounded once, after the bias: that grid is the Relu's.
    assert_eq!((readers(&file, "rows_node"), readers(&file, "product_node")), (vec!["QuantizeLinear"], vec!["Add"]));
    assert_eq!(readers(&file, "biased_node"), vec!["QuantizeLinear"]);
    assert!(file.graph.nodes.iter().all(|n| n.name != "h_node"));
}

#[test]
fn a_table_that_the_last_layer_is_tied_to() {
    let (mut b, x) = Build::input("ids", DType::I64, &[4]);
    let (table, w) = (b.drawn("table", &[12, 8]), b.drawn("w", &[8, 8]));
    let rows = b.push("Gather", &[table, x], "rows");
    let h = b.push("MatMul", &[rows, w], "h");
    let turned = b.0.values.add_named("turned");
    b.0.graph.nodes.push(Node::new("Transpose", "turn", &[table], &[turned]).with("perm", AttributeValue::Ints(vec![1, 0])));
    let y = b.push("MatMul", &[h, turned], "y");
    let mut m = b.ending(y, &[4, 12]);
    prepare(&mut m).unwrap();
    let file = deployed(&mut m, &[("ids".to_string(), ids(5, &[9, 4], 12))].into());
    assert_eq!(stored(&file, "table"), (DType::I8, 1));
    let bytes: usize = file.graph.constants.iter().map(|v| file.values.tensor(*v).unwrap()).filter(|t| t.len() > 60).map(|t| t.len()).sum();
    assert_eq!(bytes, 12 * 8 + 8 * 8, "the table is stored once");
}

#[test]
fn a_layer_whose_bias_is_added_behind_it() {
    let (mut b, x) = Build::input("x", DType::F32, &[8]);
    let (w, bias, v) = (b.drawn("w", &[8, 5]), b.drawn("bias", &[5]), b.drawn("vv", &[5, 3]));
    let product = b.push("MatMul", &[x, w], "product");
    let sum = b.push("Add", &[bias, product], "sum");
    let h = b.push("Relu", &[sum], "h");
    let y = b.push("MatMul", &[h, v], "y");
    let float = b.ending(y, &[3]);
    // The layer is quantized as one, whether or not it was converted to a Gemm before.
    for prepared in [false, true] {
        let mut m = float.clone();
        if prepared {
            prepare(&mut m).unwrap();
        }
        let x = random::normal(6, &[40, 8], 0.0, 1.0).unwrap();
        let file = deployed(&mut m, &[("x".to_string(), x)].into());
        assert_eq!(stored(&file, "bias"), (DType::I32, 5));
        assert_eq!(file.graph.nodes.iter().any(|n| n.op_type == "Gemm"), prepared);
    }
}

/// Both branches of an If read a weight through a Transpose, and call their values the same.
#[test]
fn a_weight_in_the_branches_of_an_if() {
    let (mut b, x) = Build::input("x", DType::F32, &[8]);
    let (w, zero, every) = (b.drawn("w", &[5, 8]), b.constant("zero", Tensor::scalar(0f32)), b.drawn("vv", &[5, 3]));
    let total = b.0.values.add_named("total");
    b.0.graph.nodes.push(Node::new("ReduceSum", "total_node", &[x], &[total]).with("keepdims", AttributeValue::Int(0)));
    let condition = b.push("Greater", &[total, zero], "condition");
    let branch = |b: &mut Build, op: &str| {
        let [turned, h, y] = ["turned", "h", "inner"].map(|n| b.0.values.add_named(n));
        let nodes = vec![
            Node::new("Transpose", "", &[w], &[turned]).with("perm", AttributeValue::Ints(vec![1, 0])),
            Node::new("MatMul", "", &[x, turned], &[h]),
            Node::new(op, "", &[h], &[y]),
        ];
        AttributeValue::Graph(Box::new(Graph { name: op.into(), nodes, outputs: vec![y], ..Graph::default() }))
    };
    let (then, other) = (branch(&mut b, "Relu"), branch(&mut b, "Sigmoid"));
    let either = b.0.values.add_named("either");
    let node = Node::new("If", "if", &[condition], &[either]).with("then_branch", then).with("else_branch", other);
    b.0.graph.nodes.push(node);
    let y = b.push("MatMul", &[either, every], "y");
    let mut m = b.ending(y, &[3]);
    prepare(&mut m).unwrap();
    let half = prune::PruneSettings { scope: technique::Choice::named("layer").unwrap(), ..prune::PruneSettings::new(0.5) };
    assert_eq!(prune::prune(&mut m, &half).unwrap().layers.len(), 2);
    for seed in [6, 9] {
        let x = random::normal(seed, &[40, 8], if seed == 6 { 0.5 } else { -0.5 }, 1.0).unwrap();
        let mut m = m.clone();
        let file = deployed_pruned(&mut m, &[("x".to_string(), x)].into());
        // One stored tensor, and a DequantizeLinear of it in each branch.
        let integers = file.find("w_quantized").unwrap();
        assert_eq!(file.values.tensor(integers).unwrap().dtype(), DType::I8);
        let mut readers = 0;
        file.graph.visit(&mut |n| readers += usize::from(n.op_type == "DequantizeLinear" && n.input(0) == Some(integers)));
        assert_eq!(readers, 2);
        // A stage's result: both branches have an annotated 'h'.
        let again = onnx::from_bytes(&onnx::to_bytes(&m).unwrap(), None).unwrap();
        assert_eq!(again.annotations.len(), m.annotations.len());
    }
}
