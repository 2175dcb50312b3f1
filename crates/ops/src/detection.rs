//! Operators of object detectors: NonMaxSuppression, RoiAlign, MaxRoiPool.
use crate::shapes::{like_first, typed};
use crate::simple::{Constants, Simple, one};
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{AttributeValue, Dim, Node, ValueType};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("NonMaxSuppression", "Drops boxes that overlap a better one of the same class.", &[10, 11], suppress, |_| {
        Ok(vec![typed(Some(DType::I64), Some(vec![Dim::Unknown, Dim::Known(3)]))])
    }),
    &Simple::new("RoiAlign", "Pools regions at bilinear sampling points.", &[10, 16, 22], roi_align, infer_align).upgrade(upgrade_align),
    &Simple::new("MaxRoiPool", "Largest element of each cell of a region.", &[1, 22], max_roi_pool, infer_pool),
];

/// Corners of a box, lower ones first.
fn corners(b: &[f32], centred: bool) -> [f32; 4] {
    if centred {
        let (x, y, w, h) = (b[0], b[1], b[2] / 2.0, b[3] / 2.0);
        return [y - h, x - w, y + h, x + w];
    }
    [b[0].min(b[2]), b[1].min(b[3]), b[0].max(b[2]), b[1].max(b[3])]
}

fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let side = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
    let shared = side(0) * side(1);
    let area = |r: &[f32; 4]| (r[2] - r[0]) * (r[3] - r[1]);
    if shared <= 0.0 { 0.0 } else { shared / (area(a) + area(b) - shared) }
}

fn suppress(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, boxes, scores) = (cx.node, inputs.get(0)?, inputs.get(1)?);
    let ([batch, count, 4], [batch2, classes, count2]) = (boxes.shape(), scores.shape()) else {
        return Err(node.error(format!("boxes of shape {:?} and scores of shape {:?}", boxes.shape(), scores.shape())).into());
    };
    if batch != batch2 || count != count2 {
        return Err(node.error(format!("boxes of shape {:?} and scores of shape {:?}", boxes.shape(), scores.shape())).into());
    }
    let first = |i: usize| -> Result<Option<f64>, OpError> {
        Ok(inputs.opt(i).map(Tensor::to_f64_vec).transpose()?.and_then(|v| v.first().copied()))
    };
    let most = first(2)?.unwrap_or(0.0).max(0.0) as usize;
    let (limit, lowest) = (first(3)?.unwrap_or(0.0) as f32, first(4)?.map(|v| v as f32));
    let centred = match node.int_or("center_point_box", 0)? {
        0 => false,
        1 => true,
        other => return Err(OpError::unsupported(node, format!("center_point_box = {other}"))),
    };
    let (boxes, scores) = (boxes.to_f32_vec()?, scores.to_f32_vec()?);
    let mut chosen: Vec<i64> = vec![];
    for b in 0..*batch {
        let own: Vec<[f32; 4]> = boxes[b * count * 4..(b + 1) * count * 4].chunks(4).map(|c| corners(c, centred)).collect();
        for class in 0..*classes {
            let s = &scores[(b * classes + class) * count..][..*count];
            let mut order: Vec<usize> = (0..*count).filter(|i| lowest.is_none_or(|l| s[*i] > l)).collect();
            order.sort_by(|i, j| s[*j].total_cmp(&s[*i]));
            let mut kept: Vec<usize> = vec![];
            for i in order {
                if kept.len() >= most {
                    break;
                }
                if kept.iter().all(|k| overlap(&own[*k], &own[i]) <= limit) {
                    kept.push(i);
                }
            }
            chosen.extend(kept.iter().flat_map(|i| [b as i64, class as i64, *i as i64]));
        }
    }
    let rows = chosen.len() / 3;
    one(Tensor::new(chosen, [rows, 3])?)
}

fn size_attribute(node: &Node, name: &str, default: i64) -> Result<usize, OpError> {
    usize::try_from(node.int_or(name, default)?).map_err(|_| node.attribute_error(name, "is negative").into())
}

fn image(node: &Node, x: &Tensor) -> Result<[usize; 4], OpError> {
    match *x.shape() {
        [n, c, h, w] if h > 0 && w > 0 => Ok([n, c, h, w]),
        _ => Err(node.error(format!("needs images of four axes, not {:?}", x.shape())).into()),
    }
}

/// Bilinear weights of the four pixels around a point; empty outside the image.
fn bilinear(y: f64, x: f64, h: usize, w: usize) -> Option<[(usize, f64); 4]> {
    if y < -1.0 || y > h as f64 || x < -1.0 || x > w as f64 || y.is_nan() || x.is_nan() {
        return None;
    }
    let axis = |v: f64, n: usize| {
        let v = v.max(0.0);
        let low = v as usize;
        if low + 1 >= n { (n - 1, n - 1, 0.0) } else { (low, low + 1, v - low as f64) }
    };
    let ((y0, y1, ly), (x0, x1, lx)) = (axis(y, h), axis(x, w));
    Some([(y0 * w + x0, (1.0 - ly) * (1.0 - lx)), (y0 * w + x1, (1.0 - ly) * lx), (y1 * w + x0, ly * (1.0 - lx)), (y1 * w + x1, ly * lx)])
}

