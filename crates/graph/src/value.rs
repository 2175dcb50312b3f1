//! Values, the edges of a graph, and the table that owns them.
use crate::Extra;
use tensor::{DType, Tensor};

/// Names a value of one [`crate::Model`], unique across its subgraphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// One dimension of a declared shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A known size.
    Known(usize),
    /// A named size, equal wherever the name stands.
    Symbol(String),
    /// An unknown size.
    Unknown,
}

impl Dim {
    /// The size, if known.
    pub fn known(&self) -> Option<usize> {
        if let Dim::Known(n) = self { Some(*n) } else { None }
    }
}

/// The declared type of a value.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum ValueType {
    /// Nothing is declared.
    #[default]
    Unknown,
    /// A dense tensor; `shape` is `None` where even the rank is unknown.
    Tensor {
        /// Element type.
        dtype: DType,
        /// Declared shape.
        shape: Option<Vec<Dim>>,
    },
    /// A sequence, optional, map or sparse tensor: kept as its serialized type.
    Other(Extra),
}

/// Where a constant came from, so that it goes back there on export.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// A dense initializer.
    Initializer,
    /// A sparse initializer.
    SparseInitializer,
    /// An initializer whose bytes lie in another file.
    External {
        /// Path relative to the model's folder.
        location: String,
        /// First byte in that file.
        offset: u64,
        /// The other entries (`checksum`, ...) as found.
        entries: Vec<(String, String)>,
    },
    /// A `Constant` node.
    ConstantNode {
        /// The node's name.
        name: String,
        /// Which attribute held the value (`value`, `value_float`, `value_ints`, `sparse_value`, ...).
        attribute: String,
        /// Serialized fields of the node that we do not model.
        extra: Extra,
    },
}

/// A value known before the graph runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// The elements, with shape and element type.
    pub tensor: Tensor,
    /// Where it came from.
    pub origin: Origin,
    /// Serialized fields of the stored tensor that we do not model (doc_string, metadata).
    pub extra: Extra,
}

/// A value: a graph input, a constant, or an output of a node.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Value {
    /// Its ONNX name.
    pub name: String,
    /// Its declared or inferred type.
    pub ty: ValueType,
    /// Its elements, if it is a constant.
    pub constant: Option<Constant>,
    /// Serialized `ValueInfoProto` fields that we do not model (doc_string, metadata_props).
    pub extra: Extra,
}

impl Value {
    /// Declared element type, if it is a tensor's.
    pub fn dtype(&self) -> Option<DType> {
        match (&self.ty, &self.constant) {
            (ValueType::Tensor { dtype, .. }, _) => Some(*dtype),
            (_, Some(c)) => Some(c.tensor.dtype()),
            _ => None,
        }
    }

    /// Declared shape, or the constant's own.
    pub fn shape(&self) -> Option<Vec<Dim>> {
        match (&self.ty, &self.constant) {
            (_, Some(c)) => Some(c.tensor.shape().iter().map(|d| Dim::Known(*d)).collect()),
            (ValueType::Tensor { shape, .. }, None) => shape.clone(),
            _ => None,
        }
    }
}

/// The table of all values of a model.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Values {
    list: Vec<Value>,
}

impl Values {
    /// Adds a value. Names need not be unique here: scoping is the graph's affair.
    pub fn add(&mut self, value: Value) -> ValueId {
        self.list.push(value);
        ValueId((self.list.len() - 1) as u32)
    }

    /// Adds a constant as an initializer.
    pub fn add_constant(&mut self, name: impl Into<String>, tensor: Tensor) -> ValueId {
        let ty = ValueType::Tensor { dtype: tensor.dtype(), shape: Some(tensor.shape().iter().map(|d| Dim::Known(*d)).collect()) };
        self.add(Value {
            name: name.into(),
            ty,
            constant: Some(Constant { tensor, origin: Origin::Initializer, extra: Extra::default() }),
            extra: Extra::default(),
        })
    }

    /// Adds an intermediate value of unknown type.
    pub fn add_named(&mut self, name: impl Into<String>) -> ValueId {
        self.add(Value { name: name.into(), ..Value::default() })
    }

    /// All values with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.list.iter().enumerate().map(|(i, v)| (ValueId(i as u32), v))
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The value, if the id is of this table.
    pub fn get(&self, id: ValueId) -> Option<&Value> {
        self.list.get(id.0 as usize)
    }

    /// The constant's elements, if the value is one.
    pub fn tensor(&self, id: ValueId) -> Option<&Tensor> {
        self.get(id)?.constant.as_ref().map(|c| &c.tensor)
    }

    /// Replaces a constant's elements; false if the value is not a constant.
    pub fn set_tensor(&mut self, id: ValueId, tensor: Tensor) -> bool {
        let Some(value) = self.list.get_mut(id.0 as usize) else { return false };
        if let ValueType::Tensor { dtype, shape } = &mut value.ty {
            *dtype = tensor.dtype();
            *shape = Some(tensor.shape().iter().map(|d| Dim::Known(*d)).collect());
        }
        match &mut value.constant {
            Some(c) => {
                c.tensor = tensor;
                true
            }
            None => false,
        }
    }
}

impl std::ops::Index<ValueId> for Values {
    type Output = Value;
    fn index(&self, id: ValueId) -> &Value {
        &self.list[id.0 as usize]
    }
}

impl std::ops::IndexMut<ValueId> for Values {
    fn index_mut(&mut self, id: ValueId) -> &mut Value {
        &mut self.list[id.0 as usize]
    }
}
