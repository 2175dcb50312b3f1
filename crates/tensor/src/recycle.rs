//! Recycles the storage of large f32 tensors: a training step asks for the same sizes again and again, and fresh pages
//! cost as much as the arithmetic on them. A recycled vector keeps its old elements, so whoever takes one must write
//! every element.
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Smaller vectors are left to the allocator.
const SMALLEST: usize = 1 << 12;
/// Most elements kept for reuse (512 MiB).
const MOST: usize = 1 << 27;

#[derive(Default)]
struct Pool {
    free: HashMap<usize, Vec<Vec<f32>>>,
    elements: usize,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

/// A vector of `len` elements of any value.
pub(crate) fn take(len: usize) -> Vec<f32> {
    if len >= SMALLEST {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(v) = pool.free.get_mut(&len).and_then(Vec::pop) {
            pool.elements -= len;
            return v;
        }
    }
    vec![0.0; len]
}

/// Gives a vector back.
pub(crate) fn give(v: Vec<f32>) {
    if v.len() < SMALLEST {
        return;
    }
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if pool.elements + v.len() > MOST {
        // Sizes from an earlier model may fill it: start over rather than keep what nobody asks for.
        pool.free.clear();
        pool.elements = 0;
    }
    pool.elements += v.len();
    pool.free.entry(v.len()).or_default().push(v);
}
