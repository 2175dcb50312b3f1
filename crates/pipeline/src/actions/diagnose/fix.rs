//! Trying suggestions, one after the other, and keeping what is measured better.
use super::{Diagnose, Diagnosed, Judging, effect_record};
use crate::StageError;
use crate::actions::{Tick, calibrate};
use crate::recipe::QuantizeStage;
use graph::Model;
use quantize::diagnosis;
use report::record::{EffectRecord, FixRecord, TrialRecord};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};
use train::Batches;

/// How much may be tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TryBudget {
    /// No trial begins after so much time.
    Time(Duration),
    /// So many trials.
    Tries(usize),
}

impl Default for TryBudget {
    fn default() -> Self {
        TryBudget::Time(Duration::from_secs(600))
    }
}

impl FromStr for TryBudget {
    type Err = String;
    /// `10 min` or `8` (trials).
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || format!("'{text}' is neither a time (10min) nor a number of trials (8)");
        match text.strip_suffix("min") {
            Some(minutes) => {
                let minutes: f64 = minutes.trim().parse().map_err(|_| wrong())?;
                let time = Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| wrong())?;
                Ok(TryBudget::Time(time))
            }
            None => text.parse().map(TryBudget::Tries).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for TryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryBudget::Time(time) => write!(f, "{:.0} min", time.as_secs_f64() / 60.0),
            TryBudget::Tries(tries) => write!(f, "{tries} trials"),
        }
    }
}

/// The stage with settings as `--set` takes them, in place of what the recipe has.
pub type Apply<'a> = &'a dyn Fn(&[String]) -> Result<QuantizeStage, StageError>;

impl Diagnose<'_> {
    /// Tries the suggestions in their order, corrections that learn after all others, within a budget: each is put on top of what is kept so far, the stage calibrates the network
    /// anew on the same samples, and the result is measured on those of the diagnosis. It is kept if the outputs come nearer to the float
    /// network's and, with labels, the loss does not rise beyond chance. Nothing trains.
    ///
    /// # Errors
    /// Errors of the data, and of the stage as it is; a suggestion that cannot be used is noted in its record.
    pub fn fix(&self, diagnosed: &mut Diagnosed, budget: TryBudget, apply: Apply, tick: Tick) -> Result<(), StageError> {
        let judging = self.judging()?;
        let record = &mut diagnosed.record;
        // A trained network is not what a trial without training is compared with.
        let before = match self.epochs > 0 && self.quantized.is_some() {
            true => self.trial(self.stage, &judging, &mut *tick)?,
            false => self.measure(&diagnosed.quantized, &judging)?,
        };
        let begun = Instant::now();
        let (mut best, mut kept, mut tried) = (before.clone(), vec![], 0);
        let mut stage = self.stage.clone();
        let mut trials: Vec<_> =
            record.suggestions.iter_mut().zip(&diagnosed.changes).filter(|(_, change)| change.can_be_tried()).collect();
        // Once a correction that learns is kept, each further trial takes its time.
        trials.sort_by_key(|(_, change)| change.learns());
        for (suggestion, change) in trials {
            let over = match budget {
                TryBudget::Time(time) => begun.elapsed() >= time,
                TryBudget::Tries(tries) => tried >= tries,
            };
            if over {
                break;
            }
            tried += 1;
            let since = Instant::now();
            let setting = change.setting(self.name, &stage)?;
            // A setting holds the whole value of its key, so an earlier one is not needed any more.
            let key = |setting: &str| setting.split('=').next().map(str::to_string);
            let others = kept.iter().filter(|known: &&String| key(known) != key(&setting));
            let settings: Vec<String> = others.chain([&setting]).cloned().collect();
            let made = apply(&settings).and_then(|changed| Ok((self.trial(&changed, &judging, &mut *tick)?, changed)));
            let seconds = since.elapsed().as_secs_f64();
            suggestion.tried = Some(match made {
                Ok((measured, changed)) => {
                    let better = better(&measured, &best);
                    let effect = Some(measured.effect.clone());
                    if better {
                        (best, stage, kept) = (measured, changed, settings);
                    }
                    TrialRecord { effect, kept: better, error: None, seconds }
                }
                Err(e) => TrialRecord { effect: None, kept: false, error: Some(e.to_string()), seconds },
            });
        }
        tick(1, 1);
        record.fixed = Some(FixRecord { before: before.effect, after: best.effect, tried, kept });
        Ok(())
    }

    /// Calibrates the network by a stage's settings and measures it.
    fn trial(&self, stage: &QuantizeStage, judging: &Judging, tick: Tick) -> Result<Measured, StageError> {
        let mut model: Model = self.before.clone();
        calibrate(&mut model, stage, self.on, &mut *tick)?;
        self.measure(&model, judging)
    }

    fn measure(&self, quantized: &Model, judging: &Judging) -> Result<Measured, StageError> {
        let task = self.on.sources.task().member();
        let task = judging.labelled.then(|| task.as_ref());
        let (effect, losses) = diagnosis::effect(self.before, quantized, task, judging.data.epoch(0))?;
        Ok(Measured { effect: effect_record(&effect), losses })
    }
}

