//! Annotations: how values are compressed. A table beside the graph, keyed by value, never in node attributes.
use crate::ValueId;
use std::collections::BTreeMap;
use tensor::Tensor;

/// A setting of an encoding.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Setting {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

/// The parameter of a weight's encoding that holds the scale of the folded weight, where the BatchNormalization behind it
/// stays an operator: the working scale follows from it and the running statistics.
pub const FOLDED_SCALE: &str = "folded_scale";

/// How a value is stored: the kind names a file of the `encodings` crate, which alone reads the settings and parameters.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Encoding {
    /// The encoding's name (`affine`, ...).
    pub kind: String,
    /// Its fixed settings (bits, axis, signed, ...).
    pub settings: BTreeMap<String, Setting>,
    /// Its own tensors (scale, zero_point, codebook, ...), trainable where the encoding says so.
    pub parameters: BTreeMap<String, Tensor>,
}

/// The compression of one value.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Annotation {
    /// Which elements are kept: bool, of the value's shape. Only on weights.
    pub mask: Option<Tensor>,
    /// How the value is stored.
    pub encoding: Option<Encoding>,
}

impl Annotation {
    /// True if there is neither a mask nor an encoding.
    pub fn is_empty(&self) -> bool {
        self.mask.is_none() && self.encoding.is_none()
    }
}

/// The table. Iterates in the order of value ids, so everything derived from it is deterministic.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Annotations {
    table: BTreeMap<ValueId, Annotation>,
}

impl Annotations {
    /// The annotation of a value.
    pub fn get(&self, id: ValueId) -> Option<&Annotation> {
        self.table.get(&id)
    }

    /// The mask of a value.
    pub fn mask(&self, id: ValueId) -> Option<&Tensor> {
        self.get(id)?.mask.as_ref()
    }

    /// The encoding of a value.
    pub fn encoding(&self, id: ValueId) -> Option<&Encoding> {
        self.get(id)?.encoding.as_ref()
    }

    /// The annotation of a value, created empty.
    pub fn entry(&mut self, id: ValueId) -> &mut Annotation {
        self.table.entry(id).or_default()
    }

    /// Removes and returns the annotation of a value.
    pub fn remove(&mut self, id: ValueId) -> Option<Annotation> {
        self.table.remove(&id)
    }

    /// All annotations.
    pub fn iter(&self) -> impl Iterator<Item = (ValueId, &Annotation)> {
        self.table.iter().filter(|(_, a)| !a.is_empty()).map(|(k, v)| (*k, v))
    }

    /// All annotations, for editing.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ValueId, &mut Annotation)> {
        self.table.iter_mut().map(|(k, v)| (*k, v))
    }

    /// Number of annotated values.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// True if nothing is annotated.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
