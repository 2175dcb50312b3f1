//! Products of 8-bit integers as AVX2 sums them: vpmaddubsw multiplies unsigned by signed bytes and adds two neighbouring products in
//! 16 bits, where a sum beyond -32768..32767 stops at the end. VNNI and Arm add in 32 bits, so their sums are exact.
//!
//! Neighbours are those of ONNX Runtime's kernels (MLAS): the elements of a convolution's kernel in the order height, width, channel
//! of the group; the rows of a matrix. Depthwise convolutions do not use the instruction, nor do unsigned weights.
use crate::window::Window;
use crate::{ChannelAxis, EvalCx, LayerChannels, OpError};
use graph::Node;
use tensor::{DType, Tensor, TensorError};

/// How sums of 8-bit products are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sums {
    /// In 32 bits, exactly.
    #[default]
    Exact,
    /// In pairs that saturate at 16 bits.
    Pairs,
}

/// The largest unsigned 8-bit integer.
const LARGEST: i32 = 255;

/// Two neighbouring weights of an output, with their places in the order of products; the second is absent at an odd end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    first: (usize, i32),
    second: Option<(usize, i32)>,
}

/// True if data exist with which the sum of the products with two weights leaves 16 bits; each weight comes with the largest
/// (unsigned) data that it meets.
pub fn saturates(first: (i32, i32), second: (i32, i32)) -> bool {
    let end = |of: fn(i32, i32) -> i32| first.1 * of(first.0, 0) + second.1 * of(second.0, 0);
    end(i32::max) > i32::from(i16::MAX) || end(i32::min) < i32::from(i16::MIN)
}

/// For each output of a weight `rows` (an output's weights in the order of products, each row as long as `row`), the pairs that
/// can saturate.
fn pairs(rows: &[i32], row: usize) -> Vec<Vec<Pair>> {
    let one = |row: &[i32]| {
        let both = row.chunks(2).enumerate().map(|(i, two)| Pair { first: (2 * i, two[0]), second: two.get(1).map(|w| (2 * i + 1, *w)) });
        both.filter(|p| saturates((p.first.1, LARGEST), (p.second.map_or(0, |s| s.1), LARGEST))).collect()
    };
    rows.chunks(row.max(1)).map(one).collect()
}

/// The order in which kernels on integers multiply the elements of a weight with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    /// `[m, c, k...]`: for each output the kernel, channels innermost.
    Kernel,
    /// `[n, k]`.
    Rows,
    /// `[k, n]`.
    Columns,
}

impl Products {
    /// The order in which a node takes a weight of this shape; `None` for other operators than convolutions (not transposed ones) and
    /// matrix products.
    pub fn of(node: &Node, shape: &[usize]) -> Option<Products> {
        let layer = LayerChannels::of(node, shape)?;
        match (layer.at, layer.output) {
            (ChannelAxis::Second, _) => (!layer.groups_by_input).then_some(Products::Kernel),
            (ChannelAxis::Last, 0) => Some(Products::Rows),
            (ChannelAxis::Last, _) => Some(Products::Columns),
        }
    }

    /// True if kernels sum products in pairs; those of a depthwise convolution do not.
    pub fn in_pairs(self, shape: &[usize]) -> bool {
        self != Products::Kernel || shape.get(1).is_some_and(|channels| *channels > 1)
    }

    /// The channel of the data that a product reads, by output and place in the row, for a weight of this shape on data of `channels`.
    pub fn channel(self, shape: &[usize], channels: usize) -> impl Fn(usize, usize) -> usize {
        let (outputs, per_group) = match self {
            Products::Kernel => (shape[0], shape[1].max(1)),
            _ => (1, usize::MAX),
        };
        let per_output = (outputs * per_group.min(channels) / channels.max(1)).max(1);
        move |output, product| match per_group {
            usize::MAX => product,
            n => output / per_output * n + product % n,
        }
    }

    /// Where the channels of the data lie.
    pub fn data(self) -> ChannelAxis {
        if self == Products::Kernel { ChannelAxis::Second } else { ChannelAxis::Last }
    }

