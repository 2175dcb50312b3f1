//! The grid: scale, zero point and bounds, and the conversion of values to integers and back.
use super::learned::{BOUND, CLIP, OFFSET, scale_of_bound, scale_of_clip, zero_point_of_offset};
use super::{AffineSettings, Blocks, KIND};
use crate::{Decode, EncodingError, Parameters, Result};
use graph::Encoding;
use tensor::{Activation, Buffer, DType, Tensor, TensorError};

/// A checked affine encoding, ready to use.
#[derive(Clone, Debug)]
pub struct Grid {
    settings: AffineSettings,
    /// The scale as the encoding holds it, tracked or not.
    scale: Tensor,
    zero_point: Tensor,
    /// The bound at which values are clipped, where it is learned in place of the scale.
    clip: Option<Tensor>,
    /// The bound up to which the hyperbolic tangents of a weight reach, where that is learned in place of the scale.
    bound: Option<Tensor>,
}

impl Grid {
    /// Reads and checks an encoding.
    ///
    /// # Errors
    /// [`EncodingError::Setting`] or [`EncodingError::Parameter`] by name: a scale that is not positive and finite, a zero
    /// point that is not an integer of the grid, shapes that differ.
    pub fn of(encoding: &Encoding) -> Result<Grid> {
        Grid::new(AffineSettings::of(encoding)?, &encoding.parameters)
    }

    /// As [`Grid::of`], with settings that are read already.
    ///
    /// # Errors
    /// [`EncodingError::Parameter`] by name.
    pub fn new(settings: AffineSettings, parameters: &Parameters) -> Result<Grid> {
        let parameter = |name: &'static str| parameters.get(name).cloned().ok_or_else(|| refused(name, "is missing".into()));
        let (clip, bound) = (parameters.get(CLIP).cloned(), parameters.get(BOUND).cloned());
        let zero_point = || parameter("zero_point");
        let (scale, zero_point) = match (&clip, parameters.get(OFFSET)) {
            (Some(clip), _) => (scale_of_clip(&settings, clip)?, zero_point()?),
            (None, Some(offset)) => {
                let scale = parameter("scale")?;
                let zero_point = zero_point_of_offset(&settings, offset, &scale)?;
                (scale, zero_point)
            }
            (None, None) => match &bound {
                Some(bound) => (scale_of_bound(&settings, bound)?, zero_point()?),
                None => (parameter("scale")?, zero_point()?),
            },
        };
        let wanted_rank = usize::from(settings.axis.is_some());
        if settings.blocks.is_none() && scale.rank() != wanted_rank && scale.len() != 1 {
            return Err(refused(
                "scale",
                format!("has shape {:?}; {}", scale.shape(), if wanted_rank == 1 { "a vector is needed" } else { "one number is needed" }),
            ));
        }
        if zero_point.len() != scale.len() {
            return Err(refused("zero_point", format!("has {} elements, the scale {}", zero_point.len(), scale.len())));
        }
        if let Some(bad) = scale.to_f64_vec()?.into_iter().find(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(refused("scale", format!("holds {bad}; it must be positive and finite")));
        }
        let (qmin, qmax) = (settings.qmin() as f64, settings.qmax() as f64);
        if let Some(bad) = zero_point.to_f64_vec()?.into_iter().find(|z| z.fract() != 0.0 || !(qmin..=qmax).contains(z)) {
            return Err(refused("zero_point", format!("holds {bad}; integers from {qmin} to {qmax} are possible")));
        }
        Ok(Grid { settings, scale, zero_point, clip, bound })
    }

    /// Settings that the grid was made with: bits, signedness, granularity.
    pub fn settings(&self) -> &AffineSettings {
        &self.settings
    }

    /// The scale: rank 0, a vector along the axis, or one for each block.
    pub fn scale(&self) -> &Tensor {
        &self.scale
    }

    /// The zero point in the type of the stored integers, of the scale's shape.
    ///
    /// # Errors
    /// Whatever the conversion reports.
    pub fn zero_point(&self) -> Result<Tensor> {
        Ok(self.zero_point.detach().cast(self.settings.dtype())?.reshape(self.scale.shape())?)
    }

    /// How stored integers decode. One scale for an axis is a grid for the whole tensor.
    pub(super) fn decode(&self) -> Result<Decode> {
        let axis = self.settings.axis.filter(|_| self.scale.len() > 1 || self.scale.rank() == 1);
        let scale = self.scale.detach().cast(DType::F32)?;
        Ok(Decode::Affine { scale, zero_point: self.zero_point()?, axis, blocks: self.settings.blocks })
    }

