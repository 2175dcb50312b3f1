//! The stored form of an annotated constant.
use crate::{DeployError, Result};
use encodings::Decode;
use graph::Annotation;
use tensor::{DType, Tensor};

/// The stored form of a constant.
pub(super) enum Form {
    /// The same float constant, with zeros where the mask is false.
    Float(Tensor),
    /// Integers or indices that nodes decode.
    Data(encodings::Stored),
}

/// Masks and encodes the constant `name`. The data are those that the simulation rounds to.
///
/// # Errors
/// [`DeployError::Lower`] if the encoding does not fit the constant.
pub(super) fn store(name: &str, tensor: &Tensor, annotation: &Annotation) -> Result<Form> {
    let error = |e: encodings::EncodingError| DeployError::Lower { value: name.to_string(), what: e.to_string() };
    let mask = annotation.mask.as_ref();
    match &annotation.encoding {
        None => encodings::live(tensor, mask).map(Form::Float).map_err(error),
        Some(encoding) => encodings::store(tensor, mask, encoding).map(Form::Data).map_err(error),
    }
}

/// The oldest operator set in which data that decode like this can be written down.
pub(super) fn opset(decode: &Decode) -> i64 {
    match decode {
        Decode::Affine { blocks: Some(_), zero_point, .. } => match zero_point.dtype() {
            DType::I2 | DType::U2 => 25,
            _ => 21,
        },
        Decode::Affine { zero_point, axis, .. } => match (zero_point.dtype(), axis) {
            (DType::I2 | DType::U2, _) => 25,
            (DType::I4 | DType::U4 | DType::I16 | DType::U16, _) => 21,
            (_, Some(_)) => 13,
            _ => 10,
        },
        // Cast of uint4; Cast, Gather, ReduceSum and Split.
        Decode::Table { bits: 4, .. } => 21,
        Decode::Table { .. } => 13,
    }
}
