//! Resize and Upsample: one matrix product (or selection) for each axis, from which the gradients follow.
use crate::couples::{
    Couples, CouplesCx, CutCx,
    Place::{Input, Output},
    set_ints,
};
use crate::resample::{Axis, Filter, Nearest, Samples, Transform};
use crate::shapes::{axes, known_ints, like_first, unknown};
use crate::simple::{Constants, Simple, one, set_input};
use crate::{Effect, EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{AttributeValue, Dim, Node, ValueType};
use tensor::{DType, Tensor, memory};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Resize", "Resizes by nearest, linear or cubic interpolation.", &[10, 11, 13, 18, 19], resize, infer)
        .effect(rule)
        .couples(couples)
        .cut(cut)
        .upgrade(upgrade_resize),
    &Simple::new(
        "Upsample",
        "Resizes by nearest or linear interpolation (Resize took its place in operator set 10).",
        // In version 11 it becomes a Resize, which changes too.
        &[1, 7, 9, 10, 11],
        upsample,
        infer,
    )
    .effect(rule)
    .couples(couples)
    .upgrade(upgrade_upsample),
];

/// The nearest neighbour moves elements; interpolation computes new ones.
fn rule(node: &Node) -> Effect {
    match node.string_or("mode", "nearest") {
        Ok("nearest") if fills(node) => Effect::NotQuantizable("it fills in a constant beside the elements that it moves"),
        Ok("nearest") => Effect::Moves,
        _ => Effect::Computes { data: vec![0], weight: None },
    }
}

/// True if positions outside the input get a number that may not be on the grid.
fn fills(node: &Node) -> bool {
    let crops = node.string_or("coordinate_transformation_mode", "half_pixel") == Ok("tf_crop_and_resize");
    crops && node.float_or("extrapolation_value", 0.0) != Ok(0.0)
}

/// All parameters of a resize.
struct ResizePlan {
    axes: Vec<Option<Axis>>,
    filter: Filter,
    transform: Transform,
    antialias: bool,
    exclude_outside: bool,
    fill: f64,
}

fn floats(t: Option<&Tensor>) -> Result<Option<Vec<f64>>, OpError> {
    Ok(t.filter(|t| !t.is_empty()).map(Tensor::to_f64_vec).transpose()?)
}

fn filter(node: &Node, opset: i64) -> Result<Filter, OpError> {
    match node.string_or("mode", "nearest")? {
        "nearest" if opset < 11 => Ok(Filter::Nearest(Nearest::Simple)),
        "nearest" => Ok(Filter::Nearest(Nearest::named(node, node.string_or("nearest_mode", "round_prefer_floor")?)?)),
        "linear" | "bilinear" => Ok(Filter::Linear),
        "cubic" if opset >= 11 => Ok(Filter::Cubic(f64::from(node.float_or("cubic_coeff_a", -0.75)?))),
        other => Err(OpError::unsupported(node, format!("mode = '{other}'"))),
    }
}

