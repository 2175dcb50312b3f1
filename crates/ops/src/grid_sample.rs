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

    /// A coordinate reflected at the image's borders until it lies inside.
    fn reflect(&self, x: f64, size: usize) -> f64 {
        let (lo, hi) = if self.align_corners { (0.0, size as f64 - 1.0) } else { (-0.5, size as f64 - 0.5) };
        let span = hi - lo;
        if span <= 0.0 {
            return 0.0;
        }
        let t = (x - lo).rem_euclid(2.0 * span);
        lo + if t > span { 2.0 * span - t } else { t }
    }

    /// The pixel that stands for an index: none where padding is zero.
    fn pixel(&self, i: f64, size: usize) -> Option<usize> {
        let last = size as f64 - 1.0;
        let i = match self.padding {
            Padding::Zeros if i < 0.0 || i > last => return None,
            Padding::Reflection => self.reflect(i, size).round_ties_even(),
            _ => i,
        };
        i.is_finite().then(|| i.clamp(0.0, last) as usize)
    }

    /// Pixels and weights for a normalized coordinate.
    fn taps(&self, normalized: f64, size: usize) -> Vec<(usize, f64)> {
        let n = size as f64;
        let mut x = if self.align_corners { (normalized + 1.0) / 2.0 * (n - 1.0) } else { ((normalized + 1.0) * n - 1.0) / 2.0 };
        let cubic = matches!(self.filter, Some(Filter::Cubic(_)));
        if !cubic {
            match self.padding {
                Padding::Border => x = x.clamp(0.0, n - 1.0),
                Padding::Reflection => x = self.reflect(x, size).clamp(0.0, n - 1.0),
                Padding::Zeros => {}
            }
        }
        let Some(filter) = self.filter else {
            return self.pixel(x.round_ties_even(), size).map(|i| (i, 1.0)).into_iter().collect();
        };
        let base = x.floor();
        let offsets = if cubic { -1..3 } else { 0..2 };
        offsets
            .filter_map(|o| {
                let at = base + f64::from(o);
                let weight = filter.weight(at - x);
                self.pixel(at, size).filter(|_| weight != 0.0).map(|i| (i, weight))
            })
            .collect()
    }
}

/// One matrix `[pixels, points]` an image, so that the gradient by the image follows from the product. The grid gets
/// no gradient; one that is tracked is refused.
fn grid_sample(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x, grid) = (cx.node, inputs.get(0)?, inputs.get(1)?);
    if grid.is_tracked() {
        return Err(OpError::unsupported(node, "a gradient by the grid"));
    }
    let axes = x.rank().saturating_sub(2);
    if axes == 0 || grid.rank() != x.rank() || grid.shape().first() != x.shape().first() || grid.shape().last() != Some(&axes) {
        return Err(node.error(format!("an image {:?} and a grid {:?} do not fit", x.shape(), grid.shape())).into());
    }
    let sampler = Sampler::of(node)?;
    let (batch, channels, sizes) = (x.shape()[0], x.shape()[1], &x.shape()[2..]);
    if sizes.contains(&0) {
        return Err(node.error("an image without pixels cannot be sampled").into());
    }
    let points: usize = grid.shape()[1..=axes].iter().product();
    let area: usize = sizes.iter().product();
    let positions = grid.to_f64_vec()?;
    let (mut index, mut weight, mut width) = (vec![], vec![], 0);
    for point in positions.chunks(axes) {
        let mut taps = vec![(0usize, 1f64)];
        for (axis, size) in sizes.iter().enumerate() {
            // Coordinates are in the order x, y, z; axes in the order depth, height, width.
            let along = sampler.taps(point[axes - 1 - axis], *size);
            taps = taps.iter().flat_map(|(i, w)| along.iter().map(move |(j, v)| (i * size + j, w * v))).collect();
        }
        width = width.max(taps.len());
        index.push(taps.iter().map(|t| t.0 as i64).collect::<Vec<i64>>());
        weight.push(taps.iter().map(|t| t.1).collect::<Vec<f64>>());
    }
    index.iter_mut().for_each(|l| l.resize(width, 0));
    weight.iter_mut().for_each(|l| l.resize(width, 0.0));
    let inner = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let rows = x.cast(inner)?.reshape([batch, channels, area])?;
    let mut images = vec![];
    for b in 0..batch {
        let range = b * points..(b + 1) * points;
        let index = Tensor::new(index[range.clone()].concat(), [points, width])?;
        let weight = Tensor::new(weight[range].concat(), [points, width])?.cast(inner)?;
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
    let points: usize = spatial.iter().product();
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
