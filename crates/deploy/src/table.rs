//! Weights that are decoded from a table, read from the operators that [`crate::lower`] writes for them.
use encodings::{Decode, Stored, unpack};
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
    let (gather, scale) = match maker.op_type.as_str() {
        "Mul" => (reader.maker(maker.input(0)?)?, Some(reader.constant(maker, 1)?)),
        _ => (maker, None),
    };
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
    let (data, bits) = reader.indices(cast)?;
    let (mut axis, mut group) = (None, usize::MAX);
    if let Some(starts) = starts {
        axis = Some(channel_axis(starts, data.shape())?);
        let starts = starts.to_i64_vec().ok()?;
        group = starts.iter().position(|s| *s != 0)?;
        if !starts.iter().enumerate().all(|(c, s)| *s == ((c / group) << bits) as i64) {
            return None;
        }
    }
    let scale = match scale {
        None => None,
        Some(scale) => {
            let along = channel_axis(scale, data.shape())?;
            if *axis.get_or_insert(along) != along || scale.dtype() != DType::F32 {
                return None;
            }
            Some(scale.reshape([scale.len()]).ok()?)
        }
    };
    let tables = axis.map_or(1, |axis| data.shape()[axis].div_ceil(group)).max(1);
    if table.len() != tables << bits {
        return None;
    }
    let table = table.reshape([tables, 1 << bits]).ok()?;
    Some(Stored { data, decode: Decode::Table { table, bits, axis, group, scale } })
}

/// What the nodes make that decode weights from tables, the weights included.
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
