//! Weights of operators that compute in float: which of them a plan stores, and training with them.
use encodings::Encodings;
use espalier_quantize::{ActivationSettings, QuantizeError, QuantizeSettings, Rule, StoredConstant, plan, quantize};
use graph::{AttributeValue, Dim, Model, Node, Value, ValueId, ValueType};
use std::collections::BTreeMap;
use technique::{Choice, Settings};
use tensor::{DType, Tensor, random};
use train::{AdamW, Batch, Batches, CrossEntropy, Executor, Mode, TrainContext, TrainError, TrainSettings};

const STEPS: usize = 5;
const WIDTH: usize = 3;
const CELLS: usize = 8;

fn affine(bits: u32) -> Choice<Encodings> {
    Choice::with("affine", &serde_json::json!({ "bits": bits })).unwrap()
}

fn groups(bits: u32, size: usize) -> Choice<Encodings> {
    Choice::with("affine", &serde_json::json!({ "bits": bits, "granularity": { "group": size } })).unwrap()
}

fn alone(bits: u32) -> QuantizeSettings {
    QuantizeSettings { weights: affine(bits), activations: ActivationSettings::float(), weight_only: true, ..Default::default() }
}

fn typed(m: &mut Model, name: &str, dtype: DType, shape: &[Option<usize>]) -> ValueId {
    let dims = shape.iter().map(|d| d.map_or(Dim::Symbol("n".into()), Dim::Known)).collect();
    m.values.add(Value { name: name.into(), ty: ValueType::Tensor { dtype, shape: Some(dims) }, ..Value::default() })
}

fn constant(m: &mut Model, name: &str, tensor: Tensor) -> ValueId {
    let id = m.values.add_constant(name, tensor);
    m.graph.constants.push(id);
    id
}

/// An LSTM whose last state goes through a layer.
fn recurrent() -> Model {
    let mut m = Model::new(17);
    let x = typed(&mut m, "x", DType::F32, &[Some(STEPS), None, Some(WIDTH)]);
    m.graph.inputs.push(x);
    let w = constant(&mut m, "w", random::normal(1, &[1, 4 * CELLS, WIDTH], 0.0, 0.4).unwrap());
    let r = constant(&mut m, "r", random::normal(2, &[1, 4 * CELLS, CELLS], 0.0, 0.3).unwrap());
    let b = constant(&mut m, "b", random::normal(3, &[1, 8 * CELLS], 0.0, 0.1).unwrap());
    let v = constant(&mut m, "v", random::normal(4, &[3, CELLS], 0.0, 0.4).unwrap());
    let axes = constant(&mut m, "axes", Tensor::vector(vec![0i64]));
    let [h, last] = ["h", "last"].map(|n| m.values.add_named(n));
    let y = typed(&mut m, "y", DType::F32, &[None, Some(3)]);
    let lstm = Node { outputs: vec![None, Some(h)], ..Node::new("LSTM", "/lstm", &[x, w, r, b], &[h]) };
    m.graph.nodes.push(lstm.with("hidden_size", AttributeValue::Int(CELLS as i64)));
    m.graph.nodes.push(Node::new("Squeeze", "/squeeze", &[h, axes], &[last]));
    m.graph.nodes.push(Node::new("Gemm", "/head", &[last, v], &[y]).with("transB", AttributeValue::Int(1)));
    m.graph.outputs.push(y);
    m.verify().unwrap();
    m
}

/// Looked-up rows and a product with them.
fn words() -> Model {
    let mut m = Model::new(17);
    let ids = typed(&mut m, "ids", DType::I64, &[None]);
    m.graph.inputs.push(ids);
    let table = constant(&mut m, "table", random::normal(1, &[20, 6], 0.0, 1.0).unwrap());
    let weight = constant(&mut m, "weight", random::normal(2, &[6, 4], 0.0, 1.0).unwrap());
    let rows = m.values.add_named("rows");
    let y = typed(&mut m, "y", DType::F32, &[None, Some(4)]);
    m.graph.nodes.push(Node::new("Gather", "/words", &[table, ids], &[rows]));
    m.graph.nodes.push(Node::new("MatMul", "/head", &[rows, weight], &[y]));
    m.graph.outputs.push(y);
    m
}

