//! Cutting and joining: Slice, Concat, Split, Pad, CenterCropPad.
use crate::couples::{
    Couples, CouplesCx, CutCx,
    Place::{Input, Output},
    pass, set_ints,
};
use crate::layout::sizes;
use crate::shapes::{axes, known_ints, like_first, typed, unknown};
use crate::simple::{Constants, Simple, attribute_to_input, one, set_input};
use crate::{Effect, EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{AttributeValue, Dim, Model, Node, ValueType};
use tensor::{PadMode, Tensor, shape};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Slice", "Part of a tensor: start, end and step along axes.", &[1, 10, 11, 13], slice, infer_slice)
        .moves()
        .couples(slice_couples)
        .cut(cut_slice)
        .upgrade(upgrade_slice),
    &Simple::new("Concat", "Joins tensors along an axis.", &[1, 4, 11, 13], concat, infer_concat).all_data().couples(concat_couples),
    &Simple::new("Split", "Cuts a tensor into pieces along an axis.", &[1, 2, 11, 13, 18], split, infer_split)
        .pieces_on_grid()
        .couples(split_couples)
        .cut(cut_split)
        .upgrade(upgrade_split),
    &Simple::new("Pad", "Adds elements around a tensor (or cuts some off).", &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25], pad, infer_pad)
        .effect_within(pad_rule)
        .couples(pad_couples)
        .cut(cut_pad)
        .upgrade(upgrade_pad),
    &Simple::new("CenterCropPad", "Crops or pads around the centre to a shape.", &[18], center_crop_pad, infer_center_crop_pad).moves(),
];

/// Starts, ends, axes and steps.
struct Range {
    starts: Vec<i64>,
    ends: Vec<i64>,
    axes: Vec<usize>,
    steps: Vec<i64>,
}

/// From inputs 1 to 4, or attributes up to opset 9. `input` returns an input's elements, or `None` if they are not known.
fn range(node: &Node, rank: usize, input: impl Fn(usize) -> Result<Option<Vec<i64>>, OpError>) -> Result<Option<Range>, OpError> {
    let by_input = node.input(1).is_some();
    let get = |i: usize, name: &str| match (by_input, node.input(i)) {
        (true, Some(_)) => input(i),
        (true, None) => Ok(Some(vec![])),
        (false, _) => Ok(Some(node.ints_or(name, vec![])?)),
    };
    let (Some(starts), Some(ends), Some(list), Some(mut steps)) = (get(1, "starts")?, get(2, "ends")?, get(3, "axes")?, get(4, "steps")?)
    else {
        return Ok(None);
    };
    let axes = if list.is_empty() { (0..starts.len()).collect() } else { axes(&list, rank)? };
    if steps.is_empty() {
        steps = vec![1; starts.len()];
    }
    Ok(Some(Range { starts, ends, axes, steps }))
}

fn slice(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let Some(r) = range(cx.node, x.rank(), |i| Ok(Some(inputs.get(i)?.to_i64_vec()?)))? else { return Ok(vec![]) };
    one(x.slice(&r.starts, &r.ends, &r.axes, &r.steps)?)
}

fn infer_slice(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let Some(dims) = cx.shape(0) else { return like_first(cx, None) };
    let Some(r) = range(cx.node, dims.len(), |i| Ok(known_ints(cx, i)))? else { return like_first(cx, Some(unknown(dims.len()))) };
    let mut to = dims.to_vec();
    for (i, axis) in r.axes.iter().enumerate() {
        let (Some(dim), (Some(&start), Some(&end), Some(&step))) = (to.get_mut(*axis), (r.starts.get(i), r.ends.get(i), r.steps.get(i)))
        else {
            return Err(cx.node.error("starts, ends, axes and steps do not fit together").into());
        };
        *dim = match dim.known() {
            Some(n) => Dim::Known(shape::slice_range(n, start, end, step)?.1),
            // A slice of a whole axis of unknown size has that size.
            None if start == 0 && end >= i32::MAX as i64 && step == 1 => dim.clone(),
            None => Dim::Unknown,
        };
    }
    like_first(cx, Some(to))
}

fn upgrade_slice(node: &mut Node, to: i64, _: &[ValueType], constants: Constants) -> Result<(), OpError> {
    if to != 10 {
        return Ok(());
    }
    for (at, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
        attribute_to_input(node, name, at, constants)?;
    }
    Ok(())
}

