//! From [`graph::Model`] to protobuf. Every message writes its known fields, then the fields that it carried through.
use crate::attribute;
use crate::data_type;
use crate::tensor_proto::{self, write_entry};
use crate::wire::Message;
use graph::{Attribute, AttributeValue, Dim, Function, Graph, Model, Node, Opset, Origin, Value, ValueId, ValueType, Values};

/// The model's bytes, and those of the file `beside` it that external tensors are laid out in anew; without one they go into
/// the model.
pub(crate) fn model(m: &Model, beside: Option<&str>) -> (Vec<u8>, Vec<u8>) {
    let mut w = Writer { values: &m.values, beside, data: vec![] };
    let mut out = Message::default();
    out.int(1, ir_version(m));
    out.text(2, &m.producer_name);
    out.text(3, &m.producer_version);
    out.text(4, &m.domain);
    out.int_nonzero(5, m.model_version);
    out.text(6, &m.doc_string);
    out.message(7, w.graph(&m.graph));
    m.opsets.iter().for_each(|o| out.message(8, opset(o)));
    m.metadata.iter().for_each(|(k, v)| out.message(14, write_entry(k, v)));
    m.functions.iter().for_each(|f| out.message(25, function(f)));
    out.raw(&m.extra.0);
    (out.0, w.data)
}

/// The model's version of the format, raised to 4 if a graph has an initializer that is not an input too; before version 4 each
/// had to be one.
fn ir_version(m: &Model) -> i64 {
    let own = |g: &Graph| {
        let written = |v: &ValueId| m.values[*v].constant.as_ref().is_some_and(|c| !matches!(c.origin, Origin::ConstantNode { .. }));
        g.constants.iter().any(|v| written(v) && !g.inputs.contains(v))
    };
    let mut needed = own(&m.graph);
    m.graph.visit(&mut |node| needed |= node.subgraphs().any(own));
    if needed { m.ir_version.max(4) } else { m.ir_version }
}

fn opset(o: &Opset) -> Message {
    let mut m = Message::default();
    m.text(1, &o.domain);
    m.int(2, o.version);
    m.raw(&o.extra.0);
    m
}

struct Writer<'a> {
    values: &'a Values,
    /// The name of the file that external tensors go to.
    beside: Option<&'a str>,
    /// Its bytes so far.
    data: Vec<u8>,
}

