//! Batches from a data set: the loader's, under the names the graph and the loss know.
use crate::objective::OFFSETS;
use crate::{Batch, Batches, TrainError};
use data::{Dataset, Loader, LoaderOptions};
use std::sync::Arc;

/// A data set as a source of batches. The options' epoch is replaced by the one asked for.
#[derive(Clone)]
pub struct LoaderBatches {
    dataset: Arc<dyn Dataset>,
    options: LoaderOptions,
}

impl LoaderBatches {
    /// Over all rows, or the options' `rows`.
    pub fn new(dataset: Arc<dyn Dataset>, options: LoaderOptions) -> Self {
        LoaderBatches { dataset, options }
    }

    /// Rows of an epoch.
    pub fn rows(&self) -> usize {
        self.options.rows.as_ref().map_or(self.dataset.len(), |r| r.len())
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.dataset
    }

    /// The options.
    pub fn options(&self) -> &LoaderOptions {
        &self.options
    }
}

fn fault(e: data::DataError) -> TrainError {
    TrainError::Data(e.to_string())
}

impl From<data::Batch> for Batch {
    fn from(b: data::Batch) -> Batch {
        let mut targets = std::collections::BTreeMap::new();
        if let Some(labels) = b.targets.labels {
            targets.insert("label".to_string(), labels);
        }
        for (name, ragged) in b.targets.ragged {
            let offsets = tensor::Tensor::vector(ragged.offsets.iter().map(|o| *o as i64).collect::<Vec<_>>());
            targets.insert(format!("{name}{OFFSETS}"), offsets);
            targets.insert(name, ragged.values);
        }
        Batch { inputs: b.inputs, targets }
    }
}

impl Batches for LoaderBatches {
    fn batches(&self) -> u64 {
        let (rows, batch) = (self.rows(), self.options.batch.max(1));
        (if self.options.drop_last { rows / batch } else { rows.div_ceil(batch) }) as u64
    }

    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        match Loader::new(self.dataset.clone(), LoaderOptions { epoch, ..self.options.clone() }) {
            Ok(loader) => Box::new(loader.map(|b| b.map(Batch::from).map_err(fault))),
            Err(e) => Box::new(std::iter::once(Err(fault(e)))),
        }
    }
}
