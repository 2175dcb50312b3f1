//! `auto`: which observer serves this network, found by trying each on data that no range was taken from.
use crate::calibrate::{Calibration, fit};
use crate::observer;
use crate::{QuantizeError, QuantizeSettings, Result};
use graph::Model;
use train::{Batch, Executor, Mode, TrainError};

/// The name under which a recipe asks for the choice.
pub const AUTO: &str = "auto";

/// The observer that was chosen.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Choice {
    /// Its name.
    pub kind: String,
    /// Each observer with its error at the network's outputs: root mean square of the difference from float over that of the
    /// float outputs, averaged over the outputs; the least first.
    pub errors: Vec<(String, f64)>,
    /// Samples it was judged on.
    pub samples: usize,
}

/// Tries every observer: ranges from the statistics of one calibration, judged by the error at the outputs on `held`, data
/// that the statistics have not seen. Of equal ones the first of [`observer::all`] is taken.
///
/// # Errors
/// As [`fit`]; [`QuantizeError::NoData`] without a batch; whatever running the graph reports.
pub fn choose(
    model: &Model,
    settings: &QuantizeSettings,
    seen: &Calibration,
    held: impl Iterator<Item = std::result::Result<Batch, TrainError>>,
) -> Result<Choice> {
    let mut fitted = vec![];
    for entry in observer::all() {
        let mut settings = settings.clone();
        settings.observer.kind = entry.name.into();
        let mut candidate = model.clone();
        fit(&mut candidate, &settings, seen)?;
        fitted.push((entry.name, candidate));
    }
    // Pruned as it is, before anything is rounded.
    let mut unrounded = model.clone();
    unrounded.annotations.iter_mut().for_each(|(_, a)| a.encoding = None);
    let float = Executor::new(&unrounded)?;
    let runs = fitted.iter().map(|(name, m)| Ok((*name, Executor::new(m)?))).collect::<Result<Vec<_>>>()?;
    let outputs = model.graph.outputs.len();
    // Squared error of each candidate and the square of what is right, by output.
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
    let mut errors: Vec<(String, f64)> = runs.iter().zip(&noise).map(|((name, _), n)| (name.to_string(), error(n))).collect();
    // Stable, so the first of equals stays first; a NaN comes last.
    errors.sort_by(|a, b| a.1.total_cmp(&b.1));
    let kind = errors.first().map(|(name, _)| name.clone()).unwrap_or_default();
    Ok(Choice { kind, errors, samples })
}

/// The float outputs in the order of their names; others are empty.
fn floats(outputs: &train::Named) -> Vec<Vec<f32>> {
    outputs.values().map(|t| if t.dtype().is_float() { t.to_f32_vec().unwrap_or_default() } else { vec![] }).collect()
}