    /// The axis of the outputs.
    pub fn axis(self) -> usize {
        if self == Products::Columns { 1 } else { 0 }
    }

    /// The weight as `[outputs, products]`.
    ///
    /// # Errors
    /// For a weight of another rank.
    pub fn rows(self, weight: &Tensor) -> Result<Tensor, TensorError> {
        match self {
            Products::Kernel => product_order(weight),
            Products::Rows => Ok(weight.clone()),
            Products::Columns => weight.transpose(&[1, 0]),
        }
    }
}

/// A convolution's weight `[m, c, k...]` with each output's elements in the order of products: `[m, k..., c]`, flat.
fn product_order(weight: &Tensor) -> Result<Tensor, TensorError> {
    let axes: Vec<usize> = std::iter::once(0).chain(2..weight.rank()).chain([1]).collect();
    let shape = weight.shape();
    let row: usize = shape.iter().skip(1).product();
    weight.transpose(&axes)?.reshape(vec![shape[0], row])
}

/// Bytes as vpmaddubsw takes them: unsigned data. Signed data are shifted by 128, and so is their zero point.
fn unsigned(x: &Tensor) -> Result<Vec<i32>, TensorError> {
    let shift = if x.dtype() == DType::I8 { 128 } else { 0 };
    Ok(x.to_i64_vec()?.iter().map(|v| *v as i32 + shift).collect())
}

fn applies(x: &Tensor, w: &Tensor) -> bool {
    w.dtype() == DType::I8 && matches!(x.dtype(), DType::U8 | DType::I8)
}

fn lost(sum: i32) -> i32 {
    sum.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) - sum
}

/// What saturation would take from the sums of a layer (a node on floats, or one on integers of the same form) whose data are `x` (8 bits,
/// with their zero point) and whose weight is `w` (8 bits, signed): f64 of the sums' shape, to be added to them. `None` where nothing can
/// saturate, and for other nodes and types.
///
/// # Errors
/// [`OpError`] for shapes or attributes that do not fit the operator.
pub fn taken(node: &Node, x: &Tensor, zero_point: Option<&Tensor>, w: &Tensor) -> Result<Option<Tensor>, OpError> {
    match Products::of(node, w.shape()) {
        Some(Products::Kernel) => {
            let sides = x.shape().get(2..).unwrap_or_default();
            conv_taken(node, x, zero_point, w, &Window::of_weight(node, w.shape())?.padded_for(node, sides)?)
        }
        Some(Products::Rows) => product_taken(node, x, &w.transpose(&[1, 0])?),
        Some(Products::Columns) => product_taken(node, x, w),
        None => Ok(None),
    }
}

/// What saturation takes from the sums of a convolution of `x` `[n, c, ...]` (8 bits, with its zero point) and `w` `[m, c / group,
/// ...]` (8 bits, signed), where sums saturate: f64 of the sums' shape, to be added. `None` where nothing can saturate.
pub(crate) fn of_conv(
    cx: &EvalCx,
    x: &Tensor,
    zero_point: Option<&Tensor>,
    w: &Tensor,
    window: &Window,
) -> Result<Option<Tensor>, OpError> {
    if cx.sums == Sums::Pairs { conv_taken(cx.node, x, zero_point, w, window) } else { Ok(None) }
}

