//! Batches of a data set for a model: what `evaluate` and `compare` run on.
use super::preprocessing::{PreprocessChanges, Preprocessing, preprocessing};
use crate::{Error, Result};
use data::{Loader, LoaderOptions, OpenOptions};
use graph::Model;
use std::path::Path;
use std::sync::Arc;
use train::{Batch, TrainError};

/// Which rows, and how an image becomes an input.
#[derive(Clone, Debug)]
pub struct SampleOptions {
    /// The split.
    pub split: String,
    /// Rows that run at once.
    pub batch: usize,
    /// Only so many rows.
    pub limit: Option<usize>,
    /// How an image becomes an input, where it differs from what the model's metadata say.
    pub preprocess: PreprocessChanges,
}

/// Batches in the data set's order.
pub(super) struct Samples {
    loader: Loader,
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
    /// Opens the data set; labels are checked against `classes`, if given.
    pub(super) fn open(model: &Model, data: &Path, options: &SampleOptions, classes: Option<usize>) -> Result<Samples> {
        let (preprocess, preprocessing) = preprocessing(model, &options.preprocess)?;
        let dataset = data::open(data, &OpenOptions::split(&options.split))?;
        let input = model.free_inputs().first().map(|v| model.values[*v].name.clone());
        let input = input.ok_or_else(|| Error::Input("the model has no input".into()))?;
        let rows = options.limit.map_or(dataset.len(), |n| n.min(dataset.len()));
        let some = options.limit.map(|_| Arc::new((0..rows).collect()));
        let notes = match classes {
            Some(n) if options.limit.is_none() => data::check_classes(dataset.as_ref(), None, n, data::Purpose::Evaluation)?,
            _ => vec![],
        };
        let batch = options.batch.max(1);
        let loader = Loader::new(dataset, LoaderOptions { batch, preprocess, input, rows: some, classes, ..LoaderOptions::default() })?;
        Ok(Samples { loader, rows, batches: rows.div_ceil(batch) as u64, preprocessing, notes })
    }

    /// The batches; `tick` hears how many of how many are done.
    pub(super) fn run<'a>(self, tick: pipeline::actions::Tick<'a>) -> impl Iterator<Item = Result<Batch, TrainError>> + 'a {
        let (mut done, total) = (0, self.batches);
        let mut list = self.loader;
        std::iter::from_fn(move || {
            tick(done, total);
            done += 1;
            list.next().map(|b| b.map(Batch::from).map_err(|e| TrainError::Data(e.to_string())))
        })
    }
}
