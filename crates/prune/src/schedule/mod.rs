//! Sparsity schedules: when a sparsity is reached.
mod cubic;
mod iterative;
mod linear;
mod mask_search;
mod one_shot;
mod rewind;
mod rigl;
mod window;

pub use cubic::Cubic;
pub use iterative::Iterative;
pub use linear::Linear;
pub use mask_search::MaskSearch;
pub use one_shot::OneShot;
pub use rewind::{Rewind, Rewound};
pub use rigl::RigL;

use technique::{Entry, Family, Fault};

/// The sparsity after a round from 1 to `rounds`, where each takes the same share of what is left: `1 - (1 - target)^(round / rounds)`.
pub(crate) fn of_round(target: f64, round: u64, rounds: u64) -> f64 {
    if round == rounds { target } else { 1.0 - (1.0 - target).powf(round as f64 / rounds as f64) }
}

/// Defines the sparsity at each step of a training.
///
/// A schedule is a type that holds its settings, in a file of its own, and a line in [`SparsitySchedules::members`]. Growth by the
/// same amount at each step of the first half of a training (built in with more settings as [`Linear`]), whole but for its manual page:
/// ```
/// use espalier_prune::SparsitySchedule;
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Linear {}
/// impl technique::Settings for Linear {}
/// impl SparsitySchedule for Linear {
///     fn end(&self, steps: u64) -> Option<u64> {
///         Some(steps / 2)
///     }
///     fn sparsity(&self, step: u64, steps: u64, target: f64) -> Option<f64> {
///         let end = steps / 2;
///         (step <= end).then(|| if step == end { target } else { target * step as f64 / end as f64 })
///     }
/// }
/// let member = technique::member!(
///     Linear as dyn SparsitySchedule,
///     technique::Manual { name: "linear", summary: "", details: "", source: "", example: "" }
/// );
/// let linear = (member.build)(Default::default()).unwrap();
/// assert_eq!([0, 25, 50, 51].map(|step| linear.sparsity(step, 100, 0.8)), [Some(0.0), Some(0.4), Some(0.8), None]);
/// ```
pub trait SparsitySchedule: Send + Sync {
    /// The step of a training with `steps` steps before which the target is reached; `None` if it is reached before the training
    /// begins.
    fn end(&self, _steps: u64) -> Option<u64> {
        None
    }

    /// The sparsity to reach before `step` (from 0) of `steps`, for a final sparsity of `target`; `None` if the masks do not
    /// change. It never falls, and is `target` at [`SparsitySchedule::end`] at the latest.
    fn sparsity(&self, _step: u64, _steps: u64, _target: f64) -> Option<f64> {
        None
    }

    /// The share of each layer's live weights to exchange before `step`: the smallest die, and as many dead ones with the largest gradient
    /// live again. `None`: none.
    fn exchange(&self, _step: u64, _steps: u64) -> Option<f64> {
        None
    }

    /// Batches of the gradient by which weights live again, if it exchanges weights in the course of a training. Only single elements
    /// can be exchanged.
    fn exchanges(&self) -> Option<u64> {
        None
    }

    /// How far each step moves the scores of a mask that is trained in place of the weights, if it is. Only single elements can be searched.
    fn search(&self) -> Option<f64> {
        None
    }

    /// True if all parameters before `step` are kept, to go back to.
    fn remembers(&self, _step: u64, _steps: u64) -> bool {
        false
    }

    /// True if all parameters go back to what was kept before `step`, once the masks are set.
    fn rewinds(&self, _step: u64, _steps: u64) -> bool {
        false
    }

    /// The step, and of how many, whose learning rate `step` has, if that is another one.
    fn place(&self, _step: u64, _steps: u64) -> Option<(u64, u64)> {
        None
    }

    /// Checks its settings against the target.
    ///
    /// # Errors
    /// A [`Fault`] at the key that does not fit.
    fn check_target(&self, _target: f64) -> Result<(), Fault> {
        Ok(())
    }

    /// True if it prunes during training.
    fn is_gradual(&self) -> bool {
        self.end(1).is_some()
    }
}

/// The family of schedules.
pub struct SparsitySchedules;

impl Family for SparsitySchedules {
    type Member = dyn SparsitySchedule;
    const NAME: &'static str = "sparsity_schedule";
    const SUMMARY: &'static str = "When the sparsity is reached: at once, or step by step while the stage trains.";
    const DEFAULT: Option<&'static str> = Some("one_shot");
    fn members() -> &'static [Entry<dyn SparsitySchedule>] {
        static LIST: &[Entry<dyn SparsitySchedule>] =
            &[one_shot::ENTRY, cubic::ENTRY, linear::ENTRY, iterative::ENTRY, rewind::ENTRY, rigl::ENTRY, mask_search::ENTRY];
        LIST
    }
}
