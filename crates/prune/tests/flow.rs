//! Criteria by what flows: of magnitudes, of gradients, through rectifiers; on networks whose numbers can be worked out.
use espalier_prune::{Candidate, Criteria, ImportanceContext, PruneSettings, candidates, prune, prune_with};
use graph::{Dim, Model, Node, Value, ValueId, ValueType};
use std::collections::BTreeMap;
use technique::Choice;
use tensor::{DType, Tensor, random};
use train::{Batch, Batches, CrossEntropy, GradientSource, MeanSquaredError, TrainError};

fn matrix(values: &[f32], shape: [usize; 2]) -> Tensor {
    Tensor::new(values.to_vec(), shape).unwrap()
}

/// A network that is built node by node.
struct Net {
    m: Model,
    at: ValueId,
}

impl Net {
    fn new(inputs: usize) -> Net {
        let mut m = Model::new(17);
        let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Symbol("n".into()), Dim::Known(inputs)]) };
        let at = m.values.add(Value { name: "x".into(), ty, ..Value::default() });
        m.graph.inputs.push(at);
        Net { m, at }
    }

    fn node(mut self, op: &str, constant: Option<(&str, Tensor)>) -> Net {
        let name = format!("n{}", self.m.graph.nodes.len());
        let y = self.m.values.add_named(&name);
        let constant = constant.map(|(name, t)| self.m.values.add_constant(name, t));
        self.m.graph.constants.extend(constant);
        let inputs: Vec<ValueId> = std::iter::once(self.at).chain(constant).collect();
        self.m.graph.nodes.push(Node::new(op, &name, &inputs, &[y]));
        self.at = y;
        self
    }

    fn matmul(self, name: &str, weight: Tensor) -> Net {
        self.node("MatMul", Some((name, weight)))
    }

    fn end(mut self) -> Model {
        self.m.graph.outputs.push(self.at);
        self.m.verify().unwrap();
        self.m
    }
}

/// The same batch, again and again.
struct Same(BTreeMap<String, Tensor>, BTreeMap<String, Tensor>);

impl Batches for Same {
    fn batches(&self) -> u64 {
        2
    }
    fn epoch(&self, _: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        let batch = || Batch { inputs: self.0.clone(), targets: self.1.clone(), ..Batch::default() };
        Box::new((0..2).map(move |_| Ok(batch())))
    }
}

fn criterion(text: &str) -> Choice<Criteria> {
    serde_json::from_str(text).unwrap()
}

/// The importance of each weight, by its name; what the criterion leaves out is missing.
fn importance(m: &Model, of: &Choice<Criteria>, source: Option<&GradientSource>) -> BTreeMap<String, Vec<f32>> {
    let list = candidates(m, &[]).unwrap();
    let context = ImportanceContext::gather(m, of, &list, source).unwrap();
    let open = |c: &&Candidate| of.spares(&context, c).is_none();
    list.iter().filter(open).map(|c| (c.name.clone(), of.importance(&context, c).unwrap())).collect()
}

#[test]
fn flow_is_the_weight_of_all_paths_through_an_element_and_is_conserved() {
    let shift = Tensor::vector(vec![5.0f32, -7.0]);
    let net = Net::new(2).matmul("a", matrix(&[1.0, -2.0, 3.0, 0.5], [2, 2])).node("Add", Some(("shift", shift))).node("Relu", None);
    let mut m = net.matmul("b", matrix(&[2.0, -1.0], [2, 1])).node("Softmax", None).end();
    let synflow = criterion("\"synflow\"");
    let check = |m: &Model, a: [f32; 4], b: [f32; 2]| {
        let found = importance(m, &synflow, None);
        let largest = a.iter().chain(&b).copied().fold(0f32, f32::max);
        for (found, wanted) in [(&found["a"], a.as_slice()), (&found["b"], b.as_slice())] {
            for (f, w) in found.iter().zip(wanted) {
                assert!((f / 1e30 - w / largest).abs() < 1e-6, "{found:?} {wanted:?}");
            }
        }
    };
    check(&m, [2.0, 2.0, 6.0, 0.5], [8.0, 2.5]);
    // Nothing flows through what is masked.
    let a = m.find("a").unwrap();
    m.annotations.entry(a).mask = Some(Tensor::new(vec![true, true, false, true], [2, 2]).unwrap());
    check(&m, [2.0, 2.0, 0.0, 0.5], [2.0, 2.5]);
}

