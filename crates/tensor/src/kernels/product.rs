//! Dense matrix product of f32.
//!
//! Loop order: block of rows (threads) → slice of the depth → panel of columns → panel of rows → depth. Both operands are
//! packed once into panels, `[panel][depth][8 rows]` and `[panel][depth][3 vectors of columns]`, so that the innermost body
//! streams: 8 x 3 accumulators stay in registers, and each step of the depth costs 3 loads and 8 broadcasts for 24
//! multiply-adds. A slice of the depth is chosen so that a panel of columns stays in the first-level cache while all rows
//! pass over it. Each element's sum runs along the depth in one order, whatever the threads.
//!
//! With AVX2's sixteen registers a tile is 4 x 3: a panel of rows is passed in two halves. It serves both, where it is about
//! twice as fast as the `gemm` crate on the machines it was written on; other processors go through that crate.
use super::gemm::Matrix;
use super::scratch;
use super::simd::{Isa, Lanes, Level, UNIT, dispatch};
use rayon::prelude::*;

/// Rows of a register tile.
const ROWS: usize = UNIT;
/// Vectors of a register tile.
const VECTORS: usize = 3;
/// Elements of a register tile with the widest vectors.
const TILE: usize = ROWS * VECTORS * 2 * UNIT;
/// Steps of the depth in one slice.
const DEPTH: usize = 128;
/// Rows that a thread takes at most at a time.
const BLOCK: usize = 64;

/// Packed operands.
struct Job<'a> {
    a: &'a [f32],
    b: &'a [f32],
    k: usize,
    n: usize,
}

/// Lanes of a panel in the source: `lane` and `depth` are the distances of neighbours along each.
#[derive(Clone, Copy)]
struct Source<'a> {
    data: &'a [f32],
    lane: usize,
    depth: usize,
}

/// Panels that are packed together: what a step of the depth reads of them is whole cache lines.
const TOGETHER: usize = 4;
/// Steps of the depth for which they are.
const STEPS: usize = 64;

/// `to[panel][p][j] = from[first + panel * width + j][p]` for consecutive panels of `width` lanes over `k` steps, of which
/// `live` lanes exist; the others are zero.
#[inline(always)]
fn pack_generic<L: Lanes>(from: Source, first: usize, live: usize, [k, width]: [usize; 2], to: &mut [f32]) {
    if from.lane == 1 {
        // Some steps for one panel after the other, so that the rest of their cache lines is found again.
        for steps in (0..k).step_by(STEPS) {
            let end = (steps + STEPS).min(k);
            for (i, panel) in to.chunks_exact_mut(k * width).enumerate() {
                let at = first + (i * width).min(live);
                let lanes = live.saturating_sub(i * width).min(width);
                let rows = (steps..end).zip(panel[steps * width..end * width].chunks_exact_mut(width));
                if lanes < width || !width.is_multiple_of(L::LANES) {
                    for (p, to) in rows {
                        to[..lanes].copy_from_slice(&from.data[p * from.depth + at..][..lanes]);
                        to[lanes..].fill(0.0);
                    }
                    continue;
                }
                for (p, to) in rows {
                    let row = &from.data[p * from.depth + at..][..width];
                    for v in (0..width).step_by(L::LANES) {
                        // SAFETY: both have `width` elements, a multiple of a vector's.
                        unsafe { L::load(row.as_ptr().add(v)).store(to.as_mut_ptr().add(v)) };
                    }
                }
            }
        }
        return;
    }
    for (i, panel) in to.chunks_exact_mut(k * width).enumerate() {
        pack_lanes::<L>(from, first + i * width, live.saturating_sub(i * width), width, panel);
    }
}

/// [`pack_generic`] of one panel whose lanes do not lie side by side.
#[inline(always)]
fn pack_lanes<L: Lanes>(from: Source, first: usize, live: usize, width: usize, to: &mut [f32]) {
    let k = to.len() / width;
    for unit in (0..width).step_by(UNIT) {
        let live = live.saturating_sub(unit).min(UNIT);
        let whole = if live == UNIT && from.depth == 1 { k / UNIT * UNIT } else { 0 };
        assert!(whole == 0 || (first + unit + UNIT - 1) * from.lane + whole <= from.data.len() && unit + UNIT <= width);
        for p in (0..whole).step_by(UNIT) {
            // SAFETY: the last of the eight lanes ends within `data`, the last of the eight steps within `to` (asserted).
            unsafe {
                let from_at = from.data.as_ptr().add((first + unit) * from.lane + p);
                L::transpose(from_at, to.as_mut_ptr().add(p * width + unit), [from.lane, width]);
            }
        }
        for p in whole..k {
            for j in 0..UNIT {
                to[p * width + unit + j] = if j < live { from.data[(first + unit + j) * from.lane + p * from.depth] } else { 0.0 };
            }
        }
    }
}

