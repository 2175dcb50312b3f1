//! Recomputation of activations under a memory budget (Chen et al. 2016, arXiv:1604.06174): the first part of the plan is cut
//! into segments, of which only the values at their ends are kept; the backward pass runs each segment again.
//!
//! A segment's two runs execute the same code on the same inputs, and the backward pass walks the second record as it would have
//! walked the first: gradients are the same to the bit. Running statistics are taken from the first run. Random draws depend on
//! node and step, so both runs draw the same. Constants are masked and quantized once, outside the segments.
use crate::codecs::Codecs;
use crate::executor::Run;
use crate::parameters::{self, Parameter};
use crate::plan::Plan;
use crate::segments::{self, Cut};
use crate::sizes::{Sizes, measure};
use crate::{Batch, Mode, Named, Objective, Optimizer, Overrides, RunOutput, TrainError, TrainSettings, Watch};
use graph::{Model, ValueId};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use tensor::{Tensor, TensorError};

/// A part of the plan that is run again in the backward pass.
struct Segment {
    steps: Range<usize>,
    /// Values that it reads from outside; the flag says that no later step reads them.
    inputs: Vec<(ValueId, bool)>,
    /// Values that it computes for later steps.
    outputs: Vec<ValueId>,
}

/// Keeps a training within its memory budget.
pub(crate) struct Recomputation {
    budget: u64,
    plan: Option<Planned>,
    /// The former limit on storage kept for reuse, to be restored.
    reuse_before: Option<Option<u64>>,
}

struct Planned {
    plan: Arc<Plan>,
    segments: Arc<Vec<Segment>>,
    /// Bytes of the batch that the cut was made for; it also holds for smaller batches.
    batch: u64,
}

impl Drop for Recomputation {
    fn drop(&mut self) {
        if let Some(bytes) = self.reuse_before {
            tensor::keep_for_reuse(bytes);
        }
    }
}

impl Recomputation {
    /// With a budget in bytes.
    ///
    /// # Errors
    /// [`TrainError::Setting`] on a GPU.
    pub(crate) fn new(budget: u64) -> Result<Self, TrainError> {
        if tensor::device::is_gpu() {
            let what = "limits the memory of the CPU, and this stage computes on a GPU: leave it out, or train on the device cpu";
            return Err(TrainError::Setting { setting: "memory".into(), what: what.into() });
        }
        Ok(Recomputation { budget, plan: None, reuse_before: None })
    }

    /// Runs the model forward for a step of training.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if the budget does not suffice for the first batch; as [`crate::Executor::run_with`].
    pub(crate) fn forward(&mut self, step: ForwardStep, watch: &mut dyn Watch) -> Result<RunOutput, TrainError> {
        let ForwardStep { model, taps, batch, mode, .. } = &step;
        let model = inlined(model)?;
        let size = size(batch);
        let planned = match self.plan.take().filter(|p| size <= p.batch) {
            Some(planned) => planned,
            None => self.plan(&model, &step, size, watch)?,
        };
        let again = Again {
            codecs: Codecs::of(&model),
            model,
            plan: planned.plan.clone(),
            segments: planned.segments.clone(),
            overrides: step.overrides.clone(),
            mode: *mode,
        };
        self.plan = Some(planned);
        forward(&Arc::new(again), &batch.inputs, taps)
    }

    /// Measures a step and decides which operations are recomputed.
    fn plan(&mut self, model: &Model, step: &ForwardStep, batch: u64, watch: &mut dyn Watch) -> Result<Planned, TrainError> {
        let first = self.reuse_before.is_none();
        let (plan, sizes, fixed) = step.measured(model)?;
        let cut = match segments::cut(&sizes, self.budget.saturating_sub(fixed)) {
            Some(cut) => cut,
            None => {
                let least = segments::finest(&sizes);
                let what = format!(
                    "is {}, but a step on this batch of {} holds about {} however it is cut, {} of it for weights, gradients and the \
                     optimizer's state: give it more, or make the batch smaller",
                    text(self.budget),
                    step.batch.len(),
                    text(least.peak + fixed),
                    text(fixed)
                );
                if first {
                    return Err(TrainError::Setting { setting: "memory".into(), what });
                }
                watch.note(&format!("memory {what}"));
                least
            }
        };
        let whole = segments::cut(&sizes, u64::MAX).map_or(0, |c| c.peak);
        watch.note(&summary(&cut, plan.steps.len(), fixed + cut.peak, fixed + whole));
        // Storage kept for reuse counts as memory too: it may use what the step leaves.
        let before = tensor::keep_for_reuse(Some(self.budget.saturating_sub(fixed + cut.peak)));
        self.reuse_before.get_or_insert(before);
        let segments = segments_of(model, &plan, step.taps, &cut);
        Ok(Planned { plan: Arc::new(plan), segments: Arc::new(segments), batch })
    }
}

