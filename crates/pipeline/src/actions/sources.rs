//! The recipe's data sets, opened once, and the batches that stages read from them.
use super::scoring::scoring_batch;
use crate::StageError;
use crate::recipe::{CalibrationData, CalibrationSettings, DataSettings, Loaded};
use data::{Dataset, Holdout, LoaderOptions, OpenOptions, Preprocess, Purpose, Shuffle, Wanted, check_classes, split_holdout};
use graph::Model;
use std::path::Path;
use std::sync::Arc;
use technique::Choice;
use tensor::Tensor;
use train::{Batches, Feeding, LoaderBatches, Named, Tasks};

/// Numbers of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Training samples, without the held-out ones.
    pub train: usize,
    /// Validation samples.
    pub validation: usize,
    /// Test samples.
    pub test: usize,
}

/// The data of a run.
pub struct Sources {
    settings: DataSettings,
    task: Choice<Tasks>,
    seed: u64,
    train: Option<Arc<dyn Dataset>>,
    train_rows: Option<Arc<Vec<usize>>>,
    validation: Option<(Arc<dyn Dataset>, Option<Arc<Vec<usize>>>)>,
    test: Option<Arc<dyn Dataset>>,
}

impl Sources {
    /// Opens what the recipe names; paths are looked for below `root`, then below the recipe's folder.
    ///
    /// # Errors
    /// For a data set that is missing or damaged.
    pub fn open(loaded: &Loaded, root: Option<&Path>) -> Result<Sources, StageError> {
        let recipe = &loaded.recipe;
        let Some(settings) = recipe.data.clone() else {
            let settings: DataSettings = toml::from_str("")?;
            let task = recipe.task.clone();
            return Ok(Sources { settings, task, seed: recipe.seed, train: None, train_rows: None, validation: None, test: None });
        };
        let open = |path: &Option<String>, split: &str| -> Result<Option<Arc<dyn Dataset>>, StageError> {
            let Some(path) = path else { return Ok(None) };
            let options = OpenOptions {
                cache_bytes: settings.cache.0,
                input_column: settings.input_column.clone(),
                label_column: settings.label_column.clone(),
                wanted: recipe.task.wanted(),
                ..OpenOptions::split(split)
            };
            Ok(Some(data::open(&loaded.resolve(path, root), &options)?))
        };
        let some = |dataset: Option<Arc<dyn Dataset>>, rows: Option<[usize; 2]>| match (dataset, rows) {
            (Some(dataset), Some([from, to])) => Ok(Some(data::part(dataset, from..to)?)),
            (dataset, _) => Ok::<_, StageError>(dataset),
        };
        let train = some(open(&settings.train, "train")?, settings.train_rows)?;
        let test = some(open(&settings.test, "test")?, settings.test_rows)?;
        let mut train_rows = None;
        let mut validation = open(&settings.validation_set, "validation")?.map(|d| (d, None));
        if let (None, Some(train), true) = (&validation, &train, settings.validation > 0.0) {
            let split = split_holdout(train.as_ref(), Holdout::Fraction(settings.validation), recipe.seed)?;
            train_rows = Some(Arc::new(split.train));
            validation = Some((train.clone(), Some(Arc::new(split.held_out))));
        }
        Ok(Sources { settings, task: recipe.task.clone(), seed: recipe.seed, train, train_rows, validation, test })
    }

    /// The recipe's task.
    pub fn task(&self) -> &Choice<Tasks> {
        &self.task
    }

    /// The preprocessing: the recipe's, else that of the model's metadata, else the default.
    ///
    /// # Errors
    /// If the metadata cannot be read.
    pub fn preprocess(&self, model: &Model) -> Result<Preprocess, StageError> {
        if let Some(p) = &self.settings.preprocess {
            return Ok(p.clone());
        }
        match model.metadata_get(data::METADATA_KEY) {
            Some(text) => serde_json::from_str(text).map_err(|e| format!("metadata '{}': {e}", data::METADATA_KEY).into()),
            None => Ok(Preprocess::default()),
        }
    }

