//! Training under a memory budget: recomputation changes no bit of the result, and reduces the memory of a step's tensors.
use espalier::graph::{AttributeValue, Dim, Graph, Model, Node, Value, ValueId, ValueType};
use espalier::technique::Settings;
use espalier::tensor::{DType, Tensor, memory, random};
use espalier::train::{
    self, Batch, Batches, CrossEntropy, MeanSquaredError, Objective, Sgd, TrainContext, TrainError, TrainSettings, Watch,
};
use espalier::{onnx, ops, prune, quantize, zoo};
use std::collections::{BTreeMap, HashMap};

/// Three steps on one batch.
struct Steps(Batch);

impl Batches for Steps {
    fn batches(&self) -> u64 {
        3
    }
    fn epoch(&self, _: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..3).map(|_| Ok(self.0.clone())))
    }
}

#[derive(Default)]
struct Notes(Vec<String>);

impl Watch for Notes {
    fn note(&mut self, text: &str) {
        self.0.push(text.to_string());
    }
}

struct Trained {
    model: Model,
    /// Most bytes of live tensors beyond those before.
    peak: i64,
    notes: Vec<String>,
}

fn trained(model: &Model, objective: &dyn Objective, batch: &Batch, settings: &TrainSettings) -> Trained {
    let (mut model, mut notes) = (model.clone(), Notes::default());
    let begin = memory::live();
    memory::watch_peak();
    let mut around = TrainContext { watch: &mut notes, ..TrainContext::default() };
    train::train(&mut model, &Steps(batch.clone()), objective, settings, &mut around).unwrap();
    Trained { model, peak: memory::peak() - begin, notes: notes.0 }
}

/// Trains with all activations kept, and under two budgets.
fn check(model: &Model, objective: &dyn Objective, batch: &Batch) {
    let optimizer = Sgd { lr: 1e-7, momentum: 0.9, nesterov: true, weight_decay: 1e-4 }.choice().unwrap();
    let settings = TrainSettings { optimizer, learn_scales: true.into(), seed: 5, ..TrainSettings::default() };
    let needs = train::step_memory(model, objective, batch, &settings).unwrap();
    let plain = trained(model, objective, batch, &settings);
    assert!(plain.notes.is_empty());
    assert!(plain.model.values != model.values, "nothing was trained");
    for budget in [needs.least, (needs.least + needs.whole) / 2] {
        let tight = trained(model, objective, batch, &TrainSettings { memory: Some(budget), ..settings.clone() });
        assert!(tight.notes.len() == 1 && tight.notes[0].contains("are recomputed"), "{budget}: {:?}", tight.notes);
        println!("{needs:?}: {} bytes alive instead of {}; {}", tight.peak, plain.peak, tight.notes[0]);
        for (id, value) in plain.model.values.iter() {
            assert_eq!(value.constant, tight.model.values[id].constant, "{budget}: {}", value.name);
        }
        assert_eq!(plain.model.annotations, tight.model.annotations, "{budget}");
        assert!(tight.peak < plain.peak, "{budget}: {} bytes instead of {}", tight.peak, plain.peak);
        assert!(tight.peak <= budget as i64, "{} bytes in a budget of {budget}", tight.peak);
    }
}

fn network(name: &str, width: f64, input: [usize; 3]) -> Model {
    let entry = zoo::find(name).unwrap();
    entry.build(&zoo::ZooOptions { width, input: input.to_vec(), ..entry.default_options() }).unwrap()
}

fn images(count: usize, shape: [usize; 3]) -> Batch {
    let x = random::normal(1, &[&[count], shape.as_slice()].concat(), 0.0, 1.0).unwrap();
    let labels = Tensor::vector((0..count as i64).map(|i| i % 10).collect::<Vec<_>>());
    Batch { inputs: BTreeMap::from([("input".into(), x)]), targets: BTreeMap::from([("label".into(), labels)]), ..Batch::default() }
}

