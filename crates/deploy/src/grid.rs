//! The grid an encoding puts values on, in the form QuantizeLinear and DequantizeLinear take it.
use crate::{DeployError, Result};
use encodings::affine::{self, AffineSettings};
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
}

impl Grid {
    /// The grid of an encoding on the value `name`.
    ///
    /// # Errors
    /// [`DeployError::Lower`] if the encoding has no form in standard ONNX, or is not well formed.
    pub(crate) fn of(name: &str, encoding: &Encoding) -> Result<Grid> {
        let error = |what: String| DeployError::Lower { value: name.to_string(), what };
        if encoding.kind != affine::KIND {
            return Err(error(format!("the encoding '{}' has no form in QuantizeLinear and DequantizeLinear", encoding.kind)));
        }
        let grid = affine::Grid::of(encoding).map_err(|e| error(e.to_string()))?;
        let zero_point = grid.zero_point().map_err(|e| error(e.to_string()))?;
        // One scale for an axis is a grid for the whole tensor.
        let axis = grid.settings().axis.filter(|_| grid.scale().len() > 1 || grid.scale().rank() == 1);
        Ok(Grid { scale: grid.scale().detach().cast(DType::F32)?, zero_point, axis })
    }

    /// The encoding that puts values on this grid.
    ///
    /// # Errors
    /// Whatever the conversion of the zero point reports.
    pub(crate) fn encoding(&self) -> Result<Encoding> {
        Ok(self.settings().encoding(self.scale.clone(), self.zero_point.cast(DType::F32)?))
    }

    fn settings(&self) -> AffineSettings {
        let (bits, signed) = match self.dtype() {
            DType::I2 => (2, true),
            DType::U2 => (2, false),
            DType::I4 => (4, true),
            DType::U4 => (4, false),
            DType::I8 => (8, true),
            DType::I16 => (16, true),
            DType::U16 => (16, false),
            DType::I32 => (32, true),
            _ => (8, false),
        };
        let symmetric = signed && self.is_symmetric();
        AffineSettings { bits, signed, symmetric, narrow_range: false, reduce_range: false, axis: self.axis }
    }

    /// The reals at its two ends, for a grid of one scale that begins or ends at zero.
    ///
    /// # Errors
    /// Whatever reading scale and zero point reports.
    pub(crate) fn one_sided(&self) -> Result<Option<(f64, f64)>> {
        if self.scale.len() != 1 {
            return Ok(None);
        }
        let settings = self.settings();
        let (scale, zero) = (f64::from(self.scale.to_f32_vec()?[0]), self.zero_point.to_i64_vec()?[0]);
        let ends = [settings.qmin(), settings.qmax()].map(|q| (q - zero) as f64 * scale);
        Ok((ends[0] == 0.0 || ends[1] == 0.0).then_some((ends[0], ends[1])))
    }

    /// The stored integers' type.
    pub(crate) fn dtype(&self) -> DType {
        self.zero_point.dtype()
    }

    /// The oldest operator set with this type and axis.
    pub(crate) fn opset(&self) -> i64 {
        match (self.dtype(), self.axis) {
            (DType::I2 | DType::U2, _) => 25,
            (DType::I4 | DType::U4 | DType::I16 | DType::U16, _) => 21,
            (_, Some(_)) => 13,
            _ => 10,
        }
    }

    /// True if every zero point is zero.
    pub(crate) fn is_symmetric(&self) -> bool {
        self.zero_point.to_i64_vec().is_ok_and(|z| z.iter().all(|v| *v == 0))
    }
}
