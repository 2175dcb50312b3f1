//! Where to cut a plan into segments whose activations are recomputed in the backward pass, so that a training step stays within
//! a budget.
//!
//! The first `p` steps are recomputed, in segments; the others are recorded as usual. The fewest recomputed steps that fit win:
//! each costs one more forward run, however the segments lie. For each end of a segment the earlier cuts are those with the
//! fewest bytes at their ends, found by dynamic programming over (begin, end): quadratic in the steps, done once.
use crate::sizes::Sizes;
use std::ops::Range;

/// A cut, with its peak memory in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cut {
    /// Steps of each recomputed segment, in order from the first step; later steps are recorded.
    pub(crate) segments: Vec<Range<usize>>,
    /// Peak bytes of values, records and gradients.
    pub(crate) peak: u64,
}

impl Cut {
    /// Number of steps that run twice.
    pub(crate) fn recomputed(&self) -> usize {
        self.segments.last().map_or(0, |s| s.end)
    }
}

/// Memory of a stretch of steps from a given one on.
struct Stretch {
    /// Peak bytes while it runs forward and backward.
    need: u64,
    /// Bytes of its results that later steps read.
    crossing: u64,
}

/// The cut with the fewest recomputed steps that stays within `room` bytes; `None` if there is none.
pub(crate) fn cut(sizes: &Sizes, room: u64) -> Option<Cut> {
    let n = sizes.steps.len();
    let table = Table::new(sizes);
    // By the end of the last segment: the fewest bytes at segment ends, and the start of that segment.
    let mut least: Vec<Option<(u64, usize, u64)>> = vec![None; n + 1];
    least[0] = Some((0, 0, 0));
    let mut tails = vec![sizes.loss; n + 1];
    for begin in 0..n {
        let Some((before, ..)) = least[begin] else { continue };
        tails[begin] = table.stretches(begin, |end, stretch| {
            let (crossing, peak) = (before + stretch.crossing, before + stretch.need);
            if peak <= room && least[end].is_none_or(|(best, ..)| crossing < best) {
                least[end] = Some((crossing, begin, peak));
            }
        });
    }
    let fits = |p: &usize| least[*p].is_some_and(|(crossing, ..)| crossing + tails[*p] <= room);
    let recomputed = (0..=n).find(fits)?;
    let mut peak = least[recomputed]?.0 + tails[recomputed];
    let (mut segments, mut end) = (vec![], recomputed);
    while end > 0 {
        let (_, begin, of_segment) = least[end]?;
        peak = peak.max(of_segment);
        segments.push(begin..end);
        end = begin;
    }
    segments.reverse();
    Some(Cut { segments, peak })
}

/// The cut with the least memory, to a part in 200.
pub(crate) fn finest(sizes: &Sizes) -> Cut {
    let whole = Cut { segments: vec![], peak: Table::new(sizes).stretches(0, |_, _| ()) };
    let (mut too_little, mut best) = (0, whole.clone());
    while best.peak - too_little > best.peak / 200 + 1 {
        let room = too_little + (best.peak - too_little) / 2;
        match cut(sizes, room) {
            Some(found) => best = found,
            None => too_little = room,
        }
    }
    best
}

/// Sums by step.
struct Table<'a> {
    sizes: &'a Sizes,
    /// Bytes of results, and the part of them that a record keeps.
    made: Vec<(u64, u64)>,
    /// Indices of values read for the last time.
    ends: Vec<Vec<usize>>,
    /// Bytes of results that later steps still read.
    crossing: Vec<u64>,
}

impl<'a> Table<'a> {
    fn new(sizes: &'a Sizes) -> Self {
        let n = sizes.steps.len();
        let (mut made, mut ends, mut crossing) = (vec![(0, 0); n], vec![vec![]; n], vec![0u64; n]);
        for (i, s) in sizes.stored.iter().enumerate() {
            made[s.made].0 += s.bytes;
            made[s.made].1 += if s.held { s.bytes } else { 0 };
            crossing[s.made..s.last.min(n)].iter_mut().for_each(|c| *c += s.bytes);
            if let Some(end) = ends.get_mut(s.last) {
                end.push(i);
            }
        }
        Table { sizes, made, ends, crossing }
    }

