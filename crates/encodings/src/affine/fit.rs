//! Scales and zero points from ranges, and ranges without extent.
use super::scale::{Precision, unit};
use super::{AffineSettings, KIND};
use crate::{EncodingError, Result};
use graph::Encoding;
use tensor::Tensor;

/// How far the scales that are tried lie from the scale that covers a range exactly: with smaller ones values at the ends are
/// clipped, with larger ones all are rounded more coarsely. The two nearest are always tried.
const AROUND: (f64, f64) = (0.9, 1.1);

/// The same for a weight, of which every element is known.
const AROUND_WEIGHT: (f64, f64) = (0.7, 1.15);

/// The same for a few numbers: up to twice the scale, so that they find one that holds them exactly.
const AROUND_FEW: (f64, f64) = (0.7, 2.1);

/// Number of elements up to which the wider range is tried.
const FEW: usize = 256;

/// Units of a layer's sum that its bias may use: half of what f32 counts exactly.
const BIAS_UNITS: f64 = (1u64 << 23) as f64;

/// An accumulator whose largest product has fewer steps is too coarse for a bias.
const FEW_STEPS: i64 = 64;

/// An encoding that covers `lo..=hi` and zero, of the precision of a weight where it is symmetric, else of an activation.
///
/// A range that is zero alone gets scale 1. A single value `v` gets the range from zero to it. A range so small that its
/// scale would not be a normal f32 gets the smallest normal scale.
///
/// # Errors
/// [`EncodingError::Value`] if a bound is NaN or infinite or `lo > hi`; [`EncodingError::Setting`] if `settings` has an axis
/// or makes no sense.
pub fn fit_range(lo: f32, hi: f32, settings: &AffineSettings) -> Result<Encoding> {
    one_scale(settings)?;
    let precision = if settings.symmetric { Precision::WEIGHT } else { Precision::ACTIVATION };
    let (scale, zero_point) = Range::new(lo, hi, settings)?.covering(precision);
    Ok(settings.encoding(Tensor::scalar(scale), Tensor::scalar(zero_point)))
}

/// The encoding with the least error among scales of a precision that are near the one that covers `lo..=hi` and zero: clipping
/// at the ends against rounding. `error` returns the error of a scale and zero point; infinity excludes them. If it excludes all,
/// the range is covered.
///
/// # Errors
/// As [`fit_range`].
pub fn fit_least(
    (lo, hi): (f32, f32),
    settings: &AffineSettings,
    precision: Precision,
    error: impl FnMut(f32, f32) -> f64,
) -> Result<Encoding> {
    one_scale(settings)?;
    let (scale, zero_point) = Range::new(lo, hi, settings)?.least(precision, AROUND, error);
    Ok(settings.encoding(Tensor::scalar(scale), Tensor::scalar(zero_point)))
}

fn one_scale(settings: &AffineSettings) -> Result<()> {
    settings.check()?;
    match settings.axis.is_some() || settings.blocks.is_some() {
        false => Ok(()),
        true => Err(EncodingError::Setting { kind: KIND, setting: "axis", what: "is set, but one range is given".into() }),
    }
}