    /// Writes preprocessing and class names into a model's metadata, so that they need not be given again. A recipe without data
    /// and preprocessing writes nothing.
    ///
    /// # Errors
    /// As [`Sources::preprocess`].
    pub fn describe(&self, model: &mut Model) -> Result<(), StageError> {
        // Arrays that are used as they are have no preprocessing to write.
        let pixels = [&self.train, &self.test].into_iter().flatten().any(|d| !d.holds_arrays());
        let preprocess = self.preprocess(model)?;
        if pixels || preprocess.arrays || (self.settings.preprocess.is_some() && self.train.is_none() && self.test.is_none()) {
            model.metadata_set(data::METADATA_KEY, serde_json::to_string(&preprocess)?);
        }
        if !self.settings.inputs.is_empty() {
            model.metadata_set(train::INPUTS_KEY, serde_json::to_string(&self.settings.inputs)?);
        }
        if self.task != Choice::default() {
            model.metadata_set(train::TASK_KEY, serde_json::to_string(&self.task)?);
        }
        let names = self.class_names_for(model)?;
        if !names.is_empty() {
            model.metadata_set(train::CLASSES_KEY, serde_json::to_string(&names)?);
        }
        Ok(())
    }

    /// True if a row's target is a class.
    fn classifies(&self) -> bool {
        self.task.wanted() == Wanted::Class
    }

    /// Notes on the classes in the training samples that `purpose` uses.
    fn class_notes(&self, model: &Model, dataset: &Arc<dyn Dataset>, purpose: Purpose) -> Result<Vec<String>, StageError> {
        // A run may have several labels, or as many as it has nodes or steps.
        if dataset.is_ready() || !self.classifies() {
            return Ok(vec![]);
        }
        let named = Some(dataset.class_names().len()).filter(|n| *n > 0);
        let Some(classes) = named.or_else(|| self.task.classes(model)) else { return Ok(vec![]) };
        let rows = self.train_rows.as_ref().map(|r| r.as_slice());
        Ok(check_classes(dataset.as_ref(), rows, classes, purpose)?)
    }

    /// The classes in the order in which the network counts them: those of its metadata, if the training data have no others;
    /// else those of the training data; else those of the metadata or the test data.
    pub(super) fn class_names_for(&self, model: &Model) -> Result<Vec<String>, StageError> {
        if !self.classifies() {
            return Ok(vec![]);
        }
        let known: Vec<String> = match model.metadata_get(train::CLASSES_KEY) {
            Some(json) => serde_json::from_str(json).map_err(|e| format!("metadata '{}': {e}", train::CLASSES_KEY))?,
            None => vec![],
        };
        let own = self.train.as_ref().map_or(&[][..], |d| d.class_names());
        if own.is_empty() {
            let test = self.test.as_ref().map_or(&[][..], |d| d.class_names());
            return Ok(if known.is_empty() { test.to_vec() } else { known });
        }
        Ok(if own.iter().all(|name| known.contains(name)) { known } else { own.to_vec() })
    }

    /// Notes on the data before the first run: files that are skipped, and classes without a test row.
    pub fn notes(&self, model: &Model) -> Vec<String> {
        let validation = self.validation.as_ref().map(|(d, _)| d);
        let mut notes: Vec<String> = [&self.train, &self.test].into_iter().flatten().chain(validation).flat_map(|d| d.notes()).collect();
        notes.sort();
        notes.dedup();
        // Data without targets are reported where they are scored.
        if let (Some(test), Some(classes)) = (&self.test, self.task.classes(model))
            && let Ok(test) = self.by_name(test, model, true)
        {
            notes.extend(check_classes(test.as_ref(), None, classes, Purpose::Evaluation).unwrap_or_default());
        }
        notes
    }

    /// A data set with its labels counted as the network counts its classes. Data that are `scored` are refused if the order of
    /// classes cannot be known.
    fn by_name(&self, dataset: &Arc<dyn Dataset>, model: &Model, scored: bool) -> Result<Arc<dyn Dataset>, StageError> {
        let names = self.class_names_for(model)?;
        if let Some(classes) = train::class_scores(model).filter(|n| scored && self.classifies() && names.len() != *n) {
            data::check_positions(dataset.as_ref(), classes)?;
        }
        Ok(data::relabel(dataset.clone(), &names)?)
    }

