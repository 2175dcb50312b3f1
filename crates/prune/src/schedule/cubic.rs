//! Cubic schedule: gradual pruning, fast at first, while many weights are redundant, and slow at the end.
use super::window::{Window, check_initial};
use crate::SparsitySchedule;
use technique::{Entry, Fault, Manual, Settings, member, within};

pub(super) const ENTRY: Entry<dyn SparsitySchedule> = member!(
    Cubic as dyn SparsitySchedule,
    Manual {
        name: "cubic",
        summary: "Raises the sparsity while the stage trains: fast at first, slowly towards the end.",
        details: "\
Every `every` steps between the shares `begin` and `end` of the stage's steps, the sparsity is raised to

    s(t) = sparsity + (initial - sparsity) * (1 - t)^3,  t = (step - first) / (last - first)

by the stage's criterion, on the present weights. What was pruned stays pruned. From `end` on the rest trains with the whole
sparsity; early stopping and keep = \"best\" leave out the epochs before that.

Wants several epochs. Best for high sparsities, from which a network does not recover after one_shot.",
        source: "Zhu & Gupta 2017, arXiv:1710.01878, equation 1",
        example: "epochs = 10\nsparsity_schedule = { kind = \"cubic\", begin = 0.0, end = 0.5, every = 50 }",
    }
);

/// Sparsity that rises with a cubic function during training.
///
/// # Source
/// Zhu & Gupta 2017, arXiv:1710.01878, equation 1.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cubic {
    /// Share of the stage's steps at which pruning begins, 0..1.
    pub begin: f64,
    /// Share of the stage's steps at which the whole sparsity is reached, 0..1; at the latest before the last step.
    pub end: f64,
    /// Steps between two prunings.
    pub every: u64,
    /// Initial sparsity.
    pub initial: f64,
}

impl Default for Cubic {
    fn default() -> Self {
        Cubic { begin: 0.0, end: 0.5, every: 50, initial: 0.0 }
    }
}

impl Settings for Cubic {
    fn check(&self) -> Result<(), Fault> {
        self.window().check()?;
        within("initial", self.initial, 0.0, 1.0, "it is a share of the weights")
    }
}

impl Cubic {
    fn window(&self) -> Window {
        Window { begin: self.begin, end: self.end, every: self.every }
    }
}

impl SparsitySchedule for Cubic {
    fn end(&self, steps: u64) -> Option<u64> {
        Some(self.window().range(steps).1)
    }

    fn sparsity(&self, step: u64, steps: u64, target: f64) -> Option<f64> {
        self.window().progress(step, steps).map(|t| if t == 1.0 { target } else { cubic(self.initial, target, t) })
    }

    fn check_target(&self, target: f64) -> Result<(), Fault> {
        check_initial(self.initial, target)
    }
}

/// Sparsity after a share `progress` of a gradual pruning, 0..1: at 0 it is `from`, at 1 it is `to`.
fn cubic(from: f64, to: f64, progress: f64) -> f64 {
    to + (from - to) * (1.0 - progress).powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_formula_starts_and_ends_where_it_should_and_rises() {
        assert_eq!((cubic(0.25, 0.75, 0.0), cubic(0.25, 0.75, 1.0)), (0.25, 0.75));
        let steps: Vec<f64> = (0..=10).map(|i| cubic(0.0, 0.5, f64::from(i) / 10.0)).collect();
        assert!(steps.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(steps[5], 0.4375);
    }

    #[test]
    fn it_prunes_every_so_many_steps_between_begin_and_end() {
        let schedule = Cubic { begin: 0.1, end: 0.5, every: 15, initial: 0.2 };
        let events: Vec<(u64, f64)> = (0..100).filter_map(|s| Some((s, schedule.sparsity(s, 100, 0.8)?))).collect();
        assert_eq!(events.iter().map(|e| e.0).collect::<Vec<_>>(), [10, 25, 40, 50]);
        assert!((events[0].1 - 0.2).abs() < 1e-12 && events[3].1 == 0.8, "{events:?}");
        assert_eq!(events[1].1, cubic(0.2, 0.8, 15.0 / 40.0));
        assert_eq!(schedule.end(100), Some(50));
        // With so few steps, beginning and end coincide: all pruning comes before the only step.
        assert_eq!(schedule.sparsity(0, 1, 0.8), Some(0.8));
    }

    #[test]
    fn settings_that_cannot_be_are_refused_at_their_key() {
        let at = |c: Cubic| c.check().unwrap_err().path;
        assert_eq!(at(Cubic { begin: 0.5, ..Cubic::default() }), ["end"]);
        assert_eq!(at(Cubic { end: 1.5, ..Cubic::default() }), ["end"]);
        assert_eq!(at(Cubic { every: 0, ..Cubic::default() }), ["every"]);
        assert_eq!(at(Cubic { begin: f64::NAN, ..Cubic::default() }), ["begin"]);
        assert_eq!(Cubic { initial: 0.6, ..Cubic::default() }.check_target(0.5).unwrap_err().path, ["initial"]);
    }

    proptest! {
        #[test]
        fn sparsity_never_falls_and_ends_at_the_target(
            begin in 0f64..0.9, length in 0.01f64..1.0, every in 1u64..40, initial in 0f64..0.5, steps in 1u64..300,
        ) {
            let schedule = Cubic { begin, end: (begin + length).min(1.0), every, initial };
            let events: Vec<f64> = (0..steps).filter_map(|s| schedule.sparsity(s, steps, 0.9)).collect();
            prop_assert!(events.windows(2).all(|w| w[0] <= w[1]));
            prop_assert_eq!(events.last(), Some(&0.9));
            let end = schedule.end(steps).unwrap();
            prop_assert!(end < steps && schedule.sparsity(end, steps, 0.9) == Some(0.9));
        }
    }
}
