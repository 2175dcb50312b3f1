//! The stored form of an annotated constant.
use crate::grid::Grid;
use crate::{DeployError, Result};
use graph::Annotation;
use tensor::Tensor;

/// What takes a constant's place.
pub(super) enum Stored {
    /// The same constant with zeros where its mask is dead.
    Float(Tensor),
    /// Integers on a grid, to be read through DequantizeLinear.
    Integers {
        /// The integers.
        data: Tensor,
        /// Their grid.
        grid: Grid,
    },
}

/// Masks and encodes the constant `name`. The integers are those that the simulation rounds to.
///
/// # Errors
/// [`DeployError::Lower`] if the encoding has no form in standard ONNX or does not fit the constant.
pub(super) fn store(name: &str, tensor: &Tensor, annotation: &Annotation) -> Result<Stored> {
    let error = |what: String| DeployError::Lower { value: name.to_string(), what };
    let Some(encoding) = &annotation.encoding else {
        return Ok(Stored::Float(encodings::simulate(tensor, annotation).map_err(|e| error(e.to_string()))?));
    };
    let mask_alone = Annotation { mask: annotation.mask.clone(), encoding: None };
    let masked = encodings::simulate(tensor, &mask_alone).map_err(|e| error(e.to_string()))?;
    let data = encodings::affine::quantize_to_int(&masked, encoding).map_err(|e| error(e.to_string()))?;
    Ok(Stored::Integers { data, grid: Grid::of(name, encoding)? })
}
