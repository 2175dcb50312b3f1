//! Operators that change only the shape or the order of the elements, and operators that return a shape.
use crate::couples::{
    Couples, CouplesCx, CutCx,
    Place::{Input, Output},
    elementwise, regrouped, set_ints,
};
use crate::shapes::{axes, axes_if_known, broadcast_dims, known_ints, like_first, same, typed, unknown, vector_length};
use crate::simple::{Constants, Simple, attribute_to_input, one};
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, Graph, Model, Node, ValueId, ValueType};
use tensor::{DType, Tensor, shape};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Identity", "Returns its input.", &[1, 13, 14, 16, 19, 21, 23, 24, 25], |_, mut i| one(i.take(0)?), same)
        .moves()
        .couples(elementwise),
    &Simple::new("Reshape", "The same elements under another shape.", &[1, 5, 13, 14, 19, 21, 23, 24, 25], reshape, infer_reshape)
        .moves()
        .couples(reshape_couples)
        .cut(cut_reshape)
        .upgrade(|node, to, _, constants| if to == 5 { attribute_to_input(node, "shape", 1, constants) } else { Ok(()) }),
    &Simple::new("Flatten", "A matrix: the axes before `axis` become rows, the others columns.", FLATTEN, flatten, infer_flatten)
        .moves()
        .couples(same_elements),
    &Simple::new("Transpose", "The axes in another order.", &[1, 13, 21, 23, 24, 25], transpose, infer_transpose)
        .moves()
        .couples(transpose_couples),
    &Simple::new("Squeeze", "Without axes of size 1.", &[1, 11, 13, 21, 23, 24, 25], squeeze, infer_squeeze)
        .moves()
        .couples(same_elements)
        .cut(cut_squeeze)
        .upgrade(axes_to_input_at_13),
    &Simple::new("Unsqueeze", "With more axes of size 1.", &[1, 11, 13, 21, 23, 24, 25], unsqueeze, infer_unsqueeze)
        .moves()
        .couples(same_elements)
        .upgrade(axes_to_input_at_13),
    &Simple::new("Expand", "Broadcast to a shape.", &[8, 13], expand, infer_expand).moves().couples(expand_couples).cut(cut_expand),
    &Simple::new("Tile", "Repeated along each axis.", &[1, 6, 13], tile, infer_tile).moves().couples(tile_couples),
    &Simple::new("Shape", "The sizes of the axes from `start` to `end`.", &[1, 13, 15, 19, 21, 23, 24, 25], shape_of, infer_shape_of)
        .couples(shape_couples),
    &Simple::new("Size", "The number of elements.", &[1, 13, 19, 21, 23, 24, 25], size_of, infer_size),
];

const FLATTEN: &[i64] = &[1, 9, 11, 13, 21, 23, 24, 25];

fn axes_to_input_at_13(node: &mut Node, to: i64, _: &[ValueType], constants: Constants) -> Result<(), OpError> {
    if to == 13 { attribute_to_input(node, "axes", 1, constants) } else { Ok(()) }
}

/// Axes from the second input, or the attribute of older versions.
fn given_axes(cx: &EvalCx, inputs: &Inputs) -> Result<Option<Vec<i64>>, OpError> {
    match inputs.opt(1) {
        Some(t) => Ok(Some(t.to_i64_vec()?)),
        None => Ok(cx.node.ints("axes")?),
    }
}

/// Sizes as a shape input holds them.
///
/// # Errors
/// If one is negative.
pub(crate) fn sizes(node: &Node, list: &[i64]) -> Result<Vec<usize>, OpError> {
    list.iter().map(|d| usize::try_from(*d).map_err(|_| node.error(format!("a size of {d}")).into())).collect()
}