/// A measured network.
#[derive(Clone, Debug)]
struct Measured {
    effect: EffectRecord,
    /// Mean loss of each batch; empty without labels.
    losses: Vec<f64>,
}

/// Least part by which the change of the outputs must fall.
const FALLS: f64 = 0.02;

/// True if `new` is better than `old`: its outputs are nearer to those of the float network, and its loss does not rise by more than the
/// standard error of the difference between the same batches.
fn better(new: &Measured, old: &Measured) -> bool {
    new.effect.noise < old.effect.noise * (1.0 - FALLS) && !rises(&new.losses, &old.losses)
}

fn rises(new: &[f64], old: &[f64]) -> bool {
    let differences: Vec<f64> = new.iter().zip(old).map(|(new, old)| new - old).collect();
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n.max(1.0);
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    // A loss that is not a number rises.
    let within = mean <= (variance / n).sqrt();
    !differences.is_empty() && !within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_time_or_a_number_of_trials() {
        assert_eq!("10 min".parse(), Ok(TryBudget::Time(Duration::from_secs(600))));
        assert_eq!("0.5min".parse(), Ok(TryBudget::Time(Duration::from_secs(30))));
        assert_eq!("8".parse(), Ok(TryBudget::Tries(8)));
        for wrong in ["", "min", "-1min", "1.5", "8 trials", "NaNmin"] {
            assert!(wrong.parse::<TryBudget>().is_err(), "{wrong}");
        }
        assert_eq!(TryBudget::default().to_string(), "10 min");
    }

    #[test]
    fn better_is_nearer_to_float_without_a_loss_that_rises_beyond_chance() {
        let of = |noise, losses: &[f64]| Measured { effect: EffectRecord { noise, ..EffectRecord::default() }, losses: losses.to_vec() };
        assert!(better(&of(0.1, &[]), &of(0.2, &[])) && !better(&of(0.199, &[]), &of(0.2, &[])));
        let old = of(0.2, &[1.0, 2.0, 3.0, 4.0]);
        assert!(better(&of(0.1, &[0.9, 1.9, 2.9, 3.9]), &old));
        // Up and down: the mean is within its standard error.
        assert!(better(&of(0.1, &[1.2, 1.9, 2.9, 4.1]), &old));
        assert!(!better(&of(0.1, &[1.1, 2.1, 3.1, 4.2]), &old) && !better(&of(0.3, &[0.1; 4]), &old));
        assert!(!better(&of(f64::NAN, &[0.1; 4]), &old) && !better(&of(0.1, &[f64::NAN; 4]), &old));
        assert!(better(&of(0.1, &[0.9]), &of(0.2, &[1.0])) && !better(&of(0.1, &[1.1]), &of(0.2, &[1.0])));
    }
}
