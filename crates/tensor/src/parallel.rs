//! Splitting work over threads in chunks whose bounds depend only on the data's size, so that results do not depend on the number
//! of threads.
use rayon::prelude::*;

/// Elements of one thread's piece.
pub(crate) const CHUNK: usize = 1 << 14;

/// Below this many elements a second thread costs more than it saves.
pub(crate) const THRESHOLD: usize = 1 << 16;

/// Fills `out` by calling `f(offset, piece)` for consecutive pieces.
pub(crate) fn fill<R: Send>(out: &mut [R], f: &(dyn Fn(usize, &mut [R]) + Sync)) {
    if out.len() < THRESHOLD {
        f(0, out);
    } else {
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, piece)| f(i * CHUNK, piece));
    }
}

/// Fills `out` row by row: `f(row, piece)` gets rows of `width` elements; `cost` is the work of one row in elements.
pub(crate) fn fill_rows<R: Send>(out: &mut [R], width: usize, cost: usize, f: &(dyn Fn(usize, &mut [R]) + Sync)) {
    if width == 0 || out.is_empty() {
        return;
    }
    let rows = out.len() / width;
    if rows.saturating_mul(cost) < THRESHOLD {
        out.chunks_mut(width).enumerate().for_each(|(i, row)| f(i, row));
    } else {
        let least = CHUNK.div_ceil(cost.max(1));
        out.par_chunks_mut(width).with_min_len(least).enumerate().for_each(|(i, row)| f(i, row));
    }
}