fn reshape(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, target) = (inputs.get(0)?, inputs.get(1)?.to_i64_vec()?);
    let keep_zero = cx.node.int_or("allowzero", 0)? != 0;
    let mut to = Vec::with_capacity(target.len());
    let mut open = None;
    for (i, d) in target.iter().enumerate() {
        to.push(match d {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !keep_zero => *x.shape().get(i).ok_or_else(|| cx.node.error(format!("size 0 at {i} copies an axis that is not there")))?,
            _ => usize::try_from(*d).map_err(|_| cx.node.error(format!("shape {target:?}")))?,
        });
    }
    if let Some(i) = open {
        let rest = shape::count(&to)?;
        if rest == 0 || !x.len().is_multiple_of(rest) {
            return Err(cx.node.error(format!("{:?} cannot be reshaped to {target:?}", x.shape())).into());
        }
        to[i] = x.len() / rest;
    }
    one(x.reshape(to)?)
}

fn infer_reshape(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let Some(target) = known_ints(cx, 1) else { return like_first(cx, vector_length(cx, 1).map(unknown)) };
    let keep_zero = cx.node.int_or("allowzero", 0)? != 0;
    let from = cx.shape(0);
    let mut dims: Vec<Dim> = target
        .iter()
        .enumerate()
        .map(|(i, d)| match *d {
            0 if !keep_zero => from.and_then(|s| s.get(i).cloned()).unwrap_or(Dim::Unknown),
            d => usize::try_from(d).map_or(Dim::Unknown, Dim::Known),
        })
        .collect();
    if let (Some(open), Some(from)) = (target.iter().position(|d| *d == -1), from) {
        let others: Vec<Dim> = dims.iter().enumerate().filter(|(i, _)| *i != open).map(|(_, d)| d.clone()).collect();
        dims[open] = quotient(from, &others);
    }
    like_first(cx, Some(dims))
}

/// The size that remains when `from` is divided by the sizes `by`: names cancel, numbers divide.
fn quotient(from: &[Dim], by: &[Dim]) -> Dim {
    let mut left: Vec<Dim> = from.to_vec();
    let mut divisor = 1usize;
    for dim in by {
        match (dim, left.iter().position(|d| d == dim && *d != Dim::Unknown)) {
            (Dim::Symbol(_), Some(at)) => {
                left.remove(at);
            }
            (Dim::Known(n), _) => divisor = divisor.saturating_mul(*n),
            _ => return Dim::Unknown,
        }
    }
    let product: usize = left.iter().filter_map(Dim::known).fold(1, usize::saturating_mul);
    let mut open = left.into_iter().filter(|d| d.known().is_none());
    if divisor == 0 || !product.is_multiple_of(divisor) {
        return Dim::Unknown;
    }
    match (open.next(), open.next(), product / divisor) {
        (None, _, n) => Dim::Known(n),
        (Some(name), None, 1) => name,
        _ => Dim::Unknown,
    }
}

/// The axis where Flatten splits the shape; one past the last is allowed.
fn flatten_axis(node: &Node, rank: usize) -> Result<usize, OpError> {
    let axis = node.int_or("axis", 1)?;
    if axis == rank as i64 { Ok(rank) } else { Ok(shape::axis("axis", axis, rank)?) }
}

fn flatten(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let axis = flatten_axis(cx.node, x.rank())?;
    let (rows, columns) = x.shape().split_at(axis);
    one(x.reshape([rows.iter().product(), columns.iter().product()])?)
}

fn infer_flatten(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let Some(dims) = cx.shape(0) else { return like_first(cx, Some(unknown(2))) };
    let (rows, columns) = dims.split_at(flatten_axis(cx.node, dims.len())?);
    like_first(cx, Some(vec![quotient(rows, &[]), quotient(columns, &[])]))
}

fn permutation(node: &Node, rank: usize) -> Result<Vec<usize>, OpError> {
    match node.ints("perm")? {
        Some(list) => axes(&list, rank),
        None => Ok((0..rank).rev().collect()),
    }
}

fn transpose(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    one(x.transpose(&permutation(cx.node, x.rank())?)?)
}

fn infer_transpose(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let dims = match cx.shape(0) {
        Some(s) => Some(permutation(cx.node, s.len())?.into_iter().map(|p| s[p].clone()).collect()),
        None => cx.node.ints("perm")?.map(|p| unknown(p.len())),
    };
    like_first(cx, dims)
}

