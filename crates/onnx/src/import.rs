//! From protobuf to [`graph::Model`]. Names are resolved here, scope by scope; the graph knows ids only.
use crate::attribute::sparse_attribute;
use crate::error::{OnnxError, Place, Result};
use crate::tensor_proto::{self, Stored};
use crate::types::{tensor_type, value_info};
use crate::wire::{Field, Fields};
use graph::{AttributeValue, Attributes, Constant, Extra, Function, Graph, Model, Node, Opset, Origin, Value, ValueId, ValueType, Values};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Subgraphs nested deeper than this are refused: the reader recurses.
const DEEPEST: usize = 64;

/// Visits each field of a message; the visitor returns false for a field that is to be carried through.
pub(crate) fn each<'a>(bytes: &'a [u8], place: &Place, extra: &mut Extra, mut visit: impl FnMut(&Field<'a>) -> Result<bool>) -> Result<()> {
    let mut fields = Fields::new(bytes);
    while let Some(f) = fields.next_field().map_err(|e| place.error(e))? {
        if !visit(&f)? {
            extra.0.extend(f.raw);
        }
    }
    Ok(())
}

/// Converts an error of the wire format into an error with a place.
pub(crate) fn at<'p, T>(place: &'p Place, number: u32) -> impl FnOnce(std::result::Result<T, String>) -> Result<T> + 'p {
    move |r| r.map_err(|e| place.error(format!("field {number} {e}")))
}