    /// Notes on classes without a sample among the calibration samples.
    ///
    /// # Errors
    /// If the labels cannot be read.
    pub fn calibration_notes(&self, model: &Model) -> Result<Vec<String>, StageError> {
        self.train.as_ref().map_or(Ok(vec![]), |dataset| self.class_notes(model, dataset, Purpose::Calibration))
    }

    /// How the data become a model's inputs: by the recipe's rules and the inputs' declarations.
    ///
    /// # Errors
    /// For a rule that does not fit the model.
    pub fn feeding(&self, model: &Model) -> Result<Feeding, StageError> {
        Ok(Feeding::of(model, &self.settings.inputs)?)
    }

    fn options(&self, model: &Model) -> Result<LoaderOptions, StageError> {
        let workers = self.settings.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let (preprocess, classes) = (self.preprocess(model)?, self.task.classes(model));
        Ok(LoaderOptions { preprocess, seed: self.seed, workers, classes, ..LoaderOptions::default() })
    }

    /// Batches of a data set, in the runs that the model takes.
    fn batches(&self, dataset: &Arc<dyn Dataset>, options: LoaderOptions, model: &Model) -> Result<LoaderBatches, StageError> {
        data::check_heeded(dataset.as_ref(), self.settings.preprocess.as_ref(), &self.settings.augment)?;
        Ok(LoaderBatches::for_model(dataset.clone(), options, model, &self.feeding(model)?)?)
    }

    /// Shuffled, augmented training batches of the stage with this key.
    ///
    /// # Errors
    /// If the recipe names no training data, or a class has no sample.
    pub fn training(&self, model: &Model, stage: u64, batch: usize) -> Result<LoaderBatches, StageError> {
        let dataset = self.train.clone().ok_or_else(|| "the recipe names no data.train, and this stage trains".to_string())?;
        let dataset = self.by_name(&dataset, model, true)?;
        self.class_notes(model, &dataset, Purpose::Training)?;
        let options = LoaderOptions {
            batch,
            stage,
            shuffle: Shuffle::On { buffer: self.settings.shuffle_buffer },
            augment: self.settings.augment.clone(),
            drop_last: self.train_rows.as_ref().map_or(dataset.len(), |r| r.len()) >= batch,
            rows: self.train_rows.clone(),
            ..self.options(model)?
        };
        self.batches(&dataset, options, model)
    }

    /// The images that stand for the data: of the size that the preprocessing makes, else of the input's.
    fn generated(&self, model: &Model, seed: u64, len: usize) -> Result<Arc<dyn Dataset>, StageError> {
        const UNFIT: &str = "calibration.data = \"generated\" makes images";
        let inputs = model.free_inputs();
        let shape = match inputs.as_slice() {
            [one] => model.values[*one].shape().filter(|s| s.len() == 4).map(|s| s.iter().map(|d| d.known()).collect::<Vec<_>>()),
            _ => None,
        };
        let shape = shape.ok_or_else(|| format!("{UNFIT}, and the model does not take one image as its only input"))?;
        let preprocess = self.preprocess(model)?;
        let (channels, sides) = match preprocess.layout {
            data::Layout::Nchw => (shape[1], [shape[2], shape[3]]),
            data::Layout::Nhwc => (shape[3], [shape[1], shape[2]]),
        };
        let sides = match (preprocess.size, preprocess.crop, sides) {
            (Some(data::Size::Exact(sides)), ..) => sides,
            (Some(data::Size::ShorterSide(side)), ..) => [side, side],
            (None, Some(sides), _) => sides,
            (None, None, [Some(height), Some(width)]) => [height, width],
            _ => return Err(format!("{UNFIT}, and neither the input nor data.preprocess.size tells their size").into()),
        };
        let channels = preprocess.channels.or(channels).unwrap_or(3);
        Ok(Arc::new(data::GeneratedImages::new(sides, channels, seed, len)?))
    }