impl ResizePlan {
    fn of(
        node: &Node,
        opset: i64,
        shape: &[usize],
        scales: Option<Vec<f64>>,
        sizes: Option<Vec<f64>>,
        roi: Option<Vec<f64>>,
    ) -> Result<ResizePlan, OpError> {
        let rank = shape.len();
        let chosen = match node.ints("axes")? {
            Some(list) => axes(&list, rank)?,
            None => (0..rank).collect(),
        };
        let fits = |list: &Vec<f64>, n: usize| {
            if list.len() == n { Ok(()) } else { Err(node.error(format!("{} values for {n} axes", list.len()))) }
        };
        let transform = match opset {
            11.. => Transform::named(node, node.string_or("coordinate_transformation_mode", "half_pixel")?)?,
            _ => Transform::Asymmetric,
        };
        if transform == Transform::TfCropAndResize && roi.is_none() {
            return Err(node.error("tf_crop_and_resize needs a roi").into());
        }
        let roi = roi.filter(|_| transform == Transform::TfCropAndResize);
        if let Some(roi) = &roi {
            fits(roi, 2 * chosen.len())?;
        }
        let (outputs, scales) = match (scales, sizes) {
            (Some(scales), None) => {
                fits(&scales, chosen.len())?;
                let size = |i: usize| {
                    let part = roi.as_ref().map_or(1.0, |r| r[i + chosen.len()] - r[i]);
                    (shape[chosen[i]] as f64 * part * scales[i]).floor()
                };
                ((0..chosen.len()).map(size).collect::<Vec<f64>>(), scales)
            }
            (None, Some(sizes)) => {
                fits(&sizes, chosen.len())?;
                let ratios = |i: usize| sizes[i] / shape[chosen[i]] as f64;
                let common = |f: fn(f64, f64) -> f64| (0..chosen.len()).map(ratios).reduce(f).unwrap_or(1.0);
                let kept = match node.string_or("keep_aspect_ratio_policy", "stretch")? {
                    "stretch" => None,
                    "not_larger" => Some(common(f64::min)),
                    "not_smaller" => Some(common(f64::max)),
                    other => return Err(OpError::unsupported(node, format!("keep_aspect_ratio_policy = '{other}'"))),
                };
                match kept {
                    None => ((0..chosen.len()).map(|i| sizes[i]).collect(), (0..chosen.len()).map(ratios).collect()),
                    Some(s) => ((0..chosen.len()).map(|i| (s * shape[chosen[i]] as f64 + 0.5).floor()).collect(), vec![s; chosen.len()]),
                }
            }
            _ => return Err(node.error("needs either scales or sizes").into()),
        };
        if scales.iter().any(|s| !s.is_finite() || *s <= 0.0) || outputs.iter().any(|o| !(0.0..1e12).contains(o)) {
            return Err(node.error(format!("cannot resize {shape:?} by {scales:?}")).into());
        }
        let mut list = vec![None; rank];
        for (i, axis) in chosen.iter().enumerate() {
            let region = roi.as_ref().map_or((0.0, 1.0), |r| (r[i], r[i + chosen.len()]));
            let one = Axis { input: shape[*axis], output: outputs[i] as usize, scale: scales[i], region };
            let moves = scales[i] != 1.0 || one.output != one.input || region != (0.0, 1.0);
            list[*axis] = moves.then_some(one);
        }
        let filter = filter(node, opset)?;
        let antialias = node.int_or("antialias", 0)? != 0;
        if antialias && matches!(filter, Filter::Nearest(_)) {
            return Err(OpError::unsupported(node, "antialias with mode = 'nearest'"));
        }
        Ok(ResizePlan {
            axes: list,
            filter,
            transform,
            antialias,
            exclude_outside: node.int_or("exclude_outside", 0)? != 0,
            fill: f64::from(node.float_or("extrapolation_value", 0.0)?),
        })
    }

