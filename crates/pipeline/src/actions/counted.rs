//! Batches that report progress.
use train::{Batch, Batches, LoaderBatches, TrainError};

/// Callback with the number of batches done and in all.
pub type Tick<'a> = &'a mut dyn FnMut(u64, u64);

/// The batches in order, unshuffled. Each is reported when the next one is requested.
pub(super) fn counted<'a>(batches: &'a LoaderBatches, tick: Tick<'a>) -> impl Iterator<Item = Result<Batch, TrainError>> + 'a {
    let (total, mut given) = (batches.batches(), 0);
    let mut list = batches.epoch(0);
    std::iter::from_fn(move || {
        tick(given, total);
        let next = list.next();
        // A batch that is cut into runs counts once.
        given += u64::from(!matches!(&next, Some(Ok(batch)) if batch.portion.continues));
        next
    })
}
