//! Weights that are decoded from a table, or from integers by Cast and Mul, read from the operators that [`crate::lower`] writes for them.
use crate::digits::Kind;
use crate::grid::positive;
use encodings::affine::Blocks;
use encodings::{Along, Decode, Stored, unpack};
use graph::{Graph, Node, ValueId};
use std::collections::{HashMap, HashSet};
use tensor::{DType, Tensor};

/// The nodes of a graph and its subgraphs by what they make.
pub(crate) fn makers(graph: &Graph) -> HashMap<ValueId, &Node> {
    let mut out = HashMap::new();
    graph.visit(&mut |node| out.extend(node.outputs.iter().flatten().map(|v| (*v, node))));
    out
}

/// The stored form of a value that such operators decode; `None` for any other value.
pub(crate) fn read<'m>(
    value: ValueId,
    makers: &HashMap<ValueId, &'m Node>,
    constant: &dyn Fn(ValueId) -> Option<&'m Tensor>,
) -> Option<Stored> {
    let reader = Reader { makers, constant };
    let maker = reader.maker(value)?;
    if let Some(stored) = reader.blocks(maker) {
        return Some(stored);
    }
    let (gather, scale) = match maker.op_type.as_str() {
        "Mul" => (reader.maker(maker.input(0)?)?, Some(reader.constant(maker, 1)?)),
        _ => (maker, None),
    };
    if let ("Cast", Some(scale)) = (gather.op_type.as_str(), scale) {
        return reader.whole_numbers(gather, scale);
    }
    if gather.op_type == "Reshape" {
        return reader.units(gather, scale);
    }
    if gather.op_type != "Gather" || gather.int_or("axis", 0).ok()? != 0 {
        return None;
    }
    let table = reader.constant(gather, 0).filter(|t| t.rank() == 1 && t.dtype() == DType::F32)?;
    let mut cast = reader.maker(gather.input(1)?)?;
    let mut starts = None;
    if cast.op_type == "Add" {
        starts = Some(reader.constant(cast, 1)?);
        cast = reader.maker(cast.input(0)?)?;
    }
    let (data, bits, entries) = match cast.op_type.as_str() {
        "Reshape" => {
            let (data, kind) = reader.digits(cast).filter(|(_, kind)| !kind.unit)?;
            (data, kind.bits(), usize::from(kind.base))
        }
        _ => {
            let (data, bits) = reader.indices(cast)?;
            (data, bits, 1 << bits)
        }
    };
    let (mut axis, mut group) = (None, usize::MAX);
    if let Some(starts) = starts {
        axis = Some(channel_axis(starts, data.shape())?);
        let starts = starts.to_i64_vec().ok()?;
        group = starts.iter().position(|s| *s != 0)?;
        if !starts.iter().enumerate().all(|(c, s)| *s == (c / group * entries) as i64) {
            return None;
        }
    }
    let scale = channel_scale(scale, data.shape(), &mut axis)?;
    let tables = axis.map_or(1, |axis| data.shape()[axis].div_ceil(group)).max(1);
    if table.len() != tables * entries {
        return None;
    }
    // Where three of four levels are stored, the fourth repeats the third.
    let padded = |t: &[f32]| t.iter().chain(t.last()).copied().take(1 << bits).collect::<Vec<f32>>();
    let levels: Vec<f32> = table.to_f32_vec().ok()?.chunks(entries).flat_map(padded).collect();
    let table = Tensor::new(levels, [tables, 1 << bits]).ok()?;
    Some(Stored { data, decode: Decode::Table { table, bits, axis, group, scale } })
}

/// True for the result of a DequantizeLinear, and for a weight that [`read`] knows.
pub(crate) fn is_decoded<'m>(
    value: ValueId,
    makers: &HashMap<ValueId, &'m Node>,
    constant: &dyn Fn(ValueId) -> Option<&'m Tensor>,
) -> bool {
    let dequantized = makers.get(&value).is_some_and(|n| n.op_type == "DequantizeLinear" && n.is_onnx());
    dequantized || read(value, makers, constant).is_some()
}

