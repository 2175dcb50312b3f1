//! Recycles the storage of large f32 tensors: a training step asks for the same sizes again and again, and fresh pages
//! cost as much as the arithmetic on them. A recycled vector keeps its old elements, so whoever takes one must write
//! every element.
//!
//! Only as many vectors of a length are kept as were handed out and not yet given back, so storage that was made
//! elsewhere (batches from disk) goes back to the allocator and the pool never holds more than a step had in use.
use crate::Element;
use crate::parallel::fill;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Smaller vectors are left to the allocator.
const SMALLEST: usize = 1 << 12;
/// Most elements kept for reuse (512 MiB).
const MOST: usize = 1 << 27;

/// The vectors of one length.
#[derive(Default)]
struct Shelf {
    free: Vec<Vec<f32>>,
    /// Handed out and not yet given back.
    out: usize,
}

#[derive(Default)]
struct Pool {
    shelves: HashMap<usize, Shelf>,
    elements: usize,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

impl Pool {
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        let shelf = self.shelves.entry(len).or_default();
        shelf.out += 1;
        let v = shelf.free.pop()?;
        self.elements -= len;
        Some(v)
    }

    fn give(&mut self, v: Vec<f32>) {
        let len = v.len();
        let Some(shelf) = self.shelves.get_mut(&len).filter(|s| s.out > 0) else { return };
        shelf.out -= 1;
        if self.elements + len > MOST {
            // Sizes from an earlier model may fill it: start over rather than keep what nobody asks for.
            self.shelves.values_mut().for_each(|s| s.free.clear());
            self.elements = 0;
            return;
        }
        self.elements += len;
        if let Some(shelf) = self.shelves.get_mut(&len) {
            shelf.free.push(v);
        }
    }
}

/// A vector of `len` elements of any value.
pub(crate) fn take(len: usize) -> Vec<f32> {
    if len >= SMALLEST
        && let Some(v) = POOL.lock().unwrap_or_else(PoisonError::into_inner).take(len)
    {
        return v;
    }
    vec![0.0; len]
}

/// [`take`] for whatever element type: other types than f32 come fresh and zero.
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

/// Gives a vector back.
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
}
