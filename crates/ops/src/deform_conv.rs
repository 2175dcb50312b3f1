//! DeformConv: a convolution whose window is deformed by learned offsets.
use crate::conv::product;
use crate::shapes::{like_first, unknown};
use crate::simple::{Simple, one};
use crate::window::{Window, spatial};
use crate::{EvalCx, Inputs, MacsCx, OpError, Operator, Role, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] =
    &[&Simple::new("DeformConv", "Convolution that samples its input at offset positions.", &[19, 22], deform_conv, infer)
        .role(|_, i| match i {
            1 => Role::Weight,
            3 => Role::Bias,
            _ => Role::Data,
        })
        .weight_axis(|_, i| (i == 1).then_some(0))
        .macs(macs)];

fn groups(node: &Node, name: &str) -> Result<usize, OpError> {
    let n = usize::try_from(node.int_or(name, 1)?).ok().filter(|n| *n > 0);
    n.ok_or_else(|| node.attribute_error(name, "must be positive").into())
}

/// Samples the columns that an ordinary convolution would cut out, each element at its own position, and multiplies them with the
/// weight. Differentiable by data, weight, offsets, bias and mask (Dai et al., 2017, and with the mask Zhu et al., 2019).
fn deform_conv(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x, w, offset) = (cx.node, inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
    let (&[batch, channels, height, width], &[filters, depth, ..]) = (x.shape(), w.shape()) else {
        return Err(OpError::unsupported(node, format!("data of {} axes; images have four", x.rank())));
    };
    let window = Window::of_weight(node, w.shape())?.padded_for(node, spatial(node, x.shape())?)?;
    let (group, bent) = (groups(node, "group")?, groups(node, "offset_group")?);
    let places = [window.positions(node, 0, height)?, window.positions(node, 1, width)?];
    let (area, points) = (product(&window.kernel) as usize, product(&places) as usize);
    if channels != depth * group || filters % group != 0 || channels % bent != 0 || height * width == 0 {
        return Err(node.error(format!("{channels} channels and a weight of shape {:?} for {group} groups", w.shape())).into());
    }
    let fits = |t: &Tensor, rows: usize| t.shape() == [batch, rows, places[0], places[1]];
    if !fits(offset, bent * area * 2) || inputs.opt(4).is_some_and(|m| !fits(m, bent * area)) {
        return Err(node.error(format!("an offset of shape {:?} (or its mask) for {places:?} places", offset.shape())).into());
    }
    let inner = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let offsets = offset.cast(inner)?.reshape([batch, bent, area, 2, points])?;
    // Where each kernel element lies without offsets, as [area, points].
    let regular = |axis: usize| -> Result<Tensor, OpError> {
        let mut at = Vec::with_capacity(tensor::memory::room::<f64>("deform_conv", &[area, points])?);
        for element in 0..area {
            let k = if axis == 0 { element / window.kernel[1] } else { element % window.kernel[1] };
            for place in 0..points {
                let p = if axis == 0 { place / places[1] } else { place % places[1] };
                at.push((p * window.strides[axis] + k * window.dilations[axis]) as f64 - window.pads[axis].0 as f64);
            }
        }
        Ok(Tensor::new(at, [area, points])?.cast(inner)?)
    };
    let position = |axis: usize| -> Result<Tensor, OpError> { Ok(offsets.narrow(3, axis, 1)?.squeeze(&[3])?.add(&regular(axis)?)?) };
    let (rows, columns) = (Taps::along(&position(0)?, height)?, Taps::along(&position(1)?, width)?);
    let mask = inputs.opt(4).map(|m| m.cast(inner)?.reshape([batch, bent, area, points])).transpose()?;
    let data = x.cast(inner)?.reshape([batch, bent, channels / bent, height * width])?;
    let weight = w.cast(inner)?.reshape([group, filters / group, depth * area])?;
    let mut images = Vec::with_capacity(batch);
    for b in 0..batch {
        let mut parts = Vec::with_capacity(bent);
        for g in 0..bent {
            let image = data.narrow(0, b, 1)?.narrow(1, g, 1)?.reshape([channels / bent, height * width])?;
            let mut sampled = sample(&image, &rows, &columns, width, b * bent + g)?;
            if let Some(mask) = &mask {
                sampled = sampled.mul(&mask.narrow(0, b, 1)?.narrow(1, g, 1)?.reshape([area, points])?)?;
            }
            parts.push(sampled);
        }
        let cut = Tensor::concat(&parts, 0)?.reshape([group, depth * area, points])?;
        images.push(weight.matmul(&cut)?.reshape([1, filters, places[0], places[1]])?);
    }
    let mut y = Tensor::concat(&images, 0)?;
    if let Some(bias) = inputs.opt(3) {
        y = y.add(&bias.cast(inner)?.reshape([filters, 1, 1])?)?;
    }
    one(y.cast(x.dtype())?)
}

