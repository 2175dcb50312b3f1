//! Scores of a mask that is trained.
use crate::{Candidate, least_important};
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use tensor::Tensor;
use train::parameters::Part;
use train::{StepContext, TrainError};

/// The scores of each masked weight's elements.
pub(crate) type Scores = BTreeMap<ValueId, Vec<f32>>;

/// The scores before the first step: magnitudes by their mean, those of dead elements below those of live ones.
///
/// # Errors
/// For a weight or mask that cannot be read.
pub(crate) fn first(model: &Model, list: &[Candidate]) -> Result<Scores, TrainError> {
    let mut scores = Scores::new();
    for candidate in list {
        let (Some(weight), Some(mask)) = (model.values.tensor(candidate.weight), model.annotations.mask(candidate.weight)) else {
            continue;
        };
        scores.insert(candidate.weight, begin(&weight.to_f32_vec()?, mask.as_slice::<bool>()?));
    }
    Ok(scores)
}

fn begin(weight: &[f32], live: &[bool]) -> Vec<f32> {
    let mean = weight.iter().map(|w| f64::from(w.abs())).sum::<f64>() / weight.len().max(1) as f64;
    let mut scores: Vec<f32> = weight.iter().map(|w| if mean > 0.0 { (f64::from(w.abs()) / mean) as f32 } else { 0.0 }).collect();
    let of = |wanted: bool| scores.iter().zip(live).filter(move |(_, live)| **live == wanted).map(|(s, _)| *s);
    let (most, least) = (of(false).fold(0f32, f32::max), of(true).fold(f32::INFINITY, f32::min));
    if most > least {
        let factor = least / most;
        scores.iter_mut().zip(live).filter(|(_, live)| !**live).for_each(|(s, _)| *s *= factor);
    }
    scores
}

/// Moves the scores along the step's gradients, sets the masks that follow, and takes all gradients away.
///
/// # Errors
/// For a gradient that cannot be read.
pub(crate) fn step(cx: &mut StepContext, scores: &mut Scores, rate: f64, gradients: &mut [Option<Tensor>]) -> Result<(), TrainError> {
    for (parameter, gradient) in cx.parameters.iter().zip(gradients) {
        let (id, gradient) = (parameter.id.value, gradient.take());
        let (true, Some(gradient), Some(own)) = (parameter.id.part == Part::Master, gradient, scores.get_mut(&id)) else { continue };
        let (Some(weight), Some(mask)) = (cx.model.values.tensor(id), cx.model.annotations.mask(id)) else { continue };
        let (live, shape) = (mask.as_slice::<bool>()?.to_vec(), mask.shape().to_vec());
        let moved = moved(own, &weight.to_f32_vec()?, &gradient.to_f32_vec()?, &live, rate * cx.factor);
        cx.model.annotations.entry(id).mask = Some(Tensor::new(moved, shape)?);
    }
    Ok(())
}

/// The new mask of a weight, of as many elements as before.
fn moved(scores: &mut [f32], weight: &[f32], gradient: &[f32], live: &[bool], rate: f64) -> Vec<bool> {
    let slope: Vec<f64> = weight.iter().zip(gradient).map(|(w, g)| f64::from(*w) * f64::from(*g)).collect();
    let size = (slope.iter().map(|v| v * v).sum::<f64>() / slope.len().max(1) as f64).sqrt();
    if size > 0.0 && size.is_finite() {
        scores.iter_mut().zip(&slope).for_each(|(s, v)| *s -= (rate * v / size) as f32);
    }
    least_important(scores, live.iter().filter(|live| !**live).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_begin_as_magnitudes_with_the_dead_below() {
        assert_eq!(begin(&[1.0, -2.0, 3.0, 2.0], &[true, true, true, true]), [0.5, 1.0, 1.5, 1.0]);
        // The dead 3 is above the live 1 and is taken below it; the dead 2 with it.
        assert_eq!(begin(&[1.0, -2.0, 3.0, 2.0], &[true, false, false, true]), [0.5, 1.0 / 3.0, 0.5, 1.0]);
    }

    #[test]
    fn a_step_moves_scores_against_the_slope_and_keeps_the_number_of_live_elements() {
        let mut scores = [1.0, 0.9, 0.5];
        // w * g = 3, 0, -4; root of the mean of squares 5 / sqrt(3).
        let live = moved(&mut scores, &[1.0, 2.0, -2.0], &[3.0, 0.0, 2.0], &[true, true, false], 0.5);
        let unit = 3f32.sqrt() / 5.0;
        let wanted = [1.0 - 0.5 * 3.0 * unit, 0.9, 0.5 + 0.5 * 4.0 * unit];
        assert!(scores.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{scores:?} {wanted:?}");
        assert_eq!(live, [false, true, true]);
        assert_eq!(moved(&mut scores, &[1.0; 3], &[0.0; 3], &live, 0.5), [false, true, true]);
    }
}
