//! Col2Im and Det.
use crate::shapes::{like_first, unknown};
use crate::simple::{Simple, one};
use crate::window::Window;
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, ValueType};
use tensor::{ConvOptions, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Col2Im", "Sums the columns that a sliding window made back into an image.", &[18], col2im, |cx| {
        let axes = crate::shapes::vector_length(cx, 1);
        like_first(cx, axes.map(|n| unknown(n + 2)))
    }),
    &Simple::new("Det", "Determinant of square matrices.", &[11, 22], det, infer_det),
];

/// The transpose of the convolution that cuts an image into columns: each kernel element is an output channel of an identity
/// weight, so the gradient is that of the transposed convolution.
fn col2im(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x) = (cx.node, inputs.get(0)?);
    let list = |i: usize| -> Result<Vec<usize>, OpError> {
        let sizes: Option<Vec<usize>> = inputs.get(i)?.to_i64_vec()?.iter().map(|v| usize::try_from(*v).ok()).collect();
        sizes.ok_or_else(|| node.error("has a negative size").into())
    };
    let (image, block) = (list(1)?, list(2)?);
    let window = Window::of(node, block.clone())?;
    let [batch, width, columns] = *x.shape() else { return Err(node.error(format!("columns of shape {:?}", x.shape())).into()) };
    let area: usize = tensor::shape::count(&block)?;
    if image.len() != block.len() || width % area != 0 {
        return Err(node.error(format!("{width} rows of columns do not fall into blocks of {block:?}")).into());
    }
    let places = (0..image.len()).map(|i| window.positions(node, i, image[i])).collect::<Result<Vec<_>, _>>()?;
    if crate::conv::product(&places) != columns as u64 {
        return Err(node.error(format!("{columns} columns where the windows have {places:?} places")).into());
    }
    let channels = width / area;
    // Pixels at the far side that no window covers.
    let rest: Vec<usize> = (0..image.len())
        .map(|i| (image[i].saturating_add(window.pads[i].0 + window.pads[i].1) - window.extent(i)) % window.strides[i])
        .collect();
    let options = ConvOptions { strides: window.strides, pads: window.pads, dilations: window.dilations, groups: 1 };
    let mut identity = vec![0f32; tensor::memory::room::<f32>("col2im", &[area, area])?];
    identity.iter_mut().step_by(area + 1).for_each(|v| *v = 1.0);
    let weight = Tensor::new(identity, [&[area, 1], block.as_slice()].concat())?.cast(x.dtype())?;
    let data = x.reshape([&[batch * channels, area], places.as_slice()].concat())?;
    let y = data.conv_transpose(&weight, None, &options, &rest)?;
    one(y.reshape([&[batch, channels], image.as_slice()].concat())?)
}

fn det(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x) = (cx.node, inputs.get(0)?);
    if x.is_tracked() {
        return Err(OpError::unsupported(node, "a gradient by its data"));
    }
    let [batch @ .., n, m] = x.shape() else { return Err(node.error("needs matrices").into()) };
    if n != m {
        return Err(node.error(format!("matrices of {n} by {m} have no determinant")).into());
    }
    let values = x.to_f64_vec()?;
    let count = tensor::shape::count(batch)?;
    let out: Vec<f64> = (0..count).map(|i| determinant(values[i * n * n..(i + 1) * n * n].to_vec(), *n)).collect();
    one(Tensor::new(out, batch)?.cast(x.dtype())?)
}

/// Gaussian elimination with the largest pivot of each column.
fn determinant(mut a: Vec<f64>, n: usize) -> f64 {
    let mut product = 1.0;
    for k in 0..n {
        let pivot = (k..n).max_by(|i, j| a[i * n + k].abs().total_cmp(&a[j * n + k].abs())).unwrap_or(k);
        if a[pivot * n + k] == 0.0 {
            return 0.0;
        }
        if pivot != k {
            (0..n).for_each(|c| a.swap(pivot * n + c, k * n + c));
            product = -product;
        }
        product *= a[k * n + k];
        for row in k + 1..n {
            let factor = a[row * n + k] / a[k * n + k];
            (k..n).for_each(|c| a[row * n + c] -= factor * a[k * n + c]);
        }
    }
    product
}

fn infer_det(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let shape: Option<Vec<Dim>> = cx.shape(0).and_then(|s| s.len().checked_sub(2).map(|n| s[..n].to_vec()));
    like_first(cx, shape)
}