/// Approximate bytes of a training step: weights, gradients, the optimizer's state and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepMemory {
    /// Without recomputation.
    pub whole: u64,
    /// With the recomputation that needs the least memory: the smallest [`crate::TrainSettings::memory`] that suffices.
    pub least: u64,
}

/// Runs a model forward on a batch as a training step does, on the CPU, and returns how much memory the step takes there.
///
/// # Errors
/// As the first step of [`crate::train`].
pub fn step_memory(model: &Model, objective: &dyn Objective, batch: &Batch, settings: &TrainSettings) -> Result<StepMemory, TrainError> {
    let mut learned;
    let mut model = model;
    if let Some(learning) = settings.learn_scales.how() {
        learned = model.clone();
        crate::scales::begin(&mut learned, learning)?;
        model = &learned;
    }
    let parameters = parameters::trainable(model, &settings.freeze, settings.learn_scales.is_on())?;
    let (overrides, _) = parameters::track(model, &parameters)?;
    let mode = Mode { training: true, simulate: settings.simulate, seed: settings.seed };
    let (optimizer, taps) = (settings.optimizer.member().as_ref(), &objective.taps());
    let step = ForwardStep { model, parameters: &parameters, optimizer, objective, taps, batch, overrides: &overrides, mode };
    let (_, sizes, fixed) = tensor::device::on_processor(|| step.measured(&inlined(model)?))?;
    let least = segments::finest(&sizes).peak;
    Ok(StepMemory { whole: fixed + segments::cut(&sizes, u64::MAX).map_or(least, |c| c.peak), least: fixed + least })
}

fn inlined(model: &Model) -> Result<Model, TrainError> {
    if model.functions.is_empty() { Ok(model.clone()) } else { Ok(graph::inline_functions(model)?) }
}

fn size(batch: &Batch) -> u64 {
    batch.inputs.values().chain(batch.targets.values()).map(bytes).sum()
}

fn summary(cut: &Cut, steps: usize, peak: u64, whole: u64) -> String {
    match cut.segments.len() {
        0 => format!("memory: a step holds about {} and nothing is recomputed", text(whole)),
        n => format!(
            "memory: {} of {steps} operations are recomputed, in {n} segment{}: a step holds about {} instead of {}",
            cut.recomputed(),
            if n == 1 { "" } else { "s" },
            text(peak),
            text(whole)
        ),
    }
}

/// The forward pass of a training step.
pub(crate) struct ForwardStep<'a> {
    pub(crate) model: &'a Model,
    pub(crate) parameters: &'a [Parameter],
    pub(crate) optimizer: &'a dyn Optimizer,
    pub(crate) objective: &'a dyn Objective,
    pub(crate) taps: &'a [ValueId],
    pub(crate) batch: &'a Batch,
    pub(crate) overrides: &'a Overrides,
    pub(crate) mode: Mode,
}

impl ForwardStep<'_> {
    /// The plan of its model (`model` is the model with its functions inlined), the memory of its steps, and the bytes that no
    /// cut changes: constants, the batch, gradients, the optimizer's state, the last epoch's parameters and the best epoch's.
    fn measured(&self, model: &Model) -> Result<(Plan, Sizes, u64), TrainError> {
        let plan = Plan::new(model, &self.taps.iter().copied().collect(), true)?;
        let sizes = measure(model, &plan, self.taps, self.objective, self.batch, self.overrides, self.mode)?;
        let constants: u64 = model.values.iter().filter_map(|(_, v)| v.constant.as_ref()).map(|c| bytes(&c.tensor)).sum();
        let trained = self.parameters.iter().try_fold(0, |sum, p| Ok::<u64, TrainError>(sum + bytes(&parameters::get(model, &p.id)?)))?;
        let trained = trained + self.objective.parameters().iter().map(|p| bytes(&p.value)).sum::<u64>();
        let moments = self.optimizer.moments() as u64;
        let fixed = constants + sizes.constants + trained * (1 + moments + 2) + size(self.batch);
        Ok((plan, sizes, fixed))
    }
}