/// The stored constants, with the bits and the axis of each.
fn stored(m: &Model, settings: &QuantizeSettings) -> Vec<(String, u32, Option<usize>)> {
    let one = |(id, stored): (&ValueId, &StoredConstant)| {
        let bits = match stored {
            StoredConstant::Data(grid) => grid.bits,
            StoredConstant::Weight { encoding, .. } => encoding.bits(),
        };
        (m.values[*id].name.clone(), bits, stored.axis())
    };
    plan(m, settings).unwrap().constants.iter().map(one).collect()
}

fn all(list: &[(&str, u32, Option<usize>)]) -> Vec<(String, u32, Option<usize>)> {
    list.iter().map(|(name, bits, axis)| (name.to_string(), *bits, *axis)).collect()
}

#[test]
fn recurrent_weights_are_stored_where_the_recipe_asks() {
    let m = recurrent();
    let rule = |op: &str, rule: Rule| Rule { op: Some(op.into()), ..rule };
    let with = |settings: QuantizeSettings, rules: Vec<Rule>| stored(&m, &QuantizeSettings { rules, ..settings });
    let head = ("v", 4, Some(0));
    assert_eq!(stored(&m, &QuantizeSettings { weight_only: false, ..alone(4) }), all(&[head]));
    assert_eq!(stored(&m, &alone(4)), all(&[("w", 4, Some(1)), ("r", 4, Some(1)), head]));
    // The layer behind on integers, as without.
    let both = QuantizeSettings { activations: ActivationSettings::default(), ..alone(4) };
    assert_eq!(stored(&m, &both), all(&[("w", 4, Some(1)), ("r", 4, Some(1)), head]));
    assert!(plan(&m, &both).unwrap().activations.contains_key(&m.find("y").unwrap()));
    // Rules: the last one decides; skip leaves out.
    let eight = rule("LSTM", Rule { weights: Some(affine(8)), ..Rule::default() });
    assert_eq!(with(alone(4), vec![eight]), all(&[("w", 8, Some(1)), ("r", 8, Some(1)), head]));
    let off = rule("LSTM", Rule { weight_only: Some(false), ..Rule::default() });
    assert_eq!(with(alone(4), vec![off]), all(&[head]));
    let on = rule("LSTM", Rule { weight_only: Some(true), ..Rule::default() });
    let none = QuantizeSettings { weight_only: false, ..alone(4) };
    assert_eq!(with(none, vec![on]), all(&[("w", 4, Some(1)), ("r", 4, Some(1)), head]));
    let skip = rule("LSTM", Rule { skip: true, ..Rule::default() });
    assert_eq!(with(alone(4), vec![skip]), all(&[head]));
}

#[test]
fn a_table_has_a_scale_for_each_row_and_its_rows_a_grid_of_their_own() {
    let m = words();
    let [table, rows] = ["table", "rows"].map(|n| m.find(n).unwrap());
    assert_eq!(stored(&m, &alone(4)), all(&[("table", 4, Some(0)), ("weight", 4, Some(1))]));
    let on = QuantizeSettings { activations: ActivationSettings::default(), ..alone(4) };
    let by_row = plan(&m, &on).unwrap();
    assert_eq!(by_row.constants[&table].axis(), Some(0));
    assert!(by_row.activations.contains_key(&rows));
    // Without it the rows lie on the table's grid.
    let before = plan(&m, &QuantizeSettings { weight_only: false, ..on }).unwrap();
    assert!(matches!(before.constants[&table], StoredConstant::Data(_)));
    assert!(!before.activations.contains_key(&rows));
}

