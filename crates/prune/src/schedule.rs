//! When a sparsity is reached: the family of schedules.
use crate::cubic::{CUBIC, Cubic};
use crate::one_shot::{ONE_SHOT, OneShot};
use technique::{Entry, Family, Fault, member};

/// Says which sparsity is reached at which step of a training.
pub trait SparsitySchedule: Send + Sync {
    /// Step of a training of `steps` steps before which the target is reached; `None` if it is reached before the training
    /// begins.
    fn end(&self, _steps: u64) -> Option<u64> {
        None
    }

    /// The sparsity that is reached before `step` (from 0) of `steps`, for a final one of `target`; `None` where masks stay as
    /// they are. It never falls, and is `target` at [`SparsitySchedule::end`].
    fn sparsity(&self, _step: u64, _steps: u64, _target: f64) -> Option<f64> {
        None
    }

    /// Checks its settings against the target.
    ///
    /// # Errors
    /// A [`Fault`] at the key that does not fit.
    fn check_target(&self, _target: f64) -> Result<(), Fault> {
        Ok(())
    }

    /// True if it prunes while the stage trains.
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
            &[member!(OneShot as dyn SparsitySchedule, ONE_SHOT), member!(Cubic as dyn SparsitySchedule, CUBIC)];
        LIST
    }
}
