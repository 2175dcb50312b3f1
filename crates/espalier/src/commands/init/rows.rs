//! The contents of a data set, as far as a recipe states them.
use crate::{Error, Result};
use data::{Content, Dataset, Loader, LoaderOptions, OpenOptions, Preprocess};
use graph::Model;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use technique::{Choice, Family};
use train::{Feeding, InputRules, Tasks};

/// Rows to look at to see whether all are alike.
const LOOKED_AT: usize = 32;

/// A model's data.
pub(super) struct Found {
    pub(super) train: Arc<dyn Dataset>,
    pub(super) test: Arc<dyn Dataset>,
    /// Path of the test samples.
    pub(super) test_path: PathBuf,
    /// A warning where there is no test split.
    pub(super) warning: Option<&'static str>,
    pub(super) kind: Kind,
    pub(super) labelled: bool,
    /// The task, from the model's metadata or from the data.
    pub(super) task: Choice<Tasks>,
}

/// The kind of a row's content.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Images: channels, height and width of the first, and whether all rows looked at have this size.
    Images { channels: usize, height: usize, width: usize, alike: bool },
    /// Sounds: the number of samples of the first, and whether all rows looked at have this length.
    Sounds { length: usize, alike: bool },
    /// Arrays, which are given to the model as they are.
    Arrays,
}

impl Found {
    /// The data for a model: arrays are cut into rows as its inputs ask for.
    pub(super) fn open(path: &Path, test: Option<&Path>, model: &Model) -> Result<Found> {
        let places = Feeding::of(model, &InputRules::new())?.places();
        let task = task(path, model, places.keys().map(String::as_str))?;
        let split = |path: &Path, name: &str| {
            let dataset = data::open(path, &OpenOptions { wanted: task.wanted(), ..OpenOptions::split(name) })?;
            Ok::<_, data::DataError>(dataset.arranged(&places)?.unwrap_or(dataset))
        };
        let train = split(path, "train")?;
        let whole = data::open(path, &OpenOptions::default()).is_ok();
        const SAME: &str = "the data set has no test split, so the result is measured on the samples that calibration and training take \
                            from: name others in data.test (--test)";
        let (test, test_path, warning) = match test {
            Some(own) => (split(own, "test")?, own.to_path_buf(), None),
            None => match split(path, "test") {
                Ok(found) => (found, path.to_path_buf(), whole.then_some(SAME)),
                Err(_) => match validation(path) {
                    Some(folder) => (split(&folder, "test")?, folder, None),
                    None => (train.clone(), path.to_path_buf(), Some(SAME)),
                },
            },
        };
        let first = train.read(0)?;
        let labelled = first.label.is_some() || !first.values.is_empty();
        let kind = kind(&train, &first.content)?;
        Ok(Found { train, test, test_path, warning, kind, labelled, task })
    }
}

/// The task: that of the model's metadata; else a regression if the data have no classes but an array that is named like a target
/// and is no input; else the default.
fn task<'a>(path: &Path, model: &Model, mut inputs: impl Iterator<Item = &'a str>) -> Result<Choice<Tasks>> {
    let known = train::task_of(model)?;
    if model.metadata_get(train::TASK_KEY).is_some() {
        return Ok(known);
    }
    let opened = |task: &Choice<Tasks>| data::open(path, &OpenOptions { wanted: task.wanted(), ..OpenOptions::split("train") });
    let classes = opened(&known).and_then(|d| Ok(d.read(0)?.label.is_some()));
    if classes.as_ref().is_ok_and(|labelled| *labelled) || inputs.any(|name| data::TARGET_NAMES.contains(&name)) {
        return Ok(known);
    }
    // The first other task whose targets are in the data.
    let others = Tasks::members().iter().filter_map(|entry| Choice::named(entry.manual.name).ok()).filter(|t| *t != known);
    let found = others.into_iter().find(|task| opened(task).is_ok_and(|d| d.read(0).is_ok_and(|row| !row.values.is_empty())));
    Ok(found.unwrap_or(known))
}

/// A folder of validation samples if there is no test split.
fn validation(path: &Path) -> Option<PathBuf> {
    ["validation", "valid", "val", "dev"].iter().map(|name| path.join(name)).find(|folder| folder.is_dir())
}

fn kind(train: &Arc<dyn Dataset>, first: &Content) -> Result<Kind> {
    let sound = match first {
        Content::Arrays(_) | Content::Ready { .. } => return Ok(Kind::Arrays),
        Content::Audio(_) => true,
        Content::Image(_) => false,
        Content::Encoded(bytes) => bytes.starts_with(b"RIFF"),
    };
    let count = LOOKED_AT.min(train.len());
    let rows: Vec<usize> = (0..count).map(|i| i * train.len() / count.max(1)).collect();
    let options =
        LoaderOptions { batch: 1, workers: 0, rows: Some(Arc::new(rows)), preprocess: Preprocess::default(), ..LoaderOptions::default() };
    let mut shapes = vec![];
    for batch in Loader::new(train.clone(), options)? {
        let batch = batch?;
        let row = batch.inputs.values().next().ok_or_else(|| Error::Input("the data set has no row".into()))?;
        shapes.push(row.shape()[1..].to_vec());
    }
    let first = shapes.first().ok_or_else(|| Error::Input("the data set has no row".into()))?;
    let alike = shapes.iter().all(|s| s == first);
    Ok(match (sound, first.as_slice()) {
        (true, [length]) => Kind::Sounds { length: *length, alike },
        (false, [channels, height, width]) => Kind::Images { channels: *channels, height: *height, width: *width, alike },
        _ => Kind::Arrays,
    })
}
