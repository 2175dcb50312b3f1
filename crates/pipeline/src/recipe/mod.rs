//! The recipe: a TOML file that says which model, which data and which stages, with a default for every key.
//!
//! [`load`] reads a file, [`parse`] a text; both apply overrides and check what the types cannot express. Errors point at a place
//! in the file.
mod check;
mod error;
mod families;
mod overrides;
mod parse;
mod schema;
mod settings;
mod stage;
mod training;
mod units;

pub use error::RecipeError;
pub use families::families;
pub use schema::schema;
pub use settings::{DataSettings, Goals, Inherit, MetricGoal, ModelSource, Student};
pub use stage::Stage;
pub use technique::did_you_mean;
pub use training::Training;
pub use units::{Budget, ByteSize, Limit};

pub use train::Harm;

pub use crate::stages::{
    AverageStage, BatchNorm, CalibrationData, CalibrationSettings, DeployStage, DistillStage, FinetuneStage, PruneStage, QuantizeStage,
    SearchSettings, TrainStage,
};
pub(crate) use check::{architecture as check_architecture, source as check_source};

use crate::{PipelineError, StageError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use technique::Choice;
use train::{AdamW, Optimizers, Sgd, Tasks};

/// A recipe: what `espalier run` does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the recipe, also of the run's folder.
    pub name: String,
    /// Seed of all random numbers: the same recipe, seed, machine and thread count give the same bytes.
    #[serde(default = "one")]
    pub seed: u64,
    /// Threads that compute; absent: one for each processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The model that the first stage starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelSource>,
    /// The task: a name, or a table with settings (`{ kind = "regression", target = "y" }`).
    #[serde(default, skip_serializing_if = "is_classification")]
    pub task: Choice<Tasks>,
    /// The data set, its preprocessing and augmentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSettings>,
    /// Goals for the deployed file; a missed goal is reported and sets exit code 3.
    #[serde(default, skip_serializing_if = "Goals::is_empty")]
    pub goals: Goals,
    /// The stages, in the order in which they run.
    #[serde(default, deserialize_with = "stage::none")]
    pub stages: Vec<Stage>,
}

/// True for the default task.
fn is_classification(task: &Choice<Tasks>) -> bool {
    *task == Choice::default()
}

fn one() -> u64 {
    1
}

impl Recipe {
    /// The model that the first stage works on: its own, or the recipe's.
    pub fn begins_with(&self) -> Option<&ModelSource> {
        self.stages.first().and_then(|first| first.own_model()).or(self.model.as_ref())
    }

    /// True if the network that stage `index` trains descends from a model file, which has probably been trained on all of
    /// the training images.
    pub fn pretrained_at(&self, index: usize) -> bool {
        let own = self.stages.iter().take(index + 1).rev().find_map(|s| s.begins_anew());
        own.unwrap_or_else(|| self.model.as_ref().is_some_and(|m| m.file.is_some()))
    }

    /// True if the network that stage `index` trains has trained weights already: a file's, or those of a stage before it.
    pub fn trained_before(&self, index: usize) -> bool {
        let start = self.model.as_ref().is_some_and(|m| m.file.is_some());
        let before = self.stages.iter().take(index).fold(start, |trained, s| s.begins_anew().unwrap_or(trained) || s.trains());
        self.stages.get(index).and_then(|s| s.begins_anew()).unwrap_or(before)
    }

    /// The optimizer of stage `index`, and whether it is a default: [`Sgd::for_random_weights`], or
    /// [`AdamW::for_trained_weights`] for weights that are trained already. `None` for a stage without a training loop.
    pub fn optimizer(&self, index: usize) -> Option<(Choice<Optimizers>, bool)> {
        let given = self.stages.get(index)?.training()?.optimizer.clone();
        let open = given.is_none();
        let default = || match self.trained_before(index) {
            true => AdamW::for_trained_weights(),
            false => Sgd::for_random_weights(),
        };
        Some((given.unwrap_or_else(default), open))
    }

