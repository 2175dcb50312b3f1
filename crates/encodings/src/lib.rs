//! How a value can be stored. One file (or folder) an encoding: its settings, its own parameters, how a graph that runs in
//! simulation passes a value through it (with the gradient), and the integers that a lowered file holds.
//!
//! [`simulate`] is what the executor calls on every annotated value: mask first, then encoding. Masked elements are exactly
//! zero before and after, because every encoding keeps zero.
pub mod affine;
mod error;
mod mask;

pub use error::{EncodingError, Result};

use graph::{Annotation, Encoding};
use tensor::{Activation, Tensor};

/// Everything about one encoding. Adding an encoding is adding a file and a line in [`all`].
pub trait EncodingKind: Sync {
    /// Its name in [`Encoding::kind`].
    fn name(&self) -> &'static str;

    /// One sentence for `espalier explain`.
    fn summary(&self) -> &'static str;

    /// The value as it will be read back from its stored form, differentiable by the value and by the encoding's
    /// [`EncodingKind::trainable`] parameters where they are tracked. Zero stays exactly zero.
    ///
    /// # Errors
    /// If the encoding is not well formed or does not fit the value.
    fn simulate(&self, value: &Tensor, encoding: &Encoding) -> Result<Tensor>;

    /// [`EncodingKind::simulate`] of an activation of the value: in the same pass over memory, where the encoding can.
    ///
    /// # Errors
    /// As [`EncodingKind::simulate`].
    fn simulate_activated(&self, value: &Tensor, activation: Activation, encoding: &Encoding) -> Result<Tensor> {
        self.simulate(&activation.apply(value)?, encoding)
    }

    /// The stored form. Reading it back gives [`EncodingKind::simulate`]'s result to the bit.
    ///
    /// # Errors
    /// As [`EncodingKind::simulate`]; also for NaN, which has no stored form.
    fn store(&self, value: &Tensor, encoding: &Encoding) -> Result<Tensor>;

    /// The value that a stored form stands for.
    ///
    /// # Errors
    /// If the encoding is not well formed or the stored form is not of its type.
    fn read(&self, stored: &Tensor, encoding: &Encoding) -> Result<Tensor>;

    /// How it stores a value, in a few words: `int8 per channel`.
    ///
    /// # Errors
    /// If the encoding is not well formed.
    fn describe(&self, encoding: &Encoding) -> Result<String>;

    /// Names of the parameters that may be learned.
    fn trainable(&self, encoding: &Encoding) -> &'static [&'static str];

    /// A learned parameter that a step took from `before` to `after`, brought back to where it may be.
    ///
    /// # Errors
    /// If the two do not have one shape.
    fn held(&self, _parameter: &str, _before: &Tensor, after: Tensor) -> Result<Tensor> {
        Ok(after)
    }
}

/// All encodings.
pub fn all() -> impl Iterator<Item = &'static dyn EncodingKind> {
    static LIST: &[&dyn EncodingKind] = &[&affine::Affine];
    LIST.iter().copied()
}

/// The encoding of this name.
///
/// # Errors
/// [`EncodingError::UnknownKind`], with the known names.
pub fn find(kind: &str) -> Result<&'static dyn EncodingKind> {
    all()
        .find(|e| e.name() == kind)
        .ok_or_else(|| EncodingError::UnknownKind { kind: kind.to_string(), known: all().map(|e| e.name()).collect() })
}

/// A value as its annotation stores it: dead elements zero, the rest on the encoding's grid.
///
/// The gradient passes through the mask (zero for dead elements) and through the encoding (straight through where the
/// encoding says so). Parameters in `annotation` may be tracked; then they get a gradient too.
///
/// # Errors
/// If the mask or the encoding does not fit the value.
pub fn simulate(value: &Tensor, annotation: &Annotation) -> Result<Tensor> {
    let masked = match &annotation.mask {
        Some(mask) => mask::apply(value, mask)?,
        None => value.clone(),
    };
    match &annotation.encoding {
        Some(encoding) => find(&encoding.kind)?.simulate(&masked, encoding),
        None => Ok(masked),
    }
}

/// [`simulate`] of an activation of a value.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_activated(value: &Tensor, activation: Activation, annotation: &Annotation) -> Result<Tensor> {
    match (&annotation.mask, &annotation.encoding) {
        (None, Some(encoding)) => find(&encoding.kind)?.simulate_activated(value, activation, encoding),
        _ => simulate(&activation.apply(value)?, annotation),
    }
}

/// How an encoding stores a value, in a few words: `int8 per channel`; its name where nobody knows it.
pub fn describe(encoding: &Encoding) -> String {
    find(&encoding.kind).and_then(|kind| kind.describe(encoding)).unwrap_or_else(|_| encoding.kind.clone())
}

/// A parameter of an encoding that a step took from `before` to `after`, brought back to where it may be.
///
/// # Errors
/// If nobody knows the encoding, or the two do not have one shape.
pub fn held(encoding: &Encoding, parameter: &str, before: &Tensor, after: Tensor) -> Result<Tensor> {
    find(&encoding.kind)?.held(parameter, before, after)
}

/// Names of the parameters of an encoding that may be learned; none for an encoding nobody knows.
pub fn trainable(encoding: &Encoding) -> Vec<String> {
    find(&encoding.kind).map_or(vec![], |kind| kind.trainable(encoding).iter().map(|name| name.to_string()).collect())
}
