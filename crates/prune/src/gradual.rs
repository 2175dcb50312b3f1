//! Pruning during training.
use crate::exchange::exchange;
use crate::prune::to_sparsity;
use crate::rewinding::Early;
use crate::search::{self, Scores};
use crate::{Needs, PruneError, PruneSettings, Result, SparsityReport, candidates};
use graph::{Model, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use tensor::Tensor;
use train::parameters::Part;
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
    /// For a criterion that needs it, the sum over the steps so far of `-w * g` by weight.
    movement: BTreeMap<ValueId, Vec<f32>>,
    /// For a schedule that trains the mask, the scores by weight.
    scores: Scores,
    /// For a schedule that goes back, what it goes back to.
    early: Early,
}

impl GradualPruning {
    /// With a gradual schedule.
    ///
    /// # Errors
    /// [`PruneError::Setting`] for settings that [`PruneSettings::check`] refuses.
    pub fn new(settings: &PruneSettings) -> Result<Self> {
        settings.check()?;
        Ok(GradualPruning {
            settings: settings.clone(),
            report: None,
            movement: BTreeMap::new(),
            scores: Scores::new(),
            early: Early::default(),
        })
    }

    /// The report of the last pruning.
    pub fn report(&self) -> Option<&SparsityReport> {
        self.report.as_ref()
    }

    fn moves(&self) -> bool {
        self.settings.criterion.needs() == Needs::Movement
    }
}

/// What precedes the names of weights whose movement is saved, whose scores are, and of values to go back to.
const MOVEMENT: &str = "movement of ";
const SCORES: &str = "scores of ";
const EARLY: &str = "early ";

impl Participant for GradualPruning {
    fn name(&self) -> &'static str {
        "gradual_pruning"
    }

    fn before_step(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        let schedule = self.settings.sparsity_schedule.clone();
        if schedule.remembers(cx.step, cx.steps) {
            self.early = Early::of(cx.model, cx.parameters);
        }
        let (due, exchanged) = (schedule.sparsity(cx.step, cx.steps, self.settings.target()), schedule.exchange(cx.step, cx.steps));
        if due.is_none() && exchanged.is_none() {
            return Ok(());
        }
        // Batches in an order that no training epoch uses, another one at each pruning.
        let epoch = cx.settings.epochs + cx.step;
        let source = GradientSource { data: cx.data, epoch, objective: cx.objective, simulate: cx.settings.simulate };
        if let Some(sparsity) = due {
            if self.moves() {
                for candidate in candidates(cx.model, &self.settings.skip)? {
                    let elements = cx.model.values.tensor(candidate.weight).map_or(0, Tensor::len);
                    self.movement.entry(candidate.weight).or_insert_with(|| vec![0.0; elements]);
                }
            }
            self.report = Some(to_sparsity(cx.model, &self.settings, sparsity, (Some(&source), &self.movement), true)?);
            if schedule.search().is_some() {
                self.scores = search::first(cx.model, &candidates(cx.model, &self.settings.skip)?)?;
            }
            if schedule.rewinds(cx.step, cx.steps) {
                self.early.put(cx.model, cx.parameters);
            }
        }
        if let (Some(share), Some(batches)) = (exchanged, schedule.exchanges()) {
            exchange(cx.model, &self.settings.skip, share, &source, batches)?;
        }
        Ok(())
    }

    fn gradients(&mut self, cx: &mut StepContext, gradients: &mut [Option<Tensor>]) -> Result<(), TrainError> {
        if let Some(rate) = self.settings.sparsity_schedule.search() {
            return search::step(cx, &mut self.scores, rate, gradients);
        }
        if !self.moves() {
            return Ok(());
        }
        let weights: BTreeSet<ValueId> = candidates(cx.model, &self.settings.skip)?.into_iter().map(|c| c.weight).collect();
        for (parameter, gradient) in cx.parameters.iter().zip(gradients) {
            let id = parameter.id.value;
            let (true, Some(gradient)) = (parameter.id.part == Part::Master && weights.contains(&id), gradient) else { continue };
            let Some(weight) = cx.model.values.tensor(id) else { continue };
            let sums = self.movement.entry(id).or_insert_with(|| vec![0.0; weight.len()]);
            let products = weight.to_f32_vec()?.into_iter().zip(gradient.to_f32_vec()?).map(|(w, g)| w * g);
            sums.iter_mut().zip(products).for_each(|(sum, product)| *sum -= product);
        }
        Ok(())
    }

    fn dense_gradients(&self) -> bool {
        self.settings.sparsity_schedule.search().is_some()
    }

    fn schedule_place(&self, step: u64, steps: u64) -> Option<(u64, u64)> {
        self.settings.sparsity_schedule.place(step, steps)
    }

    fn settled(&self, cx: &StepContext) -> bool {
        self.settings.sparsity_schedule.end(cx.steps).is_none_or(|end| cx.step > end)
    }

    fn state(&self, model: &Model) -> ParticipantState {
        let masks = model.annotations.iter().filter_map(|(id, a)| Some((model.values[id].name.clone(), a.mask.clone()?)));
        let saved = |what: &'static str, of: &BTreeMap<ValueId, Vec<f32>>| -> Vec<(String, Tensor)> {
            of.iter().map(|(id, m)| (format!("{what}{}", model.values[*id].name), Tensor::vector(m.clone()))).collect()
        };
        let (moved, scores) = (saved(MOVEMENT, &self.movement), saved(SCORES, &self.scores));
        let early = self.early.0.iter().map(|(name, tensor)| (format!("{EARLY}{name}"), tensor.clone()));
        ParticipantState { tensors: masks.chain(moved).chain(scores).chain(early).collect(), values: serde_json::json!(self.report) }
    }

    fn restore(&mut self, model: &mut Model, state: &ParticipantState) -> Result<(), TrainError> {
        let wrong = |e: serde_json::Error| TrainError::Value { value: self.name().into(), what: e.to_string() };
        self.report = serde_json::from_value(state.values.clone()).map_err(wrong)?;
        for (name, mask) in &state.tensors {
            if let Some(id) = name.strip_prefix(MOVEMENT).and_then(|name| model.find(name)) {
                self.movement.insert(id, mask.to_f32_vec()?);
                continue;
            }
            if let Some(id) = name.strip_prefix(SCORES).and_then(|name| model.find(name)) {
                self.scores.insert(id, mask.to_f32_vec()?);
                continue;
            }
            if let Some(name) = name.strip_prefix(EARLY) {
                self.early.0.insert(name.to_string(), mask.clone());
                continue;
            }
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