/// An encoding of a weight, for each index of the axis, each block, or for all: the scale of least error among those of a precision
/// near the one that covers its own smallest and largest elements. The error of a layer's result is that of its weights times
/// the data: where those have a mean, errors of one sign add up instead of cancelling. `evenness` is the square of that mean to
/// the data's variance; the squared sum of the errors counts as much beside the sum of their squares.
///
/// A channel of zeros alone takes the largest scale of the others (1 where there is none): its weights are exact on any
/// grid, and the scale of the layer's bias follows from it.
///
/// # Errors
/// [`EncodingError::Value`] if an element is NaN or infinite; as [`fit_range`]; a tensor error if the axis does not exist.
pub fn fit_weight(weight: &Tensor, settings: &AffineSettings, precision: Precision, evenness: f64) -> Result<Encoding> {
    settings.check()?;
    let channels = match settings.blocks {
        Some(blocks) => blocks.pieces(&weight.to_f32_vec()?, weight.shape())?,
        None => channels(weight, settings.axis)?,
    };
    if let Some(bad) = channels.iter().flatten().find(|v| !v.is_finite()) {
        return Err(EncodingError::Value { kind: KIND, what: format!("a weight of {bad} cannot be quantized") });
    }
    let (qmin, qmax) = (settings.qmin() as f32, settings.qmax() as f32);
    let fitted = |x: &Vec<f32>| {
        let (lo, hi) = x.iter().fold((0f32, 0f32), |(lo, hi), v| (lo.min(*v), hi.max(*v)));
        let range = Range::new(lo, hi, settings)?;
        let around = if x.len() > FEW { AROUND_WEIGHT } else { AROUND_FEW };
        Ok::<_, EncodingError>(range.least(precision, around, |s, z| rounding_error(x, s, (qmin - z, qmax - z), evenness)))
    };
    let mut all = channels.iter().map(fitted).collect::<Result<Vec<_>>>()?;
    let live: Vec<bool> = channels.iter().map(|x| x.iter().any(|v| *v != 0.0)).collect();
    let largest = all.iter().zip(&live).filter(|(_, live)| **live).map(|(f, _)| f.0).reduce(f32::max);
    if let Some(largest) = largest {
        all.iter_mut().zip(&live).filter(|(_, live)| !**live).for_each(|(f, _)| f.0 = largest);
    }
    let (scale, zero_point): (Vec<f32>, Vec<f32>) = all.into_iter().unzip();
    if let Some(blocks) = settings.blocks {
        let shape = blocks.scale_shape(weight.shape())?;
        return Ok(settings.encoding(Tensor::new(scale, shape.as_slice())?, Tensor::new(zero_point, shape)?));
    }
    Ok(match settings.axis {
        Some(_) => settings.encoding(Tensor::vector(scale), Tensor::vector(zero_point)),
        None => settings.encoding(Tensor::scalar(scale[0]), Tensor::scalar(zero_point[0])),
    })
}

/// The elements at each index of the axis, or all, as f32.
///
/// # Errors
/// A tensor error if the axis does not exist.
pub fn channels(weight: &Tensor, axis: Option<usize>) -> Result<Vec<Vec<f32>>> {
    let x = weight.to_f32_vec()?;
    let Some(axis) = axis else { return Ok(vec![x]) };
    let axis = tensor::shape::axis("fit", axis as i64, weight.rank())?;
    let (count, run) = (weight.shape()[axis], weight.shape()[axis + 1..].iter().product::<usize>().max(1));
    let mut out = vec![Vec::with_capacity(x.len() / count.max(1)); count];
    for (i, piece) in x.chunks(run).enumerate() {
        out[i % count].extend_from_slice(piece);
    }
    Ok(out)
}

/// Sum of squared errors on a grid without zero point with integers from `lo` to `hi`, plus the square of the errors' sum times
/// `evenness`.
fn rounding_error(x: &[f32], scale: f32, (lo, hi): (f32, f32), evenness: f64) -> f64 {
    let one = |v: &f32| v - (v / scale).round_ties_even().clamp(lo, hi) * scale;
    let both = |(squares, sum): (f32, f32), v: &f32| (squares + one(v).powi(2), sum + one(v));
    let (squares, sum) = x
        .chunks(1024)
        .map(|x| x.iter().fold((0f32, 0f32), both))
        .fold((0f64, 0f64), |all, (squares, sum)| (all.0 + f64::from(squares), all.1 + f64::from(sum)));
    squares + evenness * sum.powi(2)
}