/// Groups run along what a layer sums up, and along the row of a table; a weight that layers sum up along different axes has none.
#[test]
fn groups_lie_along_the_sums_and_are_refused_where_there_is_no_such_axis() {
    let settings = QuantizeSettings { weights: groups(4, 4), ..alone(4) };
    let scales = |m: &Model, name: &str| m.annotations.encoding(m.find(name).unwrap()).unwrap().parameters["scale"].shape().to_vec();
    let mut m = recurrent();
    quantize(&mut m, &settings, std::iter::once(Ok(sequences(0)))).unwrap();
    assert_eq!((scales(&m, "w"), scales(&m, "r"), scales(&m, "v")), (vec![1, 32, 1], vec![1, 32, 2], vec![3, 2]));
    let ids = || std::iter::once(Ok(Batch { inputs: BTreeMap::from([("ids".into(), Tensor::vector(vec![1i64, 3]))]), ..Batch::default() }));
    let mut m = words();
    quantize(&mut m, &settings, ids()).unwrap();
    assert_eq!((scales(&m, "table"), scales(&m, "weight")), (vec![20, 2], vec![2, 4]));
    // A table that a layer reads transposed: rows both times. As it is: columns, and no groups serve both.
    for transposed in [true, false] {
        let mut m = words();
        let (table, rows, y) = (m.find("table").unwrap(), m.find("rows").unwrap(), m.find("y").unwrap());
        m.values.set_tensor(table, random::normal(1, &[6, 6], 0.0, 1.0).unwrap());
        m.graph.nodes[1] = Node::new("MatMul", "/head", &[rows, table], &[y]);
        if transposed {
            let turned = m.values.add_named("turned");
            let perm = AttributeValue::Ints(vec![1, 0]);
            m.graph.nodes[1].inputs[1] = Some(turned);
            m.graph.nodes.insert(1, Node::new("Transpose", "/turn", &[table], &[turned]).with("perm", perm));
        }
        match quantize(&mut m, &settings, ids()) {
            Ok(_) => assert!(transposed && scales(&m, "table") == [6, 2]),
            Err(e) => assert!(!transposed && e.to_string().contains("table") && e.to_string().contains("granularity"), "{e}"),
        }
    }
}

#[test]
fn what_has_no_weight_to_store_is_still_refused() {
    let mut m = recurrent();
    m.graph.nodes.truncate(1);
    m.graph.outputs = vec![m.find("h").unwrap()];
    let data = || std::iter::once(Ok(sequences(0)));
    let without = QuantizeSettings { weight_only: false, ..alone(8) };
    assert!(matches!(quantize(&mut m.clone(), &without, data()), Err(QuantizeError::Setting(_))));
    assert_eq!(quantize(&mut m, &alone(8), data()).unwrap().constants, 2);
}

/// Sequences whose class is the place of the largest mean.
struct Sequences;

fn sequences(seed: u64) -> Batch {
    let n = 32;
    let x = random::normal(seed, &[STEPS, n, WIDTH], 0.0, 1.0).unwrap();
    let v = x.as_slice::<f32>().unwrap();
    let sum = |row: usize, i: usize| (0..STEPS).map(|t| v[(t * n + row) * WIDTH + i]).sum::<f32>();
    let label = |row: usize| (0..WIDTH).max_by(|a, b| sum(row, *a).total_cmp(&sum(row, *b))).unwrap() as i64;
    let labels = Tensor::vector((0..n).map(label).collect::<Vec<i64>>());
    Batch { inputs: BTreeMap::from([("x".into(), x)]), targets: BTreeMap::from([("label".into(), labels)]), ..Batch::default() }
}

impl Batches for Sequences {
    fn batches(&self) -> u64 {
        12
    }
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..12).map(move |i| Ok(sequences(random::derive(epoch, i)))))
    }
}

#[test]
fn a_recurrent_layer_learns_with_its_quantizers() {
    learns(&alone(4));
    learns(&QuantizeSettings { weights: groups(4, 4), ..alone(4) });
}

fn learns(settings: &QuantizeSettings) {
    let mut m = recurrent();
    quantize(&mut m, settings, std::iter::once(Ok(sequences(0)))).unwrap();
    let before = m.clone();
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let optimizer = AdamW { lr: 0.02, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }.choice().unwrap();
    let settings = TrainSettings { epochs: 6, optimizer, simulate: true, learn_scales: true.into(), ..TrainSettings::default() };
    let report = train::train(&mut m, &Sequences, &loss, &settings, &mut TrainContext::default()).unwrap();
    let (first, last) = (&report.history[0], report.history.last().unwrap());
    assert!(last.loss < 0.7 * first.loss, "{first:?} -> {last:?}");
    for name in ["w", "r"] {
        let id = m.find(name).unwrap();
        assert_ne!(m.values.tensor(id), before.values.tensor(id), "{name}");
        let scale = |m: &Model| m.annotations.encoding(id).unwrap().parameters["scale"].clone();
        assert_ne!(scale(&m), scale(&before), "{name}");
    }
    // The simulation reads the weights on their grids.
    let run = |mode| Executor::new(&m).unwrap().run(&sequences(1).inputs, mode).unwrap()["y"].clone();
    assert_ne!(run(Mode::SIMULATED), run(Mode::FLOAT));
}