/// The two pixels around each position along one axis, and their weights: none outside the image.
struct Taps {
    pixels: [Vec<usize>; 2],
    weights: [Tensor; 2],
}

impl Taps {
    /// `position` is `[batch, groups, area, points]`.
    fn along(position: &Tensor, size: usize) -> Result<Taps, OpError> {
        let base = position.detach().floor()?;
        let above = position.sub(&base)?;
        let below = above.neg()?.add_scalar(1.0)?;
        let floors = base.to_f64_vec()?;
        let side = |step: f64, weight: Tensor| -> Result<(Vec<usize>, Tensor), OpError> {
            let inside: Vec<bool> = floors.iter().map(|f| (0.0..size as f64).contains(&(f + step))).collect();
            let pixels = floors.iter().map(|f| (f + step).clamp(0.0, size as f64 - 1.0) as usize).collect();
            let inside = Tensor::new(inside, position.shape())?;
            Ok((pixels, Tensor::where_(&inside, &weight, &weight.scalar_like(0.0)?)?))
        };
        let ((p0, w0), (p1, w1)) = (side(0.0, below)?, side(1.0, above)?);
        Ok(Taps { pixels: [p0, p1], weights: [w0, w1] })
    }
}

/// Bilinear samples `[channels, area, points]` of an image `[channels, height * width]`; `part` counts images and groups.
fn sample(image: &Tensor, rows: &Taps, columns: &Taps, width: usize, part: usize) -> Result<Tensor, OpError> {
    let shape = rows.weights[0].shape();
    let (area, points) = (shape[2], shape[3]);
    let range = part * area * points..(part + 1) * area * points;
    let own = |t: &Tensor| -> tensor::Result<Tensor> { t.reshape([shape[0] * shape[1], area, points])?.narrow(0, part, 1)?.squeeze(&[0]) };
    let mut sum: Option<Tensor> = None;
    for (r, c) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let at = range.clone().map(|i| (rows.pixels[r][i] * width + columns.pixels[c][i]) as i64).collect();
        let weight = own(&rows.weights[r])?.mul(&own(&columns.weights[c])?)?;
        let corner = image.gather(&Tensor::new::<i64>(at, [area, points])?, 1)?.mul(&weight)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&corner)?,
            None => corner,
        });
    }
    sum.ok_or_else(|| OpError::Inner("an image has four corners".into()))
}

/// The spatial sizes of the output are those of the offsets.
fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let shape = match (cx.shape(0), cx.shape(1), cx.shape(2)) {
        (Some([n, ..]), Some([m, ..]), Some([_, _, h, w])) => Some(vec![n.clone(), m.clone(), h.clone(), w.clone()]),
        (Some(x), ..) => Some(unknown(x.len())),
        _ => None::<Vec<Dim>>,
    };
    like_first(cx, shape)
}

/// MACs of a convolution; the bilinear interpolation is not counted.
fn macs(cx: &MacsCx) -> u64 {
    let (Some(Some(w)), Some(Some(y))) = (cx.inputs.get(1), cx.outputs.first()) else { return 0 };
    product(y).saturating_mul(product(w.get(1..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, iota};
    use tensor::{Tensor, gradcheck, random::uniform_f64};

    #[test]
    fn without_offsets_it_is_a_convolution() {
        let (x, w) = (iota(&[1, 2, 4, 5]), iota(&[3, 2, 3, 2]));
        let plain = Case::new("Conv", 11).ints("strides", &[1, 2]).ints("pads", &[1, 0, 0, 1]).run(&[x.clone(), w.clone()]);
        let offset = Tensor::full(0f32, [1, 12, plain.shape()[2], plain.shape()[3]]).unwrap();
        let bent = Case::new("DeformConv", 19).ints("strides", &[1, 2]).ints("pads", &[1, 0, 0, 1]).run(&[x, w, offset]);
        assert_eq!(bent, plain);
    }

    #[test]
    fn gradients_by_every_input() {
        let u = |seed, shape: &[usize]| uniform_f64(seed, shape, -1.0, 1.0);
        let inputs = [u(1, &[1, 2, 3, 3]), u(2, &[1, 2, 2, 2]), u(3, &[1, 16, 2, 2]), u(4, &[1]), u(5, &[1, 8, 2, 2])];
        gradcheck::check(&inputs, |t| Ok(Case::new("DeformConv", 19).int("offset_group", 2).run(t))).unwrap();
    }
}
