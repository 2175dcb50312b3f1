//! Fixed rearrangements: DepthToSpace, SpaceToDepth, ReverseSequence, Trilu.
use crate::couples::{
    Couples, CouplesCx,
    Place::{Input, Output},
    pass,
};
use crate::shapes::{like_first, same};
use crate::simple::{Simple, one};
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{Tensor, shape};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("DepthToSpace", "Moves channels into blocks of pixels.", &[1, 11, 13, 28], depth_to_space, infer_depth_to_space)
        .moves()
        .couples(depth_to_space_couples),
    &Simple::new("SpaceToDepth", "Moves blocks of pixels into channels.", &[1, 13, 28], space_to_depth, infer_space_to_depth)
        .moves()
        .couples(space_to_depth_couples),
    &Simple::new("ReverseSequence", "Reverses each sequence of a batch, up to its own length.", &[10, 28], reverse_sequence, same).moves(),
    &Simple::new("Trilu", "The upper or lower triangle of matrices.", &[14], trilu, same).moves(),
];

/// Block size, and whether the channel is the slower index (CRD) or the block position (DCR).
fn block(node: &Node) -> Result<(usize, bool), OpError> {
    let size = node.int_required("blocksize")?;
    // The square of the block size must be a valid number of channels.
    let size = usize::try_from(size)
        .ok()
        .filter(|b| (1..1 << 31).contains(b))
        .ok_or_else(|| node.attribute_error("blocksize", format!("is {size}")))?;
    match node.string_or("mode", "DCR")? {
        "DCR" => Ok((size, false)),
        "CRD" => Ok((size, true)),
        other => Err(node.attribute_error("mode", format!("is '{other}'; 'DCR' or 'CRD' is needed")).into()),
    }
}

fn image(node: &Node, x: &Tensor) -> Result<[usize; 4], OpError> {
    <[usize; 4]>::try_from(x.shape()).map_err(|_| node.error(format!("[n, c, h, w] is needed, not {:?}", x.shape())).into())
}

fn depth_to_space(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let (b, channel_first) = block(cx.node)?;
    let [n, c, h, w] = image(cx.node, x)?;
    if !c.is_multiple_of(b * b) {
        return Err(cx.node.error(format!("{c} channels do not divide into blocks of {b} by {b}")).into());
    }
    let d = c / (b * b);
    let y = match channel_first {
        true => x.reshape([n, d, b, b, h, w])?.transpose(&[0, 1, 4, 2, 5, 3])?,
        false => x.reshape([n, b, b, d, h, w])?.transpose(&[0, 3, 4, 1, 5, 2])?,
    };
    one(y.reshape([n, d, h * b, w * b])?)
}

