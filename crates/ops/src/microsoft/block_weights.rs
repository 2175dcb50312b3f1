//! Integers of few bits packed in bytes, with one scale for each block.
use crate::OpError;
use graph::Node;
use tensor::{DType, Tensor};

/// The integers in bytes, the lowest bits first.
pub(crate) fn unpacked(node: &Node, bytes: &[u8], bits: i64) -> Result<Vec<f32>, OpError> {
    if !matches!(bits, 1 | 2 | 4 | 8) {
        return Err(OpError::unsupported(node, format!("integers of {bits} bits")));
    }
    let (bits, mask) = (bits as u32, (1u16 << bits) - 1);
    Ok(bytes.iter().flat_map(|byte| (0..8 / bits).map(move |i| f32::from((u16::from(*byte) >> (i * bits)) & mask))).collect())
}

/// Rows of `len` zero points, from bytes that hold whole rows of packed integers, or as they are.
pub(crate) fn zero_points(node: &Node, given: Option<&Tensor>, bits: i64, rows: usize, len: usize) -> Result<Vec<f32>, OpError> {
    let Some(given) = given else { return Ok(vec![(1u32 << (bits - 1).clamp(0, 7)) as f32; rows * len]) };
    let list = match given.dtype() {
        DType::U8 => unpacked(node, given.as_slice::<u8>()?, bits)?,
        _ => given.to_f32_vec()?,
    };
    let wide = list.len() / rows.max(1);
    if wide < len || wide * rows != list.len() {
        return Err(node.error(format!("{} zero points for {rows} rows of {len} blocks", list.len())).into());
    }
    Ok(list.chunks(wide.max(1)).flat_map(|row| row[..len].to_vec()).collect())
}

/// An integer attribute that must be positive.
pub(crate) fn count(node: &Node, name: &'static str, default: Option<i64>) -> Result<usize, OpError> {
    let given = node.int(name)?.or(default).and_then(|v| usize::try_from(v).ok()).filter(|v| *v > 0);
    given.ok_or_else(|| node.attribute_error(name, "must be given, and positive").into())
}
