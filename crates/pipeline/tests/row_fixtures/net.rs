//! Small graphs written down as text, one value or node a line:
//!
//! ```text
//! in x [N, 3, 6, 6]              an input of f32; `in s:i64 []` of another type
//! w ~ [8, 3, 3, 3]               a seeded normal weight, its deviation one over the root of what a sum runs over
//! p = 0, 0, 1, 1                 a vector of i64; with a point in it of f32, in brackets with a shape: `s = [1] 2`
//! c = Conv(x, w) pads=0,1 k="s"  a node; an empty name is an omitted input; `com.microsoft.X(...)` is of that domain
//! d = Relu(c) node=relu1         a node with a name of its own
//! out y [N, 4]                   an output
//! ```
//! Names of constants that are given as tensors, and `@name` for a subgraph, are known from before.
use graph::{AttributeValue, Dim, Graph, Model, Node, Origin, Value, ValueId, ValueType};
use std::collections::BTreeMap;
use tensor::{DType, Tensor, random};

/// A graph as text, with the parts that are hard to write as text.
#[derive(Clone, Default)]
pub(crate) struct Net {
    pub(crate) text: String,
    pub(crate) opset: i64,
    pub(crate) constants: BTreeMap<String, Tensor>,
    pub(crate) subgraphs: BTreeMap<String, String>,
    /// Initializers are declared as inputs too, as files before IR version 4 have them.
    pub(crate) declared: bool,
}

impl Net {
    pub(crate) fn new(text: &str) -> Net {
        Net { text: text.into(), opset: 17, ..Net::default() }
    }

    pub(crate) fn opset(mut self, version: i64) -> Net {
        self.opset = version;
        self
    }

    pub(crate) fn constant(mut self, name: &str, tensor: Tensor) -> Net {
        self.constants.insert(name.into(), tensor);
        self
    }

    pub(crate) fn subgraph(mut self, name: &str, text: &str) -> Net {
        self.subgraphs.insert(name.into(), text.into());
        self
    }

    /// Another text, which computes something else with the same constants.
    pub(crate) fn reworded(&self, from: &str, to: &str) -> Net {
        assert!(self.text.contains(from), "'{from}' is not in the text");
        Net { text: self.text.replace(from, to), ..self.clone() }
    }

    /// The model; `batch` is what N stands for, `None` an open dimension.
    pub(crate) fn build(&self, batch: Option<usize>) -> Model {
        let mut model = Model::new(self.opset);
        let mut domains = vec![];
        let mut scope = BTreeMap::new();
        let mut graph = Graph { name: "net".into(), ..Graph::default() };
        for (name, tensor) in &self.constants {
            let id = model.values.add_constant(name, tensor.clone());
            scope.insert(name.clone(), id);
            graph.constants.push(id);
        }
        self.read(&self.text, batch, &mut model, &mut graph, &mut scope, &mut domains);
        if self.declared {
            graph.inputs.extend(&graph.constants);
        }
        model.graph = graph;
        for domain in domains {
            model.opsets.push(graph::Opset { domain, version: 1, extra: Default::default() });
        }
        model
    }