fn masked(model: &mut Model) {
    let settings = prune::PruneSettings::new(0.5);
    prune::prune(model, &settings).unwrap();
}

fn quantized(model: &mut Model, batch: &Batch) {
    train::fold_constants(model).unwrap();
    ops::fold_batch_norm(model).unwrap();
    quantize::quantize(model, &quantize::QuantizeSettings::default(), std::iter::once(Ok(batch.clone()))).unwrap();
}

#[test]
fn a_residual_network_with_a_mask_and_running_statistics() {
    let (mut m, batch) = (network("resnet8", 0.5, [3, 16, 16]), images(8, [3, 16, 16]));
    masked(&mut m);
    check(&m, &CrossEntropy::of(&m, 0.1).unwrap(), &batch);
}

#[test]
fn a_residual_network_with_quantizers_and_a_mask() {
    let (mut m, batch) = (network("resnet8", 0.5, [3, 16, 16]), images(8, [3, 16, 16]));
    masked(&mut m);
    quantized(&mut m, &batch);
    check(&m, &CrossEntropy::of(&m, 0.0).unwrap(), &batch);
}

#[test]
fn inverted_residuals() {
    let (m, batch) = (network("mobilenet-v2", 0.25, [3, 32, 32]), images(4, [3, 32, 32]));
    check(&m, &CrossEntropy::of(&m, 0.0).unwrap(), &batch);
}

#[test]
fn inverted_residuals_with_quantizers() {
    let (mut m, batch) = (network("mobilenet-v2", 0.25, [3, 32, 32]), images(4, [3, 32, 32]));
    quantized(&mut m, &batch);
    check(&m, &CrossEntropy::of(&m, 0.0).unwrap(), &batch);
}

#[test]
fn attention_where_three_branches_read_one_value() {
    let m = onnx::load(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/attention_block.onnx"))).unwrap();
    let inputs = BTreeMap::from([("x".to_string(), random::normal(3, &[64, 5, 8], 0.0, 1.0).unwrap())]);
    let batch = Batch { targets: train::random_targets(&m, &inputs, 4).unwrap(), inputs, ..Batch::default() };
    // The weights are observed, so the attention is not one unit, which would have nothing to recompute.
    let weights = m.graph.nodes.iter().find(|n| n.op_type == "Softmax").and_then(|n| n.output(0)).unwrap();
    check(&m, &Tapped(MeanSquaredError::of(&m).unwrap(), weights), &batch);
}

#[test]
fn attentions_in_a_row() {
    let mut b = Build { model: Model::new(17), count: 0 };
    let mut nodes = vec![];
    let mut h = b.input();
    for _ in 0..4 {
        let [q, k, v] = [(); 3].map(|()| {
            let w = b.weight();
            b.node(&mut nodes, "MatMul", &[h, w])
        });
        let k = b.node(&mut nodes, "Transpose", &[k]);
        let scores = b.node(&mut nodes, "MatMul", &[q, k]);
        let weights = b.node(&mut nodes, "Softmax", &[scores]);
        let attended = b.node(&mut nodes, "MatMul", &[weights, v]);
        h = b.node(&mut nodes, "Add", &[h, attended]);
    }
    b.model.graph.nodes = nodes;
    b.model.graph.outputs.push(h);
    b.model.verify().unwrap();
    check(&b.model, &MeanSquaredError::of(&b.model).unwrap(), &rows_batch(&b.model));
}

const WIDTH: usize = 16;

/// Puts a graph together value by value.
struct Build {
    model: Model,
    count: u64,
}

impl Build {
    /// The graph's input, rows of [`WIDTH`].
    fn input(&mut self) -> ValueId {
        let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Symbol("N".into()), Dim::Known(WIDTH)]) };
        let x = self.model.values.add(Value { name: "x".into(), ty, ..Value::default() });
        self.model.graph.inputs.push(x);
        x
    }

    fn constant(&mut self, name: &str, t: Tensor) -> ValueId {
        let id = self.model.values.add_constant(name, t);
        self.model.graph.constants.push(id);
        id
    }

    fn value(&mut self) -> ValueId {
        self.count += 1;
        self.model.values.add_named(format!("v{}", self.count))
    }

    fn node(&mut self, nodes: &mut Vec<Node>, op: &str, inputs: &[ValueId]) -> ValueId {
        let y = self.value();
        nodes.push(Node::new(op, format!("{op}_{}", self.count), inputs, &[y]));
        y
    }

    fn weight(&mut self) -> ValueId {
        self.count += 1;
        let w = random::normal(self.count, &[WIDTH, WIDTH], 0.0, 0.25).unwrap();
        self.constant(&format!("w{}", self.count), w)
    }

    /// Gemm, Dropout, Relu.
    fn layer(&mut self, nodes: &mut Vec<Node>, x: ValueId, ratio: ValueId, w: ValueId) -> ValueId {
        let h = self.node(nodes, "Gemm", &[x, w]);
        let h = self.node(nodes, "Dropout", &[h, ratio]);
        self.node(nodes, "Relu", &[h])
    }
}

