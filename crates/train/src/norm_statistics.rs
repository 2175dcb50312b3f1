//! Running statistics of batch normalizations, measured again for weights that were not trained with them (averaged ones).
use crate::step::{follow_statistics, follow_weights};
use crate::trainer::next_step;
use crate::{Batch, Batches, Executor, Mode, Overrides, TrainError};
use graph::{AttributeValue, Graph, Model, ValueId};
use std::collections::BTreeMap;
use tensor::Tensor;

/// Replaces the running mean and variance of every batch normalization by their mean over batches, each batch weighted by its
/// share of the samples: `mean = sum(n_b * mean_b) / sum(n_b)`, and likewise the variance. Reads the first `batches` batches of
/// the data's epoch `epoch` (fewer if it has fewer). With `simulate`, masks and encodings are active. Nothing else changes.
/// Returns the number of samples: 0 if the model has no running statistics, or if its samples run one by one, where statistics
/// are meaningless.
///
/// # Errors
/// Errors of the graph or the data.
///
/// # Source
/// Izmailov et al. 2018, arXiv:1803.05407, section 3.2.
pub fn measure_norm_statistics(
    model: &mut Model,
    data: &dyn Batches,
    epoch: u64,
    batches: u64,
    simulate: bool,
    seed: u64,
) -> Result<usize, TrainError> {
    follow_weights(model, 1.0)?;
    let mut copy = graph::inline_functions(model)?;
    if data.runs_alone() || forget(&mut copy.graph, &copy.values) == 0 {
        return Ok(0);
    }
    let executor = Executor::new(&copy)?;
    let mut sums: BTreeMap<ValueId, (Vec<f64>, Vec<usize>)> = BTreeMap::new();
    let (mut samples, mut taken) = (0, 0);
    let mut runs = data.epoch(epoch);
    while taken < batches {
        let Some(step) = next_step(&mut runs)? else { break };
        let mode = Mode { training: true, simulate, seed: tensor::random::derive(seed, taken) };
        for batch in &step {
            let out = executor.run_with(&batch.inputs, &Overrides::default(), mode, None)?;
            add(model, &mut sums, out.updates, batch)?;
            samples += batch.len();
        }
        taken += 1;
    }
    if samples == 0 {
        return Err(TrainError::Data("there is no batch to measure statistics of normalizations on".into()));
    }
    for (id, (sum, shape)) in sums {
        let mean: Vec<f32> = sum.into_iter().map(|v| (v / samples as f64) as f32).collect();
        let wrong = |e: tensor::TensorError| TrainError::Value { value: model.values[id].name.clone(), what: e.to_string() };
        let tensor = Tensor::new(mean, shape).map_err(wrong)?;
        model.values.set_tensor(id, tensor);
    }
    follow_statistics(model)?;
    Ok(samples)
}

fn add(
    model: &Model,
    sums: &mut BTreeMap<ValueId, (Vec<f64>, Vec<usize>)>,
    updates: Vec<(ValueId, Tensor)>,
    batch: &Batch,
) -> Result<(), TrainError> {
    for (id, statistic) in updates {
        let wrong = |e: tensor::TensorError| TrainError::Value { value: model.values[id].name.clone(), what: e.to_string() };
        let values = statistic.to_f32_vec().map_err(wrong)?;
        let (sum, _) = sums.entry(id).or_insert_with(|| (vec![0.0; values.len()], statistic.shape().to_vec()));
        sum.iter_mut().zip(values).for_each(|(s, v)| *s += batch.len() as f64 * f64::from(v));
    }
    Ok(())
}

/// Sets the momentum of the nodes with running statistics so that an update is the statistic of one batch alone. Returns their
/// number.
fn forget(graph: &mut Graph, values: &graph::Values) -> usize {
    let mut found = 0;
    for node in &mut graph.nodes {
        found += node.subgraphs_mut().map(|sub| forget(sub, values)).sum::<usize>();
        let Some(op) = ops::find(&node.domain, &node.op_type) else { continue };
        let constant = |i: usize| node.input(i).is_some_and(|v| values.tensor(v).is_some());
        if (0..node.inputs.len()).any(|i| op.role(node, i) == ops::Role::Statistic && constant(i)) {
            node.attributes.set("momentum", AttributeValue::Float(0.0));
            found += 1;
        }
    }
    found
}