fn squeeze(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let which = match given_axes(cx, &inputs)? {
        Some(list) => axes(&list, x.rank())?,
        None => (0..x.rank()).filter(|i| x.shape()[*i] == 1).collect(),
    };
    one(x.squeeze(&which)?)
}

fn infer_squeeze(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let (Some(dims), Ok(given)) = (cx.shape(0), axes_if_known(cx, 1, "axes")?) else { return like_first(cx, None) };
    let gone = match given {
        Some(list) => axes(&list, dims.len())?,
        None if dims.iter().all(|d| d.known().is_some()) => (0..dims.len()).filter(|i| dims[*i] == Dim::Known(1)).collect(),
        None => return like_first(cx, None),
    };
    like_first(cx, Some(dims.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, d)| d.clone()).collect()))
}

fn unsqueeze(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let list = given_axes(cx, &inputs)?.ok_or_else(|| cx.node.error("it has no axes"))?;
    one(x.unsqueeze(&axes(&list, x.rank() + list.len())?)?)
}

fn infer_unsqueeze(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let (Some(dims), Ok(Some(list))) = (cx.shape(0), axes_if_known(cx, 1, "axes")?) else { return like_first(cx, None) };
    let mut at = axes(&list, dims.len() + list.len())?;
    at.sort_unstable();
    let mut to = dims.to_vec();
    for axis in at {
        if axis > to.len() {
            return Err(cx.node.error(format!("axes {list:?} added to {} axes", dims.len())).into());
        }
        to.insert(axis, Dim::Known(1));
    }
    like_first(cx, Some(to))
}

fn expand(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let to = sizes(cx.node, &inputs.get(1)?.to_i64_vec()?)?;
    // Broadcasting works both ways: a size of 1 in the target keeps the input's size.
    one(x.expand(&shape::broadcast("expand", x.shape(), &to)?)?)
}

fn infer_expand(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let target: Option<Vec<Dim>> = match known_ints(cx, 1) {
        Some(list) => Some(sizes(cx.node, &list)?.into_iter().map(Dim::Known).collect()),
        None => vector_length(cx, 1).map(unknown),
    };
    match (cx.shape(0), target) {
        (Some(dims), Some(target)) => like_first(cx, Some(broadcast_dims(cx, dims, &target)?)),
        _ => like_first(cx, None),
    }
}

fn tile(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(inputs.get(0)?.tile(&sizes(cx.node, &inputs.get(1)?.to_i64_vec()?)?)?)
}

fn infer_tile(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let Some(dims) = cx.shape(0) else { return like_first(cx, None) };
    let Some(repeats) = known_ints(cx, 1).filter(|r| r.len() == dims.len()) else { return like_first(cx, Some(unknown(dims.len()))) };
    let times = |(d, r): (&Dim, &i64)| match (d, r) {
        (d, 1) => d.clone(),
        (Dim::Known(n), r) => usize::try_from(*r).ok().and_then(|r| n.checked_mul(r)).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    };
    like_first(cx, Some(dims.iter().zip(&repeats).map(times).collect()))
}

/// True for a node whose result depends on the sizes of what it reads, and on no element.
pub fn reads_sizes_alone(node: &Node) -> bool {
    node.is_onnx() && matches!(node.op_type.as_str(), "Shape" | "Size")
}

/// The axes that Shape returns, clamped to the axes of the tensor.
pub(crate) fn reported(node: &Node, rank: usize) -> Result<std::ops::Range<usize>, OpError> {
    let r = rank as i64;
    let clamp = |p: i64| if p < 0 { p.saturating_add(r) } else { p }.clamp(0, r) as usize;
    let (start, end) = (clamp(node.int_or("start", 0)?), clamp(node.int_or("end", r)?));
    Ok(start..end.max(start))
}

fn shape_of(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let range = reported(cx.node, x.rank())?;
    one(Tensor::vector(x.shape()[range].iter().map(|d| *d as i64).collect::<Vec<_>>()))
}