fn concat(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let list: Vec<Tensor> = inputs.into_vec().into_iter().flatten().collect();
    let rank = list.first().map_or(0, Tensor::rank);
    let axis = shape::axis("axis", cx.node.int_or("axis", 1)?, rank)?;
    one(Tensor::concat(&list, axis)?)
}

fn infer_concat(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let shapes: Option<Vec<&[Dim]>> = (0..cx.types.len()).map(|i| cx.shape(i)).collect();
    let Some(Some((first, rest))) = shapes.as_ref().map(|s| s.split_first()) else { return like_first(cx, None) };
    let axis = shape::axis("axis", cx.node.int_or("axis", 1)?, first.len())?;
    let mut to = first.to_vec();
    for other in rest {
        if other.len() != to.len() {
            return Err(cx.node.error(format!("inputs of {} and {} axes", to.len(), other.len())).into());
        }
        for (i, (a, b)) in to.iter_mut().zip(*other).enumerate() {
            *a = match (&a, b) {
                (Dim::Known(x), Dim::Known(y)) if i == axis => x.checked_add(*y).map_or(Dim::Unknown, Dim::Known),
                _ if i == axis => Dim::Unknown,
                (Dim::Known(x), Dim::Known(y)) if x != y => return Err(cx.node.error(format!("sizes {x} and {y} along axis {i}")).into()),
                (Dim::Known(_), _) => a.clone(),
                _ => b.clone(),
            };
        }
    }
    like_first(cx, Some(to))
}

/// Sizes of the pieces: as given, or even. From opset 18 on the last piece may be smaller.
fn pieces(node: &Node, opset: i64, given: Option<Vec<i64>>, dim: usize) -> Result<Vec<usize>, OpError> {
    if let Some(list) = given {
        return sizes(node, &list);
    }
    let count = match node.int("num_outputs")? {
        Some(n) => usize::try_from(n).map_err(|_| node.attribute_error("num_outputs", format!("is {n}")))?,
        None => node.outputs.len(),
    };
    if count != node.outputs.len() {
        return Err(node.attribute_error("num_outputs", format!("is {count}, and the node has {} outputs", node.outputs.len())).into());
    }
    if count == 0 || (opset < 18 && !dim.is_multiple_of(count)) {
        return Err(node.error(format!("an axis of size {dim} does not divide into {count} pieces")).into());
    }
    let size = dim.div_ceil(count);
    Ok((0..count).map(|i| size.min(dim.saturating_sub(i * size))).collect())
}

fn split(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let axis = shape::axis("axis", cx.node.int_or("axis", 0)?, x.rank())?;
    let given = match inputs.opt(1) {
        Some(t) => Some(t.to_i64_vec()?),
        None => cx.node.ints("split")?,
    };
    Ok(x.split(axis, &pieces(cx.node, cx.opset, given, x.shape()[axis])?)?)
}

fn infer_split(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let n = cx.node.outputs.len();
    let Some(dims) = cx.shape(0) else { return Ok(vec![typed(cx.dtype(0), None); n]) };
    let axis = shape::axis("axis", cx.node.int_or("axis", 0)?, dims.len())?;
    let given = known_ints(cx, 1).or(cx.node.ints("split")?);
    let hidden = cx.node.input(1).is_some() && given.is_none();
    let along: Vec<Dim> = match (dims[axis].known(), given) {
        _ if hidden => unknown(n),
        (Some(dim), given) => pieces(cx.node, cx.opset, given, dim)?.into_iter().map(Dim::Known).collect(),
        (None, Some(list)) => sizes(cx.node, &list)?.into_iter().map(Dim::Known).collect(),
        (None, None) => unknown(n),
    };
    let one = |size: Dim| {
        let mut to = dims.to_vec();
        to[axis] = size;
        typed(cx.dtype(0), Some(to))
    };
    Ok(along.into_iter().map(one).collect())
}

