//! Rewinding: after each round of pruning, weights or learning rate go back to an early step.
use super::of_round;
use crate::SparsitySchedule;
use technique::{Entry, Fault, Manual, Settings, member, within};

pub(super) const ENTRY: Entry<dyn SparsitySchedule> = member!(
    Rewind as dyn SparsitySchedule,
    Manual {
        name: "rewind",
        summary: "Prunes in rounds, and after each the learning rate, or the weights too, go back to an early step and train on from there.",
        details: "\
With R = `rounds` and k = `to`, the stage's steps are 1 + R * (1 - k) trainings of the same length L: a whole one, and after each round the part of it
behind k * L. After round r a share (1 - sparsity)^(r / R) of the weights lives, by the stage's criterion on the trained weights. Then

    of = \"learning_rate\"   the weights stay, and the learning rate's schedule goes on from step k * L of a training of L steps
    of = \"weights\"         so does the schedule, and all parameters, learned scales and statistics take the values of step k * L (a lottery ticket)

The optimizer's momentum goes on. learning_rate is as good or better where the aim is a sparse network; weights finds subnetworks that train from early
values. Wants many epochs: each round is a training.",
        source: "Renda et al. 2020, arXiv:2003.02389, section 3; Frankle et al. 2020, arXiv:1912.05671, section 3 (weights)",
        example: "epochs = 40\nsparsity_schedule = { kind = \"rewind\", rounds = 3, of = \"learning_rate\", to = 0.1 }",
    }
);

/// What goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rewound {
    /// The place in the learning rate's schedule.
    #[default]
    LearningRate,
    /// That, and the values of all parameters, learned scales and running statistics.
    Weights,
}

/// Rounds of pruning, each followed by a training from an early step on.
///
/// # Source
/// Renda et al. 2020, arXiv:2003.02389, section 3.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rewind {
    /// Number of rounds.
    pub rounds: u64,
    /// What goes back: `learning_rate`, or `weights` with it.
    pub of: Rewound,
    /// The share of a training's steps to go back to, 0 to below 1.
    pub to: f64,
}

impl Default for Rewind {
    fn default() -> Self {
        Rewind { rounds: 3, of: Rewound::default(), to: 0.0 }
    }
}

impl Settings for Rewind {
    fn check(&self) -> Result<(), Fault> {
        within("to", self.to, 0.0, 1.0, "it is a share of a training's steps")?;
        match (self.rounds, self.to == 1.0) {
            (0, _) => Err(Fault::new("rounds", "rounds = 0 prunes nothing")),
            (_, true) => Err(Fault::new("to", "to = 1 goes back to the end, where nothing is trained: it must be below 1")),
            _ => Ok(()),
        }
    }
}

impl Rewind {
    /// Steps of a whole training.
    fn length(&self, steps: u64) -> f64 {
        steps as f64 / (1.0 + self.rounds as f64 * (1.0 - self.to))
    }

    /// The step to go back to.
    fn early(&self, steps: u64) -> u64 {
        (self.to * self.length(steps)).round() as u64
    }

    /// The step before which a round prunes, from 1 to `rounds`.
    fn at(&self, round: u64, steps: u64) -> u64 {
        let length = self.length(steps);
        let at = length + (round - 1) as f64 * (1.0 - self.to) * length;
        (at.round() as u64).min(steps.saturating_sub(1))
    }

    /// The last round that prunes before `step`.
    fn last(&self, step: u64, steps: u64) -> Option<u64> {
        (1..=self.rounds).rev().find(|round| self.at(*round, steps) <= step)
    }
}

impl SparsitySchedule for Rewind {
    fn end(&self, steps: u64) -> Option<u64> {
        Some(self.at(self.rounds, steps))
    }

    fn sparsity(&self, step: u64, steps: u64, target: f64) -> Option<f64> {
        let round = self.last(step, steps).filter(|round| self.at(*round, steps) == step)?;
        Some(of_round(target, round, self.rounds))
    }

    fn remembers(&self, step: u64, steps: u64) -> bool {
        self.of == Rewound::Weights && step == self.early(steps)
    }

    fn rewinds(&self, step: u64, steps: u64) -> bool {
        self.of == Rewound::Weights && self.last(step, steps).is_some_and(|round| self.at(round, steps) == step)
    }

    fn place(&self, step: u64, steps: u64) -> Option<(u64, u64)> {
        let length = (self.length(steps).round() as u64).max(1);
        let place = self.last(step, steps).map_or(step, |round| self.early(steps) + step - self.at(round, steps));
        Some((place.min(length - 1), length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_is_a_training_from_the_early_step_on() {
        // 1 + 2 * 0.75 trainings of 40 steps.
        let schedule = Rewind { rounds: 2, of: Rewound::Weights, to: 0.25 };
        let events: Vec<(u64, f64)> = (0..100).filter_map(|s| Some((s, schedule.sparsity(s, 100, 0.75)?))).collect();
        assert_eq!(events, [(40, 0.5), (70, 0.75)]);
        assert_eq!(schedule.end(100), Some(70));
        assert_eq!((0..100).filter(|s| schedule.remembers(*s, 100)).collect::<Vec<_>>(), [10]);
        assert_eq!((0..100).filter(|s| schedule.rewinds(*s, 100)).collect::<Vec<_>>(), [40, 70]);
        let places = [0, 39, 40, 69, 70, 99].map(|s| schedule.place(s, 100));
        assert_eq!(places, [0, 39, 10, 39, 10, 39].map(|place| Some((place, 40))));
        let rates = Rewind { of: Rewound::LearningRate, ..schedule };
        assert!(!(0..100).any(|s| rates.remembers(s, 100) || rates.rewinds(s, 100)) && rates.place(45, 100) == Some((15, 40)));
    }

    #[test]
    fn what_cannot_be_is_refused_at_its_key() {
        let at = |r: Rewind| r.check().unwrap_err().path;
        assert_eq!(at(Rewind { rounds: 0, ..Rewind::default() }), ["rounds"]);
        assert_eq!(at(Rewind { to: 1.0, ..Rewind::default() }), ["to"]);
        assert_eq!(at(Rewind { to: f64::NAN, ..Rewind::default() }), ["to"]);
        // A single step: all happens before it.
        let short = Rewind::default();
        assert_eq!((short.sparsity(0, 1, 0.9), short.end(1)), (Some(0.9), Some(0)));
    }
}
