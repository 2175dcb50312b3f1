//! The order of an epoch's rows, and reading the rows in that order.
use crate::batch::{Batch, BatchRecipe};
use crate::loader::{LoaderOptions, Shuffle};
use crate::random::Draws;
use crate::{DataError, Dataset, Result, Sample};
use std::sync::Arc;

/// Salt of the random numbers, so that they differ from those that augment rows.
const SALT: u64 = 2;

/// Hands out the rows of an epoch, batch by batch.
pub(crate) struct Feed {
    dataset: Arc<dyn Dataset>,
    /// Rows not drawn into the buffer yet.
    coming: std::vec::IntoIter<usize>,
    /// Rows to draw from; empty and unused where any order is cheap to read.
    buffer: Vec<(usize, Sample)>,
    capacity: usize,
    draws: Draws,
    drawn: u64,
    batch: usize,
    drop_last: bool,
}

/// The rows of one batch; not read yet where a worker can read them.
pub(crate) enum Rows {
    Unread(Arc<dyn Dataset>, Vec<usize>),
    Read(Arc<dyn Dataset>, Vec<(usize, Sample)>),
}

impl Rows {
    pub(crate) fn batches(self, recipe: &BatchRecipe) -> Result<Vec<Batch>> {
        let (dataset, samples) = match self {
            Rows::Read(dataset, samples) => (dataset, samples),
            Rows::Unread(dataset, rows) => {
                let samples = rows.into_iter().map(|row| Ok((row, dataset.read(row)?))).collect::<Result<_>>()?;
                (dataset, samples)
            }
        };
        recipe.batches(dataset.as_ref(), samples)
    }
}

impl Feed {
    pub(crate) fn new(dataset: Arc<dyn Dataset>, options: &LoaderOptions) -> Result<Self> {
        let mut order: Vec<usize> = match &options.rows {
            Some(rows) => rows.to_vec(),
            None => (0..dataset.len()).collect(),
        };
        if let Some(row) = order.iter().find(|row| **row >= dataset.len()) {
            return Err(DataError::row(dataset.path(), *row, format!("only {} rows", dataset.len())));
        }
        let draws = Draws::new(SALT, options.seed, options.stage, options.epoch);
        let runs = dataset.runs();
        let mut capacity = 0;
        if let Shuffle::On { buffer } = options.shuffle {
            if runs.len() > 1 {
                order = by_runs(order, &runs, draws);
                capacity = buffer.max(options.batch);
            } else {
                draws.shuffle(&mut order);
            }
        }
        let mut feed = Feed {
            dataset,
            coming: order.into_iter(),
            buffer: vec![],
            capacity,
            draws: draws.row(usize::MAX),
            drawn: 0,
            batch: options.batch,
            drop_last: options.drop_last,
        };
        feed.skip(options.skip)?;
        Ok(feed)
    }

    /// Batches still to come.
    pub(crate) fn batches(&self) -> usize {
        let rows = self.coming.len() + self.buffer.len();
        if self.drop_last { rows / self.batch } else { rows.div_ceil(self.batch) }
    }

    /// The next batch's rows; `None` at the end.
    pub(crate) fn next_batch(&mut self) -> Option<Result<Rows>> {
        if self.batches() == 0 {
            return None;
        }
        if self.capacity == 0 {
            return Some(Ok(Rows::Unread(self.dataset.clone(), self.coming.by_ref().take(self.batch).collect())));
        }
        let mut samples = Vec::with_capacity(self.batch);
        while samples.len() < self.batch {
            if let Err(error) = self.fill() {
                return Some(Err(error));
            }
            if self.buffer.is_empty() {
                break;
            }
            let at = self.draw(self.buffer.len());
            samples.push(self.buffer.swap_remove(at));
        }
        Some(Ok(Rows::Read(self.dataset.clone(), samples)))
    }

    fn fill(&mut self) -> Result<()> {
        while self.buffer.len() < self.capacity {
            let Some(row) = self.coming.next() else { break };
            self.buffer.push((row, self.dataset.read(row)?));
        }
        Ok(())
    }

    fn draw(&mut self, bound: usize) -> usize {
        self.drawn += 1;
        self.draws.below(self.drawn, bound)
    }

    /// Skips batches: the shuffle buffer runs on row numbers only, and what is left in it is read at the end.
    fn skip(&mut self, batches: usize) -> Result<()> {
        let rows = batches.saturating_mul(self.batch);
        if self.capacity == 0 {
            self.coming.by_ref().take(rows).for_each(drop);
            return Ok(());
        }
        if batches == 0 {
            return Ok(());
        }
        let mut held: Vec<usize> = vec![];
        for _ in 0..rows {
            held.extend(self.coming.by_ref().take(self.capacity - held.len()));
            if held.is_empty() {
                break;
            }
            let at = self.draw(held.len());
            held.swap_remove(at);
        }
        // Read in the rows' own order, so that each run is read once; then back into the buffer's order.
        let mut places: Vec<usize> = (0..held.len()).collect();
        places.sort_unstable_by_key(|place| held[*place]);
        let mut read =
            places.into_iter().map(|place| Ok((place, (held[place], self.dataset.read(held[place])?)))).collect::<Result<Vec<_>>>()?;
        read.sort_unstable_by_key(|(place, _)| *place);
        self.buffer = read.into_iter().map(|(_, sample)| sample).collect();
        Ok(())
    }
}

/// The rows run by run, the runs in a random order and each run's rows too.
fn by_runs(rows: Vec<usize>, runs: &[std::ops::Range<usize>], draws: Draws) -> Vec<usize> {
    let mut groups: Vec<Vec<usize>> = vec![vec![]; runs.len()];
    for row in rows {
        let run = runs.partition_point(|run| run.end <= row);
        if let Some(group) = groups.get_mut(run) {
            group.push(row);
        }
    }
    for (run, group) in groups.iter_mut().enumerate() {
        draws.row(run).shuffle(group);
    }
    draws.shuffle(&mut groups);
    groups.concat()
}
