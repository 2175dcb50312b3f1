//! Exchange of dead and live weights at the same sparsity.
use crate::{PruneError, Result, candidates, least_important};
use graph::Model;
use tensor::Tensor;
use train::{GradientSource, TrainError, gradient_moments};

/// In each masked weight, a share of the live elements dies, those of least magnitude; as many elements with the largest gradient among all
/// that do not live then live again, from zero on. The gradient is the mean over `batches` batches of that by all elements.
///
/// # Errors
/// As [`gradient_moments`].
pub(crate) fn exchange(model: &mut Model, skip: &[String], share: f64, source: &GradientSource, batches: u64) -> Result<()> {
    let list: Vec<_> = candidates(model, skip)?.into_iter().filter(|c| model.annotations.mask(c.weight).is_some()).collect();
    // The same network with its zeros in the weights and no masks: gradients reach the dead elements.
    let mut open = model.clone();
    for candidate in &list {
        let wrong = |source| PruneError::Tensor { weight: candidate.name.clone(), source };
        let (Some(weight), Some(mask)) = (model.values.tensor(candidate.weight), model.annotations.mask(candidate.weight)) else {
            continue;
        };
        let zero = Tensor::scalar(0f32);
        open.values.set_tensor(candidate.weight, Tensor::where_(mask, weight, &zero).map_err(wrong)?);
        open.annotations.entry(candidate.weight).mask = None;
    }
    let weights: Vec<_> = list.iter().map(|c| c.weight).collect();
    let gradients = gradient_moments(&open, source, &weights, batches)?;
    for candidate in &list {
        let wrong = |source| PruneError::Tensor { weight: candidate.name.clone(), source };
        let (Some(weight), Some(mask)) = (model.values.tensor(candidate.weight), model.annotations.mask(candidate.weight)) else {
            continue;
        };
        let shape = weight.shape().to_vec();
        let (mut w, mut live) = (weight.to_f32_vec().map_err(wrong)?, mask.as_slice::<bool>().map_err(wrong)?.to_vec());
        exchanged(&mut w, &mut live, &gradients[&candidate.weight].mean, share);
        let mask = Tensor::new(live, shape.clone()).map_err(wrong)?;
        model.values.set_tensor(candidate.weight, Tensor::new(w, shape).map_err(TrainError::from)?);
        model.annotations.entry(candidate.weight).mask = Some(mask);
    }
    Ok(())
}

/// One weight. Elements that die and live again at once keep their value.
fn exchanged(w: &mut [f32], live: &mut [bool], gradient: &[f32], share: f64) {
    let at: Vec<usize> = (0..w.len()).filter(|i| live[*i]).collect();
    let count = ((share * at.len() as f64).round() as usize).min(w.len() - at.len());
    let stays = least_important(&at.iter().map(|i| w[*i].abs()).collect::<Vec<_>>(), count);
    let before = live.to_vec();
    at.iter().zip(stays).filter(|(_, stays)| !stays).for_each(|(i, _)| live[*i] = false);
    let open: Vec<usize> = (0..w.len()).filter(|i| !live[*i]).collect();
    // The largest gradients live again.
    let sleeps = least_important(&open.iter().map(|i| -gradient[*i].abs()).collect::<Vec<_>>(), count);
    for (i, _) in open.iter().zip(sleeps).filter(|(_, sleeps)| !sleeps) {
        live[*i] = true;
        if !before[*i] {
            w[*i] = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_die_and_the_largest_gradients_live_again() {
        let mut w = [5.0, 0.1, 3.0, 0.2, 9.0, 7.0];
        let mut live = [true, true, true, true, false, false];
        exchanged(&mut w, &mut live, &[0.0, 0.0, 0.0, 0.5, 2.0, -1.0], 0.5);
        assert_eq!(live, [true, false, true, false, true, true]);
        assert_eq!(w, [5.0, 0.1, 3.0, 0.2, 0.0, 0.0]);
        // Died and live again: it keeps its value.
        let (mut w, mut live) = ([5.0, 0.1, 4.0], [true, true, false]);
        exchanged(&mut w, &mut live, &[0.0, 3.0, 1.0], 0.5);
        assert_eq!((w, live), ([5.0, 0.1, 4.0], [true, true, false]));
    }
}
