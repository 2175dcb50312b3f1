//! Batches from a data set: the loader's, under the names of the graph and the loss.
use crate::feeding::Carry;
use crate::objective::OFFSETS;
use crate::{Batch, Batches, Feeding, Portion, TrainError};
use data::{Dataset, Loader, LoaderOptions, Shuffle};
use graph::Model;
use std::collections::VecDeque;
use std::sync::Arc;

/// Encoded rows in the buffer of [`LoaderBatches::shuffled`], if one is needed.
const SHUFFLED: usize = 4096;

/// A data set as a source of batches. The options' epoch is replaced by the requested one.
#[derive(Clone)]
pub struct LoaderBatches {
    dataset: Arc<dyn Dataset>,
    options: LoaderOptions,
    feeding: Option<Arc<Feeding>>,
    /// The network whose outputs are fed back, if any.
    carries: Option<Arc<Model>>,
}

impl LoaderBatches {
    /// Over all rows, or the options' `rows`.
    pub fn new(dataset: Arc<dyn Dataset>, options: LoaderOptions) -> Self {
        LoaderBatches { dataset, options, feeding: None, carries: None }
    }

    /// Cuts batches into the runs that a model takes: its fixed number of samples, each input's samples along its own axis.
    ///
    /// # Errors
    /// Errors of arrays that cannot be cut into rows for this model.
    pub fn for_model(dataset: Arc<dyn Dataset>, mut options: LoaderOptions, model: &Model, feeding: &Feeding) -> Result<Self, TrainError> {
        let dataset = dataset.arranged(&feeding.places()).map_err(fault)?.unwrap_or(dataset);
        options.input = feeding.main().to_string();
        options.ragged = feeding.ragged();
        if feeding.carries() {
            options.shuffle = Shuffle::Off;
        }
        let carries = feeding.carries().then(|| Arc::new(model.clone()));
        Ok(LoaderBatches { dataset, options, feeding: Some(Arc::new(feeding.clone())), carries })
    }

    /// The same rows in a new order each epoch; in their own order if an output is fed back to the next row.
    pub fn shuffled(mut self, seed: u64) -> Self {
        if self.carries.is_none() {
            self.options.shuffle = Shuffle::On { buffer: SHUFFLED };
        }
        self.options.seed = seed;
        self
    }

    /// Rows of an epoch.
    pub fn rows(&self) -> usize {
        self.options.rows.as_ref().map_or(self.dataset.len(), |r| r.len())
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.dataset
    }

    /// Options of the loader: batch size, preprocessing, augmentation, order.
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
        targets.extend(b.targets.values);
        for (name, ragged) in b.targets.ragged {
            let offsets = tensor::Tensor::vector(ragged.offsets.iter().map(|o| *o as i64).collect::<Vec<_>>());
            targets.insert(format!("{name}{OFFSETS}"), offsets);
            targets.insert(name, ragged.values);
        }
        Batch { inputs: b.inputs, targets, portion: Portion { continues: b.continues, ..Portion::default() } }
    }
}

impl Batches for LoaderBatches {
    fn batches(&self) -> u64 {
        let (rows, batch) = (self.rows(), self.options.batch.max(1));
        (if self.options.drop_last { rows / batch } else { rows.div_ceil(batch) }) as u64
    }

    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        let loader = match Loader::new(self.dataset.clone(), LoaderOptions { epoch, ..self.options.clone() }) {
            Ok(loader) => loader,
            Err(e) => return Box::new(std::iter::once(Err(fault(e)))),
        };
        let Some(feeding) = self.feeding.as_deref() else { return Box::new(loader.map(|b| b.map(Batch::from).map_err(fault))) };
        let carry = match self.carries.as_deref().map(|model| Carry::new(model, feeding)).transpose() {
            Ok(carry) => carry,
            Err(e) => return Box::new(std::iter::once(Err(e))),
        };
        Box::new(BatchRuns { loader, feeding, carry, pending: VecDeque::new() })
    }

    fn runs_alone(&self) -> bool {
        self.feeding.as_ref().is_some_and(|f| f.fixed().is_some() || f.carries()) || self.dataset.is_ready()
    }
}

/// The loader's batches as runs of a model.
struct BatchRuns<'a> {
    loader: Loader,
    feeding: &'a Feeding,
    carry: Option<Carry<'a>>,
    pending: VecDeque<Batch>,
}

impl Iterator for BatchRuns<'_> {
    type Item = Result<Batch, TrainError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.pending.is_empty() {
            match self.loader.next()?.map_err(fault).and_then(|b| self.feeding.runs(b)) {
                Ok(runs) => self.pending = runs.into(),
                Err(e) => return Some(Err(e)),
            }
        }
        let mut run = self.pending.pop_front()?;
        match self.carry.as_mut().map_or(Ok(()), |c| c.feed(&mut run)) {
            Ok(()) => Some(Ok(run)),
            Err(e) => Some(Err(e)),
        }
    }
}
