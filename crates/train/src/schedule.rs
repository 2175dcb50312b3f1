//! How the learning rate goes over a stage.
use crate::TrainError;
use serde::{Deserialize, Serialize};

/// Shape of the learning rate over a stage, as a factor of the optimizer's `lr`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The same throughout.
    Constant {
        /// Fraction of the stage over which it rises linearly from 0, 0..1.
        #[serde(default)]
        warm_up: f64,
    },
    /// Multiplied by `gamma` at each milestone.
    Step {
        /// Fractions of the stage, 0..1.
        milestones: Vec<f64>,
        /// Factor at each milestone.
        gamma: f64,
        /// Fraction of the stage over which it rises linearly from 0, 0..1.
        #[serde(default)]
        warm_up: f64,
    },
    /// Half a cosine from 1 to `floor` (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, one period).
    Cosine {
        /// Fraction of the stage over which it rises linearly from 0, 0..1.
        #[serde(default)]
        warm_up: f64,
        /// Factor at the end, 0..1.
        #[serde(default)]
        floor: f64,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::Cosine { warm_up: 0.0, floor: 0.0 }
    }
}

impl Schedule {
    /// The factor at `step` of `steps`.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let at = step as f64 / steps.max(1) as f64;
        let warm_up = match self {
            Schedule::Constant { warm_up } | Schedule::Step { warm_up, .. } | Schedule::Cosine { warm_up, .. } => *warm_up,
        };
        if at < warm_up {
            return (step + 1) as f64 / (warm_up * steps as f64).max(1.0);
        }
        match self {
            Schedule::Constant { .. } => 1.0,
            Schedule::Step { milestones, gamma, .. } => gamma.powi(milestones.iter().filter(|m| at >= **m).count() as i32),
            Schedule::Cosine { floor, .. } => {
                let t = ((at - warm_up) / (1.0 - warm_up).max(1e-9)).clamp(0.0, 1.0);
                floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())
            }
        }
    }

    /// Checks the fractions.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a fraction outside 0..1.
    pub fn check(&self) -> Result<(), TrainError> {
        let mut fractions = match self {
            Schedule::Constant { warm_up } => vec![("warm_up", *warm_up)],
            Schedule::Step { milestones, warm_up, .. } => {
                milestones.iter().map(|m| ("milestones", *m)).chain([("warm_up", *warm_up)]).collect()
            }
            Schedule::Cosine { warm_up, floor } => vec![("warm_up", *warm_up), ("floor", *floor)],
        }
        .into_iter();
        match fractions.find(|(_, v)| !(0.0..=1.0).contains(v)) {
            Some((name, v)) => Err(TrainError::Setting {
                setting: format!("schedule.{name}"),
                what: format!("is {v}, a fraction of the stage is within 0..1"),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn factors_at_chosen_steps() {
        let cosine = Schedule::Cosine { warm_up: 0.1, floor: 0.0 };
        let step = Schedule::Step { milestones: vec![0.5, 0.75], gamma: 0.1, warm_up: 0.0 };
        for (schedule, at, expected) in [
            (&cosine, 0, 0.1),
            (&cosine, 9, 1.0),
            (&cosine, 10, 1.0),
            (&cosine, 55, 0.5),
            (&step, 49, 1.0),
            (&step, 50, 0.1),
            (&step, 80, 0.01),
        ] {
            assert!((schedule.factor(at, 100) - expected).abs() < 1e-9, "{schedule:?} at {at}: {}", schedule.factor(at, 100));
        }
    }
}