/// Layers with dropout, among them a branch and a loop that read the first layer's output, an Identity and a weight used in
/// two places; the first layer's output is also `inner`, an inner value that the loss reads.
fn with_subgraphs() -> (Model, ValueId) {
    let mut b = Build { model: Model::new(17), count: 0 };
    let mut nodes = vec![];
    let x = b.input();
    let ratio = b.constant("ratio", Tensor::scalar(0.3f32));
    let shared = b.weight();
    let inner = b.layer(&mut nodes, x, ratio, shared);
    let mut h = inner;
    for _ in 0..3 {
        let w = b.weight();
        h = b.layer(&mut nodes, h, ratio, w);
    }
    // If the sum is above a bound: h * inner, else inner.
    let bound = b.constant("bound", Tensor::scalar(-1e9f32));
    let sum = b.node(&mut nodes, "ReduceSum", &[h]);
    let condition = b.node(&mut nodes, "Greater", &[sum, bound]);
    let branch = |b: &mut Build, op: &str, inputs: &[ValueId]| {
        let mut nodes = vec![];
        let y = b.node(&mut nodes, op, inputs);
        AttributeValue::Graph(Box::new(Graph { name: op.into(), nodes, outputs: vec![y], ..Graph::default() }))
    };
    let (then, other) = (branch(&mut b, "Mul", &[h, inner]), branch(&mut b, "Identity", &[inner]));
    let y = b.node(&mut nodes, "If", &[condition]);
    let last = nodes.pop().unwrap();
    nodes.push(last.with("then_branch", then).with("else_branch", other));
    let alias = b.node(&mut nodes, "Identity", &[inner]);
    h = b.node(&mut nodes, "Add", &[y, alias]);
    for w in [None, Some(shared), None] {
        let w = w.unwrap_or_else(|| b.weight());
        h = b.layer(&mut nodes, h, ratio, w);
    }
    // Three times: state = tanh(dropout(state @ w)) + inner.
    let (times, go) = (b.constant("times", Tensor::scalar(3i64)), b.constant("go", Tensor::scalar(true)));
    let w = b.weight();
    let (i, go_in, state) = (b.value(), b.value(), b.value());
    let mut body = vec![];
    let s = b.layer(&mut body, state, ratio, w);
    let s = b.node(&mut body, "Tanh", &[s]);
    let s = b.node(&mut body, "Add", &[s, inner]);
    let go_out = b.node(&mut body, "Identity", &[go_in]);
    let body = Graph { name: "body".into(), nodes: body, inputs: vec![i, go_in, state], outputs: vec![go_out, s], ..Graph::default() };
    h = b.node(&mut nodes, "Loop", &[times, go, h]);
    let last = nodes.pop().unwrap();
    nodes.push(last.with("body", AttributeValue::Graph(Box::new(body))));
    h = b.node(&mut nodes, "Add", &[h, alias]);
    for _ in 0..3 {
        let w = b.weight();
        h = b.layer(&mut nodes, h, ratio, w);
    }
    let y = b.node(&mut nodes, "Mul", &[h, inner]);
    b.model.graph.nodes = nodes;
    b.model.graph.outputs.push(y);
    b.model.verify().unwrap();
    (b.model, inner)
}

