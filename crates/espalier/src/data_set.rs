//! A data set on disk, as a model reads it.
use crate::commands::{PreprocessChanges, SampleOptions};
use crate::commands::{carried_preprocessing, loader};
use crate::{Error, Result};
use deploy::format::Artifact;
use deploy::runtime::SessionOptions;
use graph::Model;
use std::path::PathBuf;
use technique::Choice;
use train::{Batches, Figures, LoaderBatches, Mode, Task, Tasks};

/// A data set with its splits and its preprocessing; settings that are not given here are read from the model's metadata.
/// [`data::Dataset`] is the rows of one split.
///
/// ```
/// use espalier::{DataSet, commands::PreprocessChanges, train::Batches, zoo};
///
/// let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/data/digits");
/// let digits = DataSet::new(digits).preprocess(PreprocessChanges { scale: Some(1.0 / 16.0), ..Default::default() });
/// let entry = zoo::find("mlp")?;
/// let mut model = entry.build(&zoo::ZooOptions { input: vec![1, 8, 8], classes: 10, ..entry.default_options() })?;
/// digits.describe(&mut model)?;
/// assert_eq!(digits.train(&model)?.batches(), 1438u64.div_ceil(64));
/// assert!(digits.score(&model)? < 0.5, "it is not trained");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DataSet {
    path: PathBuf,
    options: SampleOptions,
    seed: u64,
}

impl DataSet {
    /// The data set in this folder or file, in batches of 64.
    pub fn new(path: impl Into<PathBuf>) -> DataSet {
        DataSet { path: path.into(), options: SampleOptions::default(), seed: 0 }
    }

    /// Sets the number of samples in a batch.
    pub fn batch(mut self, samples: usize) -> DataSet {
        self.options.batch = samples;
        self
    }

    /// Sets the seed of the order of the training samples.
    pub fn seed(mut self, seed: u64) -> DataSet {
        self.seed = seed;
        self
    }

    /// Sets the task: `Regression::default().choice()?`.
    pub fn task(mut self, task: Choice<Tasks>) -> DataSet {
        self.options.task = Some(task);
        self
    }

    /// Sets changes to the model's own preprocessing.
    pub fn preprocess(mut self, changes: PreprocessChanges) -> DataSet {
        self.options.preprocess = changes;
        self
    }

    /// Writes task and preprocessing into a model's metadata, so that they need not be given again for it or for a file deployed
    /// from it.
    ///
    /// # Errors
    /// For metadata that cannot be read.
    pub fn describe(&self, model: &mut Model) -> Result<()> {
        let json = |e: serde_json::Error| Error::Input(e.to_string());
        let preprocess = self.options.preprocess.over(carried_preprocessing(model)?.unwrap_or_default());
        model.metadata_set(data::METADATA_KEY, serde_json::to_string(&preprocess).map_err(json)?);
        if let Some(task) = self.options.task.as_ref().filter(|task| **task != Choice::default()) {
            model.metadata_set(train::TASK_KEY, serde_json::to_string(task).map_err(json)?);
        }
        Ok(())
    }

    /// The training split, in a new order each epoch.
    ///
    /// # Errors
    /// If it cannot be read, or does not fit the model.
    pub fn train(&self, model: &Model) -> Result<LoaderBatches> {
        Ok(self.split(model, "train")?.shuffled(self.seed))
    }

    /// The test split, in its order.
    ///
    /// # Errors
    /// As [`DataSet::train`].
    pub fn test(&self, model: &Model) -> Result<LoaderBatches> {
        self.split(model, "test")
    }

    fn split(&self, model: &Model, split: &str) -> Result<LoaderBatches> {
        loader(model, &self.path, &SampleOptions { split: split.into(), ..self.options.clone() })
    }

    /// The task's main figure (accuracy, 0..1; a regression's mean absolute error) of a model on the test split, with its annotations
    /// simulated.
    ///
    /// # Errors
    /// As [`DataSet::test`], and if the model cannot be run.
    pub fn score(&self, model: &Model) -> Result<f64> {
        let task = self.options.task(model)?;
        main(&*task, &train::score(&*task, model, self.test(model)?.epoch(0), Mode::SIMULATED)?.figures())
    }

    /// As [`DataSet::score`] for a deployed file, in ONNX Runtime if it is installed, else in the reference interpreter.
    ///
    /// # Errors
    /// As [`DataSet::test`], and if the runtime cannot run the file.
    pub fn score_file(&self, file: &Artifact) -> Result<f64> {
        let model = &file.lowered.model;
        let task = self.options.task(model)?;
        let mut session = deploy::runtime::choose().runtime.load(file.source(), SessionOptions::default_arithmetic(1))?;
        main(&*task, &deploy::measure::score(session.as_mut(), model, &*task, self.test(model)?.epoch(0))?)
    }
}

fn main(task: &dyn Task, figures: &Figures) -> Result<f64> {
    let metric = task.main_metric();
    let absent = || Error::Input(format!("the test samples give no {}: they have no targets, or the outputs are not finite", metric.label));
    figures.values.get(metric.key).copied().ok_or_else(absent)
}
