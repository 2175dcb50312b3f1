//! How a value can be stored. One file (or folder) an encoding: its settings as recipes write them, how it is fitted to a weight, how a
//! graph that runs in simulation passes a value through it (with the gradient), and the data that a deployed file holds.
//!
//! The life of an encoding:
//!
//! 1. a recipe chooses a [`WeightEncoding`] with its settings (the family [`Encodings`]);
//! 2. [`WeightEncoding::fit`] makes the annotation of a weight: fixed settings and parameters (scale, codebook, ...);
//! 3. [`open`] reads an annotation's settings once; the [`Codec`] then simulates, trains and projects;
//! 4. [`store`] gives the data that a file holds and how they [`Decode`], on which exporters match;
//! 5. lifting turns a [`Decode`] into an annotation again, and [`read`] gives the value.
//!
//! [`simulate`] is what the executor calls on every annotated value: mask first, then encoding. Masked elements are exactly
//! zero before and after.
pub mod additive_power_of_two;
pub mod affine;
pub mod binary;
mod clipped;
pub mod codebook;
mod codec;
mod decode;
mod error;
mod family;
mod levels;
mod mask;
pub mod power_of_two;
mod slot;
pub mod ternary;
#[cfg(test)]
mod testing;

pub use codec::{Codec, Parameters};
pub use decode::{Decode, Stored, pack, unpack};
pub use error::{EncodingError, Result};
pub use family::{Encodings, WeightEncoding, find};
pub use slot::{Along, Granularity, Slot};

use graph::{Annotation, Encoding};
use std::sync::Arc;
use tensor::{Activation, Tensor};

/// Reads the settings of an encoding.
///
/// # Errors
/// [`EncodingError::UnknownKind`]; [`EncodingError::Setting`] for a setting of the wrong type or out of range.
pub fn open(encoding: &Encoding) -> Result<Arc<dyn Codec>> {
    find(&encoding.kind)?.open(&encoding.settings)
}

/// The value with zeros where the mask is false; no gradient reaches those elements.
///
/// # Errors
/// If the mask is not bool or not of the value's shape.
pub fn live(value: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    mask.map_or_else(|| Ok(value.clone()), |mask| mask::apply(value, mask))
}

/// A value as its annotation stores it: dead elements zero, the rest as they will be read back.
///
/// The gradient passes through the mask (zero for dead elements) and through the encoding (straight through where the
/// encoding says so). Parameters in `annotation` may be tracked; then they get a gradient too.
///
/// # Errors
/// If the mask or the encoding does not fit the value.
pub fn simulate(value: &Tensor, annotation: &Annotation) -> Result<Tensor> {
    match &annotation.encoding {
        Some(encoding) => simulate_as(value, annotation.mask.as_ref(), open(encoding)?.as_ref(), &encoding.parameters),
        None => live(value, annotation.mask.as_ref()),
    }
}

/// [`simulate`] with settings that are read already.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_as(value: &Tensor, mask: Option<&Tensor>, codec: &dyn Codec, parameters: &Parameters) -> Result<Tensor> {
    holds_zero(mask, codec, parameters)?;
    codec.simulate(&live(value, mask)?, parameters)
}

/// Refuses a mask on a value whose encoding has no zero.
fn holds_zero(mask: Option<&Tensor>, codec: &dyn Codec, parameters: &Parameters) -> Result<()> {
    match mask.is_some() && !codec.keeps_zero(parameters) {
        true => Err(EncodingError::NoZero { how: codec.describe(parameters) }),
        false => Ok(()),
    }
}

/// [`simulate`] of an activation of a value.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_activated(value: &Tensor, activation: Activation, annotation: &Annotation) -> Result<Tensor> {
    match (&annotation.mask, &annotation.encoding) {
        (None, Some(encoding)) => open(encoding)?.simulate_activated(value, activation, &encoding.parameters),
        _ => simulate(&activation.apply(value)?, annotation),
    }
}

/// The stored form of a value under its mask.
///
/// # Errors
/// If the mask or the encoding does not fit the value, or the value holds NaN.
pub fn store(value: &Tensor, mask: Option<&Tensor>, encoding: &Encoding) -> Result<Stored> {
    let codec = open(encoding)?;
    holds_zero(mask, codec.as_ref(), &encoding.parameters)?;
    codec.store(&live(value, mask)?, &encoding.parameters)
}

/// The f32 value that stored data stand for.
///
/// # Errors
/// If the encoding is not well formed or does not fit the data.
pub fn read(data: &Tensor, encoding: &Encoding) -> Result<Tensor> {
    open(encoding)?.read(data, &encoding.parameters)
}

