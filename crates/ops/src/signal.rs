//! Signal processing: DFT, STFT, windows, the mel filter bank.
use crate::dtypes::dtype_attribute;
use crate::shapes::{known_ints, like_first, typed, unknown};
use crate::simple::{Constants, Simple, one, set_input};
use crate::{EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, Node, ValueType};
use std::f64::consts::PI;
use tensor::{DType, Tensor, memory};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("DFT", "Discrete Fourier transform along an axis.", &[17, 20], dft, |cx| {
        like_first(cx, cx.shape(0).map(|s| unknown(s.len())))
    })
    .upgrade(upgrade_dft),
    &Simple::new("STFT", "Fourier transforms of the windows of a signal.", &[17], stft, |cx| like_first(cx, Some(unknown(4)))),
    &Simple::new("HannWindow", "Hann window.", &[17], |cx, i| window(cx, i, [0.5, 0.5, 0.0]), infer_window),
    &Simple::new("HammingWindow", "Hamming window.", &[17], |cx, i| window(cx, i, [25.0 / 46.0, 21.0 / 46.0, 0.0]), infer_window),
    &Simple::new("BlackmanWindow", "Blackman window.", &[17], |cx, i| window(cx, i, [0.42, 0.5, 0.08]), infer_window),
    &Simple::new("MelWeightMatrix", "Matrix from a spectrum to mel bins.", &[17], mel, |cx| {
        Ok(vec![typed(dtype_attribute(cx.node, "output_datatype")?.or(Some(DType::F32)), Some(unknown(2)))])
    }),
];

fn scalar_size(node: &Node, t: &Tensor, what: &str) -> Result<usize, OpError> {
    match t.to_i64_vec()?.as_slice() {
        [n] => usize::try_from(*n).map_err(|_| node.error(format!("{what} is negative")).into()),
        other => Err(node.error(format!("{what} must be one number, has {}", other.len())).into()),
    }
}

/// Real and imaginary part of `exp(sign * 2 pi i k t / n)` as matrices `[rows t, columns k]`.
fn rotations(n: usize, rows: usize, columns: usize, sign: f64, dtype: DType) -> Result<(Tensor, Tensor), OpError> {
    memory::room::<f64>("dft", &[rows, columns])?;
    // The product is taken modulo n first, so that large indices lose no precision.
    let angle = |t: usize, k: usize| sign * 2.0 * PI * ((t as u128 * k as u128 % n.max(1) as u128) as f64) / n as f64;
    let all = |f: fn(f64) -> f64| (0..rows).flat_map(|t| (0..columns).map(move |k| f(angle(t, k)))).collect::<Vec<f64>>();
    let matrix = |v: Vec<f64>| -> Result<Tensor, OpError> { Ok(Tensor::new(v, [rows, columns])?.cast(dtype)?) };
    Ok((matrix(all(f64::cos))?, matrix(all(f64::sin))?))
}

/// Transforms the last axis of the real part `[.., t]` and the imaginary part, if there is one.
fn transform(real: &Tensor, imaginary: Option<&Tensor>, n: usize, columns: usize, sign: f64) -> Result<(Tensor, Tensor), OpError> {
    let rows = real.shape().last().copied().unwrap_or(0);
    let (cos, sin) = rotations(n, rows, columns, sign, real.dtype())?;
    let (mut a, mut b) = (real.matmul(&cos)?, real.matmul(&sin)?);
    if let Some(imaginary) = imaginary {
        a = a.sub(&imaginary.matmul(&sin)?)?;
        b = b.add(&imaginary.matmul(&cos)?)?;
    }
    Ok((a, b))
}

