//! RigL: sparse from the start; weights are exchanged while the stage trains.
use super::window::Window;
use crate::SparsitySchedule;
use std::f64::consts::PI;
use technique::{Entry, Fault, Manual, Settings, member, within};

pub(super) const ENTRY: Entry<dyn SparsitySchedule> = member!(
    RigL as dyn SparsitySchedule,
    Manual {
        name: "rigl",
        summary: "Prunes before the first step, then exchanges weights: the smallest die, dead ones with the largest gradient live again.",
        details: "\
The stage's criterion and scope choose the mask before the first step. Every `every` steps up to the share `end` of the stage's steps, in
each layer a share

    share * (1 + cos(pi * step / last)) / 2

of the live weights, those of least magnitude, dies, and as many dead ones with the largest |gradient| live again, from zero on. The gradient is that
of `batches` batches at the present weights, taken for dead weights as well; other steps cost nothing more than a training with a fixed
mask. The sparsity stays the same, in each layer too.

For training a sparse network from random weights (criterion = \"random\", scope = \"erk\"), with many epochs. For a trained network a
gradual schedule is better. Exchanges single elements only, so it does not go with patterns and groups.",
        source: "Evci et al. 2020, arXiv:1911.11134, section 3",
        example: "epochs = 30\ncriterion = \"random\"\nscope = \"erk\"\nsparsity_schedule = { kind = \"rigl\", every = 100, share = 0.3, end = 0.75 }",
    }
);

/// A mask from the first step on, whose elements are exchanged during training.
///
/// # Source
/// Evci et al. 2020, arXiv:1911.11134, section 3.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RigL {
    /// Steps between two exchanges.
    pub every: u64,
    /// Share of each layer's live weights in the first exchange, 0..1.
    pub share: f64,
    /// Share of the stage's steps after which the mask stays, 0..1.
    pub end: f64,
    /// Batches of the gradient by which weights live again.
    pub batches: u64,
}

impl Default for RigL {
    fn default() -> Self {
        RigL { every: 100, share: 0.3, end: 0.75, batches: 1 }
    }
}

impl RigL {
    fn window(&self) -> Window {
        Window { begin: 0.0, end: self.end, every: self.every }
    }
}

impl Settings for RigL {
    fn check(&self) -> Result<(), Fault> {
        within("share", self.share, 0.0, 1.0, "it is a share of a layer's live weights")?;
        self.window().check()?;
        match self.batches {
            0 => Err(Fault::new("batches", "batches = 0: at least one batch is needed")),
            _ => Ok(()),
        }
    }
}

impl SparsitySchedule for RigL {
    fn end(&self, steps: u64) -> Option<u64> {
        Some(self.window().range(steps).1)
    }

    fn sparsity(&self, step: u64, _: u64, target: f64) -> Option<f64> {
        (step == 0).then_some(target)
    }

    fn exchange(&self, step: u64, steps: u64) -> Option<f64> {
        let last = self.window().range(steps).1;
        let due = step > 0 && step < last && step.is_multiple_of(self.every);
        due.then(|| self.share * (1.0 + (PI * step as f64 / last as f64).cos()) / 2.0)
    }

    fn exchanges(&self) -> Option<u64> {
        Some(self.batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_get_smaller_and_end() {
        let schedule = RigL { every: 10, share: 0.4, end: 0.5, batches: 1 };
        let events: Vec<(u64, f64)> = (0..100).filter_map(|s| Some((s, schedule.exchange(s, 100)?))).collect();
        assert_eq!(events.iter().map(|e| e.0).collect::<Vec<_>>(), [10, 20, 30, 40]);
        assert!(events.windows(2).all(|w| w[0].1 > w[1].1) && events[0].1 < 0.4, "{events:?}");
        assert_eq!((schedule.sparsity(0, 100, 0.9), schedule.sparsity(10, 100, 0.9)), (Some(0.9), None));
    }
}
