//! `AttributeProto`: the values of nodes' attributes.
use crate::error::{Place, Result};
use crate::import::{Reader, at, each};
use crate::tensor_proto;
use crate::wire::{Fields, Message};
use graph::{Attribute, AttributeValue, Extra};
use std::path::Path;
use tensor::Tensor;

/// Number of the field that holds a tensor.
pub(crate) const TENSOR: u32 = 5;

/// Splits the carried-through fields of an attribute into those of its tensor and its own.
pub(crate) fn split_extra(extra: &Extra) -> (Extra, Extra) {
    let (mut of_tensor, mut own) = (Extra::default(), Extra::default());
    let mut fields = Fields::new(&extra.0);
    while let Ok(Some(f)) = fields.next_field() {
        match (f.number, f.value.bytes()) {
            (TENSOR, Ok(bytes)) => of_tensor.0.extend(bytes),
            _ => own.0.extend(f.raw),
        }
    }
    (of_tensor, own)
}

impl Reader<'_> {
    /// Reads an `AttributeProto`.
    pub(crate) fn attribute(&mut self, bytes: &[u8], node_place: &Place) -> Result<Attribute> {
        let mut name = String::new();
        let (mut kind, mut reference) = (0, String::new());
        let mut parts = Parts::default();
        let mut extra = Extra::default();
        each(bytes, node_place, &mut extra, |f| {
            let (v, n) = (f.value, f.number);
            match n {
                1 => name = at(node_place, n)(v.string())?,
                2 => parts.float = Some(at(node_place, n)(v.float())?),
                3 => parts.int = Some(at(node_place, n)(v.int())?),
                4 => parts.string = Some(at(node_place, n)(v.bytes())?),
                5 => parts.tensor = Some(at(node_place, n)(v.bytes())?),
                6 => parts.graph = Some(at(node_place, n)(v.bytes())?),
                7 => at(node_place, n)(v.floats(&mut parts.floats))?,
                8 => at(node_place, n)(v.ints(&mut parts.ints))?,
                9 => parts.strings.push(at(node_place, n)(v.bytes())?.to_vec()),
                10 => parts.tensors.push(at(node_place, n)(v.bytes())?),
                11 => parts.graphs.push(at(node_place, n)(v.bytes())?),
                20 => kind = at(node_place, n)(v.int())?,
                21 => reference = at(node_place, n)(v.string())?,
                14 | 15 | 22 | 23 => return Ok(true),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let place = node_place.inside("attribute", &name);
        if !reference.is_empty() {
            // The type travels with the reference, so that it can be written back.
            let mut m = Message::default();
            m.int_nonzero(20, kind);
            extra.0.extend(m.0);
            return Ok(Attribute { name: name.clone(), value: AttributeValue::Reference(reference), extra });
        }
        let folder = self.folder;
        let tensor = |b: &[u8]| tensor_proto::read(b, folder, &place);
        let value = match if kind == 0 { parts.guess() } else { kind } {
            1 => AttributeValue::Float(parts.float.unwrap_or_default()),
            2 => AttributeValue::Int(parts.int.unwrap_or_default()),
            3 => AttributeValue::String(parts.string.unwrap_or_default().to_vec()),
            4 => {
                let stored = tensor(parts.tensor.ok_or_else(|| place.error("holds no tensor"))?)?;
                // The tensor's own name and unmodelled fields wait in a field of the tensor's number.
                let mut rest = Message::default();
                rest.text(8, &stored.name);
                rest.raw(&stored.extra.0);
                if !rest.0.is_empty() {
                    let mut m = Message(std::mem::take(&mut extra.0));
                    m.message(TENSOR, rest);
                    extra.0 = m.0;
                }
                AttributeValue::Tensor(stored.tensor)
            }
            5 => AttributeValue::Graph(Box::new(self.graph(parts.graph.ok_or_else(|| place.error("holds no graph"))?, &place)?)),
            6 => AttributeValue::Floats(parts.floats),
            7 => AttributeValue::Ints(parts.ints),
            8 => AttributeValue::Strings(parts.strings),
            9 => AttributeValue::Tensors(parts.tensors.iter().map(|b| tensor(b).map(|s| s.tensor)).collect::<Result<_>>()?),
            10 => AttributeValue::Graphs(parts.graphs.iter().map(|b| self.graph(b, &place)).collect::<Result<_>>()?),
            _ => return Ok(Attribute { name: name.clone(), value: AttributeValue::Other(Extra(bytes.to_vec())), extra: Extra::default() }),
        };
        Ok(Attribute { name: name.clone(), value, extra })
    }
}

#[derive(Default)]
struct Parts<'a> {
    float: Option<f32>,
    int: Option<i64>,
    string: Option<&'a [u8]>,
    tensor: Option<&'a [u8]>,
    graph: Option<&'a [u8]>,
    floats: Vec<f32>,
    ints: Vec<i64>,
    strings: Vec<Vec<u8>>,
    tensors: Vec<&'a [u8]>,
    graphs: Vec<&'a [u8]>,
}

impl Parts<'_> {
    /// The kind of an attribute written before the type field was required.
    fn guess(&self) -> i64 {
        let present = [
            (1, self.float.is_some()),
            (2, self.int.is_some()),
            (3, self.string.is_some()),
            (4, self.tensor.is_some()),
            (5, self.graph.is_some()),
            (6, !self.floats.is_empty()),
            (7, !self.ints.is_empty()),
            (8, !self.strings.is_empty()),
            (9, !self.tensors.is_empty()),
            (10, !self.graphs.is_empty()),
        ];
        present.iter().find(|(_, p)| *p).map_or(0, |(k, _)| *k)
    }
}

/// The tensor of an attribute that is a sparse tensor.
pub(crate) fn sparse_attribute(bytes: &[u8], folder: Option<&Path>, place: &Place) -> Result<Option<Tensor>> {
    let mut fields = Fields::new(bytes);
    while let Some(f) = fields.next_field().map_err(|e| place.error(e))? {
        if f.number == 22 {
            return tensor_proto::read_sparse(f.value.bytes().map_err(|e| place.error(e))?, folder, place).map(|s| Some(s.tensor));
        }
    }
    Ok(None)
}