fn bytes(t: &Tensor) -> u64 {
    tensor::with_buffer!(t.buffer(), b => size_of_val(b.as_slice())) as u64
}

fn text(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{:.2} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} kB", b / 1e3),
    }
}

/// The values at the segments' ends.
fn segments_of(model: &Model, plan: &Plan, taps: &[ValueId], cut: &Cut) -> Vec<Segment> {
    let graph = &model.graph;
    let mut last_use: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (at, step) in plan.steps.iter().enumerate() {
        last_use.extend(step.uses(graph).into_iter().map(|v| (v, at)));
    }
    last_use.extend(graph.outputs.iter().chain(taps).map(|v| (*v, plan.steps.len())));
    let mut outside: HashSet<ValueId> = graph.inputs.iter().copied().collect();
    outside.extend(model.values.iter().filter(|(_, v)| v.constant.is_some()).map(|(id, _)| id));
    let mut list = vec![];
    for steps in cut.segments.iter().cloned() {
        let behind = |v: &ValueId| last_use.get(v).is_some_and(|last| *last >= steps.end);
        let read: BTreeSet<ValueId> = plan.steps[steps.clone()].iter().flat_map(|s| s.uses(graph)).collect();
        let inputs = read.into_iter().filter(|v| outside.contains(v)).map(|v| (v, !behind(&v))).collect();
        let made: Vec<ValueId> =
            plan.steps[steps.clone()].iter().flat_map(|s| graph.nodes[s.node].outputs.iter().flatten().copied()).collect();
        let outputs = made.iter().copied().filter(behind).collect();
        outside.extend(made);
        list.push(Segment { steps, inputs, outputs });
    }
    list
}

/// The data for running a segment again.
struct Again {
    model: Model,
    codecs: Codecs,
    plan: Arc<Plan>,
    segments: Arc<Vec<Segment>>,
    overrides: Overrides,
    mode: Mode,
}

impl Again {
    /// Runs a segment on its inputs; returns its outputs, and the statistics that it updates.
    fn run(&self, segment: &Segment, inputs: Vec<Tensor>) -> Result<(Vec<Tensor>, Vec<(ValueId, Tensor)>), TrainError> {
        let run = Run::new(&self.model, &self.codecs, &self.overrides, self.mode, None);
        for ((v, _), t) in segment.inputs.iter().zip(inputs) {
            run.env.borrow_mut()[v.0 as usize] = Some(t);
        }
        run.guarded(|| {
            self.plan.steps[segment.steps.clone()].iter().try_for_each(|step| run.step(step))?;
            let outputs = segment.outputs.iter().map(|v| run.read(*v, true)).collect::<Result<_, _>>()?;
            Ok((outputs, run.updates.take()))
        })
    }
}

fn forward(again: &Arc<Again>, inputs: &Named, taps: &[ValueId]) -> Result<RunOutput, TrainError> {
    let run = Run::new(&again.model, &again.codecs, &again.overrides, again.mode, None);
    run.guarded(|| {
        run.feed(inputs)?;
        for (i, segment) in again.segments.iter().enumerate() {
            let given = segment.inputs.iter().map(|(v, last)| run.read(*v, *last)).collect::<Result<Vec<_>, _>>()?;
            // Recorded, though the record is dropped: only the record shows which outputs have a gradient.
            let (outputs, updates) = again.run(segment, given.clone())?;
            run.updates.borrow_mut().extend(updates);
            let again = again.clone();
            let outputs = tensor::record_replay("recomputation", &given, outputs, move |inputs| {
                let once_more = again.run(&again.segments[i], inputs);
                once_more.map(|(outputs, _)| outputs).map_err(|e| TensorError::value("recomputation", e.to_string()))
            });
            for (v, t) in segment.outputs.iter().zip(outputs) {
                run.env.borrow_mut()[v.0 as usize] = Some(t);
            }
        }
        let behind = again.segments.last().map_or(0, |s| s.steps.end);
        again.plan.steps[behind..].iter().try_for_each(|step| run.step(step))?;
        run.output(taps)
    })
}