fn dft(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x) = (cx.node, inputs.get(0)?);
    let rank = x.rank();
    let axis = match (cx.opset, inputs.opt(2)) {
        (20.., Some(t)) => t.to_i64_vec()?.first().copied().unwrap_or(-2),
        (20.., None) => -2,
        _ => node.int_or("axis", 1)?,
    };
    let axis = tensor::shape::axis("axis", axis, rank)?;
    let parts = x.shape().last().copied().unwrap_or(0);
    if rank < 2 || axis == rank - 1 || !matches!(parts, 1 | 2) {
        return Err(node.error(format!("cannot transform axis {axis} of shape {:?}", x.shape())).into());
    }
    let (inverse, onesided) = (node.int_or("inverse", 0)? != 0, node.int_or("onesided", 0)? != 0);
    let size = x.shape()[axis];
    let n = match inputs.opt(1) {
        Some(t) => scalar_size(node, t, "dft_length")?,
        None if inverse && onesided => size.saturating_sub(1).saturating_mul(2),
        None => size,
    };
    if n == 0 {
        return Err(node.error("a transform of length 0").into());
    }
    if onesided && inverse != (parts == 2) {
        return Err(OpError::unsupported(node, "onesided for a complex signal, or the inverse of a real one"));
    }
    // The axis is moved to the end, the part (real, imaginary) to the front; both are moved back at the end.
    let mut swap: Vec<usize> = (0..rank - 1).collect();
    swap.swap(axis, rank - 2);
    let fit = |t: Tensor, length: usize| -> Result<Tensor, OpError> {
        let t = t.transpose(&swap)?;
        let have = t.shape()[rank - 2].min(length);
        let mut pads = vec![(0, 0); rank - 1];
        pads[rank - 2] = (0, (length - have) as i64);
        Ok(t.narrow(rank - 2, 0, have)?.pad(&pads, tensor::PadMode::Constant, None)?)
    };
    let component = |i: usize| -> Result<Tensor, OpError> { Ok(x.narrow(rank - 1, i, 1)?.squeeze(&[rank - 1])?) };
    let length = if inverse && onesided { n / 2 + 1 } else { n };
    let mut real = fit(component(0)?, length)?;
    let mut imaginary = if parts == 2 { Some(fit(component(1)?, length)?) } else { None };
    if inverse && onesided {
        // The other half is the conjugate; the first coefficient, and the middle one of an even length, have none.
        let pairs: Vec<f64> = (0..length).map(|k| if k == 0 || 2 * k == n { 1.0 } else { 2.0 }).collect();
        let pairs = Tensor::vector(pairs).cast(x.dtype())?;
        real = real.mul(&pairs)?;
        imaginary = imaginary.map(|t| t.mul(&pairs)).transpose()?;
    }
    let columns = if onesided && !inverse { n / 2 + 1 } else { n };
    let (mut a, mut b) = transform(&real, imaginary.as_ref(), n, columns, if inverse { 1.0 } else { -1.0 })?;
    if inverse {
        (a, b) = (a.mul_scalar(1.0 / n as f64)?, b.mul_scalar(1.0 / n as f64)?);
    }
    let back = |t: Tensor| -> Result<Tensor, OpError> { Ok(t.transpose(&swap)?.unsqueeze(&[rank - 1])?) };
    one(if inverse && onesided { back(a)? } else { Tensor::concat(&[back(a)?, back(b)?], rank - 1)? })
}

fn upgrade_dft(node: &mut Node, to: i64, _: &[ValueType], constants: Constants) -> Result<(), OpError> {
    if to == 20 {
        let axis = node.int_or("axis", 1)?;
        node.attributes.remove("axis");
        set_input(node, 2, constants("axis", Tensor::scalar(axis)));
    }
    Ok(())
}

fn stft(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (node, x) = (cx.node, inputs.get(0)?);
    let (batch, length, parts) = match *x.shape() {
        [batch, length] => (batch, length, 1),
        [batch, length, parts @ (1 | 2)] => (batch, length, parts),
        _ => return Err(node.error(format!("a signal of shape {:?}", x.shape())).into()),
    };
    let step = scalar_size(node, inputs.get(1)?, "frame_step")?;
    let window = inputs.opt(2);
    let n = match (inputs.opt(3), window) {
        (Some(t), _) => scalar_size(node, t, "frame_length")?,
        (None, Some(w)) => w.len(),
        (None, None) => length,
    };
    if step == 0 || n == 0 || n > length || window.is_some_and(|w| w.len() != n) {
        return Err(node.error(format!("frames of {n} every {step} samples from a signal of {length}")).into());
    }
    let onesided = node.int_or("onesided", 1)? != 0;
    if onesided && parts == 2 {
        return Err(OpError::unsupported(node, "onesided for a complex signal"));
    }
    let frames = (length - n) / step + 1;
    memory::room::<i64>("stft", &[frames, n])?;
    let index: Vec<i64> = (0..frames).flat_map(|f| (0..n).map(move |i| (f * step + i) as i64)).collect();
    let index = Tensor::new(index, [frames, n])?;
    let x = x.reshape([batch, length, parts])?;
    let framed = |part: usize| -> Result<Tensor, OpError> {
        let frames = x.narrow(2, part, 1)?.squeeze(&[2])?.gather(&index, 1)?;
        Ok(window.map_or(Ok(frames.clone()), |w| frames.mul(w))?)
    };
    let imaginary = if parts == 2 { Some(framed(1)?) } else { None };
    let columns = if onesided { n / 2 + 1 } else { n };
    let (a, b) = transform(&framed(0)?, imaginary.as_ref(), n, columns, -1.0)?;
    one(Tensor::concat(&[a.unsqueeze(&[3])?, b.unsqueeze(&[3])?], 3)?)
}

