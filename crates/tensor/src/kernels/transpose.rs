//! Exchange of two axes of many planes, f32: the general transposition after axes that stay together are merged.
//!
//! Loop order: plane and strip of 16 source columns (threads) → square of 16 rows and columns, in which every cache line
//! that is read or written is used whole → four squares of 8, transposed in registers.
use super::simd::{Isa, Lanes, UNIT, dispatch};
use crate::parallel::THRESHOLD;
use crate::window::reach;
use rayon::prelude::*;

/// Rows and columns of a square: one cache line.
const SQUARE: usize = 16;

/// One plane: element `(i, k)` is read from `i + k * from` and written to `i * to + k`.
#[derive(Clone, Copy)]
struct Plane {
    /// Source columns, contiguous there.
    columns: usize,
    /// Source rows, contiguous in the result.
    rows: usize,
    /// Distance of the source's rows.
    from: usize,
    /// Distance of the result's rows.
    to: usize,
}

/// The output array; each task writes elements of its own.
struct OutputPointer(*mut f32);
// SAFETY: tasks write disjoint elements, see `transpose`.
unsafe impl Sync for OutputPointer {}

impl OutputPointer {
    /// # Safety
    /// `i` must lie within the array.
    unsafe fn at(&self, i: usize) -> *mut f32 {
        // SAFETY: within the array by the caller's promise.
        unsafe { self.0.add(i) }
    }
}

/// Fills the contiguous array `out`, whose axes are given as `(size, stride in x)`. Returns false without writing if its last
/// axis is contiguous in `x` already, or if no other axis is.
///
/// # Panics
/// If `x` or `out` are too short for the axes.
pub(crate) fn transpose(x: &[f32], axes: &[(usize, usize)], out: &mut [f32]) -> bool {
    let Some((&(rows, from), outer)) = axes.split_last() else { return false };
    let Some(across) = outer.iter().position(|(_, stride)| *stride == 1).filter(|_| from > 1) else { return false };
    let sizes: Vec<usize> = axes.iter().map(|a| a.0).collect();
    let strides = crate::shape::strides(&sizes);
    if out.is_empty() {
        return true;
    }
    let last = axes.iter().fold(0, |at, (size, stride)| reach(at, &[[size - 1, *stride]]));
    assert!(last < x.len() && sizes.iter().fold(1, |n, size| reach(0, &[[n, *size]])) == out.len());
    // The places of all planes, in x and in out: every combination of the axes but the two.
    let mut places = vec![[0usize; 2]];
    for (i, (size, stride)) in outer.iter().enumerate().filter(|(i, _)| *i != across) {
        let step = [*stride, strides[i]];
        places = places.iter().flat_map(|p| (0..*size).map(move |k| [p[0] + k * step[0], p[1] + k * step[1]])).collect();
    }
    let plane = Plane { columns: outer[across].0, rows, from, to: strides[across] };
    let strips = plane.columns.div_ceil(SQUARE);
    let (isa, target) = (Isa::best(), &OutputPointer(out.as_mut_ptr()));
    let run = |task: usize| {
        let [from, to] = places[task / strips];
        let first = task % strips * SQUARE;
        let columns = SQUARE.min(plane.columns - first);
        // SAFETY: the sum of the largest offsets along all axes lies within both slices (asserted), so every element of
        // the strip does; the results of two strips differ in at least one axis of `out`, so they do not overlap.
        strip(isa, unsafe { x.as_ptr().add(from + first) }, unsafe { target.at(to + first * plane.to) }, columns, plane)
    };
    let tasks = places.len() * strips;
    match out.len() < THRESHOLD {
        true => (0..tasks).for_each(run),
        false => (0..tasks).into_par_iter().with_min_len(THRESHOLD / 8 / (SQUARE * rows) + 1).for_each(run),
    }
    true
}

#[inline(always)]
fn strip_generic<L: Lanes>(x: *const f32, out: *mut f32, columns: usize, plane: Plane) {
    let mut row = 0;
    while columns == SQUARE && row + SQUARE <= plane.rows {
        for i in [0, UNIT] {
            for k in [0, UNIT] {
                // SAFETY: 16 columns and 16 rows from `row` on lie within the strip, see `transpose`.
                unsafe { L::transpose(x.add((row + k) * plane.from + i), out.add(i * plane.to + row + k), [plane.from, plane.to]) };
            }
        }
        row += SQUARE;
    }
    for k in row..plane.rows {
        for i in 0..columns {
            // SAFETY: column i of row k lies within the strip, see `transpose`.
            unsafe { *out.add(i * plane.to + k) = *x.add(k * plane.from + i) };
        }
    }
}
dispatch! { strip = strip_generic(x: *const f32, out: *mut f32, columns: usize, plane: Plane) }

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(80))]
        /// Strips of every instruction set against a plain loop, with rows longer than the plane.
        #[test]
        fn strips_agree_with_a_plain_loop(columns in 1usize..70, rows in 1usize..70, more in 0usize..5, further in 0usize..5) {
            let plane = Plane { columns, rows, from: columns + more, to: rows + further };
            let (reads, writes) = ((rows - 1) * plane.from + columns, (columns - 1) * plane.to + rows);
            let x: Vec<f32> = (0..reads).map(|v| v as f32).collect();
            for isa in Isa::available() {
                let mut out = vec![-1f32; writes];
                for first in (0..columns).step_by(SQUARE) {
                    // SAFETY: the strip lies within the plane, the plane within both slices.
                    strip(isa, unsafe { x.as_ptr().add(first) }, unsafe { out.as_mut_ptr().add(first * plane.to) }, SQUARE.min(columns - first), plane);
                }
                for (at, v) in out.iter().enumerate() {
                    let (i, k) = (at / plane.to, at % plane.to);
                    let expected = if k < rows { x[k * plane.from + i] } else { -1.0 };
                    prop_assert_eq!(*v, expected, "{:?} column {} row {}", isa, i, k);
                }
            }
        }
    }
}
