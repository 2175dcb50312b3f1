//! Random numbers without state: a draw is a function of its purpose, so that it does not depend on the number of threads or on a
//! resumed run.
use tensor::random::{bits, derive};

/// The purpose of a series of draws: hashed, so that neighbouring seeds, epochs and rows give unrelated numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    /// The series for a purpose (`salt`), seed, stage and epoch.
    pub(crate) fn new(salt: u64, seed: u64, stage: u64, epoch: u64) -> Self {
        Draws([seed, stage, epoch].into_iter().fold(salt, derive))
    }

    /// The series for one row.
    pub(crate) fn row(self, row: usize) -> Self {
        Draws(derive(self.0, row as u64))
    }

    /// Draw number `index`: 64 random bits.
    pub(crate) fn bits(self, index: u64) -> u64 {
        bits(self.0, index)
    }

    /// Draw number `index`: uniform in `0..bound` (0 if `bound` is 0).
    pub(crate) fn below(self, index: u64, bound: usize) -> usize {
        ((u128::from(self.bits(index)) * bound as u128) >> 64) as usize
    }

    /// Shuffles in place (Fisher-Yates).
    pub(crate) fn shuffle<T>(self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64, last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_spread_evenly_and_differ_by_every_part_of_the_key() {
        let mut counts = [0; 10];
        for row in 0..10_000 {
            counts[Draws::new(1, 2, 3, 4).row(row).below(0, 10)] += 1;
        }
        assert!(counts.iter().all(|n| (900..1100).contains(n)), "{counts:?}");
        let keys = [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0)];
        let mut draws: Vec<u64> = keys.iter().map(|(a, b, c, d)| Draws::new(*a, *b, *c, *d).bits(0)).collect();
        draws.sort_unstable();
        draws.dedup();
        assert_eq!(draws.len(), keys.len());
    }
}
