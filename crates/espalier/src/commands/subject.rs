//! What `sensitivity` and `diagnose` look at: a recipe, or a model with its data, and its quantize stage.
use super::init::{Purpose, Task, draft};
use crate::{Error, Result};
use graph::Model;
use pipeline::recipe::{Loaded, ModelSource, QuantizeStage, Stage, load, parse};
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
    /// Name of the quantize stage; absent: the first one.
    pub(super) stage: Option<&'a str>,
}

impl Subject<'_> {
    /// The recipe, or the one that `quantize` would make for the model.
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
                let written = draft(&task, &Purpose::Quantize { epochs: 0 }, Path::new(""))?;
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
        let found = |(i, stage): (usize, &Stage)| Some((i, stage.get::<QuantizeStage>()?.clone()));
        let mut stages = loaded.recipe.stages.iter().enumerate().filter(|(_, s)| self.stage.is_none_or(|name| s.name() == name));
        stages.find_map(found).ok_or_else(|| match self.stage {
            Some(name) => Error::Input(format!("the recipe has no quantize stage of the name '{name}'")),
            None => Error::Input("the recipe has no quantize stage, whose settings say how layers are stored".into()),
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
                    "stage '{0}' comes before the quantize stage: run the recipe, and name its result with --model (RUN/{0}.onnx)",
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
