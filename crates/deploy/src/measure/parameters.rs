//! Parameters and zeros, counted on a file's own graph.
use crate::digits::{Kind, kind_of};
use crate::{DeployError, Result, table};
use encodings::affine::Blocks;
use encodings::{Along, Decode, Stored};
use graph::{Graph, Model, Node, ValueId};
use ops::{Role, Roles};
use std::collections::{BTreeMap, HashMap};
use tensor::{DType, Tensor};

/// One weight, by the name the file gives its stored form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightCount {
    /// Name of the stored tensor.
    pub name: String,
    /// Number of elements.
    pub elements: u64,
    /// Number of elements whose stored value stands for zero.
    pub zeros: u64,
    /// Bytes they take in a file, a codebook's table and scales included.
    pub bytes: u64,
    /// How they are stored: `int8 per channel` behind a DequantizeLinear, `4-bit codebook per tensor` behind the nodes that
    /// decode it; absent: as they are.
    pub stored_as: Option<String>,
}

/// Parameters that a model stores for its layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Elements of weights, biases and normalization parameters (not running statistics).
    pub total: u64,
    /// Number of those elements that are not zero.
    pub nonzero: u64,
    /// The weights alone, in the graph's order.
    pub weights: Vec<WeightCount>,
}

impl Parameters {
    /// Zeros among the weights, 0..1.
    pub fn sparsity(&self) -> f64 {
        let (zeros, all) = self.weights.iter().fold((0, 0), |(z, n), w| (z + w.zeros, n + w.elements));
        zeros as f64 / all.max(1) as f64
    }
}

/// Counts the parameters of a model; a weight behind DequantizeLinear is counted in its stored form, an element being zero
/// if it equals its zero point. A tensor that several nodes read is counted once. Masks that are not applied do not count.
///
/// # Errors
/// If an element type cannot be read.
pub fn parameters(model: &Model) -> Result<Parameters> {
    let mut stored = StoredValues::new(model);
    let mut out = Parameters::default();
    let mut failed = None;
    let roles = Roles::of(model);
    let decoded = table::decoded(&model.graph, &table::makers(&model.graph), &|v| model.values.tensor(v));
    model.graph.visit(&mut |node| {
        // Nodes that decode a weight read tables, not parameters.
        if node.output(0).is_some_and(|v| decoded.contains(&v)) {
            return;
        }
        for i in 0..node.inputs.len() {
            let role = roles.role(node, i);
            if !matches!(role, Role::Weight | Role::Bias | Role::NormScale | Role::NormBias) {
                continue;
            }
            match node.input(i).map(|v| stored.first_count(v)) {
                Some(Ok(Some(count))) => {
                    out.total += count.elements;
                    out.nonzero += count.elements - count.zeros;
                    if role == Role::Weight {
                        out.weights.push(count);
                    }
                }
                Some(Err(e)) => {
                    failed.get_or_insert(e);
                }
                _ => {}
            }
        }
    });
    failed.map_or(Ok(out), Err)
}

/// Finds the stored form of a value: a constant, or the constant that a DequantizeLinear reads.
pub struct StoredValues<'m> {
    model: &'m Model,
    dequantizers: HashMap<ValueId, &'m Node>,
    makers: HashMap<ValueId, &'m Node>,
    counted: BTreeMap<ValueId, WeightCount>,
}

impl<'m> StoredValues<'m> {
    /// Of a model's values.
    pub fn new(model: &'m Model) -> Self {
        let mut dequantizers = HashMap::new();
        collect(&model.graph, &mut dequantizers);
        StoredValues { model, dequantizers, makers: table::makers(&model.graph), counted: BTreeMap::new() }
    }

