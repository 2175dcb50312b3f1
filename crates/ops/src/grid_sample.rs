//! GridSample and AffineGrid.
use crate::resample::Filter;
use crate::shapes::{known_ints, like_first, typed, unknown, vector_length};
use crate::simple::{Simple, one};
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("GridSample", "Samples an image at the points of a grid.", &[16, 20, 22], grid_sample, infer_sample)
        .role(|_, _| crate::Role::Data),
    &Simple::new("AffineGrid", "The grid that an affine map takes a regular grid to.", &[20], affine_grid, infer_grid),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// How a grid is read along one axis.
struct Sampler {
    padding: Padding,
    filter: Option<Filter>,
    align_corners: bool,
}

impl Sampler {
    fn of(node: &Node) -> Result<Sampler, OpError> {
        let filter = match node.string_or("mode", "linear")? {
            "linear" | "bilinear" => Some(Filter::Linear),
            "cubic" | "bicubic" => Some(Filter::Cubic(-0.75)),
            "nearest" => None,
            other => return Err(OpError::unsupported(node, format!("mode = '{other}'"))),
        };
        let padding = match node.string_or("padding_mode", "zeros")? {
            "zeros" => Padding::Zeros,
            "border" => Padding::Border,
            "reflection" => Padding::Reflection,
            other => return Err(OpError::unsupported(node, format!("padding_mode = '{other}'"))),
        };
        Ok(Sampler { padding, filter, align_corners: node.int_or("align_corners", 0)? != 0 })
    }

    /// A coordinate reflected at the image's borders until it lies inside, and whether its direction is reversed there.
    fn reflect(&self, x: f64, size: usize) -> (f64, bool) {
        let (lo, hi) = if self.align_corners { (0.0, size as f64 - 1.0) } else { (-0.5, size as f64 - 0.5) };
        let span = hi - lo;
        if span <= 0.0 {
            return (0.0, false);
        }
        let t = (x - lo).rem_euclid(2.0 * span);
        if t > span { (lo + 2.0 * span - t, true) } else { (lo + t, false) }
    }

    /// The pixel for an index: none where padding is zero.
    fn pixel(&self, i: f64, size: usize) -> Option<usize> {
        let last = size as f64 - 1.0;
        let i = match self.padding {
            Padding::Zeros if i < 0.0 || i > last => return None,
            Padding::Reflection => self.reflect(i, size).0.round_ties_even(),
            _ => i,
        };
        i.is_finite().then(|| i.clamp(0.0, last) as usize)
    }

    /// The pixels that a normalized coordinate reads.
    fn taps(&self, normalized: f64, size: usize) -> Vec<Tap> {
        let n = size as f64;
        let (mut x, mut speed) = match self.align_corners {
            true => ((normalized + 1.0) / 2.0 * (n - 1.0), (n - 1.0) / 2.0),
            false => (((normalized + 1.0) * n - 1.0) / 2.0, n / 2.0),
        };
        let cubic = matches!(self.filter, Some(Filter::Cubic(_)));
        if !cubic && self.padding != Padding::Zeros {
            if self.padding == Padding::Reflection {
                let (inside, backwards) = self.reflect(x, size);
                x = inside;
                speed = if backwards { -speed } else { speed };
            }
            // A coordinate clamped to the border does not depend on the grid.
            speed = if (0.0..=n - 1.0).contains(&x) { speed } else { 0.0 };
            x = x.clamp(0.0, n - 1.0);
        }
        let Some(filter) = self.filter else {
            return self.pixel(x.round_ties_even(), size).map(|pixel| Tap { pixel, weight: 1.0, slope: 0.0 }).into_iter().collect();
        };
        let base = x.floor();
        let offsets = if cubic { -1..3 } else { 0..2 };
        offsets
            .filter_map(|o| {
                let at = base + f64::from(o);
                let (weight, slope) = (filter.weight(at - x), filter.slope(at - x) * speed);
                self.pixel(at, size).map(|pixel| Tap { pixel, weight, slope })
            })
            .collect()
    }
}

/// One pixel along one axis that a coordinate reads.
struct Tap {
    pixel: usize,
    weight: f64,
    /// Derivative of the weight by the normalized coordinate.
    slope: f64,
}

