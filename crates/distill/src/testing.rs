//! Small models and checks that several tests share.
use crate::{Seen, Term};
use graph::{AttributeValue, Dim, Model, Node, Value, ValueId, ValueType};
use std::collections::HashMap;
use tensor::{DType, Tensor, random};
use train::Batch;

/// `logits = Identity(x)`: known to the executor, and a gradient passes.
pub(crate) fn identity(input: &str) -> Model {
    let mut m = Model::new(17);
    let (x, y) = (m.values.add_named(input), m.values.add_named("logits"));
    m.graph.inputs.push(x);
    m.graph.nodes.push(Node::new("Identity", "id", &[x], &[y]));
    m.graph.outputs.push(y);
    m
}

/// Outputs `a` and `b` of an input `x`.
pub(crate) fn two_outputs() -> Model {
    let mut m = Model::new(17);
    let x = m.values.add_named("x");
    m.graph.inputs.push(x);
    for name in ["a", "b"] {
        let y = m.values.add_named(name);
        m.graph.nodes.push(Node::new("Identity", name, &[x], &[y]));
        m.graph.outputs.push(y);
    }
    m
}

/// Three convolutions, each with a Relu `relu0..2`, to `[n, c, 8, 8]`, `[n, 2c, 4, 4]` and `[n, 4c, 2, 2]`; their mean `pooled`
/// `[n, 4c, 1, 1]`, `flat` `[n, 4c]` and the output `logits`.
pub(crate) fn three_sizes(channels: usize) -> Model {
    let mut m = Model::new(17);
    let shape = [8, 8].map(Dim::Known);
    let shape = Some([Dim::Symbol("N".into()), Dim::Known(3)].into_iter().chain(shape).collect());
    let x = m.values.add(Value { name: "input".into(), ty: ValueType::Tensor { dtype: DType::F32, shape }, ..Value::default() });
    m.graph.inputs.push(x);
    let (mut last, mut from) = (x, 3);
    let node = |m: &mut Model, op: &str, inputs: &[ValueId], name: &str| {
        let out = m.values.add_named(name);
        m.graph.nodes.push(Node::new(op, name, inputs, &[out]));
        out
    };
    for i in 0..3 {
        let to = channels << i;
        let w = m.values.add_constant(format!("w{i}"), random::normal(i, &[to, from, 3, 3], 0.0, 0.3).unwrap());
        m.graph.constants.push(w);
        last = node(&mut m, "Conv", &[last, w], &format!("conv{i}"));
        let conv = m.graph.nodes.last_mut().unwrap();
        let stride = if i == 0 { 1 } else { 2 };
        conv.attributes.set("strides", AttributeValue::Ints(vec![stride; 2]));
        conv.attributes.set("pads", AttributeValue::Ints(vec![1; 4]));
        last = node(&mut m, "Relu", &[last], &format!("relu{i}"));
        from = to;
    }
    let pooled = node(&mut m, "GlobalAveragePool", &[last], "pooled");
    let flat = node(&mut m, "Flatten", &[pooled], "flat");
    let logits = node(&mut m, "Identity", &[flat], "logits");
    m.graph.outputs.push(logits);
    m.verify().unwrap();
    m
}

/// Compares a term's gradients by the student's values and by its own parameters with central differences.
pub(crate) fn check_term(term: &dyn Term, student: &[Vec<usize>], teacher: &[Vec<usize>]) -> Result<(), String> {
    let draw = |seed: u64, shape: &[usize]| random::uniform_f64(seed, shape, -1.0, 1.0);
    let (s, t) = (term.student_values(), term.teacher_values());
    assert_eq!((s.len(), t.len()), (student.len(), teacher.len()));
    let taught: HashMap<ValueId, Tensor> = t.iter().zip(teacher).zip(100..).map(|((v, shape), seed)| (*v, draw(seed, shape))).collect();
    let mut inputs: Vec<Tensor> = student.iter().zip(0..).map(|(shape, seed)| draw(seed, shape)).collect();
    inputs.extend(term.parameters().iter().zip(50..).map(|(p, seed)| draw(seed, p.value.shape())));
    tensor::gradcheck::check(&inputs, |x| {
        let (values, parameters) = x.split_at(s.len());
        let values = s.iter().copied().zip(values.iter().cloned()).collect();
        let seen = Seen { student: &values, teacher: &taught, parameters, batch: &Batch::default() };
        term.loss(&seen).map_err(|e| tensor::TensorError::value("term", e.to_string()))
    })
}