    /// The first `images` of the training samples in an order drawn from the seed (`seed` is the recipe's), neither shuffled again nor
    /// augmented; and the `hold` samples after them to judge by, if any are asked for. If there are not enough for both, a fifth is
    /// held back; of fewer than five samples none.
    ///
    /// # Errors
    /// If the recipe names no training data and the settings do not ask for generated images, or the model takes none.
    pub fn calibration(
        &self,
        model: &Model,
        settings: &CalibrationSettings,
        seed: u64,
        hold: usize,
    ) -> Result<(LoaderBatches, Option<LoaderBatches>), StageError> {
        let (samples, batch, seed) = (settings.images, settings.batch, settings.seed.unwrap_or(seed));
        let (dataset, rows) = match settings.data {
            CalibrationData::Generated => (self.generated(model, seed, samples.saturating_add(hold))?, None),
            CalibrationData::Train => (
                self.train.clone().ok_or("the recipe names no data.train, and calibration takes samples from it")?,
                self.train_rows.as_ref(),
            ),
        };
        let all: Vec<usize> = match rows {
            Some(rows) => rows.to_vec(),
            None => (0..dataset.len()).collect(),
        };
        let feeding = self.feeding(model)?;
        // A state that is carried from row to row needs the rows in their order.
        let order = if feeding.carries() { (0..all.len()).collect() } else { tensor::random::permutation(seed, all.len()) };
        let hold = if samples.saturating_add(hold) <= all.len() { hold } else { hold.min(all.len() / 5) };
        let samples = samples.min(all.len() - hold);
        // Whole runs, so that no sample is used twice.
        let run = if dataset.is_ready() { 1 } else { feeding.fixed().unwrap_or(1) };
        // Calibration reads no labels, so they need not be the model's.
        let options = LoaderOptions { batch: batch.next_multiple_of(run), classes: None, ..self.options(model)? };
        let part = |from: usize, count: usize| {
            let mut rows: Vec<usize> = order.iter().skip(from).take(count).map(|i| all[*i]).collect();
            rows.sort_unstable();
            if rows.len() > run {
                rows.truncate(rows.len() / run * run);
            }
            self.batches(&dataset, LoaderOptions { rows: Some(Arc::new(rows)), ..options.clone() }, model)
        };
        Ok((part(0, samples)?, (hold > 0).then(|| part(samples, hold)).transpose()?))
    }

    /// Samples to judge a choice by, never test samples: `samples` of the validation samples if there are any, evenly chosen, else
    /// training samples after the `calibrated` first ones in an order drawn from `seed`. Also what they are, as the end of a
    /// sentence, and whether they have targets that the model can be scored on.
    ///
    /// # Errors
    /// If the recipe names no training data, or the rows cannot be read.
    pub fn judging(
        &self,
        model: &Model,
        samples: usize,
        batch: usize,
        (seed, calibrated): (u64, usize),
    ) -> Result<(LoaderBatches, String, bool), StageError> {
        let feeding = self.feeding(model)?;
        let (dataset, mut rows, told) = match (&self.validation, &self.train) {
            (Some((dataset, rows)), _) => {
                let all: Vec<usize> = rows.as_ref().map_or_else(|| (0..dataset.len()).collect(), |rows| rows.to_vec());
                let evenly = if feeding.carries() { (0..samples.min(all.len())).collect() } else { data::evenly(all.len(), samples) };
                (dataset, evenly.into_iter().map(|i| all[i]).collect::<Vec<_>>(), "validation samples")
            }
            (None, Some(dataset)) => {
                let all: Vec<usize> = self.train_rows.as_ref().map_or_else(|| (0..dataset.len()).collect(), |rows| rows.to_vec());
                let order = if feeding.carries() { (0..all.len()).collect() } else { tensor::random::permutation(seed, all.len()) };
                let from = calibrated.min(all.len().saturating_sub(samples));
                let told = match (calibrated, from < calibrated) {
                    (0, _) => "training samples",
                    (_, true) => "training samples, calibration samples among them",
                    (_, false) => "training samples that are not calibration samples",
                };
                (dataset, order.iter().skip(from).take(samples).map(|i| all[*i]).collect(), told)
            }
            (None, None) => return Err("the recipe names no data.train, and sensitivities are measured on samples from it".into()),
        };
        rows.sort_unstable();
        // Whole runs, so that no sample counts twice.
        let run = if dataset.is_ready() { 1 } else { feeding.fixed().unwrap_or(1) };
        if rows.len() > run {
            rows.truncate(rows.len() / run * run);
        }
        // Without labels that are the model's, only the outputs are judged.
        let named = self.by_name(dataset, model, true).ok();
        let options = self.options(model)?;
        let options = LoaderOptions {
            batch: batch.next_multiple_of(run),
            classes: options.classes.filter(|_| named.is_some()),
            rows: Some(Arc::new(rows)),
            ..options
        };
        let labelled = named.is_some();
        Ok((self.batches(&named.unwrap_or_else(|| dataset.clone()), options, model)?, told.to_string(), labelled))
    }