#[test]
fn factors_flow_and_summands_do_not() {
    let half = Tensor::vector(vec![-0.5f32]);
    let net = Net::new(2).matmul("a", matrix(&[1.0, -2.0, 3.0, 0.5], [2, 2])).node("Mul", Some(("factor", half.clone())));
    let net = net.node("Sub", Some(("shift", half.clone()))).node("Div", Some(("divisor", half)));
    let m = net.matmul("b", matrix(&[2.0, -1.0], [2, 1])).end();
    let found = importance(&m, &criterion("\"synflow\""), None);
    // As without the factor of a half and the divisor of a half.
    let (a, b) = ([2.0f32, 2.0, 6.0, 0.5], [8.0f32, 2.5]);
    for (f, w) in found["a"].iter().zip(a).chain(found["b"].iter().zip(b)) {
        assert!((f / 1e30 - w / 8.0).abs() < 1e-6, "{found:?}");
    }
}

#[test]
fn rounds_restore_nothing_that_is_masked() {
    let mut m = (0..3).fold(Net::new(8), |net, i| net.matmul(&format!("w{i}"), random::normal(i, &[8, 8], 0.0, 1.0).unwrap())).end();
    let masked = |m: &Model| -> Vec<bool> {
        let of = |id: ValueId| m.annotations.mask(id).unwrap().as_slice::<bool>().unwrap().to_vec();
        candidates(m, &[]).unwrap().iter().flat_map(|c| of(c.weight)).map(|live| !live).collect()
    };
    let sparse = |m: &mut Model, sparsity: f64, text: &str| {
        prune(m, &PruneSettings { criterion: criterion(text), ..PruneSettings::new(sparsity) }).unwrap();
        masked(m)
    };
    let before = sparse(&mut m, 0.6, r#"{ "kind": "random", "seed": 5 }"#);
    for sparsity in [0.8, 0.3] {
        let after = sparse(&mut m.clone(), sparsity, r#"{ "kind": "synflow", "rounds": 10 }"#);
        assert!(before.iter().zip(&after).all(|(before, after)| !before || *after), "{sparsity}: some were restored");
        let dead = after.iter().filter(|dead| **dead).count();
        assert_eq!(dead, (sparsity.max(0.6) * 192.0_f64).round() as usize);
    }
}

#[test]
fn synflow_empties_no_layer_of_a_deep_network_where_one_round_does() {
    let layer = |i: u64| {
        let scale = if i == 20 { 1e-3 } else { 3.0 };
        random::normal(i, &[8, 8], 0.0, scale).unwrap()
    };
    let m = (0..120).fold(Net::new(8), |net, i| net.matmul(&format!("w{i}"), layer(i)).node("Relu", None)).end();
    let sparse = |text: &str| {
        let mut m = m.clone();
        let settings = PruneSettings { criterion: criterion(text), ..PruneSettings::new(0.85) };
        prune(&mut m, &settings).unwrap()
    };
    // The flow of 120 layers is far beyond f32.
    let report = sparse(r#"{ "kind": "synflow", "rounds": 30 }"#);
    assert!(report.emptied.is_empty() && (report.sparsity - 0.85).abs() < 1e-3, "{:?}", report.emptied);
    assert_eq!(sparse("\"magnitude\"").emptied, ["w20"]);
}

#[test]
fn what_has_no_flow_is_refused() {
    let dead = Net::new(2).matmul("a", matrix(&[0.0; 4], [2, 2])).end();
    let settings = PruneSettings { criterion: criterion("\"synflow\""), ..PruneSettings::new(0.5) };
    let error = prune(&mut dead.clone(), &settings).unwrap_err().to_string();
    assert!(error.contains("no flow from the inputs"), "{error}");
    let mut open = dead;
    let x = open.graph.inputs[0];
    open.values[x].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Symbol("n".into()), Dim::Symbol("k".into())]) };
    let error = prune(&mut open, &settings).unwrap_err().to_string();
    assert!(error.contains("input 'x' has an open axis besides the batch"), "{error}");
}