/// Outputs of the nodes that decode weights from tables, the weights included.
pub(crate) fn decoded<'m>(
    graph: &Graph,
    makers: &HashMap<ValueId, &'m Node>,
    constant: &dyn Fn(ValueId) -> Option<&'m Tensor>,
) -> HashSet<ValueId> {
    let mut found = HashSet::new();
    graph.visit(&mut |node| {
        let Some(weight) = node.output(0).filter(|v| read(*v, makers, constant).is_some()) else { return };
        let mut open = vec![weight];
        while let Some(value) = open.pop() {
            if let Some(maker) = makers.get(&value)
                && found.insert(value)
            {
                open.extend(maker.inputs.iter().flatten());
            }
        }
    });
    found
}

/// The scales of channels as a list, `Some(None)` where there are none; `None` for what is not such a tensor, or lies along another axis.
fn channel_scale(scale: Option<&Tensor>, shape: &[usize], axis: &mut Option<usize>) -> Option<Option<Tensor>> {
    let Some(scale) = scale else { return Some(None) };
    let along = channel_axis(scale, shape)?;
    if *axis.get_or_insert(along) != along || scale.dtype() != DType::F32 {
        return None;
    }
    Some(Some(scale.reshape([scale.len()]).ok()?))
}

/// The axis along which a tensor has a number for each index, all others being 1.
fn channel_axis(tensor: &Tensor, shape: &[usize]) -> Option<usize> {
    let along = |axis: &usize| tensor.shape().iter().enumerate().all(|(i, d)| *d == if i == *axis { shape[i] } else { 1 });
    (0..shape.len()).filter(|_| tensor.rank() == shape.len()).find(along)
}

struct Reader<'r, 'm> {
    makers: &'r HashMap<ValueId, &'m Node>,
    constant: &'r dyn Fn(ValueId) -> Option<&'m Tensor>,
}

