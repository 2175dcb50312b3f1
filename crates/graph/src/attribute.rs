//! Attributes of nodes.
use crate::{Extra, Graph, GraphError, Node};
use tensor::Tensor;

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum AttributeValue {
    Int(i64),
    Float(f32),
    String(Vec<u8>),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<Vec<u8>>),
    Tensors(Vec<Tensor>),
    Graphs(Vec<Graph>),
    /// In a function's body: the value of the function's attribute of that name.
    Reference(String),
    /// A type, a sparse tensor, or a kind newer than we know: the whole serialized attribute.
    Other(Extra),
}

/// A named attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// The attribute's name as ONNX spells it: `kernel_shape`.
    pub name: String,
    /// The value: an integer, a float, a string, a tensor, a graph, or a list of these.
    pub value: AttributeValue,
    /// Serialized fields that we do not model (doc_string, ...).
    pub extra: Extra,
}

/// The attributes of a node, in the file's order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Attributes {
    /// The attributes; names are unique.
    pub list: Vec<Attribute>,
}

impl Attributes {
    /// The attribute's value, if present.
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.list.iter().find(|a| a.name == name).map(|a| &a.value)
    }

    /// Sets or replaces an attribute.
    pub fn set(&mut self, name: &str, value: AttributeValue) {
        match self.list.iter_mut().find(|a| a.name == name) {
            Some(a) => a.value = value,
            None => self.list.push(Attribute { name: name.to_string(), value, extra: Extra::default() }),
        }
    }

    /// Removes an attribute and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<AttributeValue> {
        let i = self.list.iter().position(|a| a.name == name)?;
        Some(self.list.remove(i).value)
    }
}

macro_rules! typed {
    ($(#[$doc:meta])* $get:ident, $or:ident, $variant:ident, $ty:ty, $what:literal, $v:ident => $copy:expr) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`GraphError::Attribute`] if it is of another type.
        pub fn $get(&self, name: &str) -> Result<Option<$ty>, GraphError> {
            match self.attributes.get(name) {
                None => Ok(None),
                Some(AttributeValue::$variant($v)) => Ok(Some($copy)),
                Some(_) => Err(self.attribute_error(name, concat!("is not ", $what))),
            }
        }
        /// The same, or a default where it is absent.
        ///
        /// # Errors
        /// [`GraphError::Attribute`] if it is of another type.
        pub fn $or(&self, name: &str, default: $ty) -> Result<$ty, GraphError> {
            Ok(self.$get(name)?.unwrap_or(default))
        }
    };
}

impl Node {
    typed!(/// An integer attribute.
        int, int_or, Int, i64, "an integer", v => *v);
    typed!(/// A float attribute.
        float, float_or, Float, f32, "a float", v => *v);
    typed!(/// A list of integers.
        ints, ints_or, Ints, Vec<i64>, "a list of integers", v => v.clone());
    typed!(/// A list of floats.
        floats, floats_or, Floats, Vec<f32>, "a list of floats", v => v.clone());

    /// A string attribute, or a default where it is absent.
    ///
    /// # Errors
    /// [`GraphError::Attribute`] if it is of another type or not UTF-8.
    pub fn string_or<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str, GraphError> {
        match self.attributes.get(name) {
            None => Ok(default),
            Some(AttributeValue::String(s)) => std::str::from_utf8(s).map_err(|_| self.attribute_error(name, "is not UTF-8")),
            Some(_) => Err(self.attribute_error(name, "is not a string")),
        }
    }

    /// A subgraph attribute that must be present.
    ///
    /// # Errors
    /// [`GraphError::Attribute`] if it is absent or of another type.
    pub fn subgraph(&self, name: &str) -> Result<&Graph, GraphError> {
        match self.attributes.get(name) {
            Some(AttributeValue::Graph(g)) => Ok(g),
            Some(_) => Err(self.attribute_error(name, "is not a graph")),
            None => Err(self.attribute_error(name, "is missing")),
        }
    }

    /// An integer attribute that must be present.
    ///
    /// # Errors
    /// [`GraphError::Attribute`] if it is absent or of another type.
    pub fn int_required(&self, name: &str) -> Result<i64, GraphError> {
        self.int(name)?.ok_or_else(|| self.attribute_error(name, "is missing"))
    }

    /// An error about one of this node's attributes.
    pub fn attribute_error(&self, attribute: &str, what: impl Into<String>) -> GraphError {
        GraphError::Attribute {
            node: self.name.clone(),
            op_type: self.op_type.clone(),
            attribute: attribute.to_string(),
            what: what.into(),
        }
    }

    /// An error about this node.
    pub fn error(&self, what: impl Into<String>) -> GraphError {
        GraphError::Node { node: self.name.clone(), op_type: self.op_type.clone(), what: what.into() }
    }
}
