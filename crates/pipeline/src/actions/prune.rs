//! Attaching masks as the recipe asks for them.
use super::CompressOn;
use crate::StageError;
use graph::Model;
use prune::{PruneSettings, SparsityReport};
use train::GradientSource;

/// Sets masks at once. A criterion that needs gradients gets them from the stage's training batches and the loss of the recipe's
/// task.
///
/// # Errors
/// Errors of the settings, the weights or the data.
pub fn prune_weights(model: &mut Model, settings: &PruneSettings, on: &CompressOn) -> Result<SparsityReport, StageError> {
    if !settings.needs_data() {
        return Ok(prune::prune(model, settings)?);
    }
    let before = model.clone();
    gradients(&before, on, true, &mut |source| Ok(prune::prune_with(model, settings, source)?))
}

/// Calls `f` with the source of gradients: the stage's training batches and the loss of the recipe's task. Without `wanted`, with none.
///
/// # Errors
/// Errors of the data, the task, or `f`.
pub(super) fn gradients<T>(
    model: &Model,
    on: &CompressOn,
    wanted: bool,
    f: &mut dyn FnMut(Option<&GradientSource>) -> Result<T, StageError>,
) -> Result<T, StageError> {
    if !wanted {
        return f(None);
    }
    let data = on.sources.training(model, on.seed, on.training.batch)?;
    let objective = on.sources.task().loss(model, on.training.label_smoothing as f32)?;
    f(Some(&GradientSource { data: &data, epoch: 0, objective: objective.as_ref(), simulate: true }))
}

/// Notes for the user; true marks a warning: elements that were zero before, and layers whose weights are all zero.
pub fn prune_notes(report: &SparsityReport) -> Vec<(bool, String)> {
    let (share, weights) = (report.sparsity * 100.0, report.layers.len());
    let mut notes = vec![(false, format!("sparsity {share:.2} % over {weights} weights; {}", report::text::SPARSITY_ALONE))];
    if report.zero_before > 0 {
        let share = report.zero_before as f64 / report.total().max(1) as f64 * 100.0;
        notes.push((
            false,
            format!(
                "{} elements ({share:.2} %) were zero before; they stay zero and are counted apart: the sparsity asked for is that of the others",
                report.zero_before
            ),
        ));
    }
    if !report.dense.is_empty() {
        let list: Vec<String> = report.dense.iter().map(|(name, why)| format!("{name} ({why})")).collect();
        notes.push((false, format!("these weights stay dense: {}", list.join(", "))));
    }
    notes.extend(report.notes.iter().map(|note| (false, note.clone())));
    if !report.emptied.is_empty() {
        let text = format!(
            "every weight is zero in {}: the output of such a layer no longer depends on its input; set min_per_layer = 0.05, a lower \
             sparsity, scope = \"layer\", or name the layer in skip",
            report.emptied.join(", ")
        );
        notes.push((true, text));
    }
    notes
}