    fn output(&self, shape: &[usize]) -> Vec<usize> {
        shape.iter().zip(&self.axes).map(|(n, a)| a.map_or(*n, |a| a.output)).collect()
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor, OpError> {
        let to = self.output(x.shape());
        if x.is_empty() || to.contains(&0) {
            return Ok(Tensor::zeros(x.dtype(), &to)?);
        }
        memory::room::<f32>("resize", &to)?;
        let nearest = matches!(self.filter, Filter::Nearest(_));
        let inner = match (nearest, x.dtype()) {
            (true, d) | (false, d @ (DType::F32 | DType::F64)) => d,
            (false, _) => DType::F32,
        };
        let mut y = x.cast(inner)?;
        let mut outside: Option<Tensor> = None;
        for (axis, plan) in self.axes.iter().enumerate() {
            let Some(plan) = plan else { continue };
            // MACs: a filter for a smaller output is wider.
            let width = if self.antialias { 2.0 + 2.0 * self.filter.radius() / plan.scale.min(1.0) } else { 4.0 };
            memory::room::<(usize, f64)>("resize", &[plan.output, width.ceil() as usize])?;
            let mut samples = plan.samples(self.filter, self.transform, self.antialias, self.exclude_outside);
            let beyond = std::mem::take(&mut samples.outside);
            y = if nearest { select(&y, axis, samples)? } else { weigh(&y, axis, plan, samples)? };
            if beyond.contains(&true) {
                let mut shape = vec![1; x.rank()];
                shape[axis] = plan.output;
                let flags = Tensor::new(beyond, shape)?;
                outside = Some(match outside {
                    Some(o) => o.or(&flags)?,
                    None => flags,
                });
            }
        }
        if let Some(outside) = outside {
            let fill = Tensor::scalar(self.fill).cast(y.dtype())?;
            y = Tensor::where_(&outside, &fill, &y)?;
        }
        if x.dtype().is_int() && !nearest {
            let (lo, hi) = if x.dtype() == DType::U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
            y = if matches!(x.dtype(), DType::U8 | DType::I8) { y.clip(Some(lo), Some(hi))? } else { y };
        }
        Ok(y.cast(x.dtype())?)
    }
}

fn select(x: &Tensor, axis: usize, samples: Samples) -> Result<Tensor, OpError> {
    let index: Vec<i64> = samples.taps().filter_map(|t| t.first()).map(|(i, _)| *i as i64).collect();
    drop(samples);
    Ok(x.gather(&Tensor::vector(index), axis)?)
}

/// Moves the axis to the end and multiplies by a matrix of weights `[input, output]`.
fn weigh(x: &Tensor, axis: usize, plan: &Axis, samples: Samples) -> Result<Tensor, OpError> {
    let mut matrix = vec![0f64; memory::room::<f64>("resize", &[plan.input, plan.output])?];
    for (column, taps) in samples.taps().enumerate() {
        for (row, weight) in taps {
            matrix[row * plan.output + column] += weight;
        }
    }
    drop(samples);
    let matrix = Tensor::new(matrix, [plan.input, plan.output])?.cast(x.dtype())?;
    let last = x.rank() - 1;
    let mut swap: Vec<usize> = (0..x.rank()).collect();
    swap.swap(axis, last);
    Ok(x.transpose(&swap)?.matmul(&matrix)?.transpose(&swap)?)
}

fn resize(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let (roi, scales, sizes) = if cx.opset < 11 { (None, inputs.opt(1), None) } else { (inputs.opt(1), inputs.opt(2), inputs.opt(3)) };
    one(ResizePlan::of(cx.node, cx.opset, x.shape(), floats(scales)?, floats(sizes)?, floats(roi)?)?.apply(x)?)
}

/// Scales of an Upsample: an attribute before operator set 9, two attributes in the first version.
fn attribute_scales(node: &Node, opset: i64, rank: usize) -> Result<Option<Vec<f64>>, OpError> {
    if opset >= 7 {
        return Ok(node.floats("scales")?.map(|s| s.into_iter().map(f64::from).collect()));
    }
    let (height, width) = (node.float_or("height_scale", 1.0)?, node.float_or("width_scale", 1.0)?);
    if rank != 4 {
        return Err(node.error(format!("needs images of four axes, not {rank}")).into());
    }
    Ok(Some(vec![1.0, 1.0, f64::from(height), f64::from(width)]))
}

fn upsample(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let scales = if cx.opset >= 9 { floats(inputs.opt(1))? } else { attribute_scales(cx.node, cx.opset, x.rank())? };
    one(ResizePlan::of(cx.node, cx.opset.min(10), x.shape(), scales, None, None)?.apply(x)?)
}

fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let Some(x) = cx.shape(0) else { return like_first(cx, None) };
    let value = |i: usize| floats(cx.values.get(i).and_then(Option::as_ref));
    let is_upsample = cx.node.op_type == "Upsample";
    let (roi, scales, sizes) = match (is_upsample, cx.opset) {
        (true, ..9) => (None, attribute_scales(cx.node, cx.opset, x.len())?, None),
        (_, ..11) | (true, _) => (None, value(1)?, None),
        _ => (value(1)?, value(2)?, value(3)?),
    };
    let known: Option<Vec<usize>> = x.iter().map(Dim::known).collect();
    let opset = if is_upsample { cx.opset.min(10) } else { cx.opset };
    if (scales.is_some() || sizes.is_some())
        && let Some(shape) = known
        && (roi.is_some() || cx.node.string_or("coordinate_transformation_mode", "")? != "tf_crop_and_resize")
    {
        let out = ResizePlan::of(cx.node, opset, &shape, scales, sizes, roi)?.output(&shape);
        return like_first(cx, Some(out.into_iter().map(Dim::Known).collect()));
    }
    // An open batch size that is not resized stays open.
    let dims = match (scales, known_ints(cx, 3), cx.node.ints("axes")?) {
        (Some(s), _, None) if s.len() == x.len() => x
            .iter()
            .zip(s)
            .map(|(d, s)| match d {
                Dim::Known(n) => Dim::Known((*n as f64 * s).floor() as usize),
                other if s == 1.0 => other.clone(),
                _ => Dim::Unknown,
            })
            .collect(),
        (None, Some(s), None) if s.len() == x.len() && cx.node.string_or("keep_aspect_ratio_policy", "stretch")? == "stretch" => {
            s.iter().map(|n| usize::try_from(*n).map_or(Dim::Unknown, Dim::Known)).collect()
        }
        _ => unknown(x.len()),
    };
    like_first(cx, Some(dims))
}