/// A loss that reads an inner value too.
struct Tapped(MeanSquaredError, ValueId);

impl Objective for Tapped {
    fn taps(&self) -> Vec<ValueId> {
        [self.0.taps(), vec![self.1]].concat()
    }
    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        let inner = train::read(values, self.1)?;
        let axes: Vec<usize> = (0..inner.rank()).collect();
        let inner = inner.mean(&axes, false)?;
        Ok(self.0.loss(values, batch)?.add(&inner)?)
    }
}

fn rows_batch(m: &Model) -> Batch {
    let inputs = BTreeMap::from([("x".to_string(), random::normal(6, &[64, WIDTH], 0.0, 1.0).unwrap())]);
    Batch { targets: train::random_targets(m, &inputs, 7).unwrap(), inputs, ..Batch::default() }
}

#[test]
fn dropout_a_branch_a_loop_and_an_inner_value_that_the_loss_reads() {
    let (m, inner) = with_subgraphs();
    check(&m, &Tapped(MeanSquaredError::of(&m).unwrap(), inner), &rows_batch(&m));
}

#[test]
fn a_budget_that_cannot_be_kept_is_refused_with_the_least_that_is_needed() {
    let (m, inner) = with_subgraphs();
    let (objective, batch) = (Tapped(MeanSquaredError::of(&m).unwrap(), inner), rows_batch(&m));
    let run = |memory: u64| {
        let settings = TrainSettings { memory: Some(memory), ..TrainSettings::default() };
        let mut around = TrainContext { watch: &mut Notes::default(), ..TrainContext::default() };
        train::train(&mut m.clone(), &Steps(batch.clone()), &objective, &settings, &mut around)
    };
    let error = run(1000).unwrap_err().to_string();
    assert!(error.starts_with("setting 'memory': is 1.0 kB, but a step on this batch of 64 holds about "), "{error}");
    assert!(error.ends_with("give it more, or make the batch smaller"), "{error}");
    let least = train::step_memory(&m, &objective, &batch, &TrainSettings::default()).unwrap().least;
    assert!(error.contains(&format!(" {:.1} kB however it is cut", least as f64 / 1e3)), "{least}: {error}");
    run(least).unwrap();
    assert!(run(least * 9 / 10).is_err());
}

#[test]
fn a_larger_batch_later_is_planned_anew() {
    struct Growing;
    impl Batches for Growing {
        fn batches(&self) -> u64 {
            3
        }
        fn epoch(&self, _: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
            Box::new([8, 4, 16].into_iter().map(|n| Ok(images(n, [3, 16, 16]))))
        }
    }
    let m = network("resnet8", 0.25, [3, 16, 16]);
    let objective = CrossEntropy::of(&m, 0.0).unwrap();
    let run = |memory: Option<u64>| {
        let (mut m, mut notes) = (m.clone(), Notes::default());
        let settings = TrainSettings { memory, ..TrainSettings::default() };
        let mut around = TrainContext { watch: &mut notes, ..TrainContext::default() };
        train::train(&mut m, &Growing, &objective, &settings, &mut around).unwrap();
        (m, notes.0)
    };
    let least = train::step_memory(&m, &objective, &images(8, [3, 16, 16]), &TrainSettings::default()).unwrap().least;
    let (plain, tight) = (run(None), run(Some(least)));
    assert_eq!(plain.0.values, tight.0.values);
    // One plan, then what cannot be kept for the larger batch, and the plan that does its best.
    assert!(tight.1.len() == 3 && tight.1[1].contains("a step on this batch of 16 holds about"), "{:?}", tight.1);
}