/// `c0 - c1 cos(2 pi i / n) + c2 cos(4 pi i / n)`.
fn window(cx: &EvalCx, inputs: Inputs, c: [f64; 3]) -> Result<Vec<Tensor>, OpError> {
    let size = scalar_size(cx.node, inputs.get(0)?, "size")?;
    memory::room::<f64>("window", &[size])?;
    let n = if cx.node.int_or("periodic", 1)? != 0 { size } else { size.saturating_sub(1) };
    let value = |i: usize| {
        let angle = if n == 0 { 0.0 } else { 2.0 * PI * i as f64 / n as f64 };
        c[0] - c[1] * angle.cos() + c[2] * (2.0 * angle).cos()
    };
    let dtype = dtype_attribute(cx.node, "output_datatype")?.unwrap_or(DType::F32);
    one(Tensor::vector((0..size).map(value).collect()).cast(dtype)?)
}

fn infer_window(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let size = match known_ints(cx, 0).as_deref() {
        Some([n]) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Known),
        _ => Dim::Unknown,
    };
    Ok(vec![typed(dtype_attribute(cx.node, "output_datatype")?.or(Some(DType::F32)), Some(vec![size]))])
}

fn mel(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let node = cx.node;
    let (bins, length) = (scalar_size(node, inputs.get(0)?, "num_mel_bins")?, scalar_size(node, inputs.get(1)?, "dft_length")?);
    let rate = scalar_size(node, inputs.get(2)?, "sample_rate")?;
    let edge = |i: usize| -> Result<f64, OpError> { Ok(inputs.get(i)?.to_f64_vec()?.first().copied().unwrap_or(0.0)) };
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let (low, high) = (mel(edge(3)?), mel(edge(4)?));
    let rows = length / 2 + 1;
    let elements = memory::room::<f64>("mel", &[rows, bins])?;
    if rate == 0 || !low.is_finite() || !high.is_finite() {
        return Err(node.error("sample_rate and edges must be positive").into());
    }
    let step = (high - low) / (bins + 2) as f64;
    let points: Vec<usize> = (0..bins + 2)
        .map(|i| {
            let hertz = 700.0 * (10f64.powf((i as f64 * step + low) / 2595.0) - 1.0);
            ((length + 1) as f64 * hertz / rate as f64).floor().max(0.0) as usize
        })
        .collect();
    if points.iter().any(|p| *p >= rows) {
        return Err(node.error("upper_edge_hertz lies beyond the spectrum").into());
    }
    let mut matrix = vec![0f64; elements];
    for (i, p) in points.windows(3).enumerate() {
        let (left, centre, right) = (p[0], p[1], p[2]);
        if left == centre {
            matrix[centre * bins + i] = 1.0;
        }
        for j in left..=centre {
            if left < centre {
                matrix[j * bins + i] = (j - left) as f64 / (centre - left) as f64;
            }
        }
        for j in centre..right {
            matrix[j * bins + i] = (right - j) as f64 / (right - centre) as f64;
        }
    }
    let dtype = dtype_attribute(node, "output_datatype")?.unwrap_or(DType::F32);
    one(Tensor::new(matrix, [rows, bins])?.cast(dtype)?)
}
