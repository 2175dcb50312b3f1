//! One training step: forward through the annotated graph, loss, backward, update of master weights and of the encodings' own
//! parameters. Masks and quantizers are part of the values, so this code does not handle them.
use crate::loss_parameters::LossParameters;
use crate::objective::{Batch, Objective};
use crate::optimizer::OptimizerState;
use crate::parameters::{self, Parameter, Part};
use crate::recompute::{self, Recomputation};
use crate::{EpochRecord, Executor, Participant, StepContext, TrainError, diagnosis, penalty};
use graph::{Model, ValueId};
use tensor::{Tensor, profile};

/// State kept between steps.
pub(crate) struct Steps {
    pub(crate) optimizer: OptimizerState,
    /// Values that the objective reads.
    pub(crate) taps: Vec<ValueId>,
    /// Parameters that the objective owns.
    pub(crate) of_loss: LossParameters,
    /// The recomputation, if a memory budget is set.
    pub(crate) recomputation: Option<Recomputation>,
}

/// Sums over an epoch's steps.
#[derive(Default)]
pub(crate) struct Sums {
    loss: f64,
    samples: usize,
    correct: Option<usize>,
    pub(crate) lr: f64,
}

impl Sums {
    pub(crate) fn record(&self, epoch: u64, validation: Option<f64>) -> EpochRecord {
        let n = self.samples.max(1) as f64;
        EpochRecord { epoch, loss: self.loss / n, train_accuracy: self.correct.map(|c| c as f64 / n), validation, lr: self.lr }
    }
}

impl Steps {
    /// One step, in place, on one run or on several whose gradients are added up. Returns the mean loss of its samples.
    ///
    /// # Errors
    /// [`TrainError::Step`] for a loss or gradient that is not finite; what the graph or a participant reports.
    pub(crate) fn step(
        &mut self,
        cx: &mut StepContext,
        participants: &mut [&mut dyn Participant],
        runs: &[Batch],
        sums: &mut Sums,
    ) -> Result<f64, TrainError> {
        for participant in participants.iter_mut() {
            participant.before_step(cx)?;
        }
        let (step, mode, parameters) = (cx.step, cx.mode, cx.parameters);
        let objective = &self.of_loss.track(cx.objective)?;
        let at = |e: tensor::TensorError| TrainError::Step { step, what: e.to_string() };
        let (mut overrides, mut leaves) = parameters::track(cx.model, parameters)?;
        leaves.extend(objective.leaves.iter().cloned());
        overrides.dense_gradients = participants.iter().any(|p| p.dense_gradients());
        let samples: usize = runs.iter().map(Batch::len).sum();
        let (mut total, mut updates) = (0.0, vec![]);
        let mut gradients: Vec<Option<Tensor>> = vec![None; leaves.len()];
        for batch in runs {
            let (model, taps, overrides) = (&*cx.model, self.taps.as_slice(), &overrides);
            let forward = recompute::ForwardStep {
                model,
                parameters,
                optimizer: self.optimizer.optimizer(),
                objective,
                taps,
                batch,
                overrides,
                mode,
            };
            let out = match &mut self.recomputation {
                Some(within) => within.forward(forward, cx.watch)?,
                None => Executor::with_taps(model, taps)?.run_with(&batch.inputs, overrides, mode, None)?,
            };
            updates.extend(out.updates);
            let values = batch.counted_values(out.values)?;
            let loss = profile::section(|| "loss forward".into(), || objective.loss(&values, batch))?;
            let value = loss.to_f32_vec().map_err(at)?.first().copied().unwrap_or(f32::NAN) as f64;
            if !value.is_finite() {
                let place = diagnosis::not_finite(model, parameters, taps, objective, batch, mode);
                return Err(TrainError::Step { step, what: format!("the loss is {value}: the training diverges{place}") });
            }
            sums.loss += value * batch.len() as f64;
            sums.samples += batch.len();
            if let Some(correct) = objective.correct(&values, batch) {
                sums.correct = Some(sums.correct.unwrap_or(0) + correct);
            }
            // The loss of a step is the mean over its runs, each weighted by its share of the samples.
            let share = batch.len() as f64 / samples.max(1) as f64;
            total += share * value;
            let mut found = loss.backward().map_err(at)?;
            drop((values, loss));
            for (sum, leaf) in gradients.iter_mut().zip(&leaves) {
                let Some(mut gradient) = found.take(leaf) else { continue };
                if runs.len() > 1 {
                    gradient = gradient.mul_scalar(share).map_err(at)?;
                }
                *sum = Some(match sum.take() {
                    Some(sum) => sum.add(&gradient).map_err(at)?,
                    None => gradient,
                });
            }
        }
        drop((overrides, leaves));
        let mut of_loss = gradients.split_off(parameters.len());
        for participant in participants.iter_mut() {
            participant.gradients(cx, &mut gradients)?;
        }
        decay_scales(cx, &mut gradients)?;
        penalty::add(cx, &mut gradients)?;
        gradients.append(&mut of_loss);
        let place = || {
            let look = |batch| diagnosis::not_finite(cx.model, parameters, &self.taps, objective, batch, mode);
            runs.iter().map(look).find(|place| !place.is_empty()).unwrap_or_default()
        };
        let clip = clip_factor(&gradients, cx.settings.clip_norm, step, place)?;
        self.update(cx, gradients, clip)?;
        for (id, t) in updates {
            cx.model.values.set_tensor(id, t);
        }
        follow_statistics(cx.model)?;
        follow_weights(cx.model, share(cx.step + 1, cx.steps))?;
        for participant in participants.iter_mut() {
            participant.after_update(cx)?;
        }
        Ok(total)
    }

