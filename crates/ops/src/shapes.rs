//! Shape inference shared by many operators.
use crate::{OpError, ShapeCx};
use graph::{Dim, ValueType};
use tensor::{DType, Tensor};

/// A tensor type, or nothing if even the element type is unknown.
pub(crate) fn typed(dtype: Option<DType>, shape: Option<Vec<Dim>>) -> ValueType {
    dtype.map_or(ValueType::Unknown, |dtype| ValueType::Tensor { dtype, shape })
}

/// One output of the first input's element type.
pub(crate) fn like_first(cx: &ShapeCx, shape: Option<Vec<Dim>>) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(cx.dtype(0), shape)])
}

/// The output has the first input's type and shape.
pub(crate) fn same(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    like_first(cx, cx.shape(0).map(<[Dim]>::to_vec))
}

/// The first input's shape with `bool` elements.
pub(crate) fn same_bool(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(Some(DType::Bool), cx.shape(0).map(<[Dim]>::to_vec))])
}

/// All inputs broadcast; the first input's element type.
pub(crate) fn broadcast(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    like_first(cx, broadcast_inputs(cx, 0..cx.types.len())?)
}

/// All inputs broadcast; `bool` elements.
pub(crate) fn broadcast_bool(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(Some(DType::Bool), broadcast_inputs(cx, 0..cx.types.len())?)])
}

/// The shape that the shapes of some inputs broadcast to, if all their ranks are known.
pub(crate) fn broadcast_inputs(cx: &ShapeCx, mut which: impl Iterator<Item = usize>) -> Result<Option<Vec<Dim>>, OpError> {
    which.try_fold(Some(vec![]), |so_far: Option<Vec<Dim>>, i| match (so_far, cx.shape(i)) {
        (Some(a), Some(b)) => broadcast_dims(cx, &a, b).map(Some),
        _ => Ok(None),
    })
}

/// The shape two shapes broadcast to.
///
/// # Errors
/// If two known sizes contradict each other.
pub(crate) fn broadcast_dims(cx: &ShapeCx, a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, OpError> {
    let rank = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| if i + s.len() < rank { Dim::Known(1) } else { s[i + s.len() - rank].clone() };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (Dim::Known(1), other) | (other, Dim::Known(1)) => Ok(other),
            (Dim::Known(x), Dim::Known(y)) => Err(cx.node.error(format!("sizes {x} and {y} do not broadcast")).into()),
            // A size other than 1 wins over an unknown one, which can only be 1 or equal.
            (Dim::Known(n), _) | (_, Dim::Known(n)) => Ok(Dim::Known(n)),
            _ => Ok(Dim::Unknown),
        })
        .collect()
}

/// Elements of a known input as integers.
pub(crate) fn known_ints(cx: &ShapeCx, i: usize) -> Option<Vec<i64>> {
    cx.values.get(i)?.as_ref().and_then(|t: &Tensor| t.to_i64_vec().ok())
}

/// Axes from input `i` or the attribute: `Ok(None)` if neither is given, `Err(())` if the input is given but not known.
pub(crate) fn axes_if_known(cx: &ShapeCx, i: usize, attribute: &str) -> Result<Result<Option<Vec<i64>>, ()>, OpError> {
    match (cx.node.input(i), known_ints(cx, i)) {
        (Some(_), Some(axes)) => Ok(Ok(Some(axes))),
        (Some(_), None) => Ok(Err(())),
        (None, _) => Ok(Ok(cx.node.ints(attribute)?)),
    }
}

/// A shape of this many unknown sizes.
pub(crate) fn unknown(rank: usize) -> Vec<Dim> {
    vec![Dim::Unknown; rank]
}

/// Most axes of a tensor: a larger number in a file is not used.
const MOST_AXES: usize = 1024;

/// The number of elements of a rank-1 input that holds one for each axis of a tensor, if known.
pub(crate) fn vector_length(cx: &ShapeCx, i: usize) -> Option<usize> {
    match cx.shape(i)? {
        [dim] => dim.known().filter(|n| *n <= MOST_AXES),
        _ => None,
    }
}

/// Several axes as indices below `rank`.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    list.iter().map(|a| tensor::shape::axis("axes", *a, rank).map_err(OpError::from)).collect()
}