/// Puts the encoding of an annotation into the form in which it is stored, after a training that learned it in another. Returns a weight
/// that is to take the place of `value`: one that was simulated as something else than the stored form makes of it.
///
/// # Errors
/// If the encoding is not well formed.
pub fn settle(value: Option<&Tensor>, annotation: &mut Annotation) -> Result<Option<Tensor>> {
    let Some(encoding) = &annotation.encoding else { return Ok(None) };
    let Some((parameters, replaced)) = open(encoding)?.settle(&encoding.parameters)? else { return Ok(None) };
    let value = value.filter(|_| replaced).map(|value| simulate(value, annotation)).transpose()?;
    if let Some(encoding) = &mut annotation.encoding {
        encoding.parameters = parameters;
    }
    Ok(value)
}

/// How data stored in an encoding decode.
///
/// # Errors
/// If the encoding is not well formed.
pub fn decode(encoding: &Encoding) -> Result<Decode> {
    open(encoding)?.decode(&encoding.parameters)
}

/// The same encoding fitted again to the present elements of a weight under its mask.
///
/// # Errors
/// If the encoding is not well formed, or for a weight that is not finite.
pub fn refit(weight: &Tensor, mask: Option<&Tensor>, encoding: &Encoding) -> Result<Encoding> {
    open(encoding)?.refit(&live(weight, mask)?, mask, &encoding.parameters)
}

/// The present values of those parameters of a weight's encoding that are derived from the weight or from the training's progress
/// (`progress`, 0 to 1); `None` if there are none.
///
/// # Errors
/// If the encoding is not well formed, or for a weight that is not finite.
pub fn follow(weight: &Tensor, mask: Option<&Tensor>, encoding: &Encoding, progress: f64) -> Result<Option<Parameters>> {
    let codec = open(encoding)?;
    if !codec.follows() {
        return Ok(None);
    }
    codec.follow(&live(weight, mask)?, mask, progress, &encoding.parameters)
}

/// The present values of those parameters of an activation's encoding that follow from the training's progress (`progress`, 0 to 1);
/// `None` if there are none.
///
/// # Errors
/// If the encoding is not well formed.
pub fn advance(encoding: &Encoding, progress: f64) -> Result<Option<Parameters>> {
    Ok(open(encoding)?.advance(progress))
}

/// The encoding of a value after every channel along `axis` is multiplied by a factor, for an encoding that decodes from a table, or of
/// integers with a scale for each group: the same with other scales. `None` for other encodings, and for channels along another axis.
///
/// # Errors
/// If the encoding is not well formed.
pub fn scaled(encoding: &Encoding, axis: usize, factor: &[f64]) -> Result<Option<Encoding>> {
    let (table, bits, own, group, scale) = match decode(encoding)? {
        Decode::Table { table, bits, axis, group, scale } => (table, bits, axis, group, scale),
        Decode::Affine { blocks: Some(_), .. } => return affine::scaled_blocks(encoding, axis, factor),
        Decode::Affine { .. } => return Ok(None),
    };
    if own.is_some_and(|own| own != axis) {
        return Ok(None);
    }
    let before = scale.map(|s| s.to_f64_vec()).transpose()?.unwrap_or_else(|| vec![1.0; factor.len()]);
    // A channel with factor zero is zero at any scale.
    let product = |(s, f): (&f64, &f64)| if ((s * f) as f32).is_normal() { (s * f) as f32 } else { f32::MIN_POSITIVE };
    let scale = Some(Tensor::vector(before.iter().zip(factor).map(product).collect::<Vec<f32>>()));
    Ok(Some(Decode::Table { table, bits, axis: Some(axis), group, scale }.encoding()?))
}

/// How an encoding stores a value, in a few words: `int8 per channel`; its name where it is not known or not well formed.
pub fn describe(encoding: &Encoding) -> String {
    open(encoding).map_or_else(|_| encoding.kind.clone(), |codec| codec.describe(&encoding.parameters))
}

/// Projects a parameter of an encoding, which a step took from `before` to `after`, onto its valid range.
///
/// # Errors
/// If the encoding is not known, or the two do not have one shape.
pub fn project(encoding: &Encoding, parameter: &str, before: &Tensor, after: Tensor) -> Result<Tensor> {
    open(encoding)?.project(parameter, before, after)
}

/// Scales that are smaller are as good as zero: no step makes one so small, and products of two stay numbers.
const LEAST_SCALE: f64 = 1.0 / (1u64 << 60) as f64;

/// A scale after a step: half of what it was at least, so that many steps in one direction do not end at zero or below. A step of Adam
/// is as long as its rate, however small a scale is.
fn positive_scale(before: &Tensor, after: &Tensor) -> Result<Tensor> {
    let least = before.clip(None, Some(LEAST_SCALE))?;
    Ok(after.max(&before.mul_scalar(0.5)?)?.max(&least)?)
}

/// Names of the trainable parameters of an encoding; none for an unknown encoding.
pub fn trainable(encoding: &Encoding) -> Vec<String> {
    open(encoding).map_or(vec![], |codec| codec.trainable(&encoding.parameters).iter().map(|name| name.to_string()).collect())
}
