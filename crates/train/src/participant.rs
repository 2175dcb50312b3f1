//! Participants of a training: code that is called at named points of the loop, with state that checkpoints save.
//!
//! Gradual pruning and averaging of weights are participants. A participant that draws at random, or reads data of its own,
//! derives both from the step's number, so that a resumed training ends in the same bytes.
use crate::{StepContext, TrainError};
use graph::Model;
use std::collections::BTreeMap;
use tensor::Tensor;

/// State of a participant between two epochs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParticipantState {
    /// Tensors by name, of element type f32 or bool.
    pub tensors: BTreeMap<String, Tensor>,
    /// Everything else, as JSON. Numbers survive exactly.
    pub values: serde_json::Value,
}

/// A participant of a training. By default every hook does nothing.
///
/// Weights kept within -1..1, as networks of binary weights need it (Courbariaux et al. 2015, arXiv:1511.00363, section 2.4):
/// ```
/// use espalier_train::{Participant, StepContext, TrainContext, TrainError, parameters::Part};
///
/// struct Bounded;
/// impl Participant for Bounded {
///     fn name(&self) -> &'static str {
///         "bounded"
///     }
///     fn after_update(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
///         for parameter in cx.parameters.iter().filter(|p| p.id.part == Part::Master) {
///             let Some(value) = cx.model.values.tensor(parameter.id.value) else { continue };
///             let bounded = value.clip(Some(-1.0), Some(1.0))?;
///             cx.model.values.set_tensor(parameter.id.value, bounded);
///         }
///         Ok(())
///     }
/// }
/// let mut bounded = Bounded;
/// let context = TrainContext { participants: vec![&mut bounded], ..TrainContext::default() };
/// assert_eq!(context.participants[0].name(), "bounded");
/// ```
/// Order within a step: [`Participant::before_step`], forward and backward pass, [`Participant::gradients`], clipping to
/// `clip_norm`, update, [`Participant::after_update`]. Within an epoch: its steps, [`Participant::after_epoch`], validation,
/// checkpoint. At the end: the best epoch is put back if the settings ask for it and no
/// participant replaces the weights, then [`Participant::finish`].
pub trait Participant: Send {
    /// Its name: the key of its state in checkpoints.
    fn name(&self) -> &'static str;

    /// Before a step's forward pass; may change the model and its annotations.
    ///
    /// # Errors
    /// Whatever stops the training.
    fn before_step(&mut self, _cx: &mut StepContext) -> Result<(), TrainError> {
        Ok(())
    }

    /// With the step's gradients, one for each of the context's parameters in their order; `None` for a parameter without one.
    /// They have the parameters' shapes and have not been clipped.
    ///
    /// # Errors
    /// Whatever stops the training.
    fn gradients(&mut self, _cx: &mut StepContext, _gradients: &mut [Option<Tensor>]) -> Result<(), TrainError> {
        Ok(())
    }

    /// After the parameters and the running statistics were updated.
    ///
    /// # Errors
    /// Whatever stops the training.
    fn after_update(&mut self, _cx: &mut StepContext) -> Result<(), TrainError> {
        Ok(())
    }

    /// After an epoch's last step, before validation and checkpoint.
    ///
    /// # Errors
    /// Whatever stops the training.
    fn after_epoch(&mut self, _cx: &mut StepContext) -> Result<(), TrainError> {
        Ok(())
    }

    /// At the end of the training, with its final weights. A training that is resumed after its last epoch calls it again, with
    /// the state of the last checkpoint.
    ///
    /// # Errors
    /// Whatever stops the training.
    fn finish(&mut self, _cx: &mut StepContext) -> Result<(), TrainError> {
        Ok(())
    }

    /// True if elements that a mask holds at zero get the gradient that they would have without it. The values of the
    /// forward pass stay masked. The optimizer then updates those elements too, unless the participant clears their
    /// gradient in [`Participant::gradients`] after it has read it.
    fn dense_gradients(&self) -> bool {
        false
    }

    /// The step, and of how many, whose learning rate a step has, if that is another one: for a participant that goes back to an early
    /// step. The first participant that says so decides.
    fn schedule_place(&self, _step: u64, _steps: u64) -> Option<(u64, u64)> {
        None
    }

    /// False while the model is not in its final form (its sparsity is not reached, for example): such an epoch is never kept as
    /// the best, and early stopping does not count it. Asked after each epoch.
    fn settled(&self, _cx: &StepContext) -> bool {
        true
    }

    /// True if [`Participant::finish`] replaces the last epoch's weights: the best epoch is then not restored.
    fn replaces_weights(&self) -> bool {
        false
    }

    /// Its state for a checkpoint.
    fn state(&self, _model: &Model) -> ParticipantState {
        ParticipantState::default()
    }

    /// Restores the state of a checkpoint; parameters and running statistics are restored already.
    ///
    /// # Errors
    /// If the state does not fit the model.
    fn restore(&mut self, _model: &mut Model, _state: &ParticipantState) -> Result<(), TrainError> {
        Ok(())
    }
}

/// Keys of the participants' states in a checkpoint: position and name.
pub(crate) fn keys(participants: &[&mut dyn Participant]) -> Vec<String> {
    participants.iter().enumerate().map(|(i, p)| format!("{i}.{}", p.name())).collect()
}
