//! Reuses the storage of large f32 tensors: a training step allocates the same sizes again and again, and new pages cost as much
//! as the arithmetic on them. A reused vector has its old elements, so its user must write every element.
//!
//! Only as many vectors of a length are kept as were taken and not yet returned, so storage that was allocated elsewhere (batches
//! from disk) goes back to the allocator. No more elements are kept than were once in use together (or 512 MiB of them), however
//! many lengths occur; with less memory, set a limit. Beyond it the lengths that have not been used for longest are dropped
//! first.
use crate::Element;
use crate::kernels::pages;
use crate::parallel::fill;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Smaller vectors are not reused.
const SMALLEST: usize = 1 << 12;
/// Elements that are kept for reuse in any case, unless a limit is set (512 MiB).
const LEAST: usize = 1 << 27;

/// The vectors of one length.
#[derive(Default)]
struct Shelf {
    free: Vec<Vec<f32>>,
    /// Number taken and not yet returned.
    out: usize,
    /// Time of the last request.
    asked: u64,
}

#[derive(Default)]
struct Pool {
    shelves: HashMap<usize, Shelf>,
    /// Elements kept.
    elements: usize,
    /// Elements taken and not yet returned, now and at most.
    out: usize,
    highest: usize,
    /// Most elements kept, if a limit is set.
    limit: Option<usize>,
    clock: u64,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

impl Pool {
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        self.clock += 1;
        let shelf = self.shelves.entry(len).or_default();
        shelf.out += 1;
        shelf.asked = self.clock;
        self.out += len;
        self.highest = self.highest.max(self.out);
        let v = shelf.free.pop()?;
        self.elements -= len;
        Some(v)
    }

    fn give(&mut self, v: Vec<f32>) {
        let len = v.len();
        let Some(shelf) = self.shelves.get_mut(&len).filter(|s| s.out > 0) else { return };
        shelf.out -= 1;
        self.out -= len;
        let Some(others) = self.most().checked_sub(len) else { return };
        self.shrink(others);
        self.elements += len;
        if let Some(shelf) = self.shelves.get_mut(&len) {
            shelf.free.push(v);
        }
    }

    /// Most elements that are kept.
    fn most(&self) -> usize {
        self.limit.unwrap_or(self.highest.max(LEAST))
    }

    /// Drops vectors until at most `most` elements are kept.
    fn shrink(&mut self, most: usize) {
        while self.elements > most {
            let idle = self.shelves.iter_mut().filter(|(_, s)| !s.free.is_empty()).min_by_key(|(_, s)| s.asked);
            let Some((len, shelf)) = idle else { return };
            shelf.free.pop();
            self.elements -= len;
        }
    }
}

/// Sets how many bytes are kept for reuse at most (`None`: as many as were in use at once), drops the excess, and returns the
/// former limit. Reusing storage saves the cost of new pages.
pub fn keep_for_reuse(bytes: Option<u64>) -> Option<u64> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    let before = pool.limit.map(|elements| (elements * size_of::<f32>()) as u64);
    pool.limit = bytes.map(|b| usize::try_from(b).unwrap_or(usize::MAX) / size_of::<f32>());
    let most = pool.most();
    pool.shrink(most);
    before
}

/// Drops all storage kept for reuse: before tensors of other sizes are allocated.
pub fn release_kept() {
    POOL.lock().unwrap_or_else(PoisonError::into_inner).shrink(0);
}

/// Drops storage until at most `bytes` are kept: before something larger is allocated.
pub(crate) fn make_room(bytes: u64) {
    let most = usize::try_from(bytes).unwrap_or(usize::MAX) / size_of::<f32>();
    POOL.lock().unwrap_or_else(PoisonError::into_inner).shrink(most);
}

/// A vector of `len` elements of undefined value.
pub(crate) fn take(len: usize) -> Vec<f32> {
    if len >= SMALLEST
        && let Some(v) = POOL.lock().unwrap_or_else(PoisonError::into_inner).take(len)
    {
        return v;
    }
    pages::zeros(len)
}

/// [`take`] for any element type: other types than f32 are newly allocated and zero.
pub(crate) fn storage<T: Element + Copy + Default>(len: usize) -> Vec<T> {
    if T::DTYPE == crate::DType::F32 {
        let mut taken = Some(take(len));
        if let Some(v) = (&mut taken as &mut dyn Any).downcast_mut::<Option<Vec<T>>>().and_then(Option::take) {
            return v;
        }
    }
    vec![T::default(); len]
}

/// A copy in [`storage`], made by several threads.
#[allow(clippy::ptr_arg)] // A vector can be asked for its type, a slice cannot.
pub(crate) fn copy<T: Element>(from: &Vec<T>) -> Vec<T> {
    if let Some(from) = (from as &dyn Any).downcast_ref::<Vec<f32>>() {
        let mut out = take(from.len());
        fill(&mut out, &|at, piece| piece.copy_from_slice(&from[at..at + piece.len()]));
        let mut out = Some(out);
        if let Some(v) = (&mut out as &mut dyn Any).downcast_mut::<Option<Vec<T>>>().and_then(Option::take) {
            return v;
        }
    }
    from.clone()
}

/// Returns a vector for reuse.
pub(crate) fn give(v: Vec<f32>) {
    if v.len() >= SMALLEST {
        POOL.lock().unwrap_or_else(PoisonError::into_inner).give(v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_handed_out_is_kept() {
        let mut pool = Pool::default();
        pool.give(vec![0.0; SMALLEST]);
        assert_eq!(pool.elements, 0, "a stranger is not kept");
        assert!(pool.take(SMALLEST).is_none());
        pool.give(vec![1.0; SMALLEST]);
        pool.give(vec![2.0; SMALLEST]);
        assert_eq!(pool.elements, SMALLEST, "one was handed out, one comes back");
        assert_eq!(pool.take(SMALLEST).unwrap()[0], 1.0);
        assert_eq!(pool.elements, 0);
    }

    #[test]
    fn a_limit_lets_go_of_what_was_not_asked_for_longest() {
        let (small, large) = (SMALLEST, 2 * SMALLEST);
        let mut pool = Pool { limit: Some(3 * SMALLEST), ..Pool::default() };
        for len in [large, small, small] {
            assert!(pool.take(len).is_none());
        }
        for len in [large, small, small] {
            pool.give(vec![0.0; len]);
        }
        assert_eq!(pool.elements, 2 * small, "the large one made room");
        assert!(pool.take(large).is_none() && pool.take(small).is_some());
        pool.shrink(0);
        assert_eq!(pool.elements, 0);
        pool.limit = Some(small);
        pool.give(vec![0.0; large]);
        assert_eq!(pool.elements, 0, "larger than the limit");
    }

    #[test]
    fn as_much_is_kept_as_was_out_at_once() {
        let mut pool = Pool::default();
        assert_eq!(pool.most(), LEAST);
        for _ in 0..3 {
            assert!(pool.take(LEAST).is_none());
        }
        assert_eq!(pool.most(), 3 * LEAST);
        pool.out -= 2 * LEAST;
        assert_eq!(pool.most(), 3 * LEAST, "also when most of it has come back");
    }
}
