//! The observer with the least error for this network, found by trying several on samples that no range was computed from.
use super::{MOMENTUM, Observer, Observers, Statistics};
use crate::calibrate::{Observations, fit};
use crate::{QuantizeError, QuantizeSettings, Result};
use encodings::affine::AffineSettings;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Choice, Entry, Fault, Manual, Settings, member};
use train::{Batch, Executor, Mode, TrainError};

pub(super) const ENTRY: Entry<dyn Observer> = member!(
    Auto as dyn Observer,
    Manual {
        name: "auto",
        summary: "Tries several observers and takes the one with the least error at the network's outputs, on held-back samples.",
        details: "\
The data run once for all of them. Each gives the network its ranges; the error is the root mean square of the difference from the float
outputs over that of the float outputs, averaged over the outputs. Of equals the first listed is taken. Where there are too few samples
to hold any back, min_max is.",
        source: "",
        example: "calibration = { observer = { kind = \"auto\", among = [\"min_max\", { kind = \"percentile\", percent = 99.9 }] } }",
    }
);

/// Settings of `auto`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auto {
    /// The observers to choose from; each as it may be given alone.
    #[schemars(with = "Vec<serde_json::Value>")]
    pub among: Vec<Choice<Observers>>,
    /// Number of samples held back to judge by.
    pub held: usize,
}

impl Default for Auto {
    fn default() -> Self {
        let all = ["min_max", "moving_average", "percentile", "entropy", "mse"];
        Auto { among: all.into_iter().map(Choice::known).collect(), held: 64 }
    }
}

impl Settings for Auto {
    fn check(&self) -> Result<(), Fault> {
        if self.held == 0 {
            return Err(Fault::new("held", "held = 0: at least one sample is needed to judge by"));
        }
        if self.among.is_empty() || self.among.iter().any(|o| !o.candidates().is_empty()) {
            return Err(Fault::new("among", "among has to name observers, and not auto itself"));
        }
        Ok(())
    }
}

impl Observer for Auto {
    /// As its first candidate.
    fn range(&self, seen: &Statistics, grid: &AffineSettings) -> Option<(f32, f32)> {
        self.among.first()?.range(seen, grid)
    }

    fn momentum(&self) -> f64 {
        self.among.iter().map(|o| o.momentum()).find(|m| *m != MOMENTUM).unwrap_or(MOMENTUM)
    }

    fn candidates(&self) -> &[Choice<Observers>] {
        &self.among
    }

    fn held(&self) -> usize {
        self.held
    }
}

/// The result of a choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The candidate with the least error.
    pub observer: Choice<Observers>,
    /// Each candidate, named as in a sentence, with its error at the network's outputs: root mean square of the difference from
    /// the float outputs, relative to theirs, averaged over the outputs; the least first.
    pub errors: Vec<(String, f64)>,
    /// Number of held-back samples.
    pub samples: usize,
}

/// Tries the candidates of the observer in the settings: ranges from the statistics of one calibration, judged by the error at
/// the outputs on `held`, samples that are not in the statistics. Of equal ones the first is taken.
///
/// # Errors
/// A [`Fault`] for an observer without candidates; as [`fit`]; [`QuantizeError::NoData`] without a batch; errors of running the
/// graph.
pub fn choose(
    model: &Model,
    settings: &QuantizeSettings,
    seen: &Observations,
    held: impl Iterator<Item = std::result::Result<Batch, TrainError>>,
) -> Result<Chosen> {
    let candidates = settings.observer.candidates();
    if candidates.is_empty() {
        return Err(Fault::new("observer", format!("'{}' has no candidates to choose from", settings.observer.kind())).into());
    }
    let mut fitted = vec![];
    for observer in candidates {
        let settings = QuantizeSettings { observer: observer.clone(), ..settings.clone() };
        let mut candidate = model.clone();
        fit(&mut candidate, &settings, seen)?;
        fitted.push((observer, candidate));
    }
    // With its masks, before anything is quantized.
    let mut unrounded = model.clone();
    unrounded.annotations.iter_mut().for_each(|(_, a)| a.encoding = None);
    let float = Executor::new(&unrounded)?;
    let runs = fitted.iter().map(|(observer, m)| Ok((*observer, Executor::new(m)?))).collect::<Result<Vec<_>>>()?;
    let outputs = model.graph.outputs.len();
    // Squared error of each candidate and the square of the float output, by output.
    let (mut noise, mut signal) = (vec![vec![0f64; outputs]; runs.len()], vec![0f64; outputs]);
    let mut samples = 0;
    for batch in held {
        let batch = batch?;
        samples += batch.len();
        let right = floats(&float.run(&batch.inputs, Mode::SIMULATED)?);
        for (sum, values) in signal.iter_mut().zip(&right) {
            *sum += values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        }
        for ((_, executor), noise) in runs.iter().zip(&mut noise) {
            let got = floats(&executor.run(&batch.inputs, Mode::SIMULATED)?);
            for ((sum, right), got) in noise.iter_mut().zip(&right).zip(&got) {
                *sum += right.iter().zip(got).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            }
        }
    }
    tensor::release_kept();
    if samples == 0 {
        return Err(QuantizeError::NoData);
    }
    let measured = signal.iter().filter(|s| **s > 0.0).count().max(1) as f64;
    let error = |noise: &[f64]| noise.iter().zip(&signal).filter(|(_, s)| **s > 0.0).map(|(n, s)| (n / s).sqrt()).sum::<f64>() / measured;
    let mut errors: Vec<_> = runs.iter().zip(&noise).map(|((observer, _), n)| (*observer, error(n))).collect();
    // The sort is stable, so the first of equals stays first; NaN comes last.
    errors.sort_by(|a, b| a.1.total_cmp(&b.1));
    let observer = errors.first().map(|(observer, _)| (*observer).clone()).ok_or(QuantizeError::NoData)?;
    Ok(Chosen { observer, errors: errors.into_iter().map(|(observer, e)| (observer.to_string(), e)).collect(), samples })
}

/// The float outputs in the order of their names; others are empty.
fn floats(outputs: &train::Named) -> Vec<Vec<f32>> {
    outputs.values().map(|t| if t.dtype().is_float() { t.to_f32_vec().unwrap_or_default() } else { vec![] }).collect()
}
