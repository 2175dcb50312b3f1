//! The grid of an encoding in the form that QuantizeLinear and DequantizeLinear take.
use crate::{DeployError, Result};
use encodings::Decode;
use encodings::affine::{AffineSettings, Blocks};
use graph::Encoding;
use tensor::{DType, Tensor};

/// A uniform grid: `real = (integer - zero_point) * scale`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grid {
    /// One scale, or one for each index along `axis`; f32.
    pub(crate) scale: Tensor,
    /// As many zero points, of the stored integers' type.
    pub(crate) zero_point: Tensor,
    /// The axis of a grid per channel.
    pub(crate) axis: Option<usize>,
    /// Blocks with a scale each, of the shape that DequantizeLinear takes.
    pub(crate) blocks: Option<Blocks>,
}

impl Grid {
    /// The grid of an encoding on the value `name`.
    ///
    /// # Errors
    /// [`DeployError::Lower`] if the encoding has no form in standard ONNX, or is not well formed.
    pub(crate) fn of(name: &str, encoding: &Encoding) -> Result<Grid> {
        let error = |what: String| DeployError::Lower { value: name.to_string(), what };
        match encodings::decode(encoding).map_err(|e| error(e.to_string()))? {
            Decode::Affine { scale, zero_point, axis, blocks } => Ok(Grid { scale, zero_point, axis, blocks }),
            Decode::Table { .. } => Err(error(format!(
                "is stored as {}, which only constants can be: an activation needs integers with a scale",
                encodings::describe(encoding)
            ))),
        }
    }

    /// The encoding that puts values on this grid.
    ///
    /// # Errors
    /// Whatever the conversion of the zero point reports.
    pub(crate) fn encoding(&self) -> Result<Encoding> {
        let (scale, zero_point) = (self.scale.clone(), self.zero_point.clone());
        let decode = Decode::Affine { scale, zero_point, axis: self.axis, blocks: self.blocks };
        decode.encoding().map_err(|e| DeployError::Lower { value: String::new(), what: e.to_string() })
    }

    /// The real numbers at the two ends of the grid, for a grid with one scale that begins or ends at zero.
    ///
    /// # Errors
    /// Whatever reading scale and zero point reports.
    pub(crate) fn one_sided(&self) -> Result<Option<(f64, f64)>> {
        if self.scale.len() != 1 {
            return Ok(None);
        }
        let settings =
            AffineSettings::of(&self.encoding()?).map_err(|e| DeployError::Lower { value: String::new(), what: e.to_string() })?;
        let (scale, zero) = (f64::from(self.scale.to_f32_vec()?[0]), self.zero_point.to_i64_vec()?[0]);
        let ends = [settings.qmin(), settings.qmax()].map(|q| (q - zero) as f64 * scale);
        Ok((ends[0] == 0.0 || ends[1] == 0.0).then_some((ends[0], ends[1])))
    }

    /// The stored integers' type.
    pub(crate) fn dtype(&self) -> DType {
        self.zero_point.dtype()
    }

    /// True if every zero point is zero.
    pub(crate) fn is_symmetric(&self) -> bool {
        self.zero_point.to_i64_vec().is_ok_and(|z| z.iter().all(|v| *v == 0))
    }
}

/// True if all scales are positive numbers, as an encoding needs them. Files of other tools hold negative ones and zeros, too.
pub(crate) fn positive(scale: &Tensor) -> bool {
    scale.to_f64_vec().is_ok_and(|list| list.into_iter().all(|s| s.is_finite() && s > 0.0))
}
