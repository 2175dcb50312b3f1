//! Model, graph, node.
use crate::{Annotations, Attributes, GraphError, Value, ValueId, Values};

/// Serialized protobuf fields that are carried through untouched. Only the file format knows their meaning.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct Extra(pub Vec<u8>);

/// One imported operator set.
#[derive(Clone, Debug, PartialEq)]
pub struct Opset {
    /// Domain; empty is ONNX's own.
    pub domain: String,
    /// Version.
    pub version: i64,
    /// Fields that we do not model.
    pub extra: Extra,
}

/// A network with everything its file says.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Version of the file format.
    pub ir_version: i64,
    /// Imported operator sets.
    pub opsets: Vec<Opset>,
    /// Tool that wrote the file.
    pub producer_name: String,
    /// Version of the program that wrote the model; empty where the file has none.
    pub producer_version: String,
    /// The model's name space.
    pub domain: String,
    /// The model's own version.
    pub model_version: i64,
    /// Free text.
    pub doc_string: String,
    /// `metadata_props`, in the file's order.
    pub metadata: Vec<(String, String)>,
    /// Every value of the main graph and its subgraphs.
    pub values: Values,
    /// The main graph.
    pub graph: Graph,
    /// Model-local functions.
    pub functions: Vec<Function>,
    /// How values are compressed.
    pub annotations: Annotations,
    /// Fields that we do not model.
    pub extra: Extra,
    /// The file it was read from; not part of the model's content.
    pub source: Option<Source>,
}

/// The source of a model, so that an unedited one can be written back byte for byte.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file's bytes.
    pub bytes: std::sync::Arc<[u8]>,
    /// The folder external data lies in.
    pub folder: Option<std::path::PathBuf>,
}

impl PartialEq for Model {
    /// Equality of everything except the source.
    fn eq(&self, o: &Model) -> bool {
        self.ir_version == o.ir_version
            && self.opsets == o.opsets
            && self.producer_name == o.producer_name
            && self.producer_version == o.producer_version
            && self.domain == o.domain
            && self.model_version == o.model_version
            && self.doc_string == o.doc_string
            && self.metadata == o.metadata
            && self.values == o.values
            && self.graph == o.graph
            && self.functions == o.functions
            && self.annotations == o.annotations
            && self.extra == o.extra
    }
}

/// A graph: nodes in an order in which each comes after what it reads.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Graph {
    /// Name of the graph; ONNX requires one, without a meaning.
    pub name: String,
    /// Nodes, topologically sorted.
    pub nodes: Vec<Node>,
    /// Inputs (those that also have a default are constants too).
    pub inputs: Vec<ValueId>,
    /// Outputs.
    pub outputs: Vec<ValueId>,
    /// Constants of this graph, in the file's order.
    pub constants: Vec<ValueId>,
    /// Intermediate values whose type the file declares.
    pub value_info: Vec<ValueId>,
    /// Free text.
    pub doc_string: String,
    /// Fields that we do not model (quantization_annotation, metadata_props, ...).
    pub extra: Extra,
}

/// A node: one application of an operator.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Node {
    /// Name of the node; empty for unnamed nodes, for which [`Node::label`] gives a text.
    pub name: String,
    /// Operator.
    pub op_type: String,
    /// Operator's domain; empty is ONNX's own.
    pub domain: String,
    /// Which overload of a model-local function it calls.
    pub overload: String,
    /// Inputs; an omitted optional one is `None`.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs; an omitted optional one is `None`.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes.
    pub attributes: Attributes,
    /// Free text.
    pub doc_string: String,
    /// Fields that we do not model (metadata_props, device configuration, ...).
    pub extra: Extra,
}

/// A model-local function: a body that a node calls by domain and name.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Function {
    /// Domain.
    pub domain: String,
    /// Name.
    pub name: String,
    /// Overload.
    pub overload: String,
    /// Names of attributes without default.
    pub attributes: Vec<String>,
    /// Attributes with default.
    pub attribute_defaults: Attributes,
    /// Operator sets the body is written in.
    pub opsets: Vec<Opset>,
    /// The body; its values are in `values`, not in the model's table.
    pub graph: Graph,
    /// The body's values.
    pub values: Values,
    /// Fields that we do not model.
    pub extra: Extra,
}

impl Node {
    /// A node of ONNX's own domain.
    pub fn new(op_type: &str, name: impl Into<String>, inputs: &[ValueId], outputs: &[ValueId]) -> Self {
        Node {
            name: name.into(),
            op_type: op_type.to_string(),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: outputs.iter().copied().map(Some).collect(),
            ..Node::default()
        }
    }

