//! What each group alone costs at each width: everything else stays float, so that what is measured is its own.
use super::{Fitted, Layers};
use crate::{QuantizeError, Result};
use graph::Model;
use std::collections::BTreeMap;
use train::{Batch, Effect, EffectMeter, Task, TrainError};

/// The effect of each group at each width.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sensitivity {
    /// Samples that it was measured on.
    pub samples: usize,
    /// The float network.
    pub float: Effect,
    /// By group, then by width.
    pub groups: Vec<BTreeMap<u32, Effect>>,
}

/// Measures each group alone at each width of `fitted`, on samples that no range was computed from if possible. `model` is the float
/// network (with masks). With a `task`, samples that have its targets also give loss and metric. `tick` gets how many runs of a batch are
/// done and, for the batch in hand, all.
///
/// # Errors
/// [`QuantizeError::NoData`] without a batch; errors of running the graph and of the task.
pub fn sensitivity(
    model: &Model,
    layers: &Layers,
    fitted: &Fitted,
    task: Option<&dyn Task>,
    batches: impl Iterator<Item = Result<Batch, TrainError>>,
    tick: &mut dyn FnMut(u64, u64),
) -> Result<Sensitivity> {
    let mut float = model.clone();
    float.annotations.iter_mut().for_each(|(_, a)| a.encoding = None);
    let trials: Vec<(usize, u32)> = (0..layers.groups.len()).flat_map(|g| fitted.0.keys().map(move |w| (g, *w))).collect();
    let mut judged = EffectMeter::new(model, task);
    let mut judges: Vec<EffectMeter> = trials.iter().map(|_| EffectMeter::new(model, task)).collect();
    let (mut samples, mut done) = (0, 0);
    for batch in batches {
        let batch = batch?;
        samples += batch.len();
        let right = judged.run(&float, &batch)?;
        judged.add(&right, &right, &batch)?;
        for ((group, width), judge) in trials.iter().zip(&mut judges) {
            tick(done % trials.len() as u64, trials.len() as u64);
            let alone = alone(&float, layers, *group, &fitted.0[width]);
            let got = judge.run(&alone, &batch)?;
            judge.add(&right, &got, &batch)?;
            done += 1;
        }
    }
    tensor::release_kept();
    if samples == 0 {
        return Err(QuantizeError::NoData);
    }
    let mut groups = vec![BTreeMap::new(); layers.groups.len()];
    for ((group, width), judge) in trials.into_iter().zip(judges) {
        groups[group].insert(width, judge.effect());
    }
    Ok(Sensitivity { samples, float: judged.effect(), groups })
}

/// The float network with one group in the encodings of a fitted one.
fn alone(float: &Model, layers: &Layers, group: usize, fitted: &Model) -> Model {
    let mut model = float.clone();
    let group = &layers.groups[group];
    for id in group.weights.iter().chain(&group.activations) {
        model.annotations.entry(*id).encoding = fitted.annotations.encoding(*id).cloned();
    }
    model
}
