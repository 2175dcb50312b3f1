//! How the grids' own parameters are learned, together with the weights.
mod dorefa;
mod learn;
mod lsq;
mod lsq_plus;
mod pact;

pub use dorefa::DoReFa;
pub use learn::LearnScales;
pub use lsq::Lsq;
pub use lsq_plus::LsqPlus;
pub use pact::Pact;

use crate::TrainError;
use graph::{Encoding, Model};
use technique::{Entry, Family};
use tensor::Tensor;

/// A way to learn the parameters of grids. Which of an encoding's parameters train follows from the form it is in; a member chooses that
/// form.
///
/// One that learns where activations are clipped, without decay, whole but for its manual page:
/// ```
/// use espalier_train::ScaleLearning;
///
/// #[derive(Debug, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Bounds {}
/// impl technique::Settings for Bounds {}
/// impl ScaleLearning for Bounds {
///     fn activation(&self, encoding: &graph::Encoding) -> encodings::Result<Option<graph::Encoding>> {
///         encodings::affine::with_clip(encoding)
///     }
/// }
/// let grid = encodings::affine::AffineSettings::activation(4);
/// let relu = grid.encoding(tensor::Tensor::scalar(0.5f32), tensor::Tensor::scalar(0f32));
/// let learned = Bounds {}.activation(&relu).unwrap().unwrap();
/// assert_eq!(learned.parameters["clip"], tensor::Tensor::scalar(7.5f32));
/// ```
pub trait ScaleLearning: Send + Sync {
    /// The encoding of an activation in the form in which it is learned; `None`: as it is.
    ///
    /// # Errors
    /// For an encoding that is not well formed.
    fn activation(&self, _encoding: &Encoding) -> encodings::Result<Option<Encoding>> {
        Ok(None)
    }

    /// A masked weight and its encoding in the form in which they are learned; `None`: as they are.
    ///
    /// # Errors
    /// For an encoding that is not well formed.
    fn weight(&self, _weight: &Tensor, _encoding: &Encoding) -> encodings::Result<Option<(Tensor, Encoding)>> {
        Ok(None)
    }

    /// Factor of the squares of a learned parameter in the loss, `decay / 2 * p^2`; 0: none.
    fn decay(&self, _parameter: &str) -> f64 {
        0.0
    }
}

/// The family of ways to learn scales.
pub struct ScaleLearnings;

impl Family for ScaleLearnings {
    type Member = dyn ScaleLearning;
    const NAME: &'static str = "learn_scales";
    const SUMMARY: &'static str =
        "How the parameters of quantizers are trained together with the weights; true is lsq, false: they are not.";
    const DEFAULT: Option<&'static str> = Some("lsq");
    fn members() -> &'static [Entry<dyn ScaleLearning>] {
        static LIST: &[Entry<dyn ScaleLearning>] = &[lsq::ENTRY, lsq_plus::ENTRY, pact::ENTRY, dorefa::ENTRY];
        LIST
    }
}

/// Puts encodings, and the weights that they belong to, into the form in which they are learned.
pub(crate) fn begin(model: &mut Model, learning: &dyn ScaleLearning) -> Result<(), TrainError> {
    let mut changed = vec![];
    for (id, annotation) in model.annotations.iter() {
        let Some(encoding) = &annotation.encoding else { continue };
        let named = |e: encodings::EncodingError| TrainError::Value { value: model.values[id].name.clone(), what: e.to_string() };
        match model.values.tensor(id) {
            Some(weight) => changed.extend(
                encodings::live(weight, annotation.mask.as_ref())
                    .and_then(|w| learning.weight(&w, encoding))
                    .map_err(named)?
                    .map(|(w, form)| (id, Some(w), form)),
            ),
            None => changed.extend(learning.activation(encoding).map_err(named)?.map(|form| (id, None, form))),
        }
    }
    for (id, weight, form) in changed {
        model.annotations.entry(id).encoding = Some(form);
        weight.map(|weight| model.values.set_tensor(id, weight));
    }
    Ok(())
}

/// Puts all encodings into the form in which they are stored.
pub(crate) fn settle(model: &mut Model) -> Result<(), TrainError> {
    let ids: Vec<graph::ValueId> = model.annotations.iter().map(|(id, _)| id).collect();
    for id in ids {
        let weight = encodings::settle(model.values.tensor(id), model.annotations.entry(id));
        let weight = weight.map_err(|e| TrainError::Value { value: model.values[id].name.clone(), what: e.to_string() })?;
        weight.map(|weight| model.values.set_tensor(id, weight));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