dispatch! {
    /// [`pack_generic`] compiled for an instruction set.
    pack = pack_generic(from: Source, first: usize, live: usize, sizes: [usize; 2], to: &mut [f32])
}

/// One register tile: `c[row][column] (+)= sum over the depth of a[p][row] * b[p][column]` for all rows of a panel, or its
/// halves one after the other where the registers hold no more, and the first `V` vectors of a panel of columns.
///
/// # Safety
/// `a` must have `ROWS` and `b` `VECTORS` vectors for each of `depth` steps, `c` `ROWS` rows of `V` vectors at distance
/// `stride`, for writing and, if `add`, for reading. The second pointer of `a` is the panel of rows that comes next: it is asked
/// for meanwhile, since each begins where no hardware looks ahead.
#[inline(always)]
unsafe fn tile<L: Lanes, const V: usize>(depth: usize, a: [*const f32; 2], b: *const f32, c: *mut f32, stride: usize, add: bool) {
    let [a, next] = a;
    for r in ROWS..2 * ROWS {
        L::prefetch(c.wrapping_add(r * stride));
        L::prefetch(c.wrapping_add(r * stride + L::LANES * V - 1));
    }
    // SAFETY: the caller's promise is passed on; the second half of the rows lies within both.
    unsafe {
        if L::LANES > UNIT {
            return tile_of::<L, ROWS, V>(depth, [a, next], b, c, stride, add);
        }
        let half = ROWS / 2;
        tile_of::<L, { ROWS / 2 }, V>(depth, [a, next], b, c, stride, add);
        tile_of::<L, { ROWS / 2 }, V>(depth, [a.add(half), next.wrapping_add(half)], b, c.add(half * stride), stride, add);
    }
}

/// The first `R` rows of a [`tile`].
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn tile_of<L: Lanes, const R: usize, const V: usize>(
    depth: usize,
    a: [*const f32; 2],
    b: *const f32,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    let mut sums = [[L::zero(); V]; R];
    // SAFETY: as the function's own contract says. Plain indices: iterators make the compiler spill accumulators.
    unsafe {
        if add {
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = L::load(c.add(r * stride + v * L::LANES));
                }
            }
        }
        let ([mut a, mut next], mut b) = (a, b);
        for _ in 0..depth {
            let mut columns = [b; V];
            for v in 0..V {
                columns[v] = b.add(v * L::LANES);
            }
            L::step(&mut sums, a, columns);
            L::prefetch(next);
            a = a.add(ROWS);
            next = next.wrapping_add(ROWS);
            b = b.add(VECTORS * L::LANES);
        }
        for r in 0..R {
            for v in 0..V {
                sums[r][v].store(c.add(r * stride + v * L::LANES));
            }
        }
    }
}

/// All columns of some rows of the product, from `first` (a multiple of [`ROWS`]) on.
#[inline(always)]
fn rows_generic<L: Lanes>(job: &Job, first: usize, out: &mut [f32]) {
    let (k, n, width) = (job.k, job.n, VECTORS * L::LANES);
    let rows = out.len() / n;
    let panels = n.div_ceil(width);
    assert!(job.b.len() >= panels * width * k && job.a.len() >= (first + rows).next_multiple_of(ROWS) * k);
    for slice in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - slice);
        for panel in 0..panels {
            let live_columns = width.min(n - panel * width);
            for row in (0..rows).step_by(ROWS) {
                let live_rows = ROWS.min(rows - row);
                // SAFETY: both packed panels lie within their slices (asserted above). A tile of whole rows and
                // vectors lies within `out`, a part of one is computed in `edge`, which holds a whole one.
                unsafe {
                    let a = job.a.as_ptr().add((first + row) * k + slice * ROWS);
                    // Behind the last panel the first one comes again, with other columns.
                    let next = if row + ROWS < rows { a.wrapping_add(ROWS * k) } else { a.wrapping_sub(row * k) };
                    let a = [a, next];
                    let b = job.b.as_ptr().add(panel * width * k + slice * width);
                    let to = &mut out[row * n + panel * width..];
                    if live_rows == ROWS && live_columns.is_multiple_of(L::LANES) {
                        match live_columns / L::LANES {
                            1 => tile::<L, 1>(depth, a, b, to.as_mut_ptr(), n, slice > 0),
                            2 => tile::<L, 2>(depth, a, b, to.as_mut_ptr(), n, slice > 0),
                            _ => tile::<L, VECTORS>(depth, a, b, to.as_mut_ptr(), n, slice > 0),
                        }
                        continue;
                    }
                    let mut edge = [0f32; TILE];
                    tile::<L, VECTORS>(depth, a, b, edge.as_mut_ptr(), width, false);
                    for r in 0..live_rows {
                        for (to, v) in to[r * n..][..live_columns].iter_mut().zip(&edge[r * width..]) {
                            *to = if slice > 0 { *to + v } else { *v };
                        }
                    }
                }
            }
        }
    }
}