fn upgrade_split(node: &mut Node, to: i64, _: &[ValueType], constants: Constants) -> Result<(), OpError> {
    match to {
        13 => attribute_to_input(node, "split", 1, constants),
        // Version 18 requires the number of even pieces.
        18 if node.input(1).is_none() => {
            node.attributes.set("num_outputs", AttributeValue::Int(node.outputs.len() as i64));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Pairs of pads for every axis, from a list of all befores and all afters for some axes.
fn pairs(node: &Node, list: &[i64], on: Option<Vec<i64>>, rank: usize) -> Result<Vec<(i64, i64)>, OpError> {
    let which = match on {
        Some(on) => axes(&on, rank)?,
        None => (0..rank).collect(),
    };
    if list.len() != 2 * which.len() {
        return Err(node.error(format!("{} pads for {} axes", list.len(), which.len())).into());
    }
    let mut all = vec![(0, 0); rank];
    for (i, axis) in which.iter().enumerate() {
        all[*axis] = (list[i], list[i + which.len()]);
    }
    Ok(all)
}

/// Pads and value are attributes up to opset 10, then inputs; axes are added in 18. A padding of zero (or with elements of the
/// tensor) is on any grid; so is the lowest number if all readers take maxima. Another constant needs a grid that covers it.
fn pad_rule(node: &Node, model: &Model) -> Effect {
    let constant = node.string_or("mode", "constant").is_ok_and(|mode| mode == "constant");
    let value = match node.input(2) {
        Some(v) => model.values.tensor(v).and_then(|t| t.to_f32_vec().ok()).and_then(|t| t.first().copied()),
        None => node.float_or("value", 0.0).ok(),
    };
    match value {
        _ if !constant => Effect::Moves,
        Some(0.0) => Effect::Moves,
        Some(v) if v <= f32::MIN && only_maxima_read(node, model) => Effect::Moves,
        Some(v) if v <= f32::MIN || !v.is_finite() => Effect::NotQuantizable("it pads with a number that no grid holds"),
        _ => Effect::Computes { data: vec![0], weight: None },
    }
}

fn only_maxima_read(node: &Node, model: &Model) -> bool {
    let (mut all, output) = (true, node.output(0));
    model.graph.visit(&mut |reader| {
        let maximum = reader.is_onnx() && matches!(reader.op_type.as_str(), "MaxPool" | "GlobalMaxPool" | "ReduceMax");
        all &= maximum || !reader.inputs.contains(&output);
    });
    all && output.is_some_and(|v| !model.graph.outputs.contains(&v))
}

fn pad(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let mode = match cx.node.string_or("mode", "constant")? {
        "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        "wrap" => PadMode::Wrap,
        other => return Err(cx.node.attribute_error("mode", format!("is '{other}'")).into()),
    };
    let list = match inputs.opt(1) {
        Some(t) => t.to_i64_vec()?,
        None => attribute_pads(cx.node)?,
    };
    let value = match inputs.opt(2) {
        Some(v) => Some(v.clone()),
        None => cx.node.float("value")?.map(|v| x.scalar_like(v as f64)).transpose()?,
    };
    let on = inputs.opt(3).map(Tensor::to_i64_vec).transpose()?;
    one(x.pad(&pairs(cx.node, &list, on, x.rank())?, mode, value.as_ref())?)
}

/// Named `paddings` in opset 1.
fn attribute_pads(node: &Node) -> Result<Vec<i64>, OpError> {
    match node.ints("pads")? {
        Some(list) => Ok(list),
        None => node.ints("paddings")?.ok_or_else(|| node.attribute_error("pads", "is missing").into()),
    }
}

fn infer_pad(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let Some(dims) = cx.shape(0) else { return like_first(cx, None) };
    let list = if cx.node.input(1).is_some() { known_ints(cx, 1) } else { Some(attribute_pads(cx.node)?) };
    let on = known_ints(cx, 3);
    let (Some(list), false) = (list, cx.node.input(3).is_some() && on.is_none()) else { return like_first(cx, Some(unknown(dims.len()))) };
    let grow = |(d, (before, after)): (&Dim, &(i64, i64))| match (d.known(), before.saturating_add(*after)) {
        (_, 0) => d.clone(),
        (Some(n), by) => usize::try_from((n as i64).saturating_add(by)).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    };
    like_first(cx, Some(dims.iter().zip(&pairs(cx.node, &list, on, dims.len())?).map(grow).collect()))
}

fn upgrade_pad(node: &mut Node, to: i64, types: &[ValueType], constants: Constants) -> Result<(), OpError> {
    match to {
        2 => {
            if let Some(list) = node.attributes.remove("paddings") {
                node.attributes.set("pads", list);
            }
            Ok(())
        }
        11 => {
            attribute_to_input(node, "pads", 1, constants)?;
            if let Some(value) = node.float("value")? {
                let dtype = match types.first() {
                    Some(ValueType::Tensor { dtype, .. }) => *dtype,
                    _ => tensor::DType::F32,
                };
                node.attributes.remove("value");
                set_input(node, 2, constants("value", Tensor::scalar(value).cast(dtype)?));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The axes CenterCropPad works on, and the size each gets.
fn centered(node: &Node, target: &[i64], rank: usize) -> Result<Vec<(usize, usize)>, OpError> {
    let on = match node.ints("axes")? {
        Some(list) => axes(&list, rank)?,
        None => (0..rank).collect(),
    };
    if on.len() != target.len() {
        return Err(node.error(format!("{} sizes for {} axes", target.len(), on.len())).into());
    }
    Ok(on.into_iter().zip(sizes(node, target)?).collect())
}

fn center_crop_pad(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let mut pads = vec![(0, 0); x.rank()];
    for (axis, size) in centered(cx.node, &inputs.get(1)?.to_i64_vec()?, x.rank())? {
        let missing = size as i64 - x.shape()[axis] as i64;
        // An odd element goes to the end when padding, and is cut from the end when cropping.
        let before = missing / 2;
        pads[axis] = (before, missing - before);
    }
    one(x.pad(&pads, PadMode::Constant, None)?)
}

fn infer_center_crop_pad(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let Some(dims) = cx.shape(0) else { return like_first(cx, None) };
    let Some(target) = known_ints(cx, 1) else { return like_first(cx, Some(unknown(dims.len()))) };
    let mut to = dims.to_vec();
    for (axis, size) in centered(cx.node, &target, dims.len())? {
        to[axis] = Dim::Known(size);
    }
    like_first(cx, Some(to))
}

/// Which indices of each axis a Slice with known bounds keeps: first index and number, for steps of 1.
fn sliced(cx: &CouplesCx) -> Result<Option<Vec<(usize, usize, usize)>>, OpError> {
    let Some(rank) = cx.input(0).map(<[Dim]>::len) else { return Ok(None) };
    let Some(r) = range(cx.node, rank, |i| Ok(cx.ints(i)))? else { return Ok(None) };
    let mut list = vec![];
    for (i, axis) in r.axes.iter().enumerate() {
        let (Some(&start), Some(&end), Some(&step)) = (r.starts.get(i), r.ends.get(i), r.steps.get(i)) else { return Ok(None) };
        // An axis that is cut in another way keeps its indices.
        if let Some(n) = cx.size(Input(0, *axis)).filter(|_| step == 1) {
            let (first, count) = shape::slice_range(n, start, end, step)?;
            list.push((*axis, usize::try_from(first).unwrap_or(0), count));
        }
    }
    Ok(Some(list))
}

fn slice_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let (Some(list), Some(rank)) = (sliced(cx)?, cx.input(0).map(<[Dim]>::len)) else { return Ok(()) };
    let Some(r) = range(cx.node, rank, |i| Ok(cx.ints(i)))? else { return Ok(()) };
    pass(out, (0..rank).filter(|axis| !r.axes.contains(axis)));
    for (axis, first, count) in list {
        out.tie_at(Input(0, axis), Output(0, axis), (0..count).map(|i| (first + i, i)));
        out.free.push(Input(0, axis));
    }
    Ok(())
}

fn cut_slice(cx: &CutCx, node: &mut Node, constants: Constants) -> Result<(), OpError> {
    let Some(list) = sliced(cx.before)? else { return Ok(()) };
    let rank = cx.before.input(0).map_or(0, <[Dim]>::len);
    let Some(mut r) = range(cx.before.node, rank, |i| Ok(cx.before.ints(i)))? else { return Ok(()) };
    let mut changed = false;
    for (axis, first, count) in list {
        let Some(at) = r.axes.iter().position(|a| *a == axis).filter(|_| (cx.kept)(Input(0, axis)).is_some()) else { continue };
        r.starts[at] = cx.kept_of_first(Input(0, axis), first) as i64;
        r.ends[at] = cx.kept_of_first(Input(0, axis), first + count) as i64;
        changed = true;
    }
    if !changed {
        return Ok(());
    }
    let by_input = node.input(1).is_some();
    let all = r.axes.iter().map(|a| *a as i64).collect();
    for (i, name, list) in [(1, "starts", r.starts), (2, "ends", r.ends), (3, "axes", all)] {
        match by_input {
            true => set_ints(node, i, name, list, constants),
            false => node.attributes.set(name, AttributeValue::Ints(list)),
        }
    }
    Ok(())
}

fn concat_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let Some(rank) = cx.output(0).map(<[Dim]>::len).filter(|r| *r > 0) else { return Ok(()) };
    let axis = shape::axis("axis", cx.node.int_or("axis", 1)?, rank)?;
    for i in 0..cx.inputs.len() {
        (0..rank).filter(|a| *a != axis).for_each(|a| out.tie(Input(i, a), Output(0, a)));
    }
    let sizes: Option<Vec<usize>> = (0..cx.inputs.len()).map(|i| cx.size(Input(i, axis))).collect();
    let mut from = 0;
    for (i, size) in sizes.into_iter().flatten().enumerate() {
        out.tie_at(Input(i, axis), Output(0, axis), (0..size).map(|k| (k, from + k)));
        from += size;
    }
    Ok(())
}

/// Axis and sizes of the pieces before anything is removed.
fn split_pieces(cx: &CouplesCx) -> Option<(usize, Vec<usize>)> {
    let rank = cx.input(0)?.len();
    let axis = shape::axis("axis", cx.node.int_or("axis", 0).ok()?, rank).ok()?;
    let sizes = (0..cx.outputs.len()).map(|o| cx.size(Output(o, axis))).collect::<Option<Vec<usize>>>()?;
    Some((axis, sizes))
}

fn split_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let (Some((axis, sizes)), Some(rank)) = (split_pieces(cx), cx.input(0).map(<[Dim]>::len)) else { return Ok(()) };
    let mut from = 0;
    for (o, size) in sizes.into_iter().enumerate() {
        (0..rank).filter(|a| *a != axis).for_each(|a| out.tie(Input(0, a), Output(o, a)));
        out.tie_at(Input(0, axis), Output(o, axis), (0..size).map(|k| (from + k, k)));
        from += size;
    }
    Ok(())
}

fn cut_split(cx: &CutCx, node: &mut Node, constants: Constants) -> Result<(), OpError> {
    let Some((axis, _)) = split_pieces(cx.before).filter(|(axis, _)| (cx.kept)(Input(0, *axis)).is_some()) else { return Ok(()) };
    let sizes: Vec<i64> = (0..cx.before.outputs.len()).map(|o| cx.size(Output(o, axis)).unwrap_or(0) as i64).collect();
    node.attributes.remove("num_outputs");
    if cx.before.opset < 13 {
        node.attributes.set("split", AttributeValue::Ints(sizes));
    } else {
        set_ints(node, 1, "split", sizes, constants);
    }
    Ok(())
}

/// Pads of each axis, if they are known and none cuts elements off.
fn known_pads(cx: &CouplesCx) -> Result<Option<Vec<(i64, i64)>>, OpError> {
    let Some(rank) = cx.input(0).map(<[Dim]>::len) else { return Ok(None) };
    let list = if cx.node.input(1).is_some() { cx.ints(1) } else { Some(attribute_pads(cx.node)?) };
    let on = cx.ints(3);
    let (Some(list), false) = (list, cx.node.input(3).is_some() && on.is_none()) else { return Ok(None) };
    Ok(Some(pairs(cx.node, &list, on, rank)?))
}

/// The padding of an axis may be removed by itself: it is a constant.
fn pad_couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let Some(pads) = known_pads(cx)? else { return Ok(()) };
    let constant = cx.node.string_or("mode", "constant")? == "constant";
    for (axis, (before, after)) in pads.into_iter().enumerate() {
        match cx.size(Input(0, axis)) {
            _ if (before, after) == (0, 0) => out.tie(Input(0, axis), Output(0, axis)),
            Some(n) if constant && before >= 0 && after >= 0 => {
                out.tie_at(Input(0, axis), Output(0, axis), (0..n).map(|i| (i, i + before as usize)));
                out.free.push(Output(0, axis));
            }
            _ => {}
        }
    }
    Ok(())
}

fn cut_pad(cx: &CutCx, node: &mut Node, constants: Constants) -> Result<(), OpError> {
    let Some(pads) = known_pads(cx.before)? else { return Ok(()) };
    let kept = |axis: usize| (cx.kept)(Output(0, axis));
    if (0..pads.len()).all(|axis| kept(axis).is_none() || pads[axis] == (0, 0)) {
        return Ok(());
    }
    let (mut before, mut after) = (vec![], vec![]);
    for (axis, (b, a)) in pads.into_iter().enumerate() {
        let (Some(kept), Some(n)) = (kept(axis), cx.before.size(Input(0, axis))) else {
            before.push(b);
            after.push(a);
            continue;
        };
        before.push(kept.iter().filter(|i| (**i as i64) < b).count() as i64);
        after.push(kept.iter().filter(|i| **i as i64 >= b + n as i64).count() as i64);
    }
    let list = [before, after].concat();
    match node.input(1).is_some() {
        true => set_ints(node, 1, "pads", list, constants),
        false => node.attributes.set("pads", AttributeValue::Ints(list)),
    }
    // The list has entries for all axes now.
    if node.inputs.len() > 3 {
        node.inputs.truncate(3);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats, ints, iota};
    use tensor::Tensor;

    #[test]
    fn slice_by_attributes_and_inputs() {
        let x = iota(&[4, 3]);
        let y = Case::new("Slice", 9).ints("starts", &[1]).ints("ends", &[3]).ints("axes", &[0]).run(std::slice::from_ref(&x));
        assert_eq!(y.shape(), [2, 3]);
        let y = Case::new("Slice", 13).run(&[x, ints(&[-1]), ints(&[i64::MIN]), ints(&[1]), ints(&[-2])]);
        assert_eq!(y.shape(), [4, 2]);
        assert_eq!(y.as_slice::<f32>().unwrap()[..2], [2.0, 0.0]);
    }

    #[test]
    fn split_evenly_unevenly_and_as_told() {
        let x = iota(&[7]);
        let lengths = |v: Vec<Tensor>| v.iter().map(Tensor::len).collect::<Vec<_>>();
        let y = Case::new("Split", 18).int("num_outputs", 4).outputs(4).run_all(std::slice::from_ref(&x)).unwrap();
        assert_eq!(lengths(y), [2, 2, 2, 1]);
        assert!(Case::new("Split", 13).outputs(2).run_all(std::slice::from_ref(&x)).is_err());
        let y = Case::new("Split", 13).outputs(2).run_all(&[x.clone(), ints(&[3, 4])]).unwrap();
        assert_eq!(lengths(y), [3, 4]);
        let y = Case::new("Split", 11).ints("split", &[6, 1]).outputs(2).run_all(&[x]).unwrap();
        assert_eq!(lengths(y), [6, 1]);
    }

    #[test]
    fn pad_in_all_versions() {
        let x = floats(&[1.0, 2.0, 3.0]);
        let y = Case::new("Pad", 2).ints("pads", &[1, 0]).float("value", 9.0).run(std::slice::from_ref(&x));
        assert_eq!(y, floats(&[9.0, 1.0, 2.0, 3.0]));
        let y = Case::new("Pad", 19).string("mode", "wrap").run(&[x.clone(), ints(&[1, 2])]);
        assert_eq!(y, floats(&[3.0, 1.0, 2.0, 3.0, 1.0, 2.0]));
        let y = Case::new("Pad", 18).run_optional(vec![Some(iota(&[2, 2])), Some(ints(&[1, 0])), None, Some(ints(&[-1]))]).unwrap();
        assert_eq!(y[0].shape(), [2, 3]);
        assert_eq!(Case::new("Pad", 13).string("mode", "reflect").run(&[x, ints(&[-1, 1])]), floats(&[2.0, 3.0, 2.0]));
    }

    #[test]
    fn crop_and_pad_around_the_centre() {
        let y = Case::new("CenterCropPad", 18).run(&[iota(&[5]), ints(&[2])]);
        assert_eq!(y, floats(&[1.0, 2.0]));
        let y = Case::new("CenterCropPad", 18).run(&[iota(&[2]), ints(&[5])]);
        assert_eq!(y, floats(&[0.0, 0.0, 1.0, 0.0, 0.0]));
    }
}
