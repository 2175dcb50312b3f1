//! Linear schedule: the sparsity rises by the same amount at each pruning.
use super::window::{Window, check_initial};
use crate::SparsitySchedule;
use technique::{Entry, Fault, Manual, Settings, member, within};

pub(super) const ENTRY: Entry<dyn SparsitySchedule> = member!(
    Linear as dyn SparsitySchedule,
    Manual {
        name: "linear",
        summary: "Raises the sparsity while the stage trains, by the same amount each time.",
        details: "\
Every `every` steps between the shares `begin` and `end` of the stage's steps, the sparsity is raised to

    s(t) = initial + (sparsity - initial) * t,  t = (step - first) / (last - first)

What was pruned stays pruned. Near the end each pruning takes a larger share of the weights that are left: cubic, which slows down there,
loses less at high sparsities.",
        source: "",
        example: "epochs = 10\nsparsity_schedule = { kind = \"linear\", begin = 0.0, end = 0.5, every = 50 }",
    }
);

/// Sparsity that rises by the same amount at each pruning.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Linear {
    /// Share of the stage's steps at which pruning begins, 0..1.
    pub begin: f64,
    /// Share of the stage's steps at which the whole sparsity is reached, 0..1; at the latest before the last step.
    pub end: f64,
    /// Steps between two prunings.
    pub every: u64,
    /// Initial sparsity.
    pub initial: f64,
}

impl Default for Linear {
    fn default() -> Self {
        Linear { begin: 0.0, end: 0.5, every: 50, initial: 0.0 }
    }
}

impl Settings for Linear {
    fn check(&self) -> Result<(), Fault> {
        self.window().check()?;
        within("initial", self.initial, 0.0, 1.0, "it is a share of the weights")
    }
}

impl Linear {
    fn window(&self) -> Window {
        Window { begin: self.begin, end: self.end, every: self.every }
    }
}

impl SparsitySchedule for Linear {
    fn end(&self, steps: u64) -> Option<u64> {
        Some(self.window().range(steps).1)
    }

    fn sparsity(&self, step: u64, steps: u64, target: f64) -> Option<f64> {
        let rises = |t: f64| if t == 1.0 { target } else { self.initial + (target - self.initial) * t };
        self.window().progress(step, steps).map(rises)
    }

    fn check_target(&self, target: f64) -> Result<(), Fault> {
        check_initial(self.initial, target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_by_the_same_amount() {
        let schedule = Linear { begin: 0.0, end: 0.5, every: 10, initial: 0.2 };
        let events: Vec<(u64, f64)> = (0..100).filter_map(|s| Some((s, schedule.sparsity(s, 100, 0.7)?))).collect();
        assert_eq!(events.iter().map(|e| e.0).collect::<Vec<_>>(), [0, 10, 20, 30, 40, 50]);
        assert!(events.windows(2).all(|w| (w[1].1 - w[0].1 - 0.1).abs() < 1e-12), "{events:?}");
        assert_eq!((events[5].1, schedule.end(100)), (0.7, Some(50)));
        assert_eq!(schedule.check_target(0.1).unwrap_err().path, ["initial"]);
    }
}