fn conv_taken(node: &Node, x: &Tensor, zero_point: Option<&Tensor>, w: &Tensor, window: &Window) -> Result<Option<Tensor>, OpError> {
    let (data, weight) = (x.shape(), w.shape());
    if !applies(x, w) || data.len() < 3 || weight.len() != data.len() || weight[1] == 1 {
        return Ok(None);
    }
    let (per_group, row) = (weight[1], weight[1..].iter().product());
    let rows: Vec<i32> = product_order(w)?.to_i64_vec()?.iter().map(|v| *v as i32).collect();
    let pairs = pairs(&rows, row);
    if pairs.iter().all(Vec::is_empty) {
        return Ok(None);
    }
    let groups = data[1] / per_group.max(1);
    let spatial = &data[2..];
    let mut out_spatial = vec![];
    for (axis, size) in spatial.iter().enumerate() {
        out_spatial.push(window.positions(node, axis, *size)?);
    }
    let places = offsets(window, spatial, &out_spatial);
    let (plane, positions): (usize, usize) = (spatial.iter().product(), out_spatial.iter().product());
    let values = unsigned(x)?;
    let border =
        zero_point.map(unsigned).transpose()?.and_then(|z| z.first().copied()).unwrap_or(if x.dtype() == DType::I8 { 128 } else { 0 });
    let mut out = vec![0f64; data[0] * weight[0] * positions];
    let per_output = weight[0] / groups.max(1);
    for n in 0..data[0] {
        let sample = &values[n * data[1] * plane..];
        for (m, pairs) in pairs.iter().enumerate() {
            let group = &sample[m / per_output.max(1) * per_group * plane..];
            let sums = &mut out[(n * weight[0] + m) * positions..][..positions];
            for Pair { first, second } in pairs {
                let read = |k: usize, position: usize| match places[k / per_group][position] {
                    usize::MAX => border,
                    place => group[k % per_group * plane + place],
                };
                for (position, sum) in sums.iter_mut().enumerate() {
                    let more = second.map_or(0, |(k, w)| w * read(k, position));
                    *sum += f64::from(lost(first.1 * read(first.0, position) + more));
                }
            }
        }
    }
    let shape = [data[0], weight[0]].into_iter().chain(out_spatial).collect::<Vec<_>>();
    Ok(Some(Tensor::new(out, shape)?))
}

/// For each element of the kernel and each position of the window: the pixel, or `usize::MAX` in the border.
fn offsets(window: &Window, spatial: &[usize], positions: &[usize]) -> Vec<Vec<usize>> {
    let count = |sides: &[usize]| sides.iter().product::<usize>();
    let index = |mut flat: usize, sides: &[usize]| {
        let mut at = vec![0; sides.len()];
        for (i, side) in sides.iter().enumerate().rev() {
            (at[i], flat) = (flat % side, flat / side);
        }
        at
    };
    let pixel = |kernel: &[usize], position: &[usize]| {
        (0..spatial.len()).try_fold(0, |flat, i| {
            let at = (position[i] * window.strides[i] + kernel[i] * window.dilations[i]).checked_sub(window.pads[i].0)?;
            (at < spatial[i]).then_some(flat * spatial[i] + at)
        })
    };
    let of = |k: usize| {
        let kernel = index(k, &window.kernel);
        (0..count(positions)).map(|p| pixel(&kernel, &index(p, positions)).unwrap_or(usize::MAX)).collect()
    };
    (0..count(&window.kernel)).map(of).collect()
}

/// What saturation takes from the sums of `a` `[..., k]` and `b` `[k, n]`, both 8 bits: f64 `[..., n]`, to be added.
///
/// # Errors
/// [`OpError`] for a signed `b` of another rank, whose order of products is not known.
pub(crate) fn of_product(cx: &EvalCx, a: &Tensor, b: &Tensor) -> Result<Option<Tensor>, OpError> {
    if cx.sums == Sums::Pairs { product_taken(cx.node, a, b) } else { Ok(None) }
}

