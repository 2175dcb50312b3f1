//! The task's figures of a file, in the runtime that executes it.
use crate::runtime::Session;
use crate::{DeployError, Result};
use graph::Model;
use train::{Batch, Figures, Reads, Task, TrainError, by_value};

/// Runs a loaded file on batches and scores what it gives against their targets. `model` is the graph in the file; where the task cannot
/// tell which output it is about, the first one is.
///
/// # Errors
/// [`DeployError::Measure`] for a model or a session without the output; whatever running the file, reading the data or the score report.
pub fn score(
    session: &mut dyn Session,
    model: &Model,
    task: &dyn Task,
    batches: impl Iterator<Item = std::result::Result<Batch, TrainError>>,
) -> Result<Figures> {
    let missing = |what: String| DeployError::Measure { what };
    let output = task.output(model).or(model.graph.outputs.first().copied()).ok_or_else(|| missing("the model has no output".into()))?;
    let mut score = task.score(model, Reads::Output(output))?;
    for batch in batches {
        let batch = batch?;
        let outputs = batch.counted_values(session.run(&batch.inputs)?)?;
        if !outputs.contains_key(&model.values[output].name) {
            return Err(missing(format!("the runtime gave no output '{}'", model.values[output].name)));
        }
        score.add(&by_value(model, &outputs), &batch)?;
    }
    Ok(score.figures())
}