impl Writer<'_> {
    fn name(&self, v: Option<ValueId>) -> &str {
        v.map_or("", |v| self.values[v].name.as_str())
    }

    fn graph(&mut self, g: &Graph) -> Message {
        let mut m = Message::default();
        // A constant that came from a node is written as a node again, before all its possible readers.
        for v in &g.constants {
            if let Some(node) = self.constant_node(*v) {
                m.message(1, node);
            }
        }
        for node in &g.nodes {
            let node = self.node(node);
            m.message(1, node);
        }
        m.text(2, &g.name);
        for v in &g.constants {
            self.initializer(&mut m, *v);
        }
        m.text(10, &g.doc_string);
        g.inputs.iter().for_each(|v| m.message(11, value_info(&self.values[*v])));
        g.outputs.iter().for_each(|v| m.message(12, value_info(&self.values[*v])));
        g.value_info.iter().for_each(|v| m.message(13, value_info(&self.values[*v])));
        m.raw(&g.extra.0);
        m
    }

    fn initializer(&mut self, m: &mut Message, v: ValueId) {
        let value = &self.values[v];
        let Some(c) = &value.constant else { return };
        match (&c.origin, self.beside) {
            (Origin::ConstantNode { .. }, _) => {}
            (Origin::SparseInitializer, _) => match tensor_proto::write_sparse(&value.name, &c.tensor, &c.extra) {
                Some(sparse) => m.message(15, sparse),
                None => m.message(5, tensor_proto::write(&value.name, &c.tensor, &c.extra, None)),
            },
            (Origin::External { entries, .. }, Some(location)) => {
                let Some(bytes) = data_type::to_bytes(&c.tensor) else {
                    return m.message(5, tensor_proto::write(&value.name, &c.tensor, &c.extra, None));
                };
                // Page-aligned, as ONNX recommends for memory mapping.
                self.data.resize(self.data.len().next_multiple_of(4096), 0);
                let offset = self.data.len() as u64;
                self.data.extend(&bytes);
                let mut entries: Vec<(String, String)> =
                    entries.iter().filter(|(k, _)| k != "length" && k != "checksum").cloned().collect();
                entries.push(("length".into(), bytes.len().to_string()));
                m.message(5, tensor_proto::write(&value.name, &c.tensor, &c.extra, Some((location, offset, &entries))));
            }
            (Origin::Initializer | Origin::External { .. }, _) => m.message(5, tensor_proto::write(&value.name, &c.tensor, &c.extra, None)),
        }
    }

    /// The `Constant` node that a constant came from. An attribute other than `value` is kept if the tensor still fits it.
    fn constant_node(&mut self, v: ValueId) -> Option<Message> {
        let value = &self.values[v];
        let c = value.constant.as_ref()?;
        let Origin::ConstantNode { name, attribute, extra } = &c.origin else { return None };
        let t = &c.tensor;
        let floats = || t.as_slice::<f32>().ok().map(<[f32]>::to_vec);
        let ints = || t.as_slice::<i64>().ok().map(<[i64]>::to_vec);
        let strings = || t.as_slice::<String>().ok().map(|s| s.iter().map(|s| s.as_bytes().to_vec()).collect::<Vec<_>>());
        let typed = match (attribute.as_str(), t.rank()) {
            ("value_float", 0) => floats().map(|v| AttributeValue::Float(v[0])),
            ("value_int", 0) => ints().map(|v| AttributeValue::Int(v[0])),
            ("value_string", 0) => strings().map(|v| AttributeValue::String(v[0].clone())),
            ("value_floats", 1) => floats().map(AttributeValue::Floats),
            ("value_ints", 1) => ints().map(AttributeValue::Ints),
            ("value_strings", 1) => strings().map(AttributeValue::Strings),
            _ => None,
        };
        let (attribute, typed) = match typed {
            Some(t) => (attribute.clone(), t),
            None => ("value".to_string(), AttributeValue::Tensor(t.clone())),
        };
        let mut m = Message::default();
        m.text(2, &value.name);
        m.text(3, name);
        m.text(4, "Constant");
        m.message(5, self.attribute(&Attribute { name: attribute, value: typed, extra: c.extra.clone() }));
        m.raw(&extra.0);
        Some(m)
    }

    fn node(&mut self, n: &Node) -> Message {
        let mut m = Message::default();
        n.inputs.iter().for_each(|v| m.bytes(1, self.name(*v).as_bytes()));
        n.outputs.iter().for_each(|v| m.bytes(2, self.name(*v).as_bytes()));
        m.text(3, &n.name);
        m.text(4, &n.op_type);
        for a in &n.attributes.list {
            let a = self.attribute(a);
            m.message(5, a);
        }
        m.text(6, &n.doc_string);
        m.text(7, &n.domain);
        m.text(8, &n.overload);
        m.raw(&n.extra.0);
        m
    }

    fn attribute(&mut self, a: &Attribute) -> Message {
        let mut m = Message::default();
        if let AttributeValue::Other(raw) = &a.value {
            m.raw(&raw.0);
            return m;
        }
        let (of_tensor, own) = attribute::split_extra(&a.extra);
        m.text(1, &a.name);
        let kind = match &a.value {
            AttributeValue::Float(v) => {
                m.float(2, *v);
                1
            }
            AttributeValue::Int(v) => {
                m.int(3, *v);
                2
            }
            AttributeValue::String(v) => {
                m.bytes(4, v);
                3
            }
            AttributeValue::Tensor(t) => {
                m.message(5, tensor_proto::write("", t, &of_tensor, None));
                4
            }
            AttributeValue::Graph(g) => {
                let g = self.graph(g);
                m.message(6, g);
                5
            }
            AttributeValue::Floats(v) => {
                v.iter().for_each(|v| m.float(7, *v));
                6
            }
            AttributeValue::Ints(v) => {
                v.iter().for_each(|v| m.int(8, *v));
                7
            }
            AttributeValue::Strings(v) => {
                v.iter().for_each(|v| m.bytes(9, v));
                8
            }
            AttributeValue::Tensors(v) => {
                v.iter().for_each(|t| m.message(10, tensor_proto::write("", t, &graph::Extra::default(), None)));
                9
            }
            AttributeValue::Graphs(v) => {
                for g in v {
                    let g = self.graph(g);
                    m.message(11, g);
                }
                10
            }
            AttributeValue::Reference(name) => {
                m.text(21, name);
                0
            }
            AttributeValue::Other(_) => 0,
        };
        m.int_nonzero(20, kind);
        m.raw(&own.0);
        m
    }
}

fn value_info(v: &Value) -> Message {
    let mut m = Message::default();
    m.text(1, &v.name);
    match &v.ty {
        ValueType::Unknown => {}
        ValueType::Other(raw) => m.bytes(2, &raw.0),
        ValueType::Tensor { dtype, shape } => {
            let mut tensor = Message::default();
            tensor.int(1, data_type::number(*dtype));
            if let Some(shape) = shape {
                let mut dims = Message::default();
                for d in shape {
                    let mut dim = Message::default();
                    match d {
                        Dim::Known(n) => dim.int(1, *n as i64),
                        Dim::Symbol(s) => dim.text(2, s),
                        Dim::Unknown => {}
                    }
                    dims.message(1, dim);
                }
                tensor.message(2, dims);
            }
            let mut ty = Message::default();
            ty.message(1, tensor);
            m.message(2, ty);
        }
    }
    m.raw(&v.extra.0);
    m
}

fn function(f: &Function) -> Message {
    let mut w = Writer { values: &f.values, beside: None, data: vec![] };
    let mut m = Message::default();
    m.text(1, &f.name);
    f.graph.inputs.iter().for_each(|v| m.bytes(4, f.values[*v].name.as_bytes()));
    f.graph.outputs.iter().for_each(|v| m.bytes(5, f.values[*v].name.as_bytes()));
    f.attributes.iter().for_each(|a| m.bytes(6, a.as_bytes()));
    for v in &f.graph.constants {
        if let Some(node) = w.constant_node(*v) {
            m.message(7, node);
        }
    }
    for n in &f.graph.nodes {
        let n = w.node(n);
        m.message(7, n);
    }
    m.text(8, &f.graph.doc_string);
    f.opsets.iter().for_each(|o| m.message(9, opset(o)));
    m.text(10, &f.domain);
    for a in &f.attribute_defaults.list {
        let a = w.attribute(a);
        m.message(11, a);
    }
    f.graph.value_info.iter().for_each(|v| m.message(12, value_info(&f.values[*v])));
    m.text(13, &f.overload);
    m.raw(&f.extra.0);
    m
}