pub(crate) fn model(bytes: &[u8], folder: Option<&Path>) -> Result<Model> {
    let place = Place::root("model");
    let mut m = Model::default();
    let (mut graph_bytes, mut function_bytes) = (None, vec![]);
    let mut extra = Extra::default();
    each(bytes, &place, &mut extra, |f| {
        let (v, n) = (f.value, f.number);
        match n {
            1 => m.ir_version = at(&place, n)(v.int())?,
            2 => m.producer_name = at(&place, n)(v.string())?,
            3 => m.producer_version = at(&place, n)(v.string())?,
            4 => m.domain = at(&place, n)(v.string())?,
            5 => m.model_version = at(&place, n)(v.int())?,
            6 => m.doc_string = at(&place, n)(v.string())?,
            7 => graph_bytes = Some(at(&place, n)(v.bytes())?),
            8 => m.opsets.push(opset(at(&place, n)(v.bytes())?, &place)?),
            14 => m.metadata.push(at(&place, n)(v.bytes().and_then(tensor_proto::entry))?),
            25 => function_bytes.push(at(&place, n)(v.bytes())?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    m.extra = extra;
    check_versions(&m)?;
    let Some(graph_bytes) = graph_bytes else { return Err(place.error("holds no graph: this is not an ONNX model")) };
    let mut reader = Reader { values: Values::default(), scopes: vec![], folder };
    m.graph = reader.graph(graph_bytes, &place)?;
    m.values = reader.values;
    for bytes in function_bytes {
        m.functions.push(function(bytes, folder, &place)?);
    }
    m.verify()?;
    Ok(m)
}

fn check_versions(m: &Model) -> Result<()> {
    let Some(version) = m.opset("") else {
        return match m.opsets.is_empty() {
            true => Err(OnnxError::Unsupported("the model imports no operator set: it is older than opset 7, or not an ONNX model".into())),
            false => Ok(()),
        };
    };
    if version > crate::NEWEST_OPSET {
        return Err(OnnxError::Unsupported(format!(
            "opset {version} is newer than {}, the newest this release knows: export the model at that opset or older",
            crate::NEWEST_OPSET
        )));
    }
    if version < crate::OLDEST_OPSET {
        return Err(OnnxError::Unsupported(format!(
            "opset {version} is older than {}: convert the model with onnx.version_converter first",
            crate::OLDEST_OPSET
        )));
    }
    Ok(())
}

fn opset(bytes: &[u8], place: &Place) -> Result<Opset> {
    let mut o = Opset { domain: String::new(), version: 0, extra: Extra::default() };
    let mut extra = Extra::default();
    each(bytes, place, &mut extra, |f| {
        match f.number {
            1 => o.domain = at(place, 1)(f.value.string())?,
            2 => o.version = at(place, 2)(f.value.int())?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    o.extra = extra;
    Ok(o)
}

pub(crate) struct Reader<'a> {
    values: Values,
    /// Names in scope, innermost scope last.
    scopes: Vec<HashMap<String, ValueId>>,
    pub(crate) folder: Option<&'a Path>,
}

impl Reader<'_> {
    fn look_up(&self, name: &str) -> Option<ValueId> {
        self.scopes.iter().rev().find_map(|s| s.get(name).copied())
    }

    fn here(&self, name: &str) -> Option<ValueId> {
        self.scopes.last().and_then(|s| s.get(name).copied())
    }

    /// Creates a value in the innermost scope.
    fn declare(&mut self, value: Value) -> ValueId {
        let name = value.name.clone();
        let id = self.values.add(value);
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, id);
        }
        id
    }

    pub(crate) fn graph(&mut self, bytes: &[u8], outer: &Place) -> Result<Graph> {
        if self.scopes.len() >= DEEPEST {
            return Err(outer.error(format!("subgraphs are nested more than {DEEPEST} deep")));
        }
        let mut g = Graph::default();
        let (mut nodes, mut initializers, mut sparse, mut inputs, mut outputs, mut infos) =
            (vec![], vec![], vec![], vec![], vec![], vec![]);
        let mut extra = Extra::default();
        each(bytes, outer, &mut extra, |f| {
            let (v, n) = (f.value, f.number);
            match n {
                1 => nodes.push(at(outer, n)(v.bytes())?),
                2 => g.name = at(outer, n)(v.string())?,
                5 => initializers.push(at(outer, n)(v.bytes())?),
                10 => g.doc_string = at(outer, n)(v.string())?,
                11 => inputs.push(at(outer, n)(v.bytes())?),
                12 => outputs.push(at(outer, n)(v.bytes())?),
                13 => infos.push(at(outer, n)(v.bytes())?),
                15 => sparse.push(at(outer, n)(v.bytes())?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        g.extra = extra;
        let name = g.name.clone();
        let place = outer.inside("graph", &name);
        self.scopes.push(HashMap::new());
        for b in inputs {
            let value = value_info(b, &place)?;
            if self.here(&value.name).is_some() {
                return Err(place.error(format!("input '{}' is declared twice", value.name)));
            }
            let id = self.declare(value);
            g.inputs.push(id);
        }
        for b in initializers {
            let stored = tensor_proto::read(b, self.folder, &place)?;
            self.constant(&mut g, stored, false, &place)?;
        }
        for b in sparse {
            let stored = tensor_proto::read_sparse(b, self.folder, &place)?;
            self.constant(&mut g, stored, true, &place)?;
        }
        // Outputs of all nodes are declared before the nodes are read, so that a file with unsorted nodes is still resolved
        // within its own scope.
        let raw: Vec<RawNode> = nodes.into_iter().map(|b| raw_node(b, &place)).collect::<Result<_>>()?;
        let mut declared: HashMap<&str, Value> = HashMap::new();
        let infos: Vec<Value> = infos.into_iter().map(|b| value_info(b, &place)).collect::<Result<_>>()?;
        let outputs: Vec<Value> = outputs.into_iter().map(|b| value_info(b, &place)).collect::<Result<_>>()?;
        for v in infos.iter().chain(&outputs) {
            declared.insert(&v.name, v.clone());
        }
        for node in &raw {
            for out in node.outputs.iter().filter(|o| !o.is_empty()) {
                if self.here(out).is_some() {
                    return Err(place.error(format!("node '{}' ({}) computes '{out}', which exists already", node.name, node.op_type)));
                }
                let value = declared.get(out.as_str()).cloned().unwrap_or_else(|| Value { name: out.clone(), ..Value::default() });
                self.declare(value);
            }
        }
        for node in raw {
            let node = self.node(node, &place)?;
            match self.constant_node(node, &place)? {
                Ok(id) => g.constants.push(id),
                Err(node) => g.nodes.push(node),
            }
        }
        for v in &outputs {
            let id = self.look_up(&v.name).ok_or_else(|| place.error(format!("output '{}' is made by no node", v.name)))?;
            if self.values[id].ty == ValueType::Unknown {
                self.values[id].ty = v.ty.clone();
            }
            g.outputs.push(id);
        }
        let inputs: HashSet<ValueId> = g.inputs.iter().copied().collect();
        g.value_info =
            infos.iter().filter_map(|v| self.here(&v.name)).filter(|v| self.values[*v].constant.is_none() && !inputs.contains(v)).collect();
        self.scopes.pop();
        g.sort(&self.values)?;
        Ok(g)
    }

    fn constant(&mut self, g: &mut Graph, stored: Stored, sparse: bool, place: &Place) -> Result<()> {
        let origin = match stored.external {
            Some(e) => Origin::External { location: e.location, offset: e.offset, entries: e.entries },
            None if sparse => Origin::SparseInitializer,
            None => Origin::Initializer,
        };
        let constant = Some(Constant { tensor: stored.tensor, origin, extra: stored.extra });
        if stored.name.is_empty() {
            return Err(place.error("an initializer has no name"));
        }
        let id = match self.here(&stored.name) {
            Some(id) if self.values[id].constant.is_some() => {
                return Err(place.error(format!("initializer '{}' is given twice", stored.name)));
            }
            Some(id) => id,
            None => {
                let ty = constant.as_ref().map_or(ValueType::Unknown, |c| tensor_type(&c.tensor));
                self.declare(Value { name: stored.name, ty, ..Value::default() })
            }
        };
        self.values[id].constant = constant;
        g.constants.push(id);
        Ok(())
    }

    /// Converts a `Constant` node into a constant; returns any other node.
    fn constant_node(&mut self, node: Node, place: &Place) -> Result<std::result::Result<ValueId, Node>> {
        let (true, "Constant", Some(out)) = (node.is_onnx(), node.op_type.as_str(), node.output(0)) else { return Ok(Err(node)) };
        let [attribute] = node.attributes.list.as_slice() else { return Ok(Err(node)) };
        let text = |b: &Vec<u8>| {
            String::from_utf8(b.clone()).map_err(|_| place.error(format!("constant '{}' is not UTF-8", self.values[out].name)))
        };
        let tensor = match &attribute.value {
            AttributeValue::Tensor(t) => t.clone(),
            AttributeValue::Float(v) => tensor::Tensor::scalar(*v),
            AttributeValue::Int(v) => tensor::Tensor::scalar(*v),
            AttributeValue::Floats(v) => tensor::Tensor::vector(v.clone()),
            AttributeValue::Ints(v) => tensor::Tensor::vector(v.clone()),
            AttributeValue::String(s) => tensor::Tensor::scalar(text(s)?),
            AttributeValue::Strings(s) => tensor::Tensor::vector(s.iter().map(text).collect::<Result<Vec<_>>>()?),
            AttributeValue::Other(raw) => match sparse_attribute(&raw.0, self.folder, place)? {
                Some(t) => t,
                None => return Ok(Err(node)),
            },
            _ => return Ok(Err(node)),
        };
        let mut extra = node.extra;
        if !node.doc_string.is_empty() {
            let mut m = crate::wire::Message::default();
            m.text(6, &node.doc_string);
            extra.0.extend(m.0);
        }
        let origin = Origin::ConstantNode { name: node.name, attribute: attribute.name.clone(), extra };
        self.values[out].ty = tensor_type(&tensor);
        self.values[out].constant = Some(Constant { tensor, origin, extra: attribute.extra.clone() });
        Ok(Ok(out))
    }

    fn node(&mut self, raw: RawNode, graph_place: &Place) -> Result<Node> {
        let label = if raw.name.is_empty() { raw.outputs.first().cloned().unwrap_or_default() } else { raw.name.clone() };
        let kind = format!("{} node", raw.op_type);
        let place = graph_place.inside(&kind, &label);
        let mut inputs = Vec::with_capacity(raw.inputs.len());
        for name in &raw.inputs {
            inputs.push(match name.is_empty() {
                true => None,
                false => Some(self.look_up(name).ok_or_else(|| place.error(format!("reads '{name}', which no node computes")))?),
            });
        }
        let outputs = raw.outputs.iter().map(|n| if n.is_empty() { None } else { self.here(n) }).collect();
        let mut attributes = Attributes::default();
        let mut names = HashSet::new();
        for bytes in &raw.attributes {
            let a = self.attribute(bytes, &place)?;
            if !names.insert(a.name.clone()) {
                return Err(place.error(format!("attribute '{}' is given twice", a.name)));
            }
            attributes.list.push(a);
        }
        Ok(Node {
            name: raw.name,
            op_type: raw.op_type,
            domain: raw.domain,
            overload: raw.overload,
            inputs,
            outputs,
            attributes,
            doc_string: raw.doc_string,
            extra: raw.extra,
        })
    }
}

struct RawNode<'a> {
    name: String,
    op_type: String,
    domain: String,
    overload: String,
    doc_string: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    attributes: Vec<&'a [u8]>,
    extra: Extra,
}

fn raw_node<'a>(bytes: &'a [u8], place: &Place) -> Result<RawNode<'a>> {
    let mut node = RawNode {
        name: String::new(),
        op_type: String::new(),
        domain: String::new(),
        overload: String::new(),
        doc_string: String::new(),
        inputs: vec![],
        outputs: vec![],
        attributes: vec![],
        extra: Extra::default(),
    };
    let mut extra = Extra::default();
    each(bytes, place, &mut extra, |f| {
        let (v, n) = (f.value, f.number);
        match n {
            1 => node.inputs.push(at(place, n)(v.string())?),
            2 => node.outputs.push(at(place, n)(v.string())?),
            3 => node.name = at(place, n)(v.string())?,
            4 => node.op_type = at(place, n)(v.string())?,
            5 => node.attributes.push(at(place, n)(v.bytes())?),
            6 => node.doc_string = at(place, n)(v.string())?,
            7 => node.domain = at(place, n)(v.string())?,
            8 => node.overload = at(place, n)(v.string())?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    node.extra = extra;
    Ok(node)
}

fn function(bytes: &[u8], folder: Option<&Path>, model_place: &Place) -> Result<Function> {
    let mut f = Function::default();
    let (mut inputs, mut outputs, mut nodes, mut defaults) = (vec![], vec![], vec![], vec![]);
    let mut extra = Extra::default();
    let mut infos = vec![];
    each(bytes, model_place, &mut extra, |field| {
        let (v, n) = (field.value, field.number);
        match n {
            1 => f.name = at(model_place, n)(v.string())?,
            4 => inputs.push(at(model_place, n)(v.string())?),
            5 => outputs.push(at(model_place, n)(v.string())?),
            6 => f.attributes.push(at(model_place, n)(v.string())?),
            7 => nodes.push(at(model_place, n)(v.bytes())?),
            8 => f.graph.doc_string = at(model_place, n)(v.string())?,
            9 => f.opsets.push(opset(at(model_place, n)(v.bytes())?, model_place)?),
            10 => f.domain = at(model_place, n)(v.string())?,
            11 => defaults.push(at(model_place, n)(v.bytes())?),
            12 => infos.push(at(model_place, n)(v.bytes())?),
            13 => f.overload = at(model_place, n)(v.string())?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    f.extra = extra;
    let name = f.name.clone();
    let place = model_place.inside("function", &name);
    let mut reader = Reader { values: Values::default(), scopes: vec![HashMap::new()], folder };
    for b in defaults {
        let a = reader.attribute(b, &place)?;
        f.attribute_defaults.list.push(a);
    }
    for name in inputs {
        let id = reader.declare(Value { name, ..Value::default() });
        f.graph.inputs.push(id);
    }
    let raw: Vec<RawNode> = nodes.into_iter().map(|b| raw_node(b, &place)).collect::<Result<_>>()?;
    for out in raw.iter().flat_map(|n| &n.outputs).filter(|o| !o.is_empty()) {
        if reader.here(out).is_some() {
            return Err(place.error(format!("computes '{out}' twice")));
        }
        reader.declare(Value { name: out.clone(), ..Value::default() });
    }
    for b in infos {
        let info = value_info(b, &place)?;
        if let Some(id) = reader.here(&info.name) {
            reader.values[id].ty = info.ty;
            f.graph.value_info.push(id);
        }
    }
    for node in raw {
        let node = reader.node(node, &place)?;
        match reader.constant_node(node, &place)? {
            Ok(id) => f.graph.constants.push(id),
            Err(node) => f.graph.nodes.push(node),
        }
    }
    for name in outputs {
        f.graph.outputs.push(reader.here(&name).ok_or_else(|| place.error(format!("output '{name}' is made by no node")))?);
    }
    f.graph.sort(&reader.values)?;
    f.values = reader.values;
    Ok(f)
}
