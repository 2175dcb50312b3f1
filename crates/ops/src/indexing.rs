//! Reading and writing at computed positions: Gather and Scatter in all their forms, OneHot, NonZero, Unique, Compress.
use crate::couples::{
    Couples, CouplesCx, CutCx,
    Place::{Input, Output},
    set_ints,
};
use crate::shapes::{known_ints, like_first, same, typed, unknown};
use crate::simple::{Constants, Simple, one};
use crate::{EvalCx, Inputs, OpError, Operator, Role, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{DType, Reduction, Tensor, shape};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Gather", "Slices along an axis, picked by index (an embedding table, for one).", &[1, 11, 13], gather, infer_gather)
        .role(table_role)
        .weight_axis(rows)
        .moves()
        .couples(gather_couples)
        .cut(cut_gather),
    &Simple::new("GatherElements", "Elements along an axis, one index for each.", &[11, 13], gather_elements, infer_gather_elements)
        .moves(),
    &Simple::new("GatherND", "Slices picked by tuples of indices.", &[11, 12, 13], gather_nd, infer_gather_nd).moves(),
    &Simple::new("Scatter", "The older name of ScatterElements.", &[9, 11], scatter_elements, same).upgrade(upgrade_scatter),
    &Simple::new("ScatterElements", "A copy with elements along an axis updated.", &[11, 13, 16, 18], scatter_elements, same),
    &Simple::new("ScatterND", "A copy with slices named by tuples of indices updated.", &[11, 13, 16, 18], scatter_nd, same),
    &Simple::new("TensorScatter", "A cache with new steps written at each sequence's position.", &[24], tensor_scatter, same),
    &Simple::new("OneHot", "Vectors with one value at an index and another elsewhere.", &[9, 11, 28], one_hot, infer_one_hot),
    &Simple::new("NonZero", "Positions of the elements that are not zero.", &[9, 13], |_, i| one(i.get(0)?.nonzero()?), infer_nonzero),
    &Simple::new("Unique", "The distinct elements or slices, with positions and counts.", &[11, 28], unique, infer_unique),
    &Simple::new("Compress", "The slices (or elements) for which a condition holds.", &[9, 11, 28], compress, infer_compress).moves(),
];

/// An embedding table is trained; the indices are not.
fn table_role(_: &Node, input: usize) -> Role {
    if input == 0 { Role::Weight } else { Role::Constant }
}

/// The axis along which a table is looked up; unknown if it counts from the last.
fn rows(node: &Node, input: usize) -> Option<usize> {
    node.int_or("axis", 0).ok().filter(|_| input == 0).and_then(|axis| usize::try_from(axis).ok())
}

fn axis(node: &Node, default: i64, rank: usize) -> Result<usize, OpError> {
    Ok(shape::axis("axis", node.int_or("axis", default)?, rank)?)
}

fn gather(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    one(x.gather(inputs.get(1)?, axis(cx.node, 0, x.rank())?)?)
}

fn infer_gather(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let (Some(x), Some(indices)) = (cx.shape(0), cx.shape(1)) else { return like_first(cx, None) };
    let axis = axis(cx.node, 0, x.len())?;
    like_first(cx, Some([&x[..axis], indices, &x[axis + 1..]].concat()))
}

fn gather_elements(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    one(x.gather_elements(inputs.get(1)?, axis(cx.node, 0, x.rank())?)?)
}

fn infer_gather_elements(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    like_first(cx, cx.shape(1).map(<[Dim]>::to_vec))
}

fn gather_nd(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let batch_dims = cx.node.int_or("batch_dims", 0)?;
    let batch_dims = usize::try_from(batch_dims).map_err(|_| cx.node.attribute_error("batch_dims", format!("is {batch_dims}")))?;
    one(inputs.get(0)?.gather_nd(inputs.get(1)?, batch_dims)?)
}

fn infer_gather_nd(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let batch_dims = usize::try_from(cx.node.int_or("batch_dims", 0)?).unwrap_or(usize::MAX);
    let (Some(x), Some((depth, lead))) = (cx.shape(0), cx.shape(1).and_then(<[Dim]>::split_last)) else { return like_first(cx, None) };
    let rest = depth.known().and_then(|d| d.checked_add(batch_dims)).and_then(|used| x.get(used..));
    like_first(cx, rest.map(|rest| [lead, rest].concat()))
}

fn reduction(node: &Node) -> Result<Reduction, OpError> {
    match node.string_or("reduction", "none")? {
        "none" => Ok(Reduction::None),
        "add" => Ok(Reduction::Add),
        "mul" => Ok(Reduction::Mul),
        "min" => Ok(Reduction::Min),
        "max" => Ok(Reduction::Max),
        other => Err(node.attribute_error("reduction", format!("is '{other}'")).into()),
    }
}

fn scatter_elements(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    one(x.scatter_elements(inputs.get(1)?, inputs.get(2)?, axis(cx.node, 0, x.rank())?, reduction(cx.node)?)?)
}