/// Operator set 10 had neither modes nor roi: it computes as `asymmetric`. Its nearest neighbour is the floor if an axis grows
/// and the ceiling if it shrinks; this depends on the scales, which are an input.
fn upgrade_resize(node: &mut Node, to: i64, _: &[ValueType], constants: Constants) -> Result<(), OpError> {
    match (to, node.string_or("mode", "nearest")?) {
        (11, "nearest") => Err(OpError::unsupported(node, "mode = 'nearest' of operator set 10, whose rounding depends on the scales")),
        (11, _) => asymmetric(node, constants),
        _ => Ok(()),
    }
}

/// Gives a Resize of operator set 10 the inputs and the mode with the same meaning in operator set 11.
fn asymmetric(node: &mut Node, constants: Constants) -> Result<(), OpError> {
    node.attributes.set("coordinate_transformation_mode", AttributeValue::String(b"asymmetric".to_vec()));
    let scales = node.input(1);
    set_input(node, 1, constants("roi", Tensor::vector(Vec::<f32>::new())));
    if let Some(scales) = scales {
        set_input(node, 2, scales);
    }
    Ok(())
}

fn upgrade_upsample(node: &mut Node, to: i64, types: &[ValueType], constants: Constants) -> Result<(), OpError> {
    match to {
        7 => {
            let rank = match types.first() {
                Some(ValueType::Tensor { shape: Some(s), .. }) => s.len(),
                _ => 4,
            };
            let scales = attribute_scales(node, 1, rank)?.unwrap_or_default();
            node.attributes.remove("height_scale");
            node.attributes.remove("width_scale");
            node.attributes.set("scales", AttributeValue::Floats(scales.into_iter().map(|s| s as f32).collect()));
        }
        9 => {
            let scales = node.floats("scales")?.ok_or_else(|| node.attribute_error("scales", "is missing"))?;
            node.attributes.remove("scales");
            set_input(node, 1, constants("scales", Tensor::vector(scales)));
        }
        10 => node.op_type = "Resize".into(),
        11 => {
            // An Upsample only grows an axis, so its nearest neighbour is the floor.
            if node.string_or("mode", "nearest")? == "nearest" {
                node.attributes.set("nearest_mode", AttributeValue::String(b"floor".to_vec()));
            }
            asymmetric(node, constants)?;
        }
        _ => {}
    }
    Ok(())
}