/// The encoding of a bias: int32 with scale `input_scale * weight_scale[c]`, the grid of the accumulator it is added to.
///
/// An element that does not fit in 32 bits on that grid would be clipped to a wrong value, so the scale of its weight
/// channel has to grow; with `exact` already where it would take the sum out of what f32 counts exactly. The second result
/// holds the smallest weight scales that do (equal to `weight_scale` where nothing overflows); the caller applies them to the
/// weight, whose elements in that channel are tiny beside the bias.
///
/// # Errors
/// [`EncodingError::Value`] if an element is NaN or infinite; a tensor error if the counts differ.
pub fn fit_bias(bias: &Tensor, input_scale: f32, weight_scale: &Tensor, exact: bool) -> Result<(Encoding, Tensor)> {
    let b = bias.to_f32_vec()?;
    if let Some(bad) = b.iter().find(|v| !v.is_finite()) {
        return Err(EncodingError::Value { kind: KIND, what: format!("a bias of {bad} cannot be quantized") });
    }
    let mut weights = weight_scale.to_f32_vec()?;
    if weights.len() != 1 && weights.len() != b.len() {
        let what = format!("a bias of {} elements for {} weight scales", b.len(), weights.len());
        return Err(tensor::TensorError::shape("bias", what).into());
    }
    let per_channel = weights.len() == b.len() && weight_scale.rank() == 1;
    for (i, v) in b.iter().enumerate() {
        let scale = &mut weights[if per_channel { i } else { 0 }];
        *scale = held_scale(f64::from(v.abs()), input_scale, *scale, exact);
    }
    let scales: Vec<f32> = weights.iter().map(|w| (input_scale * w).max(f32::MIN_POSITIVE)).collect();
    let zeros = vec![0f32; scales.len()];
    let encoding = if per_channel {
        AffineSettings::bias(Some(0)).encoding(Tensor::vector(scales), Tensor::vector(zeros))
    } else {
        AffineSettings::bias(None).encoding(Tensor::scalar(scales[0]), Tensor::scalar(0f32))
    };
    Ok((encoding, Tensor::new(weights, weight_scale.shape())?))
}

/// A bias on a finer grid than that of the accumulator, where the accumulator counts in few steps: `largest` is the largest product
/// of an integer of the data and one of the weight. From 64 steps on the encoding stays as it is.
///
/// Products of 2-bit integers are at most 3, so rounding a bias to a whole one shifts its channel by up to a sixth of the largest
/// product. No kernel multiplies integers as narrow as these, so nothing needs the bias in the accumulator's unit: the scale becomes
/// the power of two that divides that unit into 64 to 128 parts, and sums stay as exact in f32 as they are short.
///
/// # Errors
/// If the encoding is no bias, or the bias does not fit it.
pub fn refine_bias(bias: &Tensor, encoding: Encoding, largest: i64) -> Result<Encoding> {
    if largest >= FEW_STEPS {
        return Ok(encoding);
    }
    let settings = AffineSettings::of(&encoding)?;
    let parameter = |name: &str| encoding.parameters.get(name).cloned();
    let (Some(scale), Some(zeros)) = (parameter("scale"), parameter("zero_point")) else { return Ok(encoding) };
    let b = bias.to_f32_vec()?;
    let largest = |channel: usize| match settings.axis {
        Some(_) => b.get(channel).map_or(0.0, |v| v.abs()),
        None => b.iter().fold(0f32, |m, v| m.max(v.abs())),
    };
    let fine = |(i, unit): (usize, f32)| {
        let parts = (f64::from(unit) / FEW_STEPS as f64).log2().floor();
        // A bias of more than 24 bits would be rounded anyway.
        let held = (f64::from(largest(i)) / BIAS_UNITS).log2().ceil();
        let fine = parts.max(held).exp2() as f32;
        if fine.is_normal() { fine.min(unit) } else { unit }
    };
    let scales: Vec<f32> = scale.to_f32_vec()?.into_iter().enumerate().map(fine).collect();
    Ok(settings.encoding(Tensor::new(scales, scale.shape())?, zeros))
}

/// A weight's scale, or the smallest above it whose sums hold a bias of this magnitude.
fn held_scale(bias: f64, input_scale: f32, scale: f32, exact: bool) -> f32 {
    // Half of the range of 32 bits: exact in f32 whatever the rounding of the product.
    let needed = (bias / (f64::from(input_scale) * f64::from(1u32 << 30))) as f32;
    let scale = if scale < needed { Precision::WEIGHT.up(needed) } else { scale };
    // Trained scales are of full precision, so sums are not exact with them.
    let short = |s: f32| Precision::of(&[s]) <= Precision::up_to(f64::MAX);
    let room = |s: f32| bias <= BIAS_UNITS * unit(input_scale) * unit(s);
    if !exact || !short(input_scale) || !short(scale) || room(scale) {
        return scale;
    }
    let coarser = [15.0, 7.0, 3.0, 1.0].map(|limit| Precision::up_to(limit).up(scale));
    let power = coarser[3];
    let raised = (0..64).map(|i| power * 2f32.powi(i)).find(|s| room(*s) || !s.is_finite());
    coarser.into_iter().find(|s| room(*s)).or(raised.filter(|s| s.is_finite())).unwrap_or(scale)
}