fn scatter_nd(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(inputs.get(0)?.scatter_nd(inputs.get(1)?, inputs.get(2)?, reduction(cx.node)?)?)
}

fn upgrade_scatter(node: &mut Node, to: i64, _: &[ValueType], _: Constants) -> Result<(), OpError> {
    if to == 11 {
        node.op_type = "ScatterElements".into();
    }
    Ok(())
}

fn tensor_scatter(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (cache, update) = (inputs.get(0)?, inputs.get(1)?);
    let axis = axis(cx.node, -2, cache.rank())?;
    if axis == 0 || update.rank() != cache.rank() {
        return Err(cx.node.error(format!("{:?} written into {:?} along axis {axis}", update.shape(), cache.shape())).into());
    }
    let (batch, steps, size) = (update.shape()[0], update.shape()[axis], cache.shape()[axis] as i64);
    let starts = match inputs.opt(2) {
        Some(t) => t.to_i64_vec()?,
        None => vec![0; batch],
    };
    let circular = match cx.node.string_or("mode", "linear")? {
        "linear" => false,
        "circular" => true,
        other => return Err(cx.node.attribute_error("mode", format!("is '{other}'")).into()),
    };
    let position = |start: i64, step: usize| match start.checked_add(step as i64) {
        Some(p) if circular && p >= 0 && size > 0 => Ok(p % size),
        Some(p) if (0..size).contains(&p) => Ok(p),
        _ => Err(cx.node.error(format!("step {step} from {start} on is outside a cache of {size}"))),
    };
    let mut positions = Vec::with_capacity(batch * steps);
    for start in starts {
        for step in 0..steps {
            positions.push(position(start, step)?);
        }
    }
    let mut narrow = vec![1; cache.rank()];
    (narrow[0], narrow[axis]) = (batch, steps);
    let indices = Tensor::new(positions, narrow)?.expand(update.shape())?;
    one(cache.scatter_elements(&indices, update, axis, Reduction::None)?)
}

/// The place of the new axis in the result, which has one axis more than the input.
fn hot_axis(node: &Node, rank: usize) -> Result<usize, OpError> {
    axis(node, -1, rank + 1)
}

fn one_hot(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (indices, values) = (inputs.get(0)?, inputs.get(2)?);
    let depth = inputs.get(1)?.to_i64_vec()?.first().copied().unwrap_or(-1);
    let depth = usize::try_from(depth).map_err(|_| cx.node.error(format!("depth is {depth}")))?;
    let (off, on) = (values.narrow(0, 0, 1)?, values.narrow(0, 1, 1)?);
    one(indices.one_hot(depth, hot_axis(cx.node, indices.rank())?, &off, &on)?)
}

fn infer_one_hot(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let depth = known_ints(cx, 1).and_then(|d| d.first().copied()).and_then(|d| usize::try_from(d).ok());
    let dims = match cx.shape(0) {
        Some(s) => {
            let mut dims = s.to_vec();
            dims.insert(hot_axis(cx.node, s.len())?, depth.map_or(Dim::Unknown, Dim::Known));
            Some(dims)
        }
        None => None,
    };
    Ok(vec![typed(cx.dtype(2), dims)])
}

fn infer_nonzero(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let rank = cx.shape(0).map_or(Dim::Unknown, |s| Dim::Known(s.len()));
    Ok(vec![typed(Some(DType::I64), Some(vec![rank, Dim::Unknown]))])
}

fn unique(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let axis = cx.node.int("axis")?.map(|a| shape::axis("axis", a, x.rank())).transpose()?;
    let u = x.unique(axis, cx.node.int_or("sorted", 1)? != 0)?;
    Ok(vec![u.values, u.first, u.inverse, u.counts])
}

fn infer_unique(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let values = match (cx.node.int("axis")?, cx.shape(0)) {
        (None, _) => Some(unknown(1)),
        (Some(a), Some(s)) => {
            let mut dims = s.to_vec();
            dims[shape::axis("axis", a, s.len())?] = Dim::Unknown;
            Some(dims)
        }
        (Some(_), None) => None,
    };
    let positions = typed(Some(DType::I64), Some(unknown(1)));
    Ok([vec![typed(cx.dtype(0), values)], vec![positions; 3]].concat())
}

fn compress(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (x, condition) = (inputs.get(0)?, inputs.get(1)?.as_slice::<bool>()?);
    let kept = condition.iter().enumerate().filter(|(_, c)| **c).map(|(i, _)| i as i64);
    let kept = Tensor::vector(kept.collect::<Vec<_>>());
    match cx.node.int("axis")? {
        Some(a) => one(x.gather(&kept, shape::axis("axis", a, x.rank())?)?),
        None => one(x.reshape([x.len()])?.gather(&kept, 0)?),
    }
}