fn space_to_depth(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let (b, channel_first) = block(cx.node)?;
    let [n, c, h, w] = image(cx.node, x)?;
    if !h.is_multiple_of(b) || !w.is_multiple_of(b) {
        return Err(cx.node.error(format!("an image of {h} by {w} does not divide into blocks of {b} by {b}")).into());
    }
    let order = if channel_first { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
    one(x.reshape([n, c, h / b, b, w / b, b])?.transpose(&order)?.reshape([n, c * b * b, h / b, w / b])?)
}

fn scaled(cx: &ShapeCx, channels: fn(usize, usize) -> usize, space: fn(usize, usize) -> usize) -> Result<Vec<ValueType>, OpError> {
    let Some(dims) = cx.shape(0) else { return like_first(cx, None) };
    let (b, _) = block(cx.node)?;
    let of = |i: usize, f: fn(usize, usize) -> usize, by: usize| dims[i].known().map_or(Dim::Unknown, |d| Dim::Known(f(d, by)));
    if dims.len() != 4 {
        return Err(cx.node.error(format!("an input of {} axes, where 4 are needed", dims.len())).into());
    }
    like_first(cx, Some(vec![dims[0].clone(), of(1, channels, b * b), of(2, space, b), of(3, space, b)]))
}

fn infer_depth_to_space(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    scaled(cx, |c, by| c / by, usize::saturating_mul)
}

fn infer_space_to_depth(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    scaled(cx, usize::saturating_mul, |s, by| s / by)
}

fn reverse_sequence(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, lengths) = (inputs.get(0)?, inputs.get(1)?.to_i64_vec()?);
    let batch_axis = shape::axis("batch_axis", cx.node.int_or("batch_axis", 1)?, x.rank())?;
    let time_axis = shape::axis("time_axis", cx.node.int_or("time_axis", 0)?, x.rank())?;
    let (batch, time) = (x.shape()[batch_axis], x.shape()[time_axis]);
    if batch_axis == time_axis || lengths.len() != batch || lengths.iter().any(|l| *l < 0 || *l > time as i64) {
        let what = format!("lengths {lengths:?} for {batch} sequences of {time} steps (axes {batch_axis} and {time_axis})");
        return Err(cx.node.error(what).into());
    }
    // In the layout [batch, time, rest] the reversal is one Gather of rows.
    let mut order = vec![batch_axis, time_axis];
    order.extend((0..x.rank()).filter(|i| *i != batch_axis && *i != time_axis));
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, o)| back[*o] = i);
    let rows = x.transpose(&order)?;
    let shape = rows.shape().to_vec();
    let source = lengths
        .iter()
        .enumerate()
        .flat_map(|(b, len)| (0..time as i64).map(move |t| (b * time) as i64 + if t < *len { len - 1 - t } else { t }));
    let source = Tensor::vector(source.collect::<Vec<i64>>());
    let flat = rows.reshape([&[batch * time], &shape[2..]].concat())?;
    one(flat.gather(&source, 0)?.reshape(shape)?.transpose(&back)?)
}

fn trilu(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let diagonal = match inputs.opt(1) {
        Some(k) => k.to_i64_vec()?.first().copied().unwrap_or(0),
        None => 0,
    };
    one(inputs.get(0)?.trilu(diagonal, cx.node.int_or("upper", 1)? != 0)?)
}

/// The channels that become the pixels of a block go with the block's channel.
fn depth_to_space_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let ((b, channel_first), Some(c)) = (block(cx.node)?, cx.size(Input(0, 1))) else { return Ok(()) };
    let d = (c / (b * b)).max(1);
    pass(out, 0..1);
    out.tie_at(Input(0, 1), Output(0, 1), (0..c).map(|i| (i, if channel_first { i / (b * b) } else { i % d })));
    Ok(())
}

fn space_to_depth_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let ((b, channel_first), Some(c)) = (block(cx.node)?, cx.size(Input(0, 1))) else { return Ok(()) };
    pass(out, 0..1);
    out.tie_at(Input(0, 1), Output(0, 1), (0..c * b * b).map(|o| (if channel_first { o / (b * b) } else { o % c.max(1) }, o)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, ints, iota};

    #[test]
    fn space_and_depth_are_each_others_inverse() {
        let x = iota(&[1, 8, 2, 3]);
        let y = Case::new("DepthToSpace", 13).int("blocksize", 2).run(std::slice::from_ref(&x));
        assert_eq!(y.shape(), [1, 2, 4, 6]);
        assert_eq!(y.as_slice::<f32>().unwrap()[..4], [0.0, 12.0, 1.0, 13.0]);
        assert_eq!(Case::new("SpaceToDepth", 13).int("blocksize", 2).run(&[y]), x);
        let y = Case::new("DepthToSpace", 13).int("blocksize", 2).string("mode", "CRD").run(&[x]);
        assert_eq!(y.as_slice::<f32>().unwrap()[..4], [0.0, 6.0, 1.0, 7.0]);
    }

    #[test]
    fn sequences_turn_round_up_to_their_length() {
        let x = iota(&[3, 2]);
        let y = Case::new("ReverseSequence", 10).run(&[x, ints(&[2, 3])]);
        assert_eq!(y.as_slice::<f32>().unwrap(), [2.0, 5.0, 0.0, 3.0, 4.0, 1.0]);
    }
}