/// A range with the grid that it gets.
struct Range {
    lo: f64,
    hi: f64,
    qmin: f64,
    qmax: f64,
    /// The zero point of a symmetric grid.
    centre: Option<f64>,
}

impl Range {
    fn new(lo: f32, hi: f32, settings: &AffineSettings) -> Result<Range> {
        if !lo.is_finite() || !hi.is_finite() || lo > hi {
            return Err(EncodingError::Value { kind: KIND, what: format!("the range from {lo} to {hi} cannot be quantized") });
        }
        let (qmin, qmax) = (settings.qmin() as f64, settings.qmax() as f64);
        let centre = if settings.signed { 0.0 } else { (qmax + 1.0) / 2.0 };
        // f64: the width of a range of f32 may exceed the largest f32.
        let (lo, hi) = (f64::from(lo.min(0.0)), f64::from(hi.max(0.0)));
        Ok(Range { lo, hi, qmin, qmax, centre: settings.symmetric.then_some(centre) })
    }

    /// The range of zero alone.
    fn is_empty(&self) -> bool {
        self.lo == self.hi
    }

    /// The scale whose grid covers the range exactly.
    fn scale(&self) -> f32 {
        let scale = match self.centre {
            Some(centre) => self.hi.max(-self.lo) / (self.qmax - centre),
            None => (self.hi - self.lo) / (self.qmax - self.qmin),
        };
        (scale as f32).max(f32::MIN_POSITIVE)
    }

    /// Zero points to try: the one that keeps the lower end, the one that keeps the upper end, and those between.
    fn zero_points(&self, scale: f32) -> [f32; 3] {
        if let Some(centre) = self.centre {
            return [centre as f32; 3];
        }
        let whole = |z: f64| z.round_ties_even().clamp(self.qmin, self.qmax) as f32;
        let (low, high) = (self.qmin - self.lo / f64::from(scale), self.qmax - self.hi / f64::from(scale));
        [whole(low), whole(high), whole((low + high) / 2.0)]
    }

    /// True if both ends of the grid are finite.
    fn finite(&self, scale: f32, zero_point: f32) -> bool {
        ((self.qmin as f32 - zero_point) * scale).is_finite() && ((self.qmax as f32 - zero_point) * scale).is_finite()
    }

    fn of_zero(&self) -> (f32, f32) {
        (1.0, self.centre.unwrap_or(self.qmin.max(0.0)) as f32)
    }

    /// The smallest scale of a precision that covers the range; below it where the grid's ends would overflow.
    fn covering(&self, precision: Precision) -> (f32, f32) {
        if self.is_empty() {
            return self.of_zero();
        }
        let wanted = self.scale();
        let all = [precision.up(wanted), precision.down(wanted), wanted].map(|s| (s, self.zero_points(s)[0]));
        all.into_iter().find(|(s, z)| self.finite(*s, *z)).unwrap_or_else(|| (precision.down(wanted / 2.0), all[0].1))
    }

    /// The scale and zero point with the least error among the candidates; of equals the finest.
    fn least(&self, precision: Precision, around: (f64, f64), mut error: impl FnMut(f32, f32) -> f64) -> (f32, f32) {
        if self.is_empty() {
            return self.of_zero();
        }
        let wanted = self.scale();
        let (from, to) = ((f64::from(wanted) * around.0) as f32, (f64::from(wanted) * around.1) as f32);
        let mut best = (f64::INFINITY, self.covering(precision));
        for scale in precision.between(from.max(f32::MIN_POSITIVE), to.max(f32::MIN_POSITIVE), wanted) {
            let mut before = None;
            for zero_point in self.zero_points(scale) {
                if before.replace(zero_point) == Some(zero_point) || !self.finite(scale, zero_point) {
                    continue;
                }
                let error = error(scale, zero_point);
                if error < best.0 {
                    best = (error, (scale, zero_point));
                }
            }
        }
        best.1
    }
}
