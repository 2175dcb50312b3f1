//! The plan of a run, without running it.
use crate::recipe::{Loaded, Recipe, Stage};
use crate::run::{common_key, stage_key};
use crate::run_dir::{Key, StageDir};
use crate::{PipelineError, RunOptions};
use std::collections::BTreeMap;

/// One stage of a plan.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PlannedStage {
    /// The stage's name in the recipe.
    pub name: String,
    /// The kind of stage: `prune`.
    pub kind: String,
    /// Whether the stage's result is stored already, so that it does not run.
    pub cached: bool,
    /// Passes over the training data.
    pub epochs: u64,
    /// Behaviour that the recipe does not state explicitly.
    pub details: Vec<String>,
}

/// The stages of a recipe in order, with whether their results are stored in the run's folder. Reads the data sets and files that
/// the recipe names, to know whether they are those of the earlier run; writes nothing.
///
/// # Errors
/// If a file or data set of the recipe cannot be read.
pub fn plan(loaded: &Loaded, options: &RunOptions) -> Result<Vec<PlannedStage>, PipelineError> {
    let loaded = &loaded.with_files(options.data.as_deref())?;
    let (common, _) = common_key(loaded, options)?;
    let store = options.out.join("store");
    let mut keys: BTreeMap<String, Key> = BTreeMap::new();
    let mut last = None;
    let mut out = vec![];
    for (index, stage) in loaded.recipe.stages.iter().enumerate() {
        let key = stage_key(loaded, options, &common, &keys, last.as_ref(), index)?;
        out.push(PlannedStage {
            name: stage.name().to_string(),
            kind: stage.kind().to_string(),
            cached: StageDir::new(&store, &key).is_there(),
            epochs: stage.training().map_or(0, |t| t.epochs),
            details: details(&loaded.recipe, index, stage),
        });
        keys.insert(stage.name().to_string(), key);
        last = Some(key);
    }
    Ok(out)
}

fn details(recipe: &Recipe, index: usize, stage: &Stage) -> Vec<String> {
    let mut out = vec![];
    if let Some(teacher) = stage.teacher() {
        out.push(format!("taught by '{teacher}'"));
    }
    if let (Some((optimizer, open)), true) = (recipe.optimizer(index), stage.trains()) {
        let why = match (open, recipe.trained_before(index)) {
            (false, _) => "",
            (true, true) => ", by default for weights that have been trained",
            (true, false) => ", by default for random weights",
        };
        out.push(format!("{} with lr = {}{why}", optimizer.kind(), optimizer.lr()));
    }
    out.extend(stage.details(recipe, index));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::parse;

    #[test]
    fn what_a_student_inherits_and_in_what_order_is_told() {
        let text = |inherit: &str| {
            format!(
                "name = \"t\"\n[data]\ntrain = \"d\"\n[model]\narch = \"mlp\"\n[[stages]]\nkind = \"train\"\n[[stages]]\nkind = \"quantize\"\n\
                 [[stages]]\nkind = \"prune\"\nsparsity = 0.5\n[[stages]]\nkind = \"distill\"\nteacher = \"train\"\n\
                 student = {{ width = 0.5 }}\n{inherit}\n"
            )
        };
        let told = |inherit: &str| {
            let recipe = parse(&text(inherit), &[]).unwrap();
            details(&recipe, 3, &recipe.stages[3])
        };
        let order = |list: &str| format!("its student inherits, in this order: {list}");
        assert_eq!(told("").last(), Some(&order("'prune' (sparsity 0.5), 'quantize' (8-bit weights)")));
        assert_eq!(told("inherit = [\"quantize\", \"prune\"]").last(), Some(&order("'quantize' (8-bit weights), 'prune' (sparsity 0.5)")));
        assert_eq!(told("inherit = false"), ["taught by 'train'", "sgd with lr = 0.05, by default for random weights"]);
        let error = parse(&text("inherit = [\"prun\"]"), &[]).unwrap_err();
        assert_eq!((error.line_column(), error.hint.as_deref()), (Some((17, 11)), Some("did you mean 'prune'?")), "{error}");
    }
}