/// The pixels that each point reads and their weights, as rows of one width.
struct Reading {
    pixels: Vec<i64>,
    weights: Vec<f64>,
    /// Derivatives of the weights by each coordinate, in the order of the axes.
    slopes: Vec<Vec<f64>>,
    width: usize,
}

impl Reading {
    /// Slopes are computed on demand: they are needed for the gradient by the grid alone.
    fn of(sampler: &Sampler, positions: &[f64], sizes: &[usize], with_slopes: bool) -> Reading {
        let axes = sizes.len();
        let width = match sampler.filter {
            None => 1,
            Some(Filter::Cubic(_)) => 4usize.pow(axes as u32),
            Some(_) => 2usize.pow(axes as u32),
        };
        let derivatives = if with_slopes { axes } else { 0 };
        let mut reading = Reading { pixels: vec![], weights: vec![], slopes: vec![vec![]; derivatives], width };
        for point in positions.chunks(axes) {
            // Coordinates are in the order x, y, z; axes in the order depth, height, width.
            let along: Vec<Vec<Tap>> = sizes.iter().enumerate().map(|(a, size)| sampler.taps(point[axes - 1 - a], *size)).collect();
            let rows = (reading.weights.len() / width + 1) * width;
            let products = |value: &dyn Fn(usize, &Tap) -> f64| {
                let mut row = vec![1.0];
                for (a, taps) in along.iter().enumerate() {
                    row = row.iter().flat_map(|w| taps.iter().map(move |t| w * value(a, t))).collect();
                }
                row
            };
            let mut pixels = vec![0];
            for (taps, size) in along.iter().zip(sizes) {
                pixels = pixels.iter().flat_map(|i| taps.iter().map(move |t| i * *size as i64 + t.pixel as i64)).collect();
            }
            reading.pixels.extend(pixels);
            reading.weights.extend(products(&|_, t| t.weight));
            for (axis, slopes) in reading.slopes.iter_mut().enumerate() {
                slopes.extend(products(&|a, t| if a == axis { t.slope } else { t.weight }));
                slopes.resize(rows, 0.0);
            }
            reading.pixels.resize(rows, 0);
            reading.weights.resize(rows, 0.0);
        }
        reading
    }
}

/// One matrix `[pixels, points]` an image, so that the gradient by the image follows from the product. The gradient by
/// the grid comes from the slopes of the weights.
fn grid_sample(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x, grid) = (cx.node, inputs.get(0)?, inputs.get(1)?);
    let axes = x.rank().saturating_sub(2);
    if axes == 0 || grid.rank() != x.rank() || grid.shape().first() != x.shape().first() || grid.shape().last() != Some(&axes) {
        return Err(node.error(format!("an image {:?} and a grid {:?} do not fit", x.shape(), grid.shape())).into());
    }
    if axes > 3 {
        return Err(OpError::unsupported(node, format!("{axes} spatial axes, more than 3")));
    }
    let sampler = Sampler::of(node)?;
    let (batch, channels, sizes) = (x.shape()[0], x.shape()[1], &x.shape()[2..]);
    if sizes.contains(&0) {
        return Err(node.error("an image without pixels cannot be sampled").into());
    }
    let points: usize = grid.shape()[1..=axes].iter().product();
    let area: usize = sizes.iter().product();
    let reading = Reading::of(&sampler, &grid.to_f64_vec()?, sizes, grid.is_tracked());
    let inner = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let table = |values: Vec<f64>| -> Result<Tensor, OpError> { Ok(Tensor::new(values, [batch, points, reading.width])?.cast(inner)?) };
    let mut weights = table(reading.weights)?;
    for (axis, slopes) in reading.slopes.into_iter().enumerate() {
        let coordinate = grid.narrow(axes + 1, axes - 1 - axis, 1)?.cast(inner)?.reshape([batch, points, 1])?;
        // Zero, with the gradient of the coordinate.
        let moved = coordinate.sub(&coordinate.detach())?;
        weights = weights.add(&table(slopes)?.mul(&moved)?)?;
    }
    let pixels = Tensor::new(reading.pixels, [batch, points, reading.width])?;
    let rows = x.cast(inner)?.reshape([batch, channels, area])?;
    let mut images = vec![];
    for b in 0..batch {
        let (index, weight) = (pixels.narrow(0, b, 1)?.squeeze(&[0])?, weights.narrow(0, b, 1)?);
        // [1, channels, points, width] weighted and summed.
        images.push(rows.narrow(0, b, 1)?.gather(&index, 2)?.mul(&weight)?.sum(&[3], false)?);
    }
    let mut shape = vec![batch, channels];
    shape.extend(&grid.shape()[1..=axes]);
    one(Tensor::concat(&images, 0)?.reshape(shape)?.cast(x.dtype())?)
}