/// The axes that keep their size: the batch and the channels.
fn couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let (Some(from), Some(to)) = (cx.input(0), cx.output(0)) else { return Ok(()) };
    let crops = cx.node.string_or("coordinate_transformation_mode", "half_pixel")? == "tf_crop_and_resize";
    let by_sizes = cx.node.input(3).is_some();
    if by_sizes && cx.node.input(3).is_none_or(|v| cx.model.constant(v).is_none()) || crops {
        out.reason = Some("its sizes are computed".into());
        return Ok(());
    }
    // Only a scale of 1 gives half the channels half the size.
    let scales = cx.elements.get(if cx.node.input(2).is_some() { 2 } else { 1 }).cloned().flatten();
    let scales = scales.and_then(|t| t.to_f64_vec().ok()).or(cx.node.floats("scales")?.map(|l| l.iter().map(|s| f64::from(*s)).collect()));
    let stays = |axis: usize| {
        by_sizes || cx.node.ints("axes").is_ok_and(|a| a.is_some()) || scales.as_ref().is_some_and(|s| s.get(axis) == Some(&1.0))
    };
    (0..from.len()).filter(|a| from[*a] == to[*a] && stays(*a)).for_each(|a| out.tie(Input(0, a), Output(0, a)));
    Ok(())
}

fn cut(cx: &CutCx, node: &mut Node, constants: Constants) -> Result<(), OpError> {
    let (Some(mut list), Some(rank)) = (cx.before.ints(3), cx.before.input(0).map(<[Dim]>::len)) else { return Ok(()) };
    let on = match node.ints("axes")? {
        Some(on) => axes(&on, rank)?,
        None => (0..rank).collect(),
    };
    let mut changed = false;
    for (entry, axis) in list.iter_mut().zip(on) {
        if let Some(kept) = (cx.kept)(Output(0, axis)) {
            *entry = kept.len() as i64;
            changed = true;
        }
    }
    if changed {
        set_ints(node, 3, "sizes", list, constants);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats};
    use tensor::{Tensor, gradcheck, random::uniform_f64};

    #[test]
    fn gradients_of_interpolation() {
        let roi = floats(&[]);
        for mode in ["nearest", "linear", "cubic"] {
            let x = uniform_f64(1, &[1, 2, 4, 3], -1.0, 1.0);
            gradcheck::check(&[x], |t| {
                let case = Case::new("Resize", 19).string("mode", mode);
                Ok(case.run(&[t[0].clone(), roi.clone(), floats(&[1., 1., 1.7, 0.6])]))
            })
            .unwrap_or_else(|e| panic!("{mode}: {e}"));
        }
    }

    #[test]
    fn a_region_however_far_outside_is_the_fill() {
        for far in [1e30, -1e30, f32::INFINITY, f32::MAX] {
            let roi = floats(&[0., 0., 0., far, 1., 1., 1., far]);
            let case = Case::new("Resize", 19).string("mode", "linear").string("coordinate_transformation_mode", "tf_crop_and_resize");
            let x = Tensor::new(vec![1f32, 2., 3., 4.], [1, 1, 2, 2]).unwrap();
            let sizes = Tensor::vector(vec![1i64, 1, 2, 2]);
            let y = case.float("extrapolation_value", 7.0).run(&[x, roi, floats(&[]), sizes]);
            assert_eq!(y.to_f32_vec().unwrap(), [7.0; 4], "{far}");
        }
    }

    #[test]
    fn an_old_upsample_is_the_asymmetric_resize() {
        let x = Tensor::new(vec![1f32, 2., 3., 4.], [1, 1, 2, 2]).unwrap();
        let y = Case::new("Upsample", 9).run(&[x, floats(&[1., 1., 2., 1.])]);
        assert_eq!(y.to_f32_vec().unwrap(), [1., 2., 1., 2., 3., 4., 3., 4.]);
    }
}
