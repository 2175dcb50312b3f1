//! Arithmetic on shapes: element counts, strides, broadcasting.
use crate::{Result, TensorError};

/// Most elements of a tensor: a larger shape is taken for a mistake and refused before memory is allocated.
pub const MAX_ELEMENTS: usize = 1 << 31;

/// Number of elements.
///
/// # Errors
/// [`TensorError::Shape`] if there are more than [`MAX_ELEMENTS`], or none and strides that cannot be counted.
pub fn count(shape: &[usize]) -> Result<usize> {
    // The axes of an empty tensor count too: its strides are computed as those of any other.
    let all = shape.iter().filter(|d| **d != 0).try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= isize::MAX as usize);
    let empty = shape.contains(&0);
    all.filter(|n| empty || *n <= MAX_ELEMENTS)
        .map(|n| if empty { 0 } else { n })
        .ok_or_else(|| TensorError::shape("shape", format!("{shape:?} has more than {MAX_ELEMENTS} elements")))
}

/// Row-major strides, in elements.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut s = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        s[i - 1] = s[i] * shape[i];
    }
    s
}

/// The shape two shapes broadcast to, as NumPy does.
pub fn broadcast(op: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(TensorError::shape(op, format!("{a:?} and {b:?} do not broadcast"))),
        })
        .collect()
}

/// Strides that read a tensor of shape `from` as if it had shape `to` (0 along broadcast axes). `from` must broadcast to `to`.
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let own = strides(from);
    let lead = to.len() - from.len();
    (0..to.len()).map(|i| if i < lead || from[i - lead] == 1 { 0 } else { own[i - lead] }).collect()
}

/// A possibly negative axis as an index below `rank`.
pub fn axis(op: &'static str, axis: i64, rank: usize) -> Result<usize> {
    let r = rank as i64;
    let a = if axis < 0 { axis + r } else { axis };
    if (0..r).contains(&a) {
        Ok(a as usize)
    } else {
        Err(TensorError::shape(op, format!("axis {axis} is outside a tensor of rank {rank}")))
    }
}

/// First position and count of NumPy's slice `start:end:step` of an axis of size `dim`.
///
/// # Errors
/// [`TensorError::Shape`] for a step of zero.
pub fn slice_range(dim: usize, start: i64, end: i64, step: i64) -> Result<(i64, usize)> {
    let d = dim as i64;
    let from_end = |p: i64| if p < 0 { p.saturating_add(d) } else { p };
    match step {
        0 => Err(TensorError::shape("slice", "a step of zero")),
        1.. => {
            let (start, end) = (from_end(start).clamp(0, d), from_end(end).clamp(0, d));
            let len = (end - start).max(0) as u64;
            Ok((start, len.div_ceil(step as u64) as usize))
        }
        _ => {
            let (start, end) = (from_end(start).clamp(-1, d - 1), from_end(end).clamp(-1, d - 1));
            let len = (start - end).max(0) as u64;
            Ok((start.max(0), len.div_ceil(step.unsigned_abs()) as usize))
        }
    }
}