/// Refuses a tracked input by which there is no gradient.
fn untracked(node: &Node, x: &Tensor) -> Result<(), OpError> {
    if x.is_tracked() { Err(OpError::unsupported(node, "a gradient by this input, in this mode")) } else { Ok(()) }
}

fn roi_align(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x, rois) = (cx.node, inputs.get(0)?, inputs.get(1)?);
    untracked(node, rois)?;
    let [batch, channels, h, w] = image(node, x)?;
    let owners = inputs.get(2)?.to_i64_vec()?;
    if rois.shape() != [owners.len(), 4] || owners.iter().any(|b| !(0..batch as i64).contains(b)) {
        return Err(node.error(format!("regions of shape {:?} for {} batch indices below {batch}", rois.shape(), owners.len())).into());
    }
    let (rows, columns) = (size_attribute(node, "output_height", 1)?, size_attribute(node, "output_width", 1)?);
    let (ratio, scale) = (size_attribute(node, "sampling_ratio", 0)?, f64::from(node.float_or("spatial_scale", 1.0)?));
    let half_pixel = match node.string_or("coordinate_transformation_mode", "half_pixel")? {
        _ if cx.opset < 16 => false,
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => return Err(OpError::unsupported(node, format!("coordinate_transformation_mode = '{other}'"))),
    };
    let maximum = match node.string_or("mode", "avg")? {
        "avg" => false,
        "max" => true,
        other => return Err(OpError::unsupported(node, format!("mode = '{other}'"))),
    };
    if maximum {
        untracked(node, x)?;
    }
    let regions = rois.to_f64_vec()?;
    if regions.iter().any(|v| !v.is_finite() || v.abs() > 1e6) {
        return Err(node.error("a region is not finite or absurdly large").into());
    }
    let offset = if half_pixel { 0.5 } else { 0.0 };
    // Pixels and weights of each cell, the same in all channels: four for each sampling point.
    tensor::memory::room::<f64>("roi_align", &[owners.len(), channels, rows, columns])?;
    let mut points = 0f64;
    let mut cells: Vec<Vec<[(usize, f64); 4]>> = Vec::with_capacity(owners.len() * rows * columns);
    for region in regions.chunks(4) {
        let [x0, y0, x1, y1] = [0, 1, 2, 3].map(|i| region[i] * scale - offset);
        let floor = if half_pixel { f64::NEG_INFINITY } else { 1.0 };
        let (bin_h, bin_w) = ((y1 - y0).max(floor) / rows as f64, (x1 - x0).max(floor) / columns as f64);
        let grid = |bin: f64| if ratio > 0 { ratio } else { bin.ceil().max(0.0) as usize };
        let (grid_h, grid_w) = (grid(bin_h), grid(bin_w));
        points += [grid_h, grid_w, rows, columns].map(|n| n as f64).iter().product::<f64>();
        tensor::memory::room::<[(usize, f64); 4]>("roi_align", &[points as usize])?;
        let sample = |cell: usize, start: f64, bin: f64, i: usize, n: usize| start + cell as f64 * bin + (i as f64 + 0.5) * bin / n as f64;
        for (row, column) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
            let points = (0..grid_h).flat_map(|i| (0..grid_w).map(move |j| (i, j)));
            let taps = points.map(|(i, j)| {
                bilinear(sample(row, y0, bin_h, i, grid_h), sample(column, x0, bin_w, j, grid_w), h, w).unwrap_or([(0, 0.0); 4])
            });
            cells.push(taps.collect());
        }
    }
    let planes = Planes { channels, area: h * w, owners: owners.iter().map(|o| *o as usize).collect() };
    let values = x.to_f64_vec()?;
    let mut out = Vec::with_capacity(owners.len() * channels * rows * columns);
    planes.visit(rows * columns, |plane, cell| {
        let pixels = &values[plane..plane + h * w];
        let parts = cells[cell].iter().flatten().map(|(at, weight)| pixels[*at] * weight);
        out.push(match maximum {
            true => parts.reduce(f64::max).unwrap_or(0.0),
            false => parts.sum::<f64>() / cells[cell].len().max(1) as f64,
        });
    });
    let (dtype, shape) = (x.dtype(), x.shape().to_vec());
    let y = Tensor::new(out, [owners.len(), channels, rows, columns])?.cast(dtype)?;
    one(tensor::record("roi_align", &[x], y, move |dy| {
        let dy = dy.to_f64_vec()?;
        let mut dx = vec![0f64; shape.iter().product()];
        let mut given = dy.iter();
        planes.visit(rows * columns, |plane, cell| {
            let share = given.next().copied().unwrap_or(0.0) / cells[cell].len().max(1) as f64;
            cells[cell].iter().flatten().for_each(|(at, weight)| dx[plane + at] += share * weight);
        });
        Ok(vec![Some(Tensor::new(dx, shape)?.cast(dtype)?)])
    }))
}