    /// The axis, if each index along it has a scale of its own.
    pub(super) fn axis(&self, value: &Tensor) -> Result<Option<usize>> {
        let Some(axis) = self.settings.axis else { return Ok(None) };
        match value.shape().get(axis) {
            _ if self.scale.len() == 1 => Ok(None),
            Some(n) if *n == self.scale.len() => Ok(Some(axis)),
            _ => {
                Err(refused("scale", format!("has {} elements for axis {axis} of a value of shape {:?}", self.scale.len(), value.shape())))
            }
        }
    }

    /// See [`crate::Codec::simulate_activated`].
    pub(super) fn simulate(&self, value: &Tensor, activation: Activation) -> Result<Tensor> {
        if let Some(blocks) = self.settings.blocks {
            return self.simulate_blocks(value, activation, &blocks);
        }
        let axis = self.axis(value)?;
        let (scale, zero_point) = (self.scale.cast(value.dtype())?, self.zero_point.cast(value.dtype())?);
        let (qmin, qmax) = (self.settings.qmin() as f32, self.settings.qmax() as f32);
        if let Some(clip) = &self.clip {
            let clipped = super::learned::clipped(&activation.apply(value)?, &clip.cast(value.dtype())?)?;
            return Ok(clipped.fake_quantize(&scale.detach(), &zero_point, axis, qmin, qmax)?);
        }
        if let Some(bound) = &self.bound {
            let bounded = super::learned::bounded(&activation.apply(value)?, &bound.cast(value.dtype())?, axis)?;
            return Ok(bounded.fake_quantize(&scale, &zero_point, axis, qmin, qmax)?);
        }
        Ok(value.fake_quantize_activated(activation, &scale, &zero_point, axis, qmin, qmax)?)
    }

    /// [`Grid::simulate`] of a value in blocks: as one with a row for each.
    fn simulate_blocks(&self, value: &Tensor, activation: Activation, blocks: &Blocks) -> Result<Tensor> {
        blocks.check(&self.scale, value.shape())?;
        let rows = blocks.rows(value)?;
        blocks.whole(&self.of_rows()?.simulate(&rows, activation)?, value.shape())
    }

    /// The grid of [`Blocks::rows`]: one for each row.
    fn of_rows(&self) -> Result<Grid> {
        let list = |t: &Tensor| t.reshape([t.len()]);
        Ok(Grid {
            settings: AffineSettings { axis: Some(0), blocks: None, ..self.settings },
            scale: list(&self.scale)?,
            zero_point: list(&self.zero_point)?,
            clip: None,
            bound: self.bound.as_ref().map(list).transpose()?,
        })
    }

    /// Scale and zero point of each element of a value of this shape, in shapes that broadcast to it.
    ///
    /// # Errors
    /// [`EncodingError::Parameter`] if they do not fit the value.
    pub fn spread(&self, value: &Tensor) -> Result<[Tensor; 2]> {
        let (scale, zero_point) = (self.scale.detach(), self.zero_point.detach());
        if let Some(blocks) = self.settings.blocks {
            return Ok([blocks.spread(&scale, value.shape())?, blocks.spread(&zero_point, value.shape())?]);
        }
        let mut shape = vec![1; value.rank()];
        if let Some(axis) = self.axis(value)? {
            shape[axis] = scale.len();
        }
        Ok([scale.reshape(shape.as_slice())?, zero_point.reshape(shape)?])
    }

    /// The integers of an f32 value.
    pub(super) fn quantize(&self, value: &Tensor) -> Result<Tensor> {
        let (qmin, qmax) = (self.settings.qmin() as f32, self.settings.qmax() as f32);
        let bounded = match &self.bound {
            Some(bound) => Some(match self.settings.blocks {
                Some(blocks) => {
                    let rows = super::learned::bounded(&blocks.rows(&value.detach())?, &bound.detach().reshape([bound.len()])?, Some(0))?;
                    blocks.whole(&rows, value.shape())?
                }
                None => super::learned::bounded(&value.detach(), &bound.detach(), self.axis(value)?)?,
            }),
            None => None,
        };
        let x = bounded.as_ref().unwrap_or(value).as_slice::<f32>()?;
        if let Some(at) = x.iter().position(|v| v.is_nan()) {
            return Err(EncodingError::Value { kind: KIND, what: format!("element {at} is not a number") });
        }
        let mut out = vec![0i64; x.len()];
        self.each_run(value, |range, scale, zero_point| {
            for (o, v) in out[range.clone()].iter_mut().zip(&x[range]) {
                // f32 throughout, as QuantizeLinear; the conversion saturates where 2^31 - 1 has no f32.
                *o = ((v / scale).round_ties_even() + zero_point).clamp(qmin, qmax) as i64;
            }
        })?;
        let (lo, hi) = (self.settings.qmin(), self.settings.qmax());
        out.iter_mut().for_each(|v| *v = (*v).clamp(lo, hi));
        integers(self.settings.dtype(), &out, value.shape())
    }

