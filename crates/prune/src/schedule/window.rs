//! The part of a training in which weights are pruned, every so many steps.
use technique::{Fault, within};

/// Pruning before the steps between two shares of a stage's steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Share of the steps at which it begins.
    pub(super) begin: f64,
    /// Share of the steps at which it ends.
    pub(super) end: f64,
    /// Steps between two prunings.
    pub(super) every: u64,
}

impl Window {
    pub(super) fn check(&self) -> Result<(), Fault> {
        let share = "it is a share of the stage's steps";
        within("begin", self.begin, 0.0, 1.0, share)?;
        within("end", self.end, 0.0, 1.0, share)?;
        if self.begin >= self.end {
            return Err(Fault::new("end", format!("end = {} does not lie behind begin = {}", self.end, self.begin)));
        }
        match self.every {
            0 => Err(Fault::new("every", "every = 0: at least one step lies between two prunings")),
            _ => Ok(()),
        }
    }

    /// First and last step before which weights are pruned.
    pub(super) fn range(&self, steps: u64) -> (u64, u64) {
        let at = |share: f64| ((share * steps as f64).round() as u64).min(steps.saturating_sub(1));
        (at(self.begin), at(self.end))
    }

    /// The share 0..1 of the window that is over before `step`, if weights are pruned there.
    pub(super) fn progress(&self, step: u64, steps: u64) -> Option<f64> {
        let (first, last) = self.range(steps);
        if step == last {
            return Some(1.0);
        }
        let due = (first..last).contains(&step) && (step - first).is_multiple_of(self.every);
        due.then(|| (step - first) as f64 / (last - first) as f64)
    }
}

/// Refuses an initial sparsity above the one that is wanted.
pub(super) fn check_initial(initial: f64, target: f64) -> Result<(), Fault> {
    if initial > target {
        let what = format!("initial = {initial} is more than the sparsity of {target} that the stage ends with");
        return Err(Fault::new("initial", what));
    }
    Ok(())
}