/// The planes of an image batch that regions read, in the order of the output.
struct Planes {
    channels: usize,
    area: usize,
    /// Image index of each region.
    owners: Vec<usize>,
}

impl Planes {
    /// Calls `f` with the start of the plane and the number of the cell, for every element of the output.
    fn visit(&self, cells: usize, mut f: impl FnMut(usize, usize)) {
        for (region, owner) in self.owners.iter().enumerate() {
            for c in 0..self.channels {
                (0..cells).for_each(|cell| f((owner * self.channels + c) * self.area, region * cells + cell));
            }
        }
    }
}

fn infer_align(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let size = |name| size_attribute(cx.node, name, 1).map(Dim::Known);
    let shape = match (cx.shape(0), cx.shape(1)) {
        (Some([_, c, ..]), Some([n, _])) => Some(vec![n.clone(), c.clone(), size("output_height")?, size("output_width")?]),
        _ => None,
    };
    like_first(cx, shape)
}

fn upgrade_align(node: &mut Node, to: i64, _: &[ValueType], _: Constants) -> Result<(), OpError> {
    if to == 16 {
        node.attributes.set("coordinate_transformation_mode", AttributeValue::String(b"output_half_pixel".to_vec()));
    }
    Ok(())
}

fn pooled_shape(node: &Node) -> Result<[usize; 2], OpError> {
    match node.ints("pooled_shape")?.as_deref() {
        Some([h, w]) if *h > 0 && *w > 0 => Ok([*h as usize, *w as usize]),
        _ => Err(node.attribute_error("pooled_shape", "needs two positive numbers").into()),
    }
}

fn max_roi_pool(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x, rois) = (cx.node, inputs.get(0)?, inputs.get(1)?);
    untracked(node, x)?;
    let [batch, channels, h, w] = image(node, x)?;
    let [rows, columns] = pooled_shape(node)?;
    let [count, 5] = *rois.shape() else { return Err(node.error(format!("regions of shape {:?}", rois.shape())).into()) };
    let scale = f64::from(node.float_or("spatial_scale", 1.0)?);
    let (values, regions) = (x.to_f64_vec()?, rois.to_f64_vec()?);
    let mut out = Vec::with_capacity(tensor::memory::room::<f64>("max_roi_pool", &[count, channels, rows, columns])?);
    for r in regions.chunks(5) {
        if !(0.0..batch as f64).contains(&r[0]) {
            return Err(node.error(format!("a region of image {} in a batch of {batch}", r[0])).into());
        }
        let [x0, y0, x1, y1] = [1, 2, 3, 4].map(|i| (r[i] * scale).round());
        let (bin_h, bin_w) = ((y1 - y0 + 1.0).max(1.0) / rows as f64, (x1 - x0 + 1.0).max(1.0) / columns as f64);
        let range = |cell: usize, bin: f64, start: f64, n: usize| {
            let edge = |v: f64| (v + start).clamp(0.0, n as f64) as usize;
            edge((cell as f64 * bin).floor())..edge(((cell + 1) as f64 * bin).ceil())
        };
        for c in 0..channels {
            let plane = &values[(r[0] as usize * channels + c) * h * w..][..h * w];
            for (row, column) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
                let across = range(column, bin_w, x0, w);
                let cell = range(row, bin_h, y0, h).flat_map(|y| across.clone().map(move |x| (y, x)));
                let best = cell.map(|(y, x)| plane[y * w + x]).reduce(f64::max);
                out.push(best.unwrap_or(0.0));
            }
        }
    }
    one(Tensor::new(out, [count, channels, rows, columns])?.cast(x.dtype())?)
}

fn infer_pool(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let [h, w] = pooled_shape(cx.node)?;
    let shape = match (cx.shape(0), cx.shape(1)) {
        (Some([_, c, ..]), Some([n, _])) => Some(vec![n.clone(), c.clone(), Dim::Known(h), Dim::Known(w)]),
        _ => None,
    };
    like_first(cx, shape)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, ints};
    use tensor::{Tensor, gradcheck, random::uniform_f64};

    #[test]
    fn the_gradient_of_roi_align_by_the_image() {
        let rois = Tensor::new(vec![0f32, 0.0, 3.0, 2.5, 1.0, 0.5, 3.5, 4.0], [2, 4]).unwrap();
        gradcheck::check(&[uniform_f64(1, &[2, 2, 4, 5], -1.0, 1.0)], |t| {
            let case = Case::new("RoiAlign", 16).int("output_height", 2).int("output_width", 3).int("sampling_ratio", 2);
            Ok(case.run(&[t[0].clone(), rois.clone(), ints(&[1, 0])]))
        })
        .unwrap();
    }
}