    /// Elements and zeros of a constant value, `None` if it is computed.
    ///
    /// # Errors
    /// If its element type cannot be read.
    pub fn count(&mut self, value: ValueId) -> Result<Option<WeightCount>> {
        if let Some(count) = self.count_table(value)? {
            return Ok(Some(count));
        }
        // What lowering writes behind blocks that lie along several axes.
        let reshape = |n: &&&Node| n.op_type == "Reshape"; // tidy: allow
        let before = self.makers.get(&value).filter(reshape).filter(|_| !self.dequantizers.contains_key(&value));
        let value = before.and_then(|n| n.input(0)).filter(|v| self.dequantizers.contains_key(v)).unwrap_or(value);
        let (stored, zero_point) = match self.dequantizers.get(&value) {
            Some(node) => (node.input(0), node.input(2)),
            None => (Some(value), None),
        };
        let Some((stored, tensor)) = stored.and_then(|v| Some((v, self.model.values.tensor(v)?))) else { return Ok(None) };
        if let Some(known) = self.counted.get(&stored) {
            return Ok(Some(known.clone()));
        }
        let zero_point = zero_point.and_then(|v| self.model.values.tensor(v));
        let axis = self.dequantizers.get(&value).map_or(Ok(1), |n| n.int_or("axis", 1))?;
        let block_size = self.dequantizers.get(&value).map_or(Ok(0), |n| n.int_or("block_size", 0))?;
        let zeros = zeros(tensor, zero_point, axis, usize::try_from(block_size).unwrap_or(0))?;
        let stored_as = self.dequantizers.get(&value).map(|node| {
            let scales = node.input(1).and_then(|v| self.model.values.tensor(v)).map_or(0, |s| s.rank());
            let per = match node.int_or("block_size", 0) {
                Ok(size) if size > 0 => format!("group of {size}"),
                _ => ["tensor", "channel"].get(scales).unwrap_or(&"block").to_string(),
            };
            format!("{} per {per}", tensor.dtype())
        });
        let (elements, mut bytes) = (tensor.len() as u64, bytes_of(tensor));
        // Scales for groups are a part of what a weight takes.
        if let Some(node) = self.dequantizers.get(&value).filter(|n| n.int_or("block_size", 0).is_ok_and(|size| size > 0)) {
            bytes += [1, 2].iter().filter_map(|i| self.model.values.tensor(node.input(*i)?)).map(bytes_of).sum::<u64>();
        }
        let count = WeightCount { name: self.model.values[stored].name.clone(), elements, zeros, bytes, stored_as };
        self.counted.insert(stored, count.clone());
        Ok(Some(count))
    }

    /// A weight that is decoded from a table, under the name of the decoded value.
    fn count_table(&mut self, value: ValueId) -> Result<Option<WeightCount>> {
        if let Some(known) = self.counted.get(&value) {
            return Ok(Some(known.clone()));
        }
        let model = self.model;
        let Some(stored) = table::read(value, &self.makers, &|v| model.values.tensor(v)) else { return Ok(None) };
        let name = self.model.values[value].name.clone();
        let error = |e: encodings::EncodingError| DeployError::Lower { value: name.clone(), what: e.to_string() };
        let encoding = stored.decode.encoding().map_err(error)?;
        let real = encodings::read(&stored.data, &encoding).map_err(error)?;
        let Decode::Table { table, bits, scale, .. } = &stored.decode else {
            return self.count_whole_numbers(value, &stored, encodings::describe(&encoding));
        };
        // A table that follows from the digits is not stored.
        let kind = kind_of(&stored);
        let levels = kind.map_or(table.len(), |kind| if kind.unit { 0 } else { (table.len() >> bits) * usize::from(kind.base) });
        let parameters = 4 * (levels + scale.as_ref().map_or(0, Tensor::len)) as u64;
        let elements = real.len() as u64;
        let packed = match kind {
            Some(Kind { base: 3, .. }) => elements.div_ceil(5),
            _ => (elements * u64::from(*bits)).div_ceil(8),
        };
        let count = WeightCount {
            elements: real.len() as u64,
            zeros: zeros(&real, None, 0, 0)?,
            bytes: packed + parameters,
            stored_as: Some(encodings::describe(&encoding)),
            name,
        };
        self.counted.insert(value, count.clone());
        Ok(Some(count))
    }