    /// How many samples scoring runs at once. Where a sample cannot be read, reading the batches says why.
    fn scoring_batch(&self, model: &Model) -> usize {
        let run = self.one_sample(model).unwrap_or_default();
        scoring_batch(model, &run, self.feeding(model).ok().and_then(|f| f.fixed()).unwrap_or(1))
    }

    /// Held-out samples, if there are any.
    ///
    /// # Errors
    /// If the model has no input.
    pub fn validation(&self, model: &Model) -> Result<Option<LoaderBatches>, StageError> {
        let Some((dataset, rows)) = &self.validation else { return Ok(None) };
        let options = LoaderOptions { batch: self.scoring_batch(model), rows: rows.clone(), ..self.options(model)? };
        Ok(Some(self.batches(&self.by_name(dataset, model, true)?, options, model)?))
    }

    /// The test samples, if the recipe names any.
    ///
    /// # Errors
    /// If the model has no input.
    pub fn test(&self, model: &Model) -> Result<Option<LoaderBatches>, StageError> {
        let Some(dataset) = &self.test else { return Ok(None) };
        let options = LoaderOptions { batch: self.scoring_batch(model), ..self.options(model)? };
        Ok(Some(self.batches(&self.by_name(dataset, model, true)?, options, model)?))
    }

    /// At most `limit` of the test samples, evenly chosen, so that a set sorted by class gives some of each.
    ///
    /// # Errors
    /// As [`Sources::test`].
    pub fn some_test(&self, model: &Model, limit: Option<usize>) -> Result<Option<LoaderBatches>, StageError> {
        let (Some(limit), Some(dataset)) = (limit, &self.test) else { return self.test(model) };
        let rows = data::evenly(dataset.len(), limit);
        let options = LoaderOptions { batch: self.scoring_batch(model), rows: Some(Arc::new(rows)), ..self.options(model)? };
        Ok(Some(self.batches(&self.by_name(dataset, model, true)?, options, model)?))
    }

    /// The number of rows in each part.
    pub fn rows(&self) -> Rows {
        let len = |d: &Option<Arc<dyn Dataset>>| d.as_ref().map_or(0, |d| d.len());
        Rows {
            train: self.train_rows.as_ref().map_or(len(&self.train), |r| r.len()),
            validation: self.validation.as_ref().map_or(0, |(d, rows)| rows.as_ref().map_or(d.len(), |r| r.len())),
            test: len(&self.test),
        }
    }

    /// One sample to run a model on: the first test or training sample, else zeros of the input's declared shape.
    ///
    /// # Errors
    /// If the data cannot be read, or there is none and an input's shape or type is not declared.
    pub fn one_sample(&self, model: &Model) -> Result<Named, StageError> {
        if let Some(dataset) = self.test.clone().or(self.train.clone()) {
            let options = LoaderOptions { batch: 1, workers: 0, rows: Some(Arc::new(vec![0])), classes: None, ..self.options(model)? };
            let batches = self.batches(&dataset, options, model)?;
            let first = batches.epoch(0).next();
            return Ok(first.ok_or("the data set has no row")??.inputs);
        }
        let mut inputs = Named::new();
        for id in model.free_inputs() {
            let value = &model.values[id];
            let undeclared = || format!("input '{}' has no declared shape, and the recipe no data to take one from", value.name);
            let shape = value.shape().ok_or_else(undeclared)?;
            let shape: Vec<usize> = shape.iter().map(|d| d.known().unwrap_or(1)).collect();
            inputs.insert(value.name.clone(), Tensor::zeros(value.dtype().ok_or_else(undeclared)?, &shape)?);
        }
        Ok(inputs)
    }

    /// Class names of the data, if they have any.
    pub fn class_names(&self) -> &[String] {
        self.train.as_ref().or(self.test.as_ref()).map_or(&[], |d| d.class_names())
    }
}
