//! Code shared by several tests.
#![allow(dead_code)]
use espalier_deploy as deploy;

use deploy::runtime::{OnnxRuntime, Runtime};
use graph::{AttributeValue, Dim, Graph, Model, Node, Value, ValueId, ValueType};
use std::fmt::Write;
use tensor::{DType, Tensor};

/// ONNX Runtime, or `None` with a printed reason.
pub(crate) fn onnxruntime() -> Option<Box<dyn Runtime>> {
    match OnnxRuntime::find() {
        Ok(runtime) => Some(Box::new(runtime)),
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
    }
}

/// Builds small models.
pub(crate) struct Builder {
    pub(crate) model: Model,
}

impl Builder {
    pub(crate) fn new(opset: i64) -> Self {
        let mut model = Model::new(opset);
        model.graph.name = "g".into();
        Builder { model }
    }

    /// A float input; `None` is a batch dimension.
    pub(crate) fn input(&mut self, name: &str, shape: &[Option<usize>]) -> ValueId {
        let id = self.typed(name, shape);
        self.model.graph.inputs.push(id);
        id
    }

    /// A float value that is an output, to be computed by a node.
    pub(crate) fn output(&mut self, name: &str, shape: &[Option<usize>]) -> ValueId {
        let id = self.typed(name, shape);
        self.model.graph.outputs.push(id);
        id
    }

    fn typed(&mut self, name: &str, shape: &[Option<usize>]) -> ValueId {
        let dims = shape.iter().map(|d| d.map_or(Dim::Symbol("n".into()), Dim::Known)).collect();
        let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(dims) };
        self.model.values.add(Value { name: name.into(), ty, ..Value::default() })
    }

    pub(crate) fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.model.values.add_constant(name, tensor);
        self.model.graph.constants.push(id);
        id
    }

    pub(crate) fn inner(&mut self, name: &str) -> ValueId {
        self.model.values.add_named(name)
    }

    pub(crate) fn node(&mut self, op_type: &str, inputs: &[ValueId], output: ValueId) {
        let name = format!("{op_type}_{}", self.model.graph.nodes.len());
        self.push(Node::new(op_type, name, inputs, &[output]));
    }

    pub(crate) fn push(&mut self, node: Node) {
        self.model.graph.nodes.push(node);
    }
}

/// Deterministic numbers in -1..1.
pub(crate) fn noise(shape: &[usize], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let n = shape.iter().product();
    Tensor::new((0..n).map(|_| next()).collect::<Vec<f32>>(), shape).unwrap()
}

/// A model as text: constants with type and shape, then nodes in order.
pub(crate) fn dump(model: &Model) -> String {
    let mut out = format!("opset {}\n", model.onnx_opset());
    dump_graph(model, &model.graph, "", &mut out);
    out
}

fn dump_graph(model: &Model, graph: &Graph, indent: &str, out: &mut String) {
    let name = |v: &Option<ValueId>| v.map_or("-".to_string(), |v| model.values[v].name.clone());
    let names = |list: &[ValueId]| list.iter().map(|v| model.values[*v].name.clone()).collect::<Vec<_>>().join(", ");
    writeln!(out, "{indent}({}) -> ({})", names(&graph.inputs), names(&graph.outputs)).unwrap();
    for v in &graph.constants {
        let t = model.values.tensor(*v).unwrap();
        writeln!(out, "{indent}  {}: {}{:?}", model.values[*v].name, t.dtype(), t.shape()).unwrap();
    }
    for node in &graph.nodes {
        let inputs: Vec<String> = node.inputs.iter().map(name).collect();
        let outputs: Vec<String> = node.outputs.iter().map(name).collect();
        let axis = match node.attributes.get("axis") {
            Some(AttributeValue::Int(a)) => format!(" axis={a}"),
            _ => String::new(),
        };
        writeln!(out, "{indent}  {} = {}({}){axis}", outputs.join(", "), node.op_type, inputs.join(", ")).unwrap();
        for sub in node.subgraphs() {
            dump_graph(model, sub, &format!("{indent}    "), out);
        }
    }
}
