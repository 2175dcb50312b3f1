//! Batches of an epoch, made on other threads ahead of their consumer.
//!
//! Workers take turns at the feed (a lock): the worker that holds it takes the next rows, puts the receiving end of its result
//! into a bounded queue, and decodes after releasing the lock. So the queue holds the batches in order, however long each takes.
use crate::augment::Augment;
use crate::batch::{Batch, BatchRecipe};
use crate::feed::Feed;
use crate::preprocess::Preprocess;
use crate::{DataError, Dataset, Result};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// The order of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shuffle {
    /// In the data set's order.
    #[default]
    Off,
    /// A new order each epoch. Where any order is cheap to read, a permutation of all rows. Where rows come in runs
    /// ([`Dataset::runs`]), the runs are permuted, then the rows of each, then rows are drawn from a buffer.
    On {
        /// Rows (still encoded) that the buffer holds, where it is needed.
        buffer: usize,
    },
}

/// What to load and how.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Rows in a batch.
    pub batch: usize,
    /// The order of rows.
    pub shuffle: Shuffle,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// The stage, so that two stages with one seed differ.
    pub stage: u64,
    /// The epoch, so that each has an order and augmentation of its own.
    pub epoch: u64,
    /// Random changes to images.
    pub augment: Augment,
    /// How a row becomes an input.
    pub preprocess: Preprocess,
    /// Threads that make batches; 0: the caller's own.
    pub workers: usize,
    /// Leaves out the last batch if it is not full.
    pub drop_last: bool,
    /// The rows to load, in this order if they are not shuffled; absent: all.
    pub rows: Option<Arc<Vec<usize>>>,
    /// Name of the input (of images, sounds and lone arrays).
    pub input: String,
    /// Number of classes that labels are checked against, beside the number of classes that the data set names, if it does.
    pub classes: Option<usize>,
    /// Batches to skip at the beginning of the epoch, without making them: for a resumed run.
    pub skip: usize,
    /// Rows of different shapes are no error: they come in batches of one shape each, [`Batch::continues`] set on all but the last.
    pub ragged: bool,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        LoaderOptions {
            batch: 64,
            shuffle: Shuffle::Off,
            seed: 0,
            stage: 0,
            epoch: 0,
            augment: Augment::default(),
            preprocess: Preprocess::default(),
            workers: 1,
            drop_last: false,
            rows: None,
            input: "input".into(),
            classes: None,
            skip: 0,
            ragged: false,
        }
    }
}

/// The batches of one epoch: an iterator that ends at the first error. The same options give the same batches, whatever
/// `workers` is.
///
/// Memory: `2 * workers + 2` batches, the shuffle buffer's encoded rows where it is needed, one run of rows, and 8
/// bytes for each row of the epoch.
pub struct Loader {
    batches: usize,
    source: BatchSource,
    /// The remaining pieces of a batch whose rows differ in shape.
    pending: VecDeque<Batch>,
    workers: Vec<JoinHandle<()>>,
}

enum BatchSource {
    Here(Box<(Feed, BatchRecipe)>),
    Threads(Receiver<Receiver<Result<Vec<Batch>>>>),
    Ended,
}

impl Loader {
    /// Prepares an epoch and starts its workers.
    ///
    /// # Errors
    /// [`DataError::Invalid`] if options are at fault; [`DataError::Row`] if `rows` names one that does not exist.
    pub fn new(dataset: Arc<dyn Dataset>, options: LoaderOptions) -> Result<Self> {
        if options.batch == 0 {
            return Err(DataError::invalid("batch = 0: a batch has at least one row"));
        }
        options.preprocess.validate()?;
        let named = dataset.class_names().len();
        let recipe = BatchRecipe {
            input: options.input.clone(),
            classes: options.classes.into_iter().chain((named > 0).then_some(named)).min(),
            preprocess: options.preprocess.clone(),
            draws: Augment::draws(options.seed, options.stage, options.epoch),
            augment: options.augment.clone(),
            ragged: options.ragged,
        };
        let feed = Feed::new(dataset, &options)?;
        let batches = feed.batches();
        if options.workers == 0 {
            let source = BatchSource::Here(Box::new((feed, recipe)));
            return Ok(Loader { batches, source, pending: VecDeque::new(), workers: vec![] });
        }
        let (queue, receiver) = sync_channel(options.workers + 1);
        let shared = Arc::new((Mutex::new(feed), recipe));
        let spawn = |_| {
            let (shared, queue) = (shared.clone(), queue.clone());
            std::thread::Builder::new().name("espalier-loader".into()).spawn(move || work(&shared.0, &shared.1, &queue))
        };
        let workers = (0..options.workers).map(spawn).collect::<Result<_, _>>();
        let workers = workers.map_err(|e| DataError::invalid(format!("workers = {}: {e}", options.workers)))?;
        Ok(Loader { batches, source: BatchSource::Threads(receiver), pending: VecDeque::new(), workers })
    }

    /// Batches left in the epoch.
    pub fn remaining(&self) -> usize {
        self.batches
    }
}

/// A worker's loop: until the epoch ends or the consumer is gone.
fn work(feed: &Mutex<Feed>, recipe: &BatchRecipe, queue: &SyncSender<Receiver<Result<Vec<Batch>>>>) {
    loop {
        let (sender, receiver) = sync_channel(1);
        let rows = {
            let mut feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(rows) = feed.next_batch() else { return };
            if queue.send(receiver).is_err() {
                return;
            }
            rows
        };
        // The consumer may have left meanwhile; the next turn at the queue will notice.
        let _ = sender.send(rows.and_then(|rows| rows.batches(recipe)));
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(batch) = self.pending.pop_front() {
            return Some(Ok(batch));
        }
        let batches = match &mut self.source {
            BatchSource::Ended => return None,
            BatchSource::Here(here) => here.0.next_batch().map(|rows| rows.and_then(|rows| rows.batches(&here.1))),
            BatchSource::Threads(queue) => queue.recv().ok().map(|batch| {
                batch.recv().unwrap_or_else(|_| Err(DataError::invalid("a loader thread ended without a result: its message is on stderr")))
            }),
        };
        match batches {
            Some(Ok(batches)) => {
                self.batches = self.batches.saturating_sub(1);
                self.pending = batches.into();
                self.pending.pop_front().map(Ok)
            }
            Some(Err(e)) => {
                self.source = BatchSource::Ended;
                self.batches = 0;
                Some(Err(e))
            }
            None => {
                self.source = BatchSource::Ended;
                self.batches = 0;
                None
            }
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the queue tells the workers to stop.
        self.source = BatchSource::Ended;
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}
