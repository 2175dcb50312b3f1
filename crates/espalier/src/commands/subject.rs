//! What `sensitivity` and `diagnose` look at: a recipe, or a model with its data, and its quantize or prune stage.
use super::init::{Purpose, Task, draft};
use crate::{Error, Result};
use graph::Model;
use pipeline::recipe::{Loaded, ModelSource, PruneStage, QuantizeStage, Stage, load, parse};
use pipeline::stages::StageKind;
use std::path::{Path, PathBuf};

/// A recipe or a model, as it was named.
pub(super) struct Subject<'a> {
    /// The file.
    pub(super) of: &'a Path,
    /// For a model: the rest of its task.
    pub(super) task: Option<&'a Task>,
    pub(super) data_root: Option<&'a Path>,
    pub(super) overrides: &'a [String],
    /// The network, in place of the one that the recipe begins with.
    pub(super) model: Option<&'a Path>,
    /// Name of the stage that is looked at; absent: the first one of its kind.
    pub(super) stage: Option<&'a str>,
    /// What a recipe for a model does.
    pub(super) purpose: Purpose,
}

impl Subject<'_> {
    /// The recipe, or the one that the short command of the purpose would make for the model.
    pub(super) fn loaded(&self) -> Result<Loaded> {
        let is_recipe = self.of.extension().is_some_and(|e| e == "toml");
        match self.task {
            None if is_recipe => Ok(load(self.of, self.overrides)?),
            None => {
                let text = format!("{}: a model needs --data with its data set; a recipe ends in .toml", self.of.display());
                Err(Error::Input(text))
            }
            Some(_) if is_recipe => Err(Error::Input("--data goes with a model: a recipe names its own data".into())),
            Some(task) => {
                let task = Task { model: self.of.to_path_buf(), ..task.clone() };
                let written = draft(&task, &self.purpose, Path::new(""))?;
                let recipe = parse(&written.text, self.overrides)?;
                Ok(Loaded { recipe, text: written.text, folder: PathBuf::from("."), overrides: self.overrides.to_vec() })
            }
        }
    }

    /// Refuses outputs that the recipe reads.
    pub(super) fn spares(&self, loaded: &Loaded, outputs: &[PathBuf]) -> Result<()> {
        let inputs = loaded.inputs(self.data_root);
        let own = [self.of.to_path_buf()];
        let read = || inputs.iter().chain(&own).map(PathBuf::as_path);
        match outputs.iter().find(|path| files::destroyed(path, read()).is_some()) {
            Some(path) => Err(Error::Input(format!("{} is read, and would be lost: name another file with --output", path.display()))),
            None => Ok(()),
        }
    }

    /// The position and the settings of the quantize stage.
    pub(super) fn quantize_stage(&self, loaded: &Loaded) -> Result<(usize, QuantizeStage)> {
        self.stage_of(loaded, "quantize", "whose settings say how layers are stored")
    }

    /// The position and the settings of the prune stage.
    pub(super) fn prune_stage(&self, loaded: &Loaded) -> Result<(usize, PruneStage)> {
        self.stage_of(loaded, "prune", "whose criterion and granularity say how layers are pruned")
    }

    fn stage_of<T: StageKind + Clone>(&self, loaded: &Loaded, kind: &str, why: &str) -> Result<(usize, T)> {
        let found = |(i, stage): (usize, &Stage)| Some((i, stage.get::<T>()?.clone()));
        let mut stages = loaded.recipe.stages.iter().enumerate().filter(|(_, s)| self.stage.is_none_or(|name| s.name() == name));
        stages.find_map(found).ok_or_else(|| match self.stage {
            Some(name) => Error::Input(format!("the recipe has no {kind} stage of the name '{name}'")),
            None => Error::Input(format!("the recipe has no {kind} stage, {why}")),
        })
    }

    /// The network before the stage.
    pub(super) fn network(&self, loaded: &Loaded, index: usize) -> Result<Model> {
        let recipe = &loaded.recipe;
        let place = |p: &str| loaded.resolve(p, self.data_root);
        let source = match (self.model, recipe.begins_with()) {
            (Some(file), _) => return read(file, recipe.seed),
            (None, Some(source)) if index == 0 => source,
            (None, None) if index == 0 => return Err(Error::Input("the recipe names no model: name one with --model".into())),
            _ => {
                let before = &recipe.stages[index - 1];
                return Err(Error::Input(format!(
                    "stage '{0}' comes before the stage that is looked at: run the recipe, and name its result with --model (RUN/{0}.onnx)",
                    before.name()
                )));
            }
        };
        Ok(pipeline::stages::start(source, recipe.seed, place).map_err(|e| Error::Input(e.to_string()))?.0)
    }
}

/// A network from a file, as a run begins with it.
pub(super) fn read(file: &Path, seed: u64) -> Result<Model> {
    let source = ModelSource { file: Some(file.display().to_string()), arch: None, width: 1.0, classes: None, input: None };
    Ok(pipeline::stages::start(&source, seed, |p| PathBuf::from(p)).map_err(|e| Error::Input(e.to_string()))?.0)
}