    /// A weight of integers behind Cast and Mul, as it is counted behind DequantizeLinear: under the name of the integers.
    fn count_whole_numbers(&mut self, value: ValueId, stored: &Stored, stored_as: String) -> Result<Option<WeightCount>> {
        let data = &stored.data;
        let mut integers = value;
        while let Some(node) = self.makers.get(&integers) {
            let Some(before) = node.input(0) else { return Ok(None) };
            integers = before;
        }
        if let Some(known) = self.counted.get(&integers) {
            return Ok(Some(known.clone()));
        }
        let scales = match &stored.decode {
            Decode::Affine { blocks: Some(_), scale, .. } => {
                let half = scale.cast(DType::F16)?.cast(DType::F32)? == *scale;
                (scale.len() * if half { 2 } else { 4 }) as u64
            }
            _ => 0,
        };
        let count = WeightCount {
            name: self.model.values[integers].name.clone(),
            elements: data.len() as u64,
            zeros: zeros(data, None, 0, 0)?,
            bytes: bytes_of(data) + scales,
            stored_as: Some(stored_as),
        };
        self.counted.insert(integers, count.clone());
        Ok(Some(count))
    }

    /// As [`StoredValues::count`], but `None` too if the stored tensor was counted before.
    ///
    /// # Errors
    /// As [`StoredValues::count`].
    pub fn first_count(&mut self, value: ValueId) -> Result<Option<WeightCount>> {
        let before = self.counted.len();
        let count = self.count(value)?;
        Ok(count.filter(|_| self.counted.len() > before))
    }
}

fn bytes_of(tensor: &Tensor) -> u64 {
    (tensor.len() * tensor.dtype().bits()).div_ceil(8) as u64
}

fn collect<'m>(graph: &'m Graph, into: &mut HashMap<ValueId, &'m Node>) {
    graph.visit(&mut |node| {
        if let ("DequantizeLinear", Some(out)) = (node.op_type.as_str(), node.output(0)) {
            into.insert(out, node);
        }
    });
}

fn zeros(tensor: &Tensor, zero_point: Option<&Tensor>, axis: i64, block_size: usize) -> Result<u64> {
    let values = tensor.to_f32_vec()?;
    let points = zero_point.map(|z| z.to_f32_vec()).transpose()?.unwrap_or_default();
    let zeros = match points.as_slice() {
        [] => values.iter().filter(|v| **v == 0.0).count(),
        [point] => values.iter().filter(|v| **v == *point).count(),
        points if block_size > 0 => {
            let along = Along { axis: tensor::shape::axis("zeros", axis, tensor.rank())?, flat: false };
            let layout = Blocks { along, size: block_size }.layout(tensor.shape());
            let layout = layout.map_err(|e| DeployError::Measure { what: e.to_string() })?;
            values.iter().enumerate().filter(|(i, v)| points.get(layout.scale_of(*i)) == Some(*v)).count()
        }
        points => {
            let axis = tensor::shape::axis("zeros", axis, tensor.rank())?;
            let inner: usize = tensor.shape()[axis + 1..].iter().product();
            values.iter().enumerate().filter(|(i, v)| **v == points[i / inner.max(1) % points.len()]).count()
        }
    };
    Ok(zeros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_counted_against_each_channels_zero_point() {
        let t = Tensor::new(vec![0i8, 3, 3, 0], [2, 2]).unwrap();
        assert_eq!(zeros(&t, None, 0, 0).unwrap(), 2);
        assert_eq!(zeros(&t, Some(&Tensor::scalar(3i8)), 0, 0).unwrap(), 2);
        assert_eq!(zeros(&t, Some(&Tensor::vector(vec![0i8, 3])), 0, 0).unwrap(), 2);
        assert_eq!(zeros(&t, Some(&Tensor::vector(vec![0i8, 3])), 1, 0).unwrap(), 2);
        assert_eq!(zeros(&t, Some(&Tensor::vector(vec![3i8, 1])), 0, 0).unwrap(), 1);
    }
}
