//! Iterative pruning: rounds of pruning with training between them.
use super::of_round;
use super::window::Window;
use crate::SparsitySchedule;
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn SparsitySchedule> = member!(
    Iterative as dyn SparsitySchedule,
    Manual {
        name: "iterative",
        summary: "Prunes in a few rounds with training between them; each takes the same share of the weights that are left.",
        details: "\
After round r of R a share (1 - sparsity)^(r/R) of the weights lives. The rounds are spread evenly: the first at the share `begin` of the stage's
steps, the last at `end`; the rest trains with the whole sparsity.

The classic prune-and-retrain. Each round is a shock that the training after it heals, so it wants many epochs; cubic reaches the same
in fewer.",
        source: "Han et al. 2015, arXiv:1506.02626, section 3; Frankle & Carbin 2019, arXiv:1803.03635, section 1 (shares)",
        example: "epochs = 12\nsparsity_schedule = { kind = \"iterative\", rounds = 4, end = 0.6 }",
    }
);

/// Rounds of pruning with training between them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Iterative {
    /// Number of rounds.
    pub rounds: u64,
    /// Share of the stage's steps before the first round, 0..1.
    pub begin: f64,
    /// Share of the stage's steps before the last round, 0..1.
    pub end: f64,
}

impl Default for Iterative {
    fn default() -> Self {
        Iterative { rounds: 5, begin: 0.0, end: 0.6 }
    }
}

impl Iterative {
    fn window(&self) -> Window {
        Window { begin: self.begin, end: self.end, every: 1 }
    }

    /// The step before which a round prunes, from 1 to `rounds`.
    fn at(&self, round: u64, steps: u64) -> u64 {
        let (first, last) = self.window().range(steps);
        match self.rounds {
            0 | 1 => last,
            rounds => first + (last - first) * (round - 1) / (rounds - 1),
        }
    }
}

impl Settings for Iterative {
    fn check(&self) -> Result<(), Fault> {
        self.window().check()?;
        match self.rounds {
            0 => Err(Fault::new("rounds", "rounds = 0 prunes nothing")),
            _ => Ok(()),
        }
    }
}

impl SparsitySchedule for Iterative {
    fn end(&self, steps: u64) -> Option<u64> {
        Some(self.window().range(steps).1)
    }

    fn sparsity(&self, step: u64, steps: u64, target: f64) -> Option<f64> {
        // With fewer steps than rounds, several fall together: the last counts.
        let round = (1..=self.rounds).rev().find(|round| self.at(*round, steps) == step)?;
        Some(of_round(target, round, self.rounds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_takes_the_same_share_of_what_is_left() {
        let schedule = Iterative { rounds: 3, begin: 0.1, end: 0.5 };
        let events: Vec<(u64, f64)> = (0..100).filter_map(|s| Some((s, schedule.sparsity(s, 100, 0.875)?))).collect();
        assert_eq!(events.iter().map(|e| e.0).collect::<Vec<_>>(), [10, 30, 50]);
        assert!((events[0].1 - 0.5).abs() < 1e-12 && (events[1].1 - 0.75).abs() < 1e-12 && events[2].1 == 0.875, "{events:?}");
        assert_eq!(schedule.sparsity(0, 1, 0.9), Some(0.9));
        assert_eq!(Iterative { rounds: 0, ..schedule }.check().unwrap_err().path, ["rounds"]);
    }
}