dispatch! {
    /// [`rows_generic`] compiled for an instruction set.
    rows = rows_generic(job: &Job, first: usize, out: &mut [f32])
}

/// True where packing pays and the processor has the registers.
pub(crate) fn serves(isa: Isa, m: usize, k: usize, n: usize) -> bool {
    isa.level() > Level::Portable && m >= ROWS && n >= UNIT && k >= UNIT
}

/// `out[m, n] = a[m, k] * b[k, n]`; all three lie within their slices.
pub(crate) fn product(isa: Isa, out: &mut [f32], a: Matrix<f32>, b: Matrix<f32>, [m, k, n]: [usize; 3], parallel: bool) {
    let out = &mut out[..m * n];
    if k == 0 || out.is_empty() {
        return out.fill(0.0);
    }
    let width = VECTORS * isa.lanes();
    let left = Source { data: a.data, lane: a.row_stride, depth: a.column_stride };
    let right = Source { data: b.data, lane: b.column_stride, depth: b.row_stride };
    scratch::with(m.next_multiple_of(ROWS) * k, |packed_a| {
        scratch::with(n.next_multiple_of(width) * k, |packed_b| {
            let panels = |width: usize| {
                move |(i, to): (usize, &mut [f32]), from: Source, lanes: usize| {
                    let first = i * TOGETHER * width;
                    pack(isa, from, first, (TOGETHER * width).min(lanes - first), [k, width], to);
                }
            };
            let (pack_a, pack_b) = (panels(ROWS), panels(width));
            let (some_a, some_b) = (TOGETHER * ROWS * k, TOGETHER * width * k);
            if !parallel {
                packed_a.chunks_mut(some_a).enumerate().for_each(|to| pack_a(to, left, m));
                packed_b.chunks_mut(some_b).enumerate().for_each(|to| pack_b(to, right, n));
                return rows(isa, &Job { a: packed_a, b: packed_b, k, n }, 0, out);
            }
            packed_a.par_chunks_mut(some_a).enumerate().for_each(|to| pack_a(to, left, m));
            packed_b.par_chunks_mut(some_b).enumerate().for_each(|to| pack_b(to, right, n));
            let job = Job { a: packed_a, b: packed_b, k, n };
            let block = m.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(ROWS).min(BLOCK);
            out.par_chunks_mut(block * n).enumerate().for_each(|(i, out)| rows(isa, &job, i * block, out));
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    /// Every instruction set and every storage order against a plain loop, with edges on all sides.
    #[test]
    fn products_agree_with_a_plain_loop() {
        for [m, k, n] in [[8, 8, 48], [9, 129, 50], [70, 300, 7], [8, 1, 100], [33, 17, 24], [1, 5, 1], [16, 40, 40], [16, 300, 32]] {
            let (x, y) = (uniform(1, &[m * k], -1.0, 1.0).unwrap(), uniform(2, &[k * n], -1.0, 1.0).unwrap());
            let (x, y) = (x.as_slice::<f32>().unwrap(), y.as_slice::<f32>().unwrap());
            for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
                let a = Matrix::row_major(x, if ta { m } else { k }, ta);
                let b = Matrix::row_major(y, if tb { k } else { n }, tb);
                let at = |of: &Matrix<f32>, i: usize, j: usize| f64::from(of.data[i * of.row_stride + j * of.column_stride]);
                for isa in Isa::available() {
                    for parallel in [false, true] {
                        let mut out = vec![f32::NAN; m * n];
                        product(isa, &mut out, a, b, [m, k, n], parallel);
                        for (i, v) in out.iter().enumerate() {
                            let expected: f64 = (0..k).map(|p| at(&a, i / n, p) * at(&b, p, i % n)).sum();
                            assert!((f64::from(*v) - expected).abs() < 1e-4, "{isa:?} {m} {k} {n} element {i}: {v}, {expected}");
                        }
                    }
                }
            }
        }
    }
}
