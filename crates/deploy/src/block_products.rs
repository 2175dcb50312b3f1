//! MatMulNBits, ONNX Runtime's product with a weight of few bits in blocks, as a MatMul whose weight has an encoding. Weights of language models are
//! stored in it, by GPTQ and round-to-nearest tools.
use crate::grid::positive;
use crate::{DeployError, Result};
use encodings::affine::Blocks;
use encodings::{Along, Decode};
use graph::{Model, Names, Node, ValueId};
use tensor::{DType, Tensor};

/// Its integers `[K, N]`, with scales and zero points `[blocks, N]`.
struct Weight {
    integers: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    size: usize,
}

/// Rewrites the main graph's nodes with constant weights. Returns how many weights were annotated. A node whose inputs are divided into groups by
/// indices, whose zero points are floats, or whose scales are not f32 or not positive, stays as it is.
///
/// # Errors
/// [`DeployError::Lower`] if a weight cannot be decoded.
pub(crate) fn lift(model: &mut Model) -> Result<usize> {
    let theirs = |n: &Node| n.op_type == "MatMulNBits" && n.domain == "com.microsoft";
    if !model.graph.nodes.iter().any(theirs) {
        return Ok(0);
    }
    let (mut nodes, mut values) = (Names::of_nodes(&model.graph), Names::of(&model.values));
    let (mut out, mut lifted) = (vec![], 0);
    for node in std::mem::take(&mut model.graph.nodes) {
        let found = if theirs(&node) { read(model, &node) } else { None };
        let (Some(found), Some(data), Some(made)) = (found, node.input(0), node.output(0)) else {
            out.push(node);
            continue;
        };
        let name = values.fresh(&format!("{}_weight", node.label(&model.values)));
        let fail = |e: encodings::EncodingError| DeployError::Lower { value: name.clone(), what: e.to_string() };
        let blocks = Blocks { along: Along { axis: 0, flat: false }, size: found.size };
        let decode = Decode::Affine { scale: found.scale, zero_point: found.zero_point, axis: None, blocks: Some(blocks) };
        let encoding = decode.encoding().map_err(fail)?;
        let real = encodings::read(&found.integers, &encoding).map_err(fail)?;
        let weight = model.values.add_constant(name.clone(), real);
        model.graph.constants.push(weight);
        model.annotations.entry(weight).encoding = Some(encoding);
        lifted += 1;
        let label = nodes.fresh(&format!("{}_MatMul", node.label(&model.values)));
        match node.input(5) {
            Some(bias) => {
                let product = model.values.add_named(values.fresh(&format!("{}_product", model.values[made].name)));
                model.values[product].ty = model.values[made].ty.clone();
                out.push(Node::new("MatMul", label, &[data, weight], &[product]));
                let add = nodes.fresh(&format!("{}_Add", node.label(&model.values)));
                out.push(Node::new("Add", add, &[product, bias], &[made]));
            }
            None => out.push(Node::new("MatMul", label, &[data, weight], &[made])),
        }
    }
    model.graph.nodes = out;
    Ok(lifted)
}

fn read(model: &Model, node: &Node) -> Option<Weight> {
    let number = |name: &str| node.int_or(name, 0).ok().and_then(|v| usize::try_from(v).ok()).filter(|v| *v > 0);
    let (k, n, size) = (number("K")?, number("N")?, number("block_size")?);
    let bits = node.int_or("bits", 4).ok().filter(|b| matches!(b, 2 | 4 | 8))? as u32;
    let constant = |i: usize| node.input(i).and_then(|v: ValueId| model.constant(v));
    if node.input(4).is_some() || (node.input(3).is_some() && constant(3).is_none()) {
        return None;
    }
    let count = k.div_ceil(size);
    let packed = constant(1).filter(|t| t.dtype() == DType::U8)?;
    let scale = constant(2).filter(|t| t.dtype() == DType::F32 && Some(t.len()) == n.checked_mul(count))?;
    let integers = encodings::unpack(packed.as_slice::<u8>().ok()?, bits, packed.len().checked_mul(8 / bits as usize)?)?;
    let width = integers.len() / n;
    if Some(width) != count.checked_mul(size) || !integers.len().is_multiple_of(n) || !positive(scale) {
        return None;
    }
    let half = 1i64 << (bits - 1);
    let zeros = match constant(3) {
        None => None,
        Some(t) if t.dtype() == DType::U8 => {
            let all = encodings::unpack(t.as_slice::<u8>().ok()?, bits, t.len().checked_mul(8 / bits as usize)?)?;
            let row = all.len() / n;
            (row >= count && all.len().is_multiple_of(n)).then_some(())?;
            Some((0..count * n).map(|i| i64::from(all[i % n * row + i / n])).collect::<Vec<i64>>())
        }
        Some(_) => return None,
    };
    // Without zero points the middle is zero: signed integers have it there.
    let (dtype, off) = match (bits, zeros.is_some()) {
        (2, true) => (DType::U2, 0),
        (2, false) => (DType::I2, half),
        (4, true) => (DType::U4, 0),
        (4, false) => (DType::I4, half),
        (_, true) => (DType::U8, 0),
        (_, false) => (DType::I8, half),
    };
    let stored: Vec<i64> = (0..k * n).map(|i| i64::from(integers[i % n * width + i / n]) - off).collect();
    let zeros = zeros.unwrap_or_else(|| vec![0; count * n]);
    Some(Weight {
        integers: Tensor::new(stored, [k, n]).ok()?.cast(dtype).ok()?,
        scale: scale.reshape([n, count]).ok()?.transpose(&[1, 0]).ok()?,
        zero_point: Tensor::new(zeros, [count, n]).ok()?.cast(dtype).ok()?,
        size,
    })
}