fn infer_shape_of(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let length = match cx.shape(0) {
        Some(s) => Dim::Known(reported(cx.node, s.len())?.len()),
        None => Dim::Unknown,
    };
    Ok(vec![typed(Some(DType::I64), Some(vec![length]))])
}

fn size_of(_: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(Tensor::scalar(inputs.get(0)?.len() as i64))
}

fn infer_size(_: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(Some(DType::I64), Some(vec![]))])
}

/// The same elements under another shape.
fn same_elements(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    if let (Some(from), Some(to)) = (cx.input(0), cx.output(0)) {
        regrouped(from, to, true, out);
    }
    Ok(())
}

fn reshape_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let (Some(from), Some(to)) = (cx.input(0), cx.output(0)) else { return Ok(()) };
    if target_after(cx, |_| None).is_none() {
        out.reason = Some("its shape is computed, and cannot be written as a constant".into());
        return Ok(());
    }
    regrouped(from, to, !shuffles(cx), out);
    Ok(())
}

/// True if the axes that a split makes are joined again in another order, as in a channel shuffle: the outer one counts the groups.
fn shuffles(cx: &CouplesCx) -> bool {
    let graph = &cx.model.graph;
    let only_reader = |v: Option<ValueId>| match v.map(|v| graph.consumers(v)).as_deref() {
        Some([reader]) => Some(&graph.nodes[*reader]),
        _ => None,
    };
    let Some(turned) = only_reader(cx.node.output(0)).filter(|n| n.is_onnx() && n.op_type == "Transpose") else { return false };
    let joined = only_reader(turned.output(0)).is_some_and(|n| n.is_onnx() && n.op_type == "Reshape");
    let (Some(from), Some(to)) = (cx.input(0), cx.output(0)) else { return false };
    let Some(split) = (0..from.len()).find(|i| from[*i] != to[*i]).filter(|i| i + 1 < to.len()) else { return false };
    let Ok(order) = permutation(turned, to.len()) else { return false };
    let place = |axis: usize| order.iter().position(|a| *a == axis);
    joined && place(split + 1).zip(place(split)).is_some_and(|(inner, outer)| inner + 1 == outer)
}

/// A constant shape that gives the present output, with other sizes of some axes (`size`): a size that is not known is copied from the
/// input where that has the same, or left open once.
fn target_after(cx: &CouplesCx, size: impl Fn(usize) -> Option<usize>) -> Option<Vec<i64>> {
    let (from, to) = (cx.input(0)?, cx.output(0)?);
    let constant = cx.node.input(1).and_then(|v| cx.model.constant(v)).and_then(|t| t.to_i64_vec().ok());
    let zero_copies = cx.node.int_or("allowzero", 0) == Ok(0);
    let mut open = false;
    let entry = |axis: usize| {
        if let Some(size) = size(axis) {
            return i64::try_from(size).ok();
        }
        if let Some(list) = &constant {
            return list.get(axis).copied();
        }
        // The batch is open in any case.
        if zero_copies && from.get(axis) == Some(&to[axis]) && (axis == 0 || to[axis].known().is_none()) && to[axis] != Dim::Unknown {
            return Some(0);
        }
        to[axis].known().map_or(Some(-1), |d| i64::try_from(d).ok())
    };
    let list = (0..to.len()).map(entry).collect::<Option<Vec<i64>>>()?;
    list.iter().all(|d| *d != -1 || !std::mem::replace(&mut open, true)).then_some(list)
}

fn cut_reshape(cx: &CutCx, node: &mut Node, constants: Constants) -> Result<(), OpError> {
    let Some(to) = cx.before.output(0) else { return Ok(()) };
    let changed: Vec<Option<usize>> = (0..to.len()).map(|axis| (cx.kept)(Output(0, axis)).map(|kept| kept.len())).collect();
    if changed.iter().all(Option::is_none) {
        return Ok(());
    }
    let old = cx.before.node.input(1).and_then(|v| cx.before.model.constant(v)).and_then(|t| t.to_i64_vec().ok());
    // Entries that are copied or left open follow by themselves.
    let keeps = |axis: usize| old.as_ref().is_some_and(|list| list.get(axis).is_some_and(|d| *d <= 0));
    let size = |axis: usize| changed[axis].filter(|_| !keeps(axis));
    let Some(list) = target_after(cx.before, size) else { return Err(OpError::unsupported(node, "a computed shape of the new size")) };
    set_ints(node, 1, "shape", list, constants);
    Ok(())
}

