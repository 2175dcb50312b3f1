//! Batches of a data set for a model: what `evaluate` and `compare` run on.
use super::preprocessing::{PreprocessChanges, Preprocessing, preprocessing};
use crate::{Error, Result};
use data::{Augment, Dataset, LoaderOptions, OpenOptions};
use graph::Model;
use std::path::Path;
use std::sync::Arc;
use technique::{Choice, Family};
use train::{Batch, Batches, Feeding, InputRules, LoaderBatches, Tasks, TrainError};

/// Which rows to run on, and their preprocessing.
#[derive(Clone, Debug)]
pub struct SampleOptions {
    /// Name of the split, such as `test`.
    pub split: String,
    /// Rows in a batch.
    pub batch: usize,
    /// Number of rows; absent: all.
    pub limit: Option<usize>,
    /// The task; absent: that of the model's metadata, else classification.
    pub task: Option<Choice<Tasks>>,
    /// Changes to the preprocessing of the model's metadata.
    pub preprocess: PreprocessChanges,
}

/// Names of the tasks.
pub fn tasks() -> Vec<String> {
    Tasks::members().iter().map(|entry| entry.manual.name.to_string()).collect()
}

/// A task by its name, with the array that it predicts, where it predicts one.
///
/// # Errors
/// If there is no such task, or it predicts no array.
pub fn task_named(name: &str, target: Option<&str>) -> Result<Choice<Tasks>> {
    let settings = target.map(|target| ("target".to_string(), target.into())).into_iter().collect();
    Choice::new(name, settings).map_err(|fault| Error::Input(fault.to_string()))
}

impl Default for SampleOptions {
    /// The test split in batches of 64, task and preprocessing as the model's metadata say.
    fn default() -> Self {
        SampleOptions { split: "test".into(), batch: 64, limit: None, task: None, preprocess: PreprocessChanges::default() }
    }
}

impl SampleOptions {
    /// The given task, else that of the model's metadata, else the default.
    pub(crate) fn task(&self, model: &Model) -> Result<Choice<Tasks>> {
        match &self.task {
            Some(task) => Ok(task.clone()),
            None => Ok(train::task_of(model)?),
        }
    }
}

/// Batches in the data set's order.
pub(super) struct Samples {
    loader: LoaderBatches,
    /// Rows in all.
    pub(super) rows: usize,
    /// Batches in all.
    pub(super) batches: u64,
    /// Where the preprocessing came from.
    pub(super) preprocessing: Preprocessing,
    /// Classes without a row, as sentences.
    pub(super) notes: Vec<String>,
}

impl Samples {
    /// Opens the data set; for rows that are to be `scored`, labels are checked against the model's classes.
    pub(super) fn open(model: &Model, data: &Path, options: &SampleOptions, scored: bool) -> Result<Samples> {
        let task = options.task(model)?;
        let classes = if scored { task.classes(model) } else { None };
        let (preprocess, preprocessing) = preprocessing(model, &options.preprocess)?;
        if options.limit == Some(0) {
            return Err(Error::Input("--limit 0 leaves nothing to run on: give it at least 1, or leave it out for all rows".into()));
        }
        let dataset = data::open(data, &OpenOptions { wanted: task.wanted(), ..OpenOptions::split(&options.split) })?;
        let given = (!options.preprocess.is_empty()).then_some(&preprocess);
        data::check_heeded(dataset.as_ref(), given, &Augment::default())?;
        let preprocessing = if dataset.holds_arrays() && !preprocess.arrays { Preprocessing::Arrays } else { preprocessing };
        let mut notes = dataset.notes();
        let dataset = by_name(model, data, options, dataset, classes)?;
        let rules: InputRules = match model.metadata_get(train::INPUTS_KEY) {
            Some(json) => {
                serde_json::from_str(json).map_err(|e| Error::Input(format!("the model's metadata '{}': {e}", train::INPUTS_KEY)))?
            }
            None => InputRules::new(),
        };
        let feeding = Feeding::of(model, &rules)?;
        let rows = options.limit.map_or(dataset.len(), |n| n.min(dataset.len()));
        // Rows sorted by class: some of each are taken; but a carried state needs consecutive rows.
        let chosen = |_| if feeding.carries() { (0..rows).collect() } else { data::evenly(dataset.len(), rows) };
        let some: Option<Arc<Vec<usize>>> = options.limit.map(chosen).map(Arc::new);
        if let Some(n) = classes.filter(|_| !dataset.is_ready()) {
            let told = data::check_classes(dataset.as_ref(), some.as_deref().map(Vec::as_slice), n, data::Purpose::Evaluation)?;
            let limited = some.as_ref().map_or("", |_| " among the rows that --limit takes");
            notes.extend(told.into_iter().map(|note| format!("{note}{limited}")));
        }
        let batch = options.batch.max(1);
        let loading = LoaderOptions { batch, preprocess, rows: some, classes, ..LoaderOptions::default() };
        let loader = LoaderBatches::for_model(dataset, loading, model, &feeding)?;
        Ok(Samples { loader, rows, batches: rows.div_ceil(batch) as u64, preprocessing, notes })
    }

    /// The batches; `tick` is called with batches done and in all.
    pub(super) fn run<'a>(&'a self, tick: pipeline::actions::Tick<'a>) -> impl Iterator<Item = Result<Batch, TrainError>> + 'a {
        let (mut done, total) = (0, self.batches);
        let mut list = self.loader.epoch(0);
        std::iter::from_fn(move || {
            tick(done.min(total), total);
            let next = list.next()?;
            done += u64::from(!matches!(&next, Ok(batch) if batch.portion.continues));
            Some(next)
        })
    }
}

/// Batches of a data set whose rows are to be scored or trained on.
pub(crate) fn loader(model: &Model, data: &Path, options: &SampleOptions) -> Result<LoaderBatches> {
    Ok(Samples::open(model, data, options, true)?.loader)
}

/// The data set with its labels counted as the network counts its classes: by its metadata, else by the training set next to the
/// test set.
fn by_name(
    model: &Model,
    path: &Path,
    options: &SampleOptions,
    dataset: Arc<dyn Dataset>,
    classes: Option<usize>,
) -> Result<Arc<dyn Dataset>> {
    let mut names: Vec<String> = match model.metadata_get(train::CLASSES_KEY) {
        Some(json) => {
            serde_json::from_str(json).map_err(|e| Error::Input(format!("the model's metadata '{}': {e}", train::CLASSES_KEY)))?
        }
        None => vec![],
    };
    let Some(classes) = classes.and(train::class_scores(model)) else { return Ok(dataset) };
    if names.is_empty() && dataset.labels_are_positions() && options.split != "train" {
        names = data::open(path, &OpenOptions::split("train")).map_or(vec![], |train| train.class_names().to_vec());
    }
    if names.len() != classes {
        data::check_positions(dataset.as_ref(), classes)?;
    }
    Ok(data::relabel(dataset, &names)?)
}