    /// Updates each parameter that has a gradient.
    fn update(&mut self, cx: &mut StepContext, mut gradients: Vec<Option<Tensor>>, clip: f64) -> Result<(), TrainError> {
        let step = cx.step;
        let at = |e: tensor::TensorError| TrainError::Step { step, what: e.to_string() };
        self.optimizer.begin_step();
        self.of_loss.update(&mut self.optimizer, gradients.drain(cx.parameters.len()..), clip, cx.factor)?;
        for (p, gradient) in cx.parameters.iter().zip(gradients) {
            let Some(mut gradient) = gradient else { continue };
            if clip < 1.0 {
                gradient = gradient.mul_scalar(clip).map_err(at)?;
            }
            let mut value = take(cx.model, p)?;
            let before = matches!(p.id.part, Part::Encoding(_)).then(|| value.clone());
            profile::section(|| "update".into(), || self.optimizer.update(&p.name, p.decays(), &mut value, &gradient, cx.factor))?;
            if let Some(before) = before {
                value = parameters::projected(cx.model, p, &before, value)?;
            }
            parameters::put(cx.model, &p.id, value);
        }
        Ok(())
    }
}

/// Adds to the gradients of learned scales what pulls them towards zero.
fn decay_scales(cx: &StepContext, gradients: &mut [Option<Tensor>]) -> Result<(), TrainError> {
    let Some(learning) = cx.settings.learn_scales.how() else { return Ok(()) };
    for (p, gradient) in cx.parameters.iter().zip(gradients) {
        let Part::Encoding(name) = &p.id.part else { continue };
        let decay = learning.decay(name);
        if let (true, Some(gradient)) = (decay > 0.0, gradient.as_mut()) {
            *gradient = gradient.add(&parameters::get(cx.model, &p.id)?.mul_scalar(decay)?)?;
        }
    }
    Ok(())
}

/// Updates weights that are stored folded while their BatchNormalization stays, from its running statistics.
pub(crate) fn follow_statistics(model: &mut Model) -> Result<(), TrainError> {
    ops::refresh_kept_norms(model).map_err(|e| TrainError::Value { value: "BatchNormalization".into(), what: e.to_string() })
}

/// Updates parameters of encodings that are derived from their weight, or that follow from the training's progress (`progress`, 0 to 1).
pub(crate) fn follow_weights(model: &mut Model, progress: f64) -> Result<(), TrainError> {
    let mut changed = vec![];
    for (id, annotation) in model.annotations.iter() {
        let Some(encoding) = &annotation.encoding else { continue };
        let named = |e: encodings::EncodingError| TrainError::Value { value: model.values[id].name.clone(), what: e.to_string() };
        let followed = match model.values.tensor(id) {
            Some(weight) => encodings::follow(weight, annotation.mask.as_ref(), encoding, progress),
            None => encodings::advance(encoding, progress),
        };
        changed.extend(followed.map_err(named)?.map(|parameters| (id, parameters)));
    }
    for (id, parameters) in changed {
        if let Some(encoding) = &mut model.annotations.entry(id).encoding {
            encoding.parameters.extend(parameters);
        }
    }
    Ok(())
}

/// Progress of a training after so many of its steps, 0 to 1.
pub(crate) fn share(step: u64, steps: u64) -> f64 {
    step as f64 / steps.max(1) as f64
}

/// Takes a parameter's tensor out of the model, so that the update can write in place.
fn take(model: &mut Model, p: &Parameter) -> Result<Tensor, TrainError> {
    let value = parameters::get(model, &p.id)?;
    parameters::put(model, &p.id, Tensor::vector(Vec::<f32>::new()));
    Ok(value)
}

/// Factor that reduces the norm of all gradients together to `clip_norm`; checks that they are finite (`place` finds where they
/// are not).
fn clip_factor(gradients: &[Option<Tensor>], clip_norm: Option<f64>, step: u64, place: impl FnOnce() -> String) -> Result<f64, TrainError> {
    let at = |e: tensor::TensorError| TrainError::Step { step, what: e.to_string() };
    let squares = tensor::sum_squares(&gradients.iter().flatten().collect::<Vec<_>>()).map_err(at)?;
    if !squares.is_finite() {
        return Err(TrainError::Step { step, what: format!("a gradient is not finite: the training diverges{}", place()) });
    }
    Ok(clip_norm.map_or(1.0, |limit| (limit / squares.sqrt().max(1e-12)).min(1.0)))
}