#[test]
fn grasp_keeps_what_the_gradient_flows_by() {
    // With x = 1 the loss is the mean of (w - t)^2, so g = 2 (w - t) / n, H = 2 / n, and w (H g) = 4 w (w - t) / n^2.
    let (w, t) = ([1.0f32, -2.0, 0.5, 3.0], [0.0f32, 1.0, 2.0, 2.5]);
    let m = Net::new(2).matmul("w", matrix(&w, [2, 2])).end();
    let data =
        Same(BTreeMap::from([("x".into(), matrix(&[1.0, 0.0, 0.0, 1.0], [2, 2]))]), BTreeMap::from([("n0".into(), matrix(&t, [2, 2]))]));
    let loss = MeanSquaredError::of(&m).unwrap();
    let source = GradientSource { data: &data, epoch: 0, objective: &loss, simulate: true };
    let found = importance(&m, &criterion("\"grasp\""), Some(&source));
    let raw: Vec<f32> = w.iter().zip(t).map(|(w, t)| w * (w - t)).collect();
    let least = raw.iter().copied().fold(0f32, f32::min);
    let (largest, scale) = (raw[1] - least, found["w"][1]);
    for (f, r) in found["w"].iter().zip(&raw) {
        assert!((f / scale - (r - least) / largest).abs() < 1e-3, "{found:?} {raw:?}");
    }
    let mut pruned = m.clone();
    let settings = PruneSettings { criterion: criterion("\"grasp\""), ..PruneSettings::new(0.25) };
    prune_with(&mut pruned, &settings, Some(&source)).unwrap();
    // 0.5 is neither the smallest change of the loss nor of least magnitude alone: of all, its product is the least.
    let id = m.find("w").unwrap();
    assert_eq!(pruned.annotations.mask(id).unwrap().as_slice::<bool>().unwrap(), [true, true, false, true]);
}

#[test]
fn channels_that_are_mostly_zero_are_the_least_important() {
    let bias = Tensor::vector(vec![0.0f32, 0.0, 10.0]);
    let net = Net::new(1).matmul("a", matrix(&[1.0, -1.0, 1.0], [1, 3])).node("Add", Some(("bias", bias))).node("Relu", None);
    let m = net.matmul("b", matrix(&[1.0; 6], [3, 2])).end();
    let data = Same(
        BTreeMap::from([("x".into(), matrix(&[1.0, 2.0, 3.0, -1.0], [4, 1]))]),
        BTreeMap::from([("label".into(), Tensor::vector(vec![0i64, 1, 0, 1]))]),
    );
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let source = GradientSource { data: &data, epoch: 0, objective: &loss, simulate: true };
    let found = importance(&m, &criterion("\"apoz\""), Some(&source));
    assert_eq!(found, BTreeMap::from([("a".to_string(), vec![0.75, 0.25, 1.0])]));
    let settings = PruneSettings {
        criterion: criterion("\"apoz\""),
        granularity: serde_json::from_str("\"filter\"").unwrap(),
        ..PruneSettings::new(0.3)
    };
    let mut pruned = m.clone();
    let report = prune_with(&mut pruned, &settings, Some(&source)).unwrap();
    assert_eq!(report.dense, [("b".to_string(), "no rectifier alone reads its result".to_string())]);
    assert_eq!(pruned.annotations.mask(m.find("a").unwrap()).unwrap().as_slice::<bool>().unwrap(), [true, false, true]);
}