/// An axis that shrinks to size 1 stays where no axes are named.
fn cut_squeeze(cx: &CutCx, node: &mut Node, constants: Constants) -> Result<(), OpError> {
    if node.input(1).is_some() || node.ints("axes")?.is_some() {
        return Ok(());
    }
    let gone: Vec<i64> = match cx.before.input(0) {
        Some(dims) => (0..dims.len()).filter(|i| dims[*i] == Dim::Known(1)).map(|i| i as i64).collect(),
        None => return Ok(()),
    };
    if cx.before.opset < 13 {
        node.attributes.set("axes", graph::AttributeValue::Ints(gone));
    } else {
        set_ints(node, 1, "axes", gone, constants);
    }
    Ok(())
}

fn transpose_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let Some(rank) = cx.input(0).map(<[Dim]>::len) else { return Ok(()) };
    permutation(cx.node, rank)?.into_iter().enumerate().for_each(|(to, from)| out.tie(Input(0, from), Output(0, to)));
    Ok(())
}

/// Axes that keep their size; a repeated one loses indices by itself.
fn expand_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    if cx.node.input(1).is_none_or(|v| cx.model.constant(v).is_none()) {
        out.reason = Some("its shape is computed".into());
        return Ok(());
    }
    crate::couples::first_elementwise(cx, out)
}

fn cut_expand(cx: &CutCx, node: &mut Node, constants: Constants) -> Result<(), OpError> {
    let (Some(mut list), Some(to)) = (cx.before.ints(1), cx.before.output(0)) else { return Ok(()) };
    for (i, entry) in list.iter_mut().enumerate().filter(|(_, entry)| **entry != 1) {
        let axis = i + to.len() - cx.before.ints(1).map_or(0, |l| l.len());
        if let Some(kept) = (cx.kept)(Output(0, axis)) {
            *entry = kept.len() as i64;
        }
    }
    set_ints(node, 1, "shape", list, constants);
    Ok(())
}

fn tile_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let repeats = cx.ints(1).unwrap_or_default();
    (0..repeats.len()).filter(|axis| repeats[*axis] == 1).for_each(|axis| out.tie(Input(0, axis), Output(0, axis)));
    Ok(())
}

/// Sizes that only become the shape of a Reshape do not hold an axis: its shape is written anew. Others are numbers that the network
/// computes with.
fn shape_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let Some(rank) = cx.input(0).map(<[Dim]>::len) else { return Ok(()) };
    out.reason = Some("the network computes with this axis' size".into());
    let range = reported(cx.node, rank)?;
    let used =
        |axis: usize| range.contains(&axis) && cx.node.output(0).is_none_or(|v| computes_with(cx.model, v, Some(axis - range.start)));
    out.free.extend((0..rank).filter(|axis| !used(*axis)).map(|axis| Input(0, axis)));
    Ok(())
}

/// True if an element of a vector of sizes (`None`: any of them) reaches more than shapes of Reshapes.
fn computes_with(model: &Model, sizes: ValueId, element: Option<usize>) -> bool {
    let graph = &model.graph;
    if graph.outputs.contains(&sizes) || graph.nodes.iter().any(|n| n.subgraphs().any(|g| reads(g, sizes))) {
        return true;
    }
    graph.consumers(sizes).into_iter().map(|i| &graph.nodes[i]).any(|node| {
        let passed = |element| node.output(0).is_none_or(|v| computes_with(model, v, element));
        match node.op_type.as_str() {
            _ if !node.is_onnx() => true,
            "Reshape" => node.input(0) == Some(sizes),
            "Gather" => {
                let picked = node.input(1).and_then(|v| model.constant(v)).and_then(|t| t.to_i64_vec().ok());
                match (picked, element) {
                    // Counted from the end it may be any.
                    (Some(list), Some(at)) if list.iter().all(|i| *i >= 0) => list.contains(&(at as i64)) && passed(None),
                    _ => passed(None),
                }
            }
            "Unsqueeze" | "Squeeze" | "Cast" | "Concat" | "Identity" | "Slice" => passed(None),
            _ => true,
        }
    })
}

