//! Statistics of gradients over batches, without an update, for criteria of importance.
use crate::parameters::{self, Parameter, ParameterId, Part};
use crate::trainer::next_step;
use crate::{Batch, Batches, Executor, Mode, Objective, TrainError};
use graph::{Model, ValueId};
use ops::Role;
use std::collections::BTreeMap;

/// The batches and the loss of the gradients.
#[derive(Clone, Copy)]
pub struct GradientSource<'a> {
    /// The data. Batches of one step that run one after another ([`crate::Portion::continues`]) count as one.
    pub data: &'a dyn Batches,
    /// Epoch of the data that they are drawn from, from its beginning.
    pub epoch: u64,
    /// The loss to differentiate.
    pub objective: &'a dyn Objective,
    /// Pass values through their masks and encodings.
    pub simulate: bool,
}

/// Moments of one parameter's gradient over batches, element by element, in the parameter's own order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct GradientMoments {
    /// Mean over the batches of the gradient.
    pub mean: Vec<f32>,
    /// Mean over the batches of its square.
    pub mean_square: Vec<f32>,
}

/// Gradients of the loss by the fp32 masters of `weights` (constants of the model), over the first `batches` batches of the source
/// (fewer where it has fewer). Nothing is updated: normalizations use their running statistics, dropout drops nothing.
///
/// With `simulate`, the gradient is that of the simulated network: zero for a masked element, straight through for a value that
/// an encoding rounds.
///
/// # Errors
/// [`TrainError::Data`] if there is no batch; [`TrainError::Step`] for a loss that is not finite; errors of the graph or the
/// data.
pub fn gradient_moments(
    model: &Model,
    source: &GradientSource,
    weights: &[ValueId],
    batches: u64,
) -> Result<BTreeMap<ValueId, GradientMoments>, TrainError> {
    let mode = Mode { training: false, simulate: source.simulate, seed: 0 };
    let executor = Executor::with_taps(model, &source.objective.taps())?;
    let as_parameter = |value: &ValueId| {
        let name = model.values[*value].name.clone();
        Parameter { id: ParameterId { value: *value, part: Part::Master }, name, role: Role::Weight }
    };
    let parameters: Vec<Parameter> = weights.iter().map(as_parameter).collect();
    let (overrides, leaves) = parameters::track(model, &parameters)?;
    let mut sums: Vec<GradientMoments> = vec![];
    for leaf in &leaves {
        sums.push(GradientMoments { mean: vec![0.0; leaf.len()], mean_square: vec![0.0; leaf.len()] });
    }
    let mut runs = source.data.epoch(source.epoch);
    let mut seen = 0;
    while seen < batches {
        let Some(step) = next_step(&mut runs)? else { break };
        let at = |e: tensor::TensorError| TrainError::Step { step: seen, what: e.to_string() };
        let samples: usize = step.iter().map(Batch::len).sum();
        let mut gradients: Vec<Vec<f32>> = leaves.iter().map(|leaf| vec![0.0; leaf.len()]).collect();
        for batch in &step {
            let out = executor.run_with(&batch.inputs, &overrides, mode, None)?;
            let values = batch.counted_values(out.values)?;
            let loss = source.objective.loss(&values, batch)?;
            let value = loss.to_f32_vec().map_err(at)?.first().copied().unwrap_or(f32::NAN);
            if !value.is_finite() {
                return Err(TrainError::Step { step: seen, what: format!("the loss is {value}, so no gradients can be taken") });
            }
            let share = batch.len() as f32 / samples.max(1) as f32;
            let mut found = loss.backward().map_err(at)?;
            for (sum, leaf) in gradients.iter_mut().zip(&leaves) {
                let Some(gradient) = found.take(leaf) else { continue };
                let gradient = gradient.to_f32_vec().map_err(at)?;
                sum.iter_mut().zip(gradient).for_each(|(s, g)| *s += share * g);
            }
        }
        for (moments, gradient) in sums.iter_mut().zip(gradients) {
            moments.mean.iter_mut().zip(&gradient).for_each(|(m, g)| *m += g);
            moments.mean_square.iter_mut().zip(&gradient).for_each(|(m, g)| *m += g * g);
        }
        seen += 1;
    }
    if seen == 0 {
        return Err(TrainError::Data("there is no batch to take gradients over".into()));
    }
    for moments in &mut sums {
        moments.mean.iter_mut().chain(&mut moments.mean_square).for_each(|m| *m /= seen as f32);
    }
    Ok(weights.iter().copied().zip(sums).collect())
}
