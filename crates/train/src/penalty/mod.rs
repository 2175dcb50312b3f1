//! Penalties: terms of the loss that depend on weights and their encodings alone.
mod oscillation_damping;

pub use oscillation_damping::OscillationDamping;

use crate::parameters::Part;
use crate::{StepContext, TrainError};
use graph::Annotation;
use technique::{Entry, Family};
use tensor::Tensor;

/// A term of the loss that depends on weights and on how they are stored. The loss that a training shows leaves it out.
///
/// Weights pulled towards zero in proportion to their magnitudes' signs, whole but for its manual page:
/// ```
/// use espalier_train::{Penalized, Penalty};
///
/// #[derive(Debug, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Lasso {
///     /// Factor of the sum of magnitudes.
///     factor: f64,
/// }
/// impl technique::Settings for Lasso {}
/// impl Penalty for Lasso {
///     fn gradient(&self, of: &Penalized) -> encodings::Result<Option<tensor::Tensor>> {
///         Ok(Some(of.weight.sign()?.mul_scalar(self.factor)?))
///     }
/// }
/// let weight = tensor::Tensor::vector(vec![-0.5f32, 2.0]);
/// let of = Penalized { weight: &weight, annotation: None, progress: 0.0 };
/// assert_eq!(Lasso { factor: 0.25 }.gradient(&of).unwrap(), Some(tensor::Tensor::vector(vec![-0.25f32, 0.25])));
/// ```
pub trait Penalty: Send + Sync {
    /// Its gradient by a weight, of the weight's shape; `None` where it has none.
    ///
    /// # Errors
    /// For an encoding that is not well formed.
    fn gradient(&self, of: &Penalized) -> encodings::Result<Option<Tensor>>;
}

/// A weight in a step.
pub struct Penalized<'a> {
    /// The fp32 master.
    pub weight: &'a Tensor,
    /// How it is stored, if it is annotated.
    pub annotation: Option<&'a Annotation>,
    /// Share of the training's steps that are over, 0..1.
    pub progress: f64,
}

/// The family of penalties.
pub struct Penalties;

impl Family for Penalties {
    type Member = dyn Penalty;
    const NAME: &'static str = "penalty";
    const SUMMARY: &'static str = "Terms that are added to the loss and depend on weights and their quantizers alone.";
    const DEFAULT: Option<&'static str> = None;
    fn members() -> &'static [Entry<dyn Penalty>] {
        static LIST: &[Entry<dyn Penalty>] = &[oscillation_damping::ENTRY];
        LIST
    }
}

/// Adds the gradients of the penalties that the settings list to those of a step.
pub(crate) fn add(cx: &StepContext, gradients: &mut [Option<Tensor>]) -> Result<(), TrainError> {
    let progress = crate::step::share(cx.step, cx.steps);
    for penalty in &cx.settings.penalties {
        for (p, gradient) in cx.parameters.iter().zip(gradients.iter_mut()) {
            let (Part::Master, ops::Role::Weight, Some(found)) = (&p.id.part, p.role, gradient.as_mut()) else { continue };
            let Some(weight) = cx.model.values.tensor(p.id.value) else { continue };
            let of = Penalized { weight, annotation: cx.model.annotations.get(p.id.value), progress };
            let named = |e: encodings::EncodingError| TrainError::Value { value: p.name.clone(), what: e.to_string() };
            if let Some(more) = penalty.gradient(&of).map_err(named)? {
                *found = found.add(&more)?;
            }
        }
    }
    Ok(())
}