fn reads(graph: &Graph, value: ValueId) -> bool {
    graph.use_counts().contains_key(&value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, ints, iota};

    #[test]
    fn reshape_copies_and_fills_in() {
        let x = iota(&[2, 3, 4]);
        assert_eq!(Case::new("Reshape", 14).run(&[x.clone(), ints(&[0, -1])]).shape(), [2, 12]);
        assert!(Case::new("Reshape", 14).run_all(&[x.clone(), ints(&[-1, -1])]).is_err());
        assert!(Case::new("Reshape", 14).run_all(&[x, ints(&[5, -1])]).is_err());
        let none = Tensor::new(Vec::<f32>::new(), [0, 3]).unwrap();
        assert_eq!(Case::new("Reshape", 14).int("allowzero", 1).run(&[none, ints(&[3, 0])]).shape(), [3, 0]);
    }

    #[test]
    fn a_symbolic_batch_survives_reshape_and_flatten() {
        let n = || Dim::Symbol("n".into());
        let from = [n(), Dim::Known(64), Dim::Known(2), Dim::Known(2)];
        assert_eq!(quotient(&from, &[Dim::Known(256)]), n());
        assert_eq!(quotient(&from, &[n()]), Dim::Known(256));
        assert_eq!(quotient(&from, &[Dim::Known(64)]), Dim::Unknown);
        assert_eq!(quotient(&from[..1], &[]), n());
    }

    #[test]
    fn axes_as_attribute_and_input() {
        let x = iota(&[1, 3, 1]);
        assert_eq!(Case::new("Squeeze", 11).ints("axes", &[0]).run(std::slice::from_ref(&x)).shape(), [3, 1]);
        assert_eq!(Case::new("Squeeze", 13).run(&[x.clone(), ints(&[-1])]).shape(), [1, 3]);
        assert_eq!(Case::new("Squeeze", 13).run(std::slice::from_ref(&x)).shape(), [3]);
        assert_eq!(Case::new("Unsqueeze", 13).run(&[x, ints(&[0, -1])]).shape(), [1, 1, 3, 1, 1]);
    }

    #[test]
    fn what_reads_sizes_alone_is_the_same_for_all_elements() {
        for (op, sizes) in [("Shape", true), ("Size", true), ("Flatten", false)] {
            let [a, b] = [1.0, 2.0].map(|v| Case::new(op, 13).run(&[Tensor::full(v as f32, [2, 3]).unwrap()]));
            let node = Node { op_type: op.into(), ..Node::default() };
            assert_eq!((a == b, reads_sizes_alone(&node)), (sizes, sizes), "{op}");
        }
    }

    #[test]
    fn shapes_are_reported_in_part() {
        let x = iota(&[2, 3, 4]);
        assert_eq!(Case::new("Shape", 15).int("start", -2).run(std::slice::from_ref(&x)), ints(&[3, 4]));
        assert_eq!(Case::new("Shape", 15).int("end", -9).run(std::slice::from_ref(&x)), ints(&[]));
        assert_eq!(Case::new("Flatten", 13).int("axis", 3).run(std::slice::from_ref(&x)).shape(), [24, 1]);
        assert_eq!(Case::new("Expand", 13).run(&[iota(&[3, 1]), ints(&[2, 1, 4])]).shape(), [2, 3, 4]);
        assert_eq!(Case::new("Tile", 13).run(&[x, ints(&[1, 2, 1])]).shape(), [2, 6, 4]);
    }
}