    /// Calls `see` with each stretch that begins at a step, by its end, and returns the memory of the longest one if it is
    /// recorded and the loss follows.
    fn stretches(&self, begin: usize, mut show: impl FnMut(usize, Stretch)) -> u64 {
        let (mut records, mut kept, mut alive, mut crossing) = (0u64, 0u64, 0u64, 0u64);
        let (mut forward, mut backward) = (0u64, 0u64);
        for at in begin..self.sizes.steps.len() {
            let (step, (made, held)) = (self.sizes.steps[at], self.made[at]);
            records += step.record;
            kept += held;
            alive += made;
            crossing += made;
            forward = forward.max(records + alive + step.scratch);
            for s in self.ends[at].iter().map(|i| self.sizes.stored[*i]).filter(|s| s.made >= begin) {
                crossing -= s.bytes;
                alive -= if s.held { 0 } else { s.bytes };
            }
            // In its backward pass a step has the gradients of its results, and computes those of its inputs.
            let gradients = made + if at > 0 { self.crossing[at - 1] } else { 0 };
            backward = backward.max(records + kept + gradients);
            // While a segment runs again, the gradients of all values at its end are kept.
            show(at + 1, Stretch { need: backward.max(forward + self.crossing[at]), crossing });
        }
        backward.max(forward).max(records + alive + self.sizes.loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes::{StepSize, Stored};

    /// Steps that each compute one value for the next, and keep twice as much.
    fn chain(bytes: &[u64]) -> Sizes {
        let stored = bytes.iter().enumerate().map(|(i, b)| Stored { made: i, last: i + 1, bytes: *b, held: true }).collect();
        let steps = bytes.iter().map(|b| StepSize { record: 2 * b, scratch: 0 }).collect();
        Sizes { steps, stored, ..Sizes::default() }
    }

    #[test]
    fn what_fits_is_not_cut() {
        let sizes = chain(&[10; 8]);
        let whole = cut(&sizes, 1000).unwrap();
        // Eight values, as many records of twice their size, and two gradients in the last step's backward.
        assert_eq!(whole, Cut { segments: vec![], peak: 8 * 30 + 20 });
        assert_eq!(cut(&sizes, 260).unwrap(), whole);
        assert_ne!(cut(&sizes, 259).unwrap(), whole);
    }

    #[test]
    fn no_more_is_recomputed_than_has_to_be() {
        let sizes = chain(&[10; 100]);
        let (mut before, least) = (0, finest(&sizes));
        for room in [3000, 2000, 1000, 700] {
            let found = cut(&sizes, room).unwrap();
            assert!(found.peak <= room && found.recomputed() > before, "{room}: {found:?}");
            assert!(found.segments.windows(2).all(|w| w[0].end == w[1].start) && found.segments[0].start == 0);
            before = found.recomputed();
        }
        // The root of the number of steps, as in the paper: some 2 * sqrt(100 * 3) values.
        assert!(least.peak < 600, "{least:?}");
        assert!(cut(&sizes, least.peak * 98 / 100).is_none());
    }

    #[test]
    fn cuts_lie_where_little_crosses() {
        let mut bytes = [100u64; 20];
        for narrow in [4, 9, 14, 19] {
            bytes[narrow] = 1;
        }
        let found = cut(&chain(&bytes), 1500).unwrap();
        assert_eq!(found.segments, [0..5, 5..10, 10..15]);
    }

    #[test]
    fn a_value_that_is_read_far_behind_counts_once() {
        let mut sizes = chain(&[10; 12]);
        sizes.stored[0] = Stored { made: 0, last: 11, bytes: 500, held: true };
        let found = finest(&sizes);
        assert!(!found.segments.is_empty() && found.peak < 1250, "{found:?}");
    }
}
