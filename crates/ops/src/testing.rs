//! Evaluating one node on given inputs, for tests.
use crate::{EvalCx, Inputs, OpError, RunSubgraph, ShapeCx, Sums, find};
use graph::{AttributeValue, Dim, Graph, Node, ValueId, ValueType};
use std::cell::RefCell;
use tensor::Tensor;

struct NoSubgraphs;
impl RunSubgraph for NoSubgraphs {
    fn run_subgraph(&self, _: &Graph, _: Vec<Tensor>) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Inner("this test has no subgraphs".into()))
    }
}

/// A node to test.
pub(crate) struct Case {
    pub(crate) node: Node,
    pub(crate) opset: i64,
    pub(crate) training: bool,
    pub(crate) sums: Sums,
}

impl Case {
    pub(crate) fn new(op_type: &str, opset: i64) -> Self {
        Case { node: Node::new(op_type, "n", &[], &[ValueId(100)]), opset, training: false, sums: Sums::Exact }
    }

    /// An operator of another domain.
    pub(crate) fn of(domain: &str, op_type: &str, version: i64) -> Self {
        let mut case = Case::new(op_type, version);
        case.node.domain = domain.to_string();
        case
    }

    pub(crate) fn with(mut self, name: &str, value: AttributeValue) -> Self {
        self.node.attributes.set(name, value);
        self
    }

    pub(crate) fn int(self, name: &str, value: i64) -> Self {
        self.with(name, AttributeValue::Int(value))
    }

    pub(crate) fn ints(self, name: &str, value: &[i64]) -> Self {
        self.with(name, AttributeValue::Ints(value.to_vec()))
    }

    pub(crate) fn float(self, name: &str, value: f32) -> Self {
        self.with(name, AttributeValue::Float(value))
    }

    pub(crate) fn string(self, name: &str, value: &str) -> Self {
        self.with(name, AttributeValue::String(value.as_bytes().to_vec()))
    }

    pub(crate) fn outputs(mut self, n: u32) -> Self {
        self.node.outputs = (0..n).map(|i| Some(ValueId(100 + i))).collect();
        self
    }

    pub(crate) fn sums(mut self, sums: Sums) -> Self {
        self.sums = sums;
        self
    }

    pub(crate) fn training(mut self) -> Self {
        self.training = true;
        self
    }

    /// All outputs. Also checks that shape inference, given everything or only types, does not contradict them.
    pub(crate) fn run_optional(mut self, inputs: Vec<Option<Tensor>>) -> Result<Vec<Tensor>, OpError> {
        let op = find(&self.node.domain, &self.node.op_type).ok_or_else(|| OpError::unsupported(&self.node, "it is not registered"))?;
        self.node.inputs = inputs.iter().enumerate().map(|(i, t)| t.as_ref().map(|_| ValueId(i as u32))).collect();
        let cx = EvalCx {
            node: &self.node,
            opset: self.opset,
            training: self.training,
            seed: 42,
            sums: self.sums,
            subgraphs: &NoSubgraphs,
            updates: RefCell::new(vec![]),
        };
        let out = op.eval(&cx, Inputs::new(inputs.clone()))?;
        for known in [true, false] {
            let types = inputs.iter().map(|t| t.as_ref().map_or(ValueType::Unknown, type_of)).collect();
            let values = inputs.iter().map(|t| t.clone().filter(|_| known)).collect();
            let inferred = op.infer(&ShapeCx { node: &self.node, opset: self.opset, types, values })?;
            for (i, (t, ty)) in out.iter().zip(&inferred).enumerate() {
                assert!(agrees(t, ty), "{}: output {i} is {t:?}, inferred (values known: {known}) {ty:?}", self.node.op_type);
            }
        }
        Ok(out)
    }

    pub(crate) fn run_all(self, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        self.run_optional(inputs.iter().cloned().map(Some).collect())
    }

    /// The first output.
    pub(crate) fn run(self, inputs: &[Tensor]) -> Tensor {
        self.run_all(inputs).unwrap().remove(0)
    }
}

fn type_of(t: &Tensor) -> ValueType {
    ValueType::Tensor { dtype: t.dtype(), shape: Some(t.shape().iter().map(|d| Dim::Known(*d)).collect()) }
}

fn agrees(t: &Tensor, ty: &ValueType) -> bool {
    match ty {
        ValueType::Tensor { dtype, shape } => {
            let fits = |s: &Vec<Dim>| s.len() == t.rank() && s.iter().zip(t.shape()).all(|(d, n)| d.known().is_none_or(|k| k == *n));
            *dtype == t.dtype() && shape.as_ref().is_none_or(fits)
        }
        _ => true,
    }
}

/// A rank-1 f32 tensor.
pub(crate) fn floats(v: &[f32]) -> Tensor {
    Tensor::vector(v.to_vec())
}

/// A rank-1 i64 tensor.
pub(crate) fn ints(v: &[i64]) -> Tensor {
    Tensor::vector(v.to_vec())
}

/// `0, 1, 2, ...` as f32.
pub(crate) fn iota(shape: &[usize]) -> Tensor {
    Tensor::new((0..shape.iter().product::<usize>()).map(|i| i as f32).collect(), shape).unwrap()
}