    /// The target that stage `index` is deployed for: that of the first deploy stage from there on.
    pub fn target_from(&self, index: usize) -> target::Choice {
        self.stages.iter().skip(index).find_map(|s| s.get::<DeployStage>()).map(|s| s.target.clone()).unwrap_or_default()
    }

    /// The stage of this name.
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.name() == name)
    }
}

/// A recipe with its origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The recipe, overrides applied.
    pub recipe: Recipe,
    /// The file's text.
    pub text: String,
    /// The folder that relative paths start from.
    pub folder: PathBuf,
    /// The overrides, as they were given.
    pub overrides: Vec<String>,
}

impl Loaded {
    /// The files and folders that the recipe reads, below `root` or its own folder: models, teachers and data sets.
    pub fn inputs(&self, root: Option<&Path>) -> Vec<PathBuf> {
        let r = &self.recipe;
        let own = r.stages.iter().filter_map(|s| s.own_file());
        let models = r.model.iter().filter_map(|m| m.file.as_deref()).chain(own);
        let teachers = r.stages.iter().filter_map(|s| s.teacher()).filter(|t| r.stage(t).is_none());
        let data = r.data.iter().flat_map(|d| [&d.train, &d.test, &d.validation_set].into_iter().flatten());
        let files = r.stages.iter().flat_map(|s| s.files());
        models.chain(teachers).chain(files).chain(data.map(String::as_str)).map(|p| self.resolve(p, root)).collect()
    }

    /// The recipe with the content of the plans and tables that its stages name, and with the defaults of each stage that follow from the others,
    /// so that a run depends on nothing else.
    ///
    /// # Errors
    /// [`PipelineError::Stage`] for a file that cannot be read, or whose rules do not fit the stage.
    pub fn with_files(&self, root: Option<&Path>) -> Result<Loaded, PipelineError> {
        let mut whole = self.clone();
        for (i, stage) in self.recipe.stages.iter().enumerate() {
            let failed = |e: StageError| PipelineError::stage(stage.name(), e);
            let settled = stage.with_defaults(&self.recipe, i);
            whole.recipe.stages[i] = settled.with_files(&|path| self.resolve(path, root)).map_err(failed)?;
            if !stage.files().is_empty() {
                whole.recipe.stages[i].check(&self.recipe, i).map_err(|fault| failed(fault.into()))?;
            }
        }
        Ok(whole)
    }

    /// The place of a file or folder that the recipe names: below `root` if one is given and it exists there, else
    /// below the recipe's folder. An absolute path stays as it is.
    pub fn resolve(&self, path: &str, root: Option<&Path>) -> PathBuf {
        match root.map(|r| r.join(path)) {
            Some(there) if there.exists() => there,
            _ => self.folder.join(path),
        }
    }
}

/// Reads a recipe file. `overrides` are `KEY=VALUE`, the key with dots and stages by name: `stages.prune.sparsity=0.7`.
///
/// # Errors
/// [`RecipeError`], with the place in the file where there is one.
pub fn load(path: &Path, overrides: &[String]) -> Result<Loaded, RecipeError> {
    let text = std::fs::read_to_string(path).map_err(|e| RecipeError::unreadable(path, &e))?;
    let recipe = parse(&text, overrides).map_err(|e| e.in_file(path))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    Ok(Loaded { recipe, text, folder, overrides: overrides.to_vec() })
}

impl Recipe {
    /// The recipe as TOML, with overrides applied and every setting that has a value.
    ///
    /// # Errors
    /// For a value that cannot be written in TOML.
    pub fn to_text(&self) -> Result<String, RecipeError> {
        toml::to_string(self).map_err(|e| RecipeError::new(e.to_string()))
    }
}

/// Reads a recipe's text and applies overrides.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, overrides: &[String]) -> Result<Recipe, RecipeError> {
    let recipe = parse::parse(text)?;
    if overrides.is_empty() {
        return Ok(recipe);
    }
    overrides::apply(&recipe, overrides)
}

#[cfg(test)]
mod tests;