fn infer_compress(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    match (cx.node.int("axis")?, cx.shape(0)) {
        (None, _) => like_first(cx, Some(unknown(1))),
        (Some(a), Some(s)) => {
            let mut dims = s.to_vec();
            dims[shape::axis("axis", a, s.len())?] = Dim::Unknown;
            like_first(cx, Some(dims))
        }
        (Some(_), None) => like_first(cx, None),
    }
}

/// The axis that is picked from, with the list of indices; `None` unless they are a constant vector.
fn picked(cx: &CouplesCx) -> Result<Option<(usize, Vec<usize>)>, OpError> {
    let (Some(x), Some([_])) = (cx.input(0), cx.input(1)) else { return Ok(None) };
    let axis = axis(cx.node, 0, x.len())?;
    let (Some(size), Some(list)) = (x[axis].known(), cx.ints(1)) else { return Ok(None) };
    let counted = |i: i64| usize::try_from(if i < 0 { i + size as i64 } else { i }).ok().filter(|i| *i < size);
    Ok(list.into_iter().map(counted).collect::<Option<Vec<usize>>>().map(|list| (axis, list)))
}

/// All axes but the one that is picked from; that too, if the indices are a constant vector.
fn gather_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let (Some(x), Some(indices)) = (cx.input(0), cx.input(1)) else { return Ok(()) };
    let (axis, added) = (axis(cx.node, 0, x.len())?, indices.len());
    for a in (0..x.len()).filter(|a| *a != axis) {
        out.tie(Input(0, a), Output(0, if a < axis { a } else { a + added - 1 }));
    }
    (0..added).for_each(|a| out.tie(Input(1, a), Output(0, axis + a)));
    out.reason = Some("it picks from this axis by index".into());
    if let Some((axis, list)) = picked(cx)? {
        out.tie_at(Input(0, axis), Output(0, axis), list.into_iter().enumerate().map(|(to, from)| (from, to)));
        out.free.push(Input(0, axis));
    }
    Ok(())
}

fn cut_gather(cx: &CutCx, node: &mut Node, constants: Constants) -> Result<(), OpError> {
    let Some((axis, list)) = picked(cx.before)? else { return Ok(()) };
    if (cx.kept)(Input(0, axis)).is_none() {
        return Ok(());
    }
    let stay = (cx.kept)(Output(0, axis)).unwrap_or_else(|| (0..list.len()).collect());
    let moved = stay.into_iter().map(|to| cx.kept_of_first(Input(0, axis), list[to]) as i64).collect();
    set_ints(node, 1, "indices", moved, constants);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats, ints, iota};
    use tensor::Tensor;

    #[test]
    fn gathering() {
        let x = iota(&[3, 2]);
        assert_eq!(Case::new("Gather", 13).int("axis", 1).run(&[x.clone(), Tensor::scalar(-1i64)]), floats(&[1.0, 3.0, 5.0]));
        let nd = Tensor::new(vec![0i64, 1, 2, 0], [2, 2]).unwrap();
        assert_eq!(Case::new("GatherND", 13).run(&[x.clone(), nd]), floats(&[1.0, 4.0]));
        assert!(Case::new("Gather", 13).run_all(&[x, ints(&[3])]).unwrap_err().to_string().contains("index 3"));
    }

    #[test]
    fn scattering_with_reduction() {
        let x = floats(&[1.0, 2.0, 3.0]);
        let inputs = [x, ints(&[0, 0, 2]), floats(&[5.0, 6.0, 7.0])];
        assert_eq!(Case::new("ScatterElements", 18).string("reduction", "add").run(&inputs), floats(&[12.0, 2.0, 10.0]));
        assert_eq!(Case::new("ScatterElements", 18).string("reduction", "max").run(&inputs), floats(&[6.0, 2.0, 7.0]));
    }

    #[test]
    fn one_hot_takes_its_values() {
        let y = Case::new("OneHot", 11).run(&[ints(&[1, -1, 9]), Tensor::scalar(3i64), floats(&[2.0, 5.0])]);
        assert_eq!(y.as_slice::<f32>().unwrap(), [2.0, 5.0, 2.0, 2.0, 2.0, 5.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn a_circular_cache_wraps() {
        let cache = Tensor::full(0f32, [1, 3, 1]).unwrap();
        let update = Tensor::new(vec![1f32, 2.0], [1, 2, 1]).unwrap();
        let y = Case::new("TensorScatter", 24).string("mode", "circular").run(&[cache.clone(), update.clone(), ints(&[2])]);
        assert_eq!(y.as_slice::<f32>().unwrap(), [2.0, 0.0, 1.0]);
        assert!(Case::new("TensorScatter", 24).run_all(&[cache, update, ints(&[2])]).is_err());
    }

    #[test]
    fn compress_drops_what_is_false() {
        let condition = Tensor::vector(vec![false, true]);
        assert_eq!(Case::new("Compress", 11).run(&[iota(&[2, 2]), condition.clone()]), floats(&[1.0]));
        assert_eq!(Case::new("Compress", 11).int("axis", 0).run(&[iota(&[2, 2]), condition]).shape(), [1, 2]);
    }
}