    /// See [`super::distance`].
    pub(super) fn distance(&self, value: &Tensor) -> Result<Tensor> {
        let (qmin, qmax) = (self.settings.qmin() as f32, self.settings.qmax() as f32);
        let x = value.as_slice::<f32>()?;
        let mut out = vec![0f32; x.len()];
        self.each_run(value, |range, scale, zero_point| {
            let (low, high) = ((qmin - zero_point) * scale, (qmax - zero_point) * scale);
            for (o, v) in out[range.clone()].iter_mut().zip(&x[range]) {
                if (low..=high).contains(v) {
                    *o = v - (v / scale).round_ties_even() * scale;
                }
            }
        })?;
        Ok(Tensor::new(out, value.shape())?)
    }

    /// The reals of stored integers.
    pub(super) fn dequantize(&self, stored: &Tensor) -> Result<Tensor> {
        if stored.dtype() != self.settings.dtype() {
            return Err(TensorError::dtype("dequantize", stored.dtype(), format!("where {} is stored", self.settings.dtype())).into());
        }
        let q = stored.to_i64_vec()?;
        let mut out = vec![0f32; q.len()];
        self.each_run(stored, |range, scale, zero_point| {
            for (o, q) in out[range.clone()].iter_mut().zip(&q[range]) {
                *o = (*q - zero_point as i64) as f32 * scale;
            }
        })?;
        Ok(Tensor::new(out, stored.shape())?)
    }

    /// Calls `f` with each run of elements that share a scale and zero point.
    fn each_run(&self, value: &Tensor, mut f: impl FnMut(std::ops::Range<usize>, f32, f32)) -> Result<()> {
        let (scales, zero_points) = (self.scale.to_f32_vec()?, self.zero_point.to_f32_vec()?);
        if let Some(blocks) = self.settings.blocks {
            blocks.check(&self.scale, value.shape())?;
            let layout = blocks.layout(value.shape())?;
            // Where elements of one block follow one another, they are a run.
            let row = if layout.inner == 1 { layout.length } else { 1 };
            let mut start = 0;
            while start < value.len() {
                let left = row - start % row;
                let run = if row == 1 { 1 } else { left.min(layout.size - (start % row) % layout.size) };
                let at = layout.scale_of(start);
                f(start..start + run, scales[at], zero_points[at]);
                start += run;
            }
            return Ok(());
        }
        let run = match self.axis(value)? {
            None => value.len(),
            Some(axis) => value.shape()[axis + 1..].iter().product(),
        };
        let mut start = 0;
        while start < value.len() && run > 0 {
            let channel = (start / run) % scales.len();
            f(start..start + run, scales[channel], zero_points[channel]);
            start += run;
        }
        Ok(())
    }
}

/// Integers as a tensor of the given type; all must lie in its range.
fn integers(dtype: DType, data: &[i64], shape: &[usize]) -> Result<Tensor> {
    macro_rules! narrow {
        ($ty:ty, $variant:ident) => {
            Buffer::$variant(std::sync::Arc::new(data.iter().map(|v| *v as $ty).collect()))
        };
    }
    let buffer = match dtype {
        DType::I2 | DType::I4 | DType::I8 => narrow!(i8, I8),
        DType::U2 | DType::U4 | DType::U8 => narrow!(u8, U8),
        DType::I16 => narrow!(i16, I16),
        DType::U16 => narrow!(u16, U16),
        DType::I32 => narrow!(i32, I32),
        other => return Err(TensorError::dtype("quantize", other, "is not what an affine encoding stores").into()),
    };
    Ok(Tensor::from_buffer(dtype, buffer, shape)?)
}

fn refused(parameter: &'static str, what: String) -> EncodingError {
    EncodingError::Parameter { kind: KIND, parameter, what }
}
