//! Learning-rate schedules.
mod constant;
mod cosine;
mod linear;
mod step;

pub use constant::Constant;
pub use cosine::Cosine;
pub use linear::Linear;
pub use step::Step;

use technique::{Entry, Family, Fault, member, within};

/// Shape of the learning rate over a stage, as a factor of the optimizer's `lr`.
pub trait Schedule: Send + Sync {
    /// Fraction of the stage, 0..1, over which the factor rises linearly from 0 to 1 before [`Schedule::shape`] takes over.
    fn warm_up(&self) -> f64;

    /// The factor at `done`, the fraction of the stage that is over, at least [`Schedule::warm_up`].
    fn shape(&self, done: f64) -> f64;

    /// The factor at `step` (from 0) of `steps`.
    fn factor(&self, step: u64, steps: u64) -> f64 {
        let done = step as f64 / steps.max(1) as f64;
        if done < self.warm_up() {
            return (step + 1) as f64 / (self.warm_up() * steps as f64).max(1.0);
        }
        self.shape(done)
    }
}

/// The family of learning-rate schedules.
///
/// A new one is a type in its own file and a line in [`Schedules::members`]:
///
/// ```
/// use espalier_train::Schedule;
///
/// /// Falls as a polynomial of the steps that are left.
/// struct Polynomial {
///     power: f64,
/// }
/// impl Schedule for Polynomial {
///     fn warm_up(&self) -> f64 {
///         0.0
///     }
///     fn shape(&self, done: f64) -> f64 {
///         (1.0 - done).powf(self.power)
///     }
/// }
/// assert_eq!(Polynomial { power: 2.0 }.factor(50, 100), 0.25);
/// ```
pub struct Schedules;

impl Family for Schedules {
    type Member = dyn Schedule;
    const NAME: &'static str = "schedule";
    const SUMMARY: &'static str = "How the learning rate changes over a stage, as a factor of the optimizer's lr.";
    const DEFAULT: Option<&'static str> = Some("cosine");
    fn members() -> &'static [Entry<dyn Schedule>] {
        static LIST: &[Entry<dyn Schedule>] = &[
            member!(Constant as dyn Schedule, constant::CONSTANT),
            member!(Step as dyn Schedule, step::STEP),
            member!(Cosine as dyn Schedule, cosine::COSINE),
            member!(Linear as dyn Schedule, linear::LINEAR),
        ];
        LIST
    }
}

/// Refuses a number that is no fraction of the stage.
fn fraction(key: &str, value: f64) -> Result<(), Fault> {
    within(key, value, 0.0, 1.0, "it is a fraction of the stage")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_at_chosen_steps() {
        let cosine = Cosine { warm_up: 0.1, floor: 0.0 };
        let step = Step { milestones: vec![0.5, 0.75], gamma: 0.1, warm_up: 0.0 };
        let constant = Constant { warm_up: 0.5 };
        let linear = Linear { warm_up: 0.2, floor: 0.5 };
        let cases: [(&dyn Schedule, u64, f64); 12] = [
            (&cosine, 0, 0.1),
            (&cosine, 9, 1.0),
            (&cosine, 10, 1.0),
            (&cosine, 55, 0.5),
            (&step, 49, 1.0),
            (&step, 50, 0.1),
            (&step, 80, 0.01),
            (&constant, 24, 0.5),
            (&constant, 50, 1.0),
            (&linear, 9, 0.5),
            (&linear, 60, 0.75),
            (&linear, 99, 0.50625),
        ];
        for (i, (schedule, at, expected)) in cases.into_iter().enumerate() {
            assert!((schedule.factor(at, 100) - expected).abs() < 1e-9, "case {i} at {at}: {}", schedule.factor(at, 100));
        }
    }
}