fn infer_sample(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let shape = match (cx.shape(0), cx.shape(1)) {
        (Some([n, c, ..]), Some([_, points @ .., _])) => Some([&[n.clone(), c.clone()], points].concat()),
        _ => None,
    };
    like_first(cx, shape)
}

fn affine_grid(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let theta = inputs.get(0)?;
    let size: Option<Vec<usize>> = inputs.get(1)?.to_i64_vec()?.iter().map(|v| usize::try_from(*v).ok()).collect();
    let size = size.filter(|s| matches!(s.len(), 4 | 5)).ok_or_else(|| cx.node.error("size must have four or five positive entries"))?;
    let (batch, spatial) = (size[0], &size[2..]);
    let axes = spatial.len();
    if theta.shape() != [batch, axes, axes + 1] {
        return Err(cx.node.error(format!("theta of shape {:?} for an output of {size:?}", theta.shape())).into());
    }
    let align = cx.node.int_or("align_corners", 0)? != 0;
    let points: usize = tensor::memory::room::<f64>("affine_grid", &[spatial, &[axes + 1]].concat())? / (axes + 1);
    let strides = tensor::shape::strides(spatial);
    let mut base = Vec::with_capacity(points * (axes + 1));
    for p in 0..points {
        for axis in (0..axes).rev() {
            let (i, n) = ((p / strides[axis] % spatial[axis]) as f64, spatial[axis] as f64);
            base.push(match align {
                true if n > 1.0 => 2.0 * i / (n - 1.0) - 1.0,
                true => 0.0,
                false => (2.0 * i + 1.0) / n - 1.0,
            });
        }
        base.push(1.0);
    }
    let base = Tensor::new(base, [points, axes + 1])?.cast(theta.dtype())?;
    let grid = base.matmul(&theta.transpose_last()?)?;
    one(grid.reshape([&[batch], spatial, &[axes]].concat())?)
}

fn infer_grid(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let shape = match (known_ints(cx, 1), vector_length(cx, 1)) {
        (Some(size), _) if size.len() > 2 => {
            let mut dims: Vec<Dim> = vec![Dim::Known(size[0].max(0) as usize)];
            dims.extend(size[2..].iter().map(|d| Dim::Known((*d).max(0) as usize)));
            dims.push(Dim::Known(size.len() - 2));
            Some(dims)
        }
        (_, Some(n)) => Some(unknown(n)),
        _ => None,
    };
    Ok(vec![typed(cx.dtype(0), shape)])
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use tensor::{gradcheck, random::uniform_f64};

    #[test]
    fn a_grid_larger_than_any_memory_is_refused() {
        for size in [[2, 1, (1 << 40) - 253, 4], [2, 1, i64::MAX, i64::MAX]] {
            let inputs = [uniform_f64(1, &[2, 2, 3], -1.0, 1.0), tensor::Tensor::vector(size.to_vec())];
            assert!(Case::new("AffineGrid", 20).run_all(&inputs).is_err());
        }
    }

    #[test]
    fn gradients_by_image_and_grid() {
        for mode in ["linear", "cubic", "nearest"] {
            for padding in ["zeros", "border", "reflection"] {
                for align in [0, 1] {
                    let inputs = [uniform_f64(1, &[2, 2, 3, 4], -1.0, 1.0), uniform_f64(2, &[2, 3, 2, 2], -1.4, 1.4)];
                    let case =
                        || Case::new("GridSample", 20).string("mode", mode).string("padding_mode", padding).int("align_corners", align);
                    gradcheck::check(&inputs, |t| Ok(case().run(t))).unwrap_or_else(|e| panic!("{mode} {padding} {align}: {e}"));
                }
            }
        }
        let volume = [uniform_f64(3, &[1, 1, 2, 3, 2], -1.0, 1.0), uniform_f64(4, &[1, 2, 1, 2, 3], -0.9, 0.9)];
        gradcheck::check(&volume, |t| Ok(Case::new("GridSample", 20).run(t))).unwrap();
    }
}