    fn read(
        &self,
        text: &str,
        batch: Option<usize>,
        model: &mut Model,
        graph: &mut Graph,
        scope: &mut BTreeMap<String, ValueId>,
        domains: &mut Vec<String>,
    ) {
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            if let Some(port) = line.strip_prefix("in ").or(line.strip_prefix("out ")) {
                let (name, shape) = port.split_once('[').unwrap();
                let (name, dtype) = name.trim().split_once(':').unwrap_or((name.trim(), "f32"));
                let shape = dims(shape.trim_end_matches(']'), batch);
                let ty = ValueType::Tensor { dtype: dtype_of(dtype), shape: Some(shape) };
                if line.starts_with("in ") {
                    let id = model.values.add(Value { name: name.into(), ty, ..Value::default() });
                    scope.insert(name.into(), id);
                    graph.inputs.push(id);
                } else {
                    model.values[scope[name]].ty = ty;
                    graph.outputs.push(scope[name]);
                }
            } else if let Some((name, shape)) = line.split_once(" ~ ") {
                let shape = sizes(shape.trim_matches(['[', ']']));
                let sum: usize = if shape.len() > 2 { shape[1..].iter().product() } else { shape[0] };
                let seed = name.bytes().fold(7, |h: u64, b| h.wrapping_mul(131) ^ u64::from(b));
                let tensor = random::normal(seed, &shape, 0.0, 1.0 / (sum as f32).sqrt()).unwrap();
                add(model, graph, scope, name, tensor);
            } else if let Some((names, call)) = line.split_once(" = ").filter(|(_, c)| c.contains('(')) {
                let (op, rest) = call.split_once('(').unwrap();
                let (inputs, attributes) = rest.split_once(')').unwrap();
                let known = |n: &str| (!n.is_empty()).then(|| *scope.get(n).unwrap_or_else(|| panic!("'{n}' is not known: {line}")));
                let inputs = inputs.split(',').map(|n| known(n.trim())).collect();
                let (domain, op) = op.rsplit_once('.').unwrap_or(("", op));
                if !domain.is_empty() && !domains.iter().any(|d| d == domain) {
                    domains.push(domain.into());
                }
                let mut node = Node { op_type: op.into(), domain: domain.into(), inputs, ..Node::default() };
                node.name = format!("{op} of {}", names.trim());
                for part in attributes.split_whitespace() {
                    let (name, value) = part.split_once('=').unwrap();
                    if name == "node" {
                        node.name = value.into();
                        continue;
                    }
                    let value = match value.strip_prefix('@') {
                        Some(body) => {
                            let mut inner = Graph { name: body.into(), ..Graph::default() };
                            self.read(&self.subgraphs[body], batch, model, &mut inner, &mut scope.clone(), domains);
                            AttributeValue::Graph(Box::new(inner))
                        }
                        None => attribute(value),
                    };
                    node.attributes.set(name, value);
                }
                for name in names.split(',').map(str::trim) {
                    node.outputs.push((!name.is_empty()).then(|| model.values.add_named(name)));
                    scope.extend(node.outputs.last().unwrap().map(|id| (name.to_string(), id)));
                }
                graph.nodes.push(node);
            } else {
                let (name, value) = line.split_once(" = ").unwrap();
                let (shape, list) = match value.strip_prefix('[').and_then(|v| v.split_once(']')) {
                    Some((shape, list)) => (Some(sizes(shape)), list),
                    None => (None, value),
                };
                let list: Vec<&str> = list.split(',').map(str::trim).collect();
                let shape = shape.unwrap_or_else(|| vec![list.len()]);
                let tensor = match list.iter().any(|v| v.contains('.')) {
                    true => Tensor::new(list.iter().map(|v| v.parse::<f32>().unwrap()).collect(), shape),
                    false => Tensor::new(list.iter().map(|v| v.parse::<i64>().unwrap()).collect(), shape),
                };
                add(model, graph, scope, name, tensor.unwrap());
            }
        }
    }
}

fn add(model: &mut Model, graph: &mut Graph, scope: &mut BTreeMap<String, ValueId>, name: &str, tensor: Tensor) {
    let id = model.values.add_constant(name.trim(), tensor);
    debug_assert_eq!(model.values[id].constant.as_ref().map(|c| &c.origin), Some(&Origin::Initializer));
    scope.insert(name.trim().into(), id);
    graph.constants.push(id);
}

fn sizes(list: &str) -> Vec<usize> {
    list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().unwrap()).collect()
}

fn dims(list: &str, batch: Option<usize>) -> Vec<Dim> {
    let dim = |name: &str| match (name, batch, name.parse()) {
        (_, _, Ok(n)) => Dim::Known(n),
        ("N", Some(n), _) => Dim::Known(n),
        _ => Dim::Symbol(name.into()),
    };
    list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(dim).collect()
}

fn dtype_of(name: &str) -> DType {
    match name {
        "f32" => DType::F32,
        "f16" => DType::F16,
        "i64" => DType::I64,
        "bool" => DType::Bool,
        other => panic!("no type '{other}'"),
    }
}

fn attribute(text: &str) -> AttributeValue {
    let int = |v: &str| v.parse::<i64>().unwrap();
    match text.strip_prefix('[').map(|t| t.trim_end_matches(']')) {
        Some(one) => AttributeValue::Ints(one.split(',').map(int).collect()),
        None if text.starts_with('"') => AttributeValue::String(text.trim_matches('"').as_bytes().to_vec()),
        None if text.contains(',') => AttributeValue::Ints(text.split(',').map(int).collect()),
        None if text.contains('.') => AttributeValue::Float(text.parse().unwrap()),
        None => AttributeValue::Int(int(text)),
    }
}