fn product_taken(node: &Node, a: &Tensor, b: &Tensor) -> Result<Option<Tensor>, OpError> {
    if !applies(a, b) {
        return Ok(None);
    }
    let (data, weight) = (a.shape(), b.shape());
    if weight.len() != 2 || data.is_empty() {
        return Err(OpError::unsupported(node, format!("saturating sums with a matrix of shape {weight:?}")));
    }
    let (row, columns) = (weight[0], weight[1]);
    let rows: Vec<i32> = b.transpose(&[1, 0])?.to_i64_vec()?.iter().map(|v| *v as i32).collect();
    let pairs = pairs(&rows, row);
    let values = unsigned(a)?;
    let mut out = Vec::with_capacity(values.len() / row.max(1) * columns);
    for x in values.chunks(row.max(1)) {
        for pairs in &pairs {
            let sum = |p: &Pair| f64::from(lost(p.first.1 * x[p.first.0] + p.second.map_or(0, |(k, w)| w * x[k])));
            out.push(pairs.iter().map(sum).sum::<f64>());
        }
    }
    let shape = data[..data.len() - 1].iter().copied().chain([columns]).collect::<Vec<_>>();
    Ok(Some(Tensor::new(out, shape)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Case;
    use proptest::prelude::*;

    #[test]
    fn the_bound_is_that_of_sixteen_bits() {
        let any = |a, b| saturates((a, 255), (b, 255));
        assert!(!any(64, 64) && any(64, 65) && !any(127, 1) && any(127, 2));
        assert!(!any(-64, -64) && any(-64, -65) && !any(127, -128));
        assert!(!saturates((127, 129), (127, 129)) && saturates((127, 129), (127, 130)));
    }

    #[test]
    fn a_pair_of_large_products_stops_at_the_end_of_sixteen_bits() {
        let input = |x: Tensor, zero: Tensor, w: Vec<i8>, shape: &[usize]| {
            let one = || Some(Tensor::scalar(1f32));
            let w = Tensor::new(w, shape.to_vec()).unwrap();
            vec![
                Some(x),
                one(),
                Some(zero),
                Some(w),
                one(),
                Some(Tensor::scalar(0i8)),
                Some(Tensor::scalar(1000f32)),
                Some(Tensor::scalar(0i8)),
            ]
        };
        let case = || Case::new("QLinearConv", 10);
        // 250 * 100 + 250 * 100 = 50000 and 250 * -100: 50000 - 25000 = 25000; saturated 32767 - 25000 = 7767.
        let x = Tensor::new(vec![250u8; 3], [1, 3, 1, 1]).unwrap();
        let list = || input(x.clone(), Tensor::scalar(0u8), vec![100, 100, -100], &[1, 3, 1, 1]);
        let steps = |case: Case, list| case.run_optional(list).unwrap()[0].to_f32_vec().unwrap();
        assert_eq!(steps(case(), list()), [25.0]);
        assert_eq!(steps(case().sums(Sums::Pairs), list()), [8.0]);
        // Signed data are shifted by 128: 122 is 250.
        let x = Tensor::new(vec![122i8; 3], [1, 3, 1, 1]).unwrap();
        assert_eq!(steps(case().sums(Sums::Pairs), input(x, Tensor::scalar(-128i8), vec![100, 100, -100], &[1, 3, 1, 1])), [8.0]);
    }

    proptest! {
        /// A convolution over the whole input is a product of the rows in the order of products.
        #[test]
        fn a_convolution_loses_what_its_product_loses(
            x in prop::collection::vec(0u8..=255, 2 * 3 * 2 * 2),
            w in prop::collection::vec(-127i8..=127, 4 * 3 * 2 * 2),
        ) {
            let (x, w) = (Tensor::new(x, [2, 3, 2, 2]).unwrap(), Tensor::new(w, [4, 3, 2, 2]).unwrap());
            let one = || Some(Tensor::scalar(1f32));
            let zeros = || (Some(Tensor::scalar(0u8)), Some(Tensor::scalar(0i8)));
            let rest = || vec![Some(Tensor::scalar(700f32)), Some(Tensor::scalar(0i8))];
            let list = |x: Tensor, w: Tensor| {
                let (zx, zw) = zeros();
                [vec![Some(x), one(), zx, Some(w), one(), zw], rest()].concat()
            };
            let conv = Case::new("QLinearConv", 10).sums(Sums::Pairs).run_optional(list(x.clone(), w.clone())).unwrap().remove(0);
            let flat = product_order(&w).unwrap().transpose(&[1, 0]).unwrap();
            let product = Case::new("QLinearMatMul", 10).sums(Sums::Pairs)
                .run_optional(list(product_order(&x).unwrap(), flat)).unwrap().remove(0);
            prop_assert_eq!(conv.to_f32_vec().unwrap(), product.to_f32_vec().unwrap());
        }
    }
}
