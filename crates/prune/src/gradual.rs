//! Pruning during training.
use crate::prune::to_sparsity;
use crate::{PruneError, PruneSettings, Result, SparsityReport};
use graph::Model;
use tensor::Tensor;
use train::{GradientSource, Participant, ParticipantState, StepContext, TrainError};

/// A participant that raises the sparsity during training by the settings' schedule and criterion. Pruned elements stay pruned. A
/// criterion that needs gradients gets them from training batches and the training loss.
///
/// Checkpoints save the masks: a training that was killed and resumed ends in the same bytes. Epochs before the schedule's end are
/// never kept as the best.
#[derive(Clone, Debug)]
pub struct GradualPruning {
    settings: PruneSettings,
    report: Option<SparsityReport>,
}

impl GradualPruning {
    /// With a gradual schedule.
    ///
    /// # Errors
    /// [`PruneError::Setting`] for settings that [`PruneSettings::check`] refuses.
    pub fn new(settings: &PruneSettings) -> Result<Self> {
        settings.check()?;
        Ok(GradualPruning { settings: settings.clone(), report: None })
    }

    /// The report of the last pruning.
    pub fn report(&self) -> Option<&SparsityReport> {
        self.report.as_ref()
    }
}

impl Participant for GradualPruning {
    fn name(&self) -> &'static str {
        "gradual_pruning"
    }

    fn before_step(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        let Some(sparsity) = self.settings.sparsity_schedule.sparsity(cx.step, cx.steps, self.settings.target()) else { return Ok(()) };
        // Batches in an order that no training epoch uses, another one at each pruning.
        let epoch = cx.settings.epochs + cx.step;
        let source = GradientSource { data: cx.data, epoch, objective: cx.objective, simulate: cx.settings.simulate };
        let report = to_sparsity(cx.model, &self.settings, sparsity, Some(&source), true)?;
        self.report = Some(report);
        Ok(())
    }

    fn settled(&self, cx: &StepContext) -> bool {
        self.settings.sparsity_schedule.end(cx.steps).is_none_or(|end| cx.step > end)
    }

    fn state(&self, model: &Model) -> ParticipantState {
        let masks = model.annotations.iter().filter_map(|(id, a)| Some((model.values[id].name.clone(), a.mask.clone()?)));
        ParticipantState { tensors: masks.collect(), values: serde_json::json!(self.report) }
    }

    fn restore(&mut self, model: &mut Model, state: &ParticipantState) -> Result<(), TrainError> {
        let wrong = |e: serde_json::Error| TrainError::Value { value: self.name().into(), what: e.to_string() };
        self.report = serde_json::from_value(state.values.clone()).map_err(wrong)?;
        for (name, mask) in &state.tensors {
            let id = model.find(name).ok_or_else(|| unknown(name))?;
            let fits = model.values.tensor(id).is_some_and(|t: &Tensor| t.shape() == mask.shape());
            if !fits {
                return Err(unknown(name));
            }
            model.annotations.entry(id).mask = Some(mask.clone());
        }
        Ok(())
    }
}

fn unknown(name: &str) -> TrainError {
    TrainError::Value { value: name.into(), what: "has a mask in the checkpoint, and the model has no such weight".into() }
}

impl From<PruneError> for TrainError {
    fn from(e: PruneError) -> Self {
        match e {
            PruneError::Train(e) => e,
            PruneError::Setting(fault) => TrainError::Setting { setting: fault.path.join("."), what: fault.to_string() },
            PruneError::Graph(what) => TrainError::Value { value: "channels".into(), what },
            PruneError::Weight { weight, what } => TrainError::Value { value: weight, what },
            PruneError::Tensor { weight, source } => TrainError::Value { value: weight, what: source.to_string() },
        }
    }
}