    /// The same node with one more attribute.
    pub fn with(mut self, name: &str, value: crate::AttributeValue) -> Self {
        self.attributes.set(name, value);
        self
    }

    /// The input, if it is given.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// The output, if it is given.
    pub fn output(&self, i: usize) -> Option<ValueId> {
        self.outputs.get(i).copied().flatten()
    }

    /// True for ONNX's own domain (also under its long name `ai.onnx`).
    pub fn is_onnx(&self) -> bool {
        self.domain.is_empty() || self.domain == "ai.onnx"
    }

    /// The node's name, or the operator and first output where it has none.
    pub fn label(&self, values: &Values) -> String {
        match (self.name.is_empty(), self.output(0)) {
            (false, _) => self.name.clone(),
            (true, Some(out)) => format!("{}→{}", self.op_type, values[out].name),
            (true, None) => self.op_type.clone(),
        }
    }

    /// Subgraphs held in attributes.
    pub fn subgraphs(&self) -> impl Iterator<Item = &Graph> {
        self.attributes.list.iter().flat_map(|a| match &a.value {
            crate::AttributeValue::Graph(g) => std::slice::from_ref(g.as_ref()),
            crate::AttributeValue::Graphs(g) => g.as_slice(),
            _ => &[],
        })
    }

    /// Subgraphs held in attributes, for editing.
    pub fn subgraphs_mut(&mut self) -> impl Iterator<Item = &mut Graph> {
        self.attributes.list.iter_mut().flat_map(|a| match &mut a.value {
            crate::AttributeValue::Graph(g) => std::slice::from_mut(g.as_mut()),
            crate::AttributeValue::Graphs(g) => g.as_mut_slice(),
            _ => &mut [],
        })
    }
}

impl Graph {
    /// Calls `f` on each node of this graph and of all subgraphs, outer before inner.
    pub fn visit<'a>(&'a self, f: &mut dyn FnMut(&'a Node)) {
        for node in &self.nodes {
            f(node);
            for g in node.subgraphs() {
                g.visit(f);
            }
        }
    }
}

impl Model {
    /// An empty model of the given opset of ONNX's own domain, with the IR version that goes with it.
    pub fn new(opset: i64) -> Self {
        let ir_version = match opset {
            ..=8 => 3,
            9 => 4,
            10 => 5,
            11 => 6,
            12..=14 => 7,
            15..=18 => 8,
            19..=20 => 9,
            21..=22 => 10,
            23 => 11,
            24 => 12,
            _ => 13,
        };
        Model { ir_version, opsets: vec![Opset { domain: String::new(), version: opset, extra: Extra::default() }], ..Model::default() }
    }

    /// Version of an operator set the model imports.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let canonical = |d: &str| if d == "ai.onnx" { String::new() } else { d.to_string() };
        self.opsets.iter().find(|o| canonical(&o.domain) == canonical(domain)).map(|o| o.version)
    }

    /// Version of ONNX's own operator set (1 where the file imports none).
    pub fn onnx_opset(&self) -> i64 {
        self.opset("").unwrap_or(1)
    }

    /// A `metadata_props` entry.
    pub fn metadata_get(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Sets a `metadata_props` entry.
    pub fn metadata_set(&mut self, key: &str, value: impl Into<String>) {
        match self.metadata.iter_mut().find(|(k, _)| k == key) {
            Some((_, v)) => *v = value.into(),
            None => self.metadata.push((key.to_string(), value.into())),
        }
    }

    /// Inputs that must be fed: graph inputs without a default.
    pub fn free_inputs(&self) -> Vec<ValueId> {
        self.graph.inputs.iter().copied().filter(|v| self.values[*v].constant.is_none()).collect()
    }

    /// The elements of a constant that no run changes. `None` for a constant that is a graph input too: there it is a default,
    /// and another tensor may be fed in its place.
    pub fn constant(&self, id: ValueId) -> Option<&tensor::Tensor> {
        self.values.tensor(id).filter(|_| !self.graph.inputs.contains(&id))
    }

    /// The value of the main graph with this name (input, constant or node output).
    pub fn find(&self, name: &str) -> Option<ValueId> {
        let g = &self.graph;
        let outputs = g.nodes.iter().flat_map(|n| n.outputs.iter().flatten());
        g.inputs.iter().chain(&g.constants).chain(outputs).copied().find(|v| self.values[*v].name == name)
    }

    /// A value of the table.
    ///
    /// # Errors
    /// [`GraphError::Value`] if the id is of another model.
    pub fn value(&self, id: ValueId) -> Result<&Value, GraphError> {
        self.values.get(id).ok_or_else(|| GraphError::Value { value: format!("#{}", id.0), what: "does not belong to this model".into() })
    }
}
