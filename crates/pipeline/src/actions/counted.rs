//! Batches that tell how far they are.
use train::{Batch, Batches, LoaderBatches, TrainError};

/// Hears how many batches of how many are done.
pub type Tick<'a> = &'a mut dyn FnMut(u64, u64);

/// The batches in order, unshuffled, each told when the next is asked for.
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
