//! Memory of a plan's steps, measured on one batch. Each step runs recorded, and its record is dropped before the next one, so
//! measuring takes the memory of one step.
use crate::codecs::Codecs;
use crate::executor::Run;
use crate::plan::{Plan, Step};
use crate::{Batch, Mode, Objective, Overrides, TrainError, loss_error};
use graph::{Graph, Model, ValueId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tensor::{Tensor, memory, with_buffer};

/// Memory of a plan's steps, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// By step.
    pub(crate) steps: Vec<StepSize>,
    /// Results of the steps.
    pub(crate) stored: Vec<Stored>,
    /// Masked and quantized constants, beside their masters.
    pub(crate) constants: u64,
    /// Peak additional bytes while the loss is computed.
    pub(crate) loss: u64,
}

/// Additional memory of a step beside its inputs and results, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepSize {
    /// Bytes in the record, until the step's backward pass has run.
    pub(crate) record: u64,
    /// Peak bytes while it runs.
    pub(crate) scratch: u64,
}

/// A value's storage; values that share one count once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    /// The step that computes it.
    pub(crate) made: usize,
    /// The last step that reads it; the number of steps if it is a result of the run.
    pub(crate) last: usize,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Whether a record keeps it for the backward pass.
    pub(crate) held: bool,
}

/// Runs a training step forward and measures it, keeping nothing.
///
/// # Errors
/// As [`crate::Executor::run`]; errors of the loss.
pub(crate) fn measure(
    model: &Model,
    plan: &Plan,
    taps: &[ValueId],
    objective: &dyn Objective,
    batch: &Batch,
    overrides: &Overrides,
    mode: Mode,
) -> Result<Sizes, TrainError> {
    let codecs = Codecs::of(model);
    let run = Run::new(model, &codecs, overrides, mode, None);
    run.guarded(|| {
        run.feed(&batch.inputs)?;
        let mut sizes = Sizes::default();
        let begin = memory::live();
        for v in plan.steps.iter().flat_map(|s| s.uses(&model.graph)) {
            if present(&run, v).is_none() && model.values[v].constant.is_some() {
                run.constant(v)?;
            }
        }
        sizes.constants = bytes_of(memory::live() - begin);
        let mut storage_of = HashMap::new();
        for (at, step) in plan.steps.iter().enumerate() {
            measure_step(&run, &model.graph, at, step, &mut storage_of, &mut sizes)?;
        }
        for v in model.graph.outputs.iter().chain(taps) {
            if let Some(s) = storage_of.get(v) {
                sizes.stored[*s].last = plan.steps.len();
            }
        }
        let out = run.output(taps)?;
        let begin = memory::live();
        memory::watch_peak();
        objective.loss(&out.values, batch)?;
        sizes.loss = bytes_of(memory::peak() - begin);
        Ok(sizes)
    })
}

fn measure_step(
    run: &Run,
    graph: &Graph,
    at: usize,
    step: &Step,
    storage_of: &mut HashMap<ValueId, usize>,
    sizes: &mut Sizes,
) -> Result<(), TrainError> {
    let uses = step.uses(graph);
    for s in uses.iter().filter_map(|v| storage_of.get(v)) {
        sizes.stored[*s].last = at;
    }
    // Referenced here too, so that the step cannot overwrite what an earlier record may keep.
    let given: Vec<(ValueId, Tensor)> = uses.into_iter().filter_map(|v| Some((v, present(run, v)?))).collect();
    let holders_before: Vec<usize> = given.iter().map(|(_, t)| holders(t)).collect();
    let begin = memory::live();
    memory::watch_peak();
    run.step(step)?;
    let (end, peak) = (memory::live(), memory::peak());

    let mut env = run.env.borrow_mut();
    let outputs: Vec<ValueId> = graph.nodes[step.node].outputs.iter().flatten().copied().collect();
    let places: Vec<(ValueId, usize)> = outputs.iter().filter_map(|v| Some((*v, place(env[v.0 as usize].as_ref()?)))).collect();
    for ((v, t), before) in given.iter().zip(&holders_before) {
        let (Some(s), at) = (storage_of.get(v), place(t)) else { continue };
        let same: HashSet<ValueId> = given.iter().filter(|(_, t)| place(t) == at).map(|(v, _)| *v).collect();
        let given_up = same.iter().filter(|v| env[v.0 as usize].is_none()).count();
        let made = places.iter().filter(|(_, p)| *p == at).count();
        sizes.stored[*s].held |= holders(t) + given_up > before + made;
    }
    let mut new_bytes = 0;
    for (i, (v, at_place)) in places.iter().enumerate() {
        let Some(t) = env[v.0 as usize].as_ref() else { continue };
        let earlier = given.iter().find(|(_, t)| place(t) == *at_place).map(|(v, _)| *v);
        let earlier = earlier.or_else(|| places[..i].iter().find(|(_, p)| p == at_place).map(|(v, _)| *v));
        if let Some(earlier) = earlier {
            if let Some(s) = storage_of.get(&earlier).copied() {
                storage_of.insert(*v, s);
            }
            continue;
        }
        let in_env = places.iter().filter(|(_, p)| p == at_place).count();
        let bytes = with_buffer!(t.buffer(), b => size_of_val(b.as_slice())) as u64;
        new_bytes += bytes;
        storage_of.insert(*v, sizes.stored.len());
        sizes.stored.push(Stored { made: at, last: at, bytes, held: holders(t) > in_env });
    }
    sizes.steps.push(StepSize { record: bytes_of(end - begin).saturating_sub(new_bytes), scratch: bytes_of(peak - end) });
    // The next step starts with values outside this step's record, tracked as before.
    for v in outputs {
        if let Some(t) = env[v.0 as usize].take() {
            let alone = t.detach();
            env[v.0 as usize] = Some(if t.is_tracked() { alone.tracked().map_err(loss_error)? } else { alone });
        }
    }
    Ok(())
}

fn present(run: &Run, v: ValueId) -> Option<Tensor> {
    run.env.borrow()[v.0 as usize].clone()
}

fn holders(t: &Tensor) -> usize {
    with_buffer!(t.buffer(), b => Arc::strong_count(b))
}

/// A key that is equal for tensors that share their elements.
fn place(t: &Tensor) -> usize {
    with_buffer!(t.buffer(), b => Arc::as_ptr(b) as usize)
}

fn bytes_of(difference: i64) -> u64 {
    u64::try_from(difference).unwrap_or(0)
}