impl<'m> Reader<'_, 'm> {
    fn maker(&self, value: ValueId) -> Option<&'m Node> {
        self.makers.get(&value).copied().filter(|n| n.is_onnx() && n.outputs.len() == 1)
    }

    /// The node of this type that makes an input.
    fn before(&self, node: &Node, op_type: &str) -> Option<&'m Node> {
        self.maker(node.input(0)?).filter(|n| n.op_type == op_type)
    }

    fn constant(&self, node: &Node, input: usize) -> Option<&'m Tensor> {
        (self.constant)(node.input(input)?)
    }

    /// A weight of signed integers with a scale, or one for each index along an axis, from the Cast in front of the Mul by the scales.
    fn whole_numbers(&self, cast: &Node, scale: &Tensor) -> Option<Stored> {
        let data = self.constant(cast, 0).filter(|t| matches!(t.dtype(), DType::I16 | DType::I8 | DType::I4 | DType::I2))?.clone();
        let to_float = cast.int_or("to", 0).ok()? == graph::code_of_dtype(DType::F32);
        if !to_float || scale.dtype() != DType::F32 || data.rank() == 0 {
            return None;
        }
        let axis = if scale.rank() == 0 { None } else { Some(channel_axis(scale, data.shape())?) };
        let scale = scale.reshape(if axis.is_some() { vec![scale.len()] } else { vec![] }).ok()?;
        let zero_point = Tensor::full(0f32, scale.shape()).and_then(|z| z.cast(data.dtype())).ok()?;
        Some(Stored { data, decode: Decode::Affine { scale, zero_point, axis, blocks: None } })
    }

    /// A weight of signed integers with a scale for each block, from the last node that decodes it: see `lower/blocks.rs`.
    fn blocks(&self, last: &Node) -> Option<Stored> {
        let (product, shape) = match last.op_type.as_str() {
            "Reshape" => (self.before(last, "Mul")?, Some(self.sizes(last, 1)?)),
            "Mul" => (last, None),
            _ => return None,
        };
        let to_float = |cast: &Node| cast.int_or("to", 0).ok() == Some(graph::code_of_dtype(DType::F32));
        let data = self.constant(self.before(product, "Cast").filter(|cast| to_float(cast))?, 0)?;
        let data = Some(data).filter(|t| matches!(t.dtype(), DType::I16 | DType::I8 | DType::I4 | DType::I2))?;
        // The scales of blocks that do not fill the axis are repeated and cut off.
        let mut scale = product.input(1)?;
        let cut = self.maker(scale).filter(|n| n.op_type == "Slice");
        if let Some(cut) = cut {
            let rows = self.before(cut, "Reshape")?;
            scale = self.before(rows, "Expand")?.input(0)?;
        }
        let scale = match self.maker(scale) {
            Some(cast) if cast.op_type == "Cast" && to_float(cast) => self.constant(cast, 0)?.cast(DType::F32).ok()?,
            Some(_) => return None,
            None => (self.constant)(scale)?.clone(),
        };
        let &[outer, count, 1, inner] = scale.shape() else { return None };
        let (length, size) = match (cut, data.shape()) {
            (None, [o, c, size, i]) if (*o, *c, *i) == (outer, count, inner) => (count.checked_mul(*size)?, *size),
            (Some(cut), [o, length, i]) if (*o, *i) == (outer, inner) => {
                let repeated = self.sizes(self.before(self.before(cut, "Reshape")?, "Expand")?, 1)?;
                let whole = repeated.len() == 4 && repeated[2] > 0 && length.div_ceil(repeated[2]) == count;
                let numbers = [(1, 0), (2, *length), (3, 1)].iter().all(|(at, n)| self.sizes(cut, *at).is_some_and(|s| s == [*n]));
                (whole && numbers).then_some((*length, repeated[2]))?
            }
            _ => return None,
        };
        if !positive(&scale) {
            return None;
        }
        // One scale for each index of an axis is no scale for each block.
        if shape.is_none() && channel_axis(&scale, data.shape()).is_some() {
            return None;
        }
        let shape = shape.unwrap_or_else(|| data.shape().to_vec());
        let product = |dims: &[usize]| dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let fits = |along: &Along| {
            let end = if along.flat { shape.len() } else { along.axis + 1 };
            let parts = [&shape[..along.axis], &shape[along.axis..end], &shape[end..]].map(product);
            parts == [Some(outer), Some(length), Some(inner)]
        };
        let ways = [false, true].into_iter().flat_map(|flat| (0..shape.len()).map(move |axis| Along { axis, flat }));
        let blocks = Blocks { along: ways.clone().find(fits)?, size };
        let scale = scale.reshape(blocks.scale_shape(&shape).ok()?).ok()?;
        let zero_point = Tensor::full(0f32, scale.shape()).and_then(|z| z.cast(data.dtype())).ok()?;
        let data = data.reshape(shape.as_slice()).ok()?;
        Some(Stored { data, decode: Decode::Affine { scale, zero_point, axis: None, blocks: Some(blocks) } })
    }

    /// A constant list of sizes.
    fn sizes(&self, node: &Node, input: usize) -> Option<Vec<usize>> {
        self.constant(node, input)?.to_i64_vec().ok()?.into_iter().map(|d| usize::try_from(d).ok()).collect()
    }

    /// A weight of the levels -1 and 1, or -1, 0 and 1, from the Reshape that gives it its shape.
    fn units(&self, reshape: &Node, scale: Option<&Tensor>) -> Option<Stored> {
        let (data, kind) = self.digits(reshape).filter(|(_, kind)| kind.unit)?;
        let mut axis = None;
        let scale = channel_scale(scale, data.shape(), &mut axis)?;
        let levels = if kind.base == 2 { vec![-1f32, 1.0] } else { vec![-1.0, 0.0, 1.0, 1.0] };
        let table = Tensor::new(levels, [1, 1 << kind.bits()]).ok()?;
        Some(Stored { data, decode: Decode::Table { table, bits: kind.bits(), axis, group: usize::MAX, scale } })
    }

    /// A weight's digits as uint8 and how they are stored, from the Reshape behind a strip's Split.
    fn digits(&self, reshape: &Node) -> Option<(Tensor, Kind)> {
        let part = reshape.input(0)?;
        let split = self.makers.get(&part).filter(|n| n.is_onnx() && n.op_type == "Split" && n.int_or("axis", 0).ok() == Some(0))?;
        let at = split.outputs.iter().position(|v| *v == Some(part))?;
        let sizes = self.constant(split, 1)?.to_i64_vec().ok()?;
        let sizes: Vec<usize> = sizes.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<_>>()?;
        let from = sizes.get(..at)?.iter().try_fold(0usize, |sum, n| sum.checked_add(*n))?;
        let one = |tensor: &Tensor| tensor.to_f64_vec().ok().filter(|t| t.len() == 1).map(|t| t[0]);
        let mut behind = self.maker(split.input(0)?)?;
        let (mut unit, mut twice) = (false, false);
        if behind.op_type == "Sub" {
            unit = one(self.constant(behind, 1)?)? == 1.0;
            behind = self.maker(behind.input(0)?)?;
            if behind.op_type == "Mul" {
                twice = one(self.constant(behind, 1)?)? == 2.0;
                behind = self.maker(behind.input(0)?)?;
            }
            behind = self.before(Some(behind).filter(|n| n.op_type == "Cast" && unit)?, "Reshape")?;
        }
        let modulo = self.before(Some(behind).filter(|n| n.op_type == "Reshape")?, "Mod")?;
        let division = self.before(modulo, "Div")?;
        let base = one(self.constant(modulo, 1)?).filter(|b| [2.0, 3.0, 4.0, 8.0, 32.0, 64.0].contains(b))? as u8;
        let kind = Kind { base, unit };
        let mut ours = self.constant(division, 1)?.to_i64_vec().ok()? == kind.powers();
        let mut behind = division;
        if kind.word() > 1 {
            let sum = self.before(division, "ReduceSum")?;
            behind = self.before(sum, "Mul")?;
            ours &= self.constant(sum, 1)?.to_i64_vec().ok()? == [1] && self.constant(behind, 1)?.to_i64_vec().ok()? == kind.places();
        }
        let packed = self.constant(self.before(behind, "Cast")?, 0)?;
        let words = packed.dtype() == DType::U8 && packed.rank() == 2 && packed.shape()[1] == kind.word();
        if !ours || !words || (unit && (base > 3 || twice != (base == 2))) {
            return None;
        }
        let shape = self.constant(reshape, 1)?.to_i64_vec().ok()?;
        let shape: Vec<usize> = shape.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| Some(n) == sizes.get(at))?;
        let digits = kind.unpack(packed.as_slice::<u8>().ok()?, from, count)?;
        Some((Tensor::new(digits, shape.as_slice()).ok()?, kind))
    }

    /// Indices as uint8 with their width, from the Cast that makes integers of them.
    fn indices(&self, cast: &Node) -> Option<(Tensor, u32)> {
        if cast.op_type != "Cast" {
            return None;
        }
        if let Some(data) = self.constant(cast, 0) {
            let bits = match data.dtype() {
                DType::U4 => 4,
                DType::U8 => 8,
                _ => return None,
            };
            return Some((data.cast(DType::U8).ok()?, bits));
        }
        let product = self.before(cast, "MatMul")?;
        let powers = self.constant(product, 1)?.to_f64_vec().ok()?;
        let reshape = self.before(self.before(product, "Cast")?, "Reshape")?;
        let shape = self.constant(reshape, 1)?.to_i64_vec().ok()?;
        let mut behind = self.maker(reshape.input(0)?)?;
        if behind.op_type == "Slice" {
            behind = self.maker(self.before(behind, "Reshape")?.input(0)?)?;
        }
        let two = self.constant(behind, 1).filter(|_| behind.op_type == "Mod")?;
        let shift = self.before(behind, "BitShift")?;
        let shifts = self.constant(shift, 1)?.to_i64_vec().ok()?;
        let (width, shape) = shape.split_last()?;
        let ours = (1..8).contains(width)
            && powers.iter().enumerate().all(|(i, p)| *p == f64::from(1u32 << i))
            && powers.len() == *width as usize
            && shifts == (0..8).collect::<Vec<i64>>()
            && two.to_i64_vec().ok()? == [2];
        let shape: Vec<usize> = shape.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
        let packed = self.constant(shift, 0).filter(|p| ours && p.dtype() == DType::U8 && p.shape() == [p.len(), 1])?;
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| n.checked_mul(8).is_some())?;
        let indices = unpack(packed.as_slice::<u8>().ok()?, *width as u32, count)?;
        Some((Tensor::new(indices, shape.as_slice()).ok()?, *width as u32))
    }
}
