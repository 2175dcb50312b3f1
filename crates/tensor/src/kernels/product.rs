//! Dense matrix product of f32.
//!
//! Loop order: block of the result (threads) → slice of the depth → panel of columns → panel of rows → depth. A block packs
//! its slice of both operands into panels, `[panel][depth][8 rows]` and `[panel][depth][3 vectors of columns]`, so that the
//! innermost body streams: 8 x 3 accumulators stay in registers, and each step of the depth costs 3 loads and 8 broadcasts
//! for 24 multiply-adds. All rows pass over one panel of columns: 24 KB with AVX2, from the first-level cache, and 48 KB with
//! AVX-512, from the second, which delivers three loads in 24 multiply-adds just as well. A deeper slice means fewer passes over
//! the block's sums, which are kept tile after tile until the last slice writes them to the result, and a block of few rows
//! keeps sums and packed slices small: what overflows the second-level cache is shared with the machine's other tenants. (Rows
//! of the result a power of two apart would drive each other out of the first.) Threads share nothing: each block packs for
//! itself, which costs less than to wait for one another. Each element's sum runs along the depth in one order, whatever the
//! threads.
//!
//! With AVX2's sixteen registers a tile is 4 x 3: a panel of rows is passed in two halves. It serves both, where it is about
//! twice as fast as the `gemm` crate on the machines it was written on; other processors go through that crate.
use super::gemm::Matrix;
use super::scratch;
use super::simd::{Isa, Lanes, Level, UNIT, dispatch, prefetch};
use crate::window::reach;
use rayon::prelude::*;

/// Rows of a register tile.
const ROWS: usize = UNIT;
/// Vectors of a register tile.
const VECTORS: usize = 3;
/// Steps of the depth in one slice.
const DEPTH: usize = 256;
/// Rows and columns of a block at most: whole panels, of columns for every instruction set.
const BLOCK: [usize; 2] = [256, 768];

/// Lanes of a panel in the source: `lane` and `depth` are the distances of neighbours along each.
#[derive(Clone, Copy)]
struct PanelSource<'a> {
    data: &'a [f32],
    lane: usize,
    depth: usize,
}

/// Steps of the depth that are packed together from panel to panel, so that neighbouring panels use the rest of their cache
/// lines.
const STEPS: usize = 8;

/// `to[panel][p][j] = from[first + panel * width + j][step + p]` for consecutive panels of `width` lanes over `k` steps, of which
/// `live` lanes exist; the others are zero.
#[inline(always)]
fn pack_generic<L: Lanes>(from: PanelSource, [first, step]: [usize; 2], live: usize, [k, width]: [usize; 2], to: &mut [f32]) {
    let from = PanelSource { data: &from.data[step * from.depth..], ..from };
    if from.lane == 1 {
        // A few steps for one panel after another, so that the rest of their cache lines is used.
        for steps in (0..k).step_by(STEPS) {
            let end = (steps + STEPS).min(k);
            for (i, panel) in to.chunks_exact_mut(k * width).enumerate() {
                let lanes = live.saturating_sub(i * width).min(width);
                let from = PanelSource { data: from.data.get(steps * from.depth + first + i * width..).unwrap_or(&[]), ..from };
                let to = &mut panel[steps * width..end * width];
                match lanes / UNIT {
                    0 => copy_steps::<0>(from, lanes, width, to),
                    1 => copy_steps::<1>(from, lanes, width, to),
                    2 => copy_steps::<2>(from, lanes, width, to),
                    3 => copy_steps::<3>(from, lanes, width, to),
                    4 => copy_steps::<4>(from, lanes, width, to),
                    5 => copy_steps::<5>(from, lanes, width, to),
                    _ => copy_steps::<6>(from, lanes, width, to),
                }
            }
        }
        return;
    }
    for (i, panel) in to.chunks_exact_mut(k * width).enumerate() {
        pack_lanes::<L>(from, first + i * width, live.saturating_sub(i * width), width, panel);
    }
}

/// `lanes` neighbours of each step, `UNITS` units of them whole, and zeros behind them up to `width`. The number is a constant
/// because a copy of a length known only at run time becomes a call, which costs more than these few elements do.
#[inline(always)]
fn copy_steps<const UNITS: usize>(from: PanelSource, lanes: usize, width: usize, to: &mut [f32]) {
    for (p, to) in to.chunks_exact_mut(width).enumerate() {
        let (to, rest) = to.split_at_mut(UNITS * UNIT);
        if UNITS > 0 {
            let row = &from.data[p * from.depth..][..UNITS * UNIT];
            for u in 0..UNITS {
                to[u * UNIT..][..UNIT].copy_from_slice(&row[u * UNIT..][..UNIT]);
            }
        }
        for (j, v) in rest.iter_mut().enumerate() {
            *v = if UNITS * UNIT + j < lanes { from.data[p * from.depth + UNITS * UNIT + j] } else { 0.0 };
        }
    }
}

/// [`pack_generic`] of one panel whose lanes are not contiguous.
#[inline(always)]
fn pack_lanes<L: Lanes>(from: PanelSource, first: usize, live: usize, width: usize, to: &mut [f32]) {
    let k = to.len() / width;
    for unit in (0..width).step_by(UNIT) {
        let live = live.saturating_sub(unit).min(UNIT);
        let whole = if live == UNIT && from.depth == 1 { k / UNIT * UNIT } else { 0 };
        assert!(whole == 0 || reach(whole, &[[first + unit + UNIT - 1, from.lane]]) <= from.data.len() && unit + UNIT <= width);
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

/// Addresses of a tile's sums at the beginning and the end: position and distance of rows.
#[derive(Clone, Copy)]
struct Place {
    at: *mut f32,
    stride: usize,
}

/// One register tile: `to[row][column] = from[row][column] + sum over the depth of a[p][row] * b[p][column]` for all rows
/// of a panel, or its halves one after the other where the registers hold no more, and the first `V` vectors of a panel of
/// columns. Without `from` it counts as zero.
///
/// # Safety
/// `a` must have `ROWS` and `b` `VECTORS` vectors for each of `depth` steps, `from` and `to` `ROWS` rows of `V` vectors for
/// reading and for writing. The second pointer of `a` is the panel of rows that comes next: it is asked for meanwhile, since
/// each begins where no hardware looks ahead.
#[inline(always)]
unsafe fn tile<L: Lanes, const V: usize>(depth: usize, a: [*const f32; 2], b: *const f32, from: Option<Place>, to: Place) {
    // SAFETY: the caller's promise is passed on; the second half of the rows lies within all of them.
    unsafe {
        if L::LANES > UNIT {
            return tile_of::<L, ROWS, V>(depth, a, b, from, to);
        }
        let half = ROWS / 2;
        let second = |p: Place| Place { at: p.at.add(half * p.stride), ..p };
        tile_of::<L, { ROWS / 2 }, V>(depth, a, b, from, to);
        tile_of::<L, { ROWS / 2 }, V>(depth, [a[0].add(half), a[1].wrapping_add(half)], b, from.map(second), second(to));
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
    from: Option<Place>,
    to: Place,
) {
    let mut sums = [[L::zero(); V]; R];
    // SAFETY: as the function's own contract says. Plain indices: iterators make the compiler spill accumulators.
    unsafe {
        if let Some(from) = from {
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = L::load(from.at.add(r * from.stride + v * L::LANES));
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
            prefetch::<true>(next);
            // Behind the last step these may lie outside of the panels; nothing is read there.
            a = a.wrapping_add(ROWS);
            next = next.wrapping_add(ROWS);
            b = b.wrapping_add(VECTORS * L::LANES);
        }
        for r in 0..R {
            for v in 0..V {
                sums[r][v].store(to.at.add(r * to.stride + v * L::LANES));
            }
        }
    }
}

/// A block of the result and its operands.
struct Block<'a> {
    a: PanelSource<'a>,
    b: PanelSource<'a>,
    /// Its first row and column.
    first: [usize; 2],
    /// Its rows, the depth, its columns.
    size: [usize; 3],
    /// The whole result, and the distance of its rows.
    out: Place,
}

/// Work space of a [`Block`]: packed slices of both operands, and sums between slices, tile after tile.
struct WorkSpace<'a> {
    a: &'a mut [f32],
    b: &'a mut [f32],
    sums: &'a mut [f32],
}

impl WorkSpace<'_> {
    /// Runs `f` with work space for a block of this size.
    fn with(isa: Isa, [m, k, n]: [usize; 3], f: impl FnOnce(WorkSpace)) {
        let (depth, width) = (DEPTH.min(k), VECTORS * isa.lanes());
        let (rows, columns) = (m.next_multiple_of(ROWS), n.next_multiple_of(width));
        let sums = if k > DEPTH { rows * columns } else { ROWS * width };
        scratch::with(rows * depth, |a| scratch::with(columns * depth, |b| scratch::with(sums, |sums| f(WorkSpace { a, b, sums }))));
    }
}

/// Computes a block. Its place in `out` must be valid for writing, which [`product`] sees to.
#[inline(always)]
fn block_generic<L: Lanes>(block: &Block, work: WorkSpace) {
    let ([m, k, n], width) = (block.size, VECTORS * L::LANES);
    let (row_panels, column_panels) = (m.div_ceil(ROWS), n.div_ceil(width));
    for slice in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - slice);
        let (a, b) = (&mut work.a[..row_panels * ROWS * depth], &mut work.b[..column_panels * width * depth]);
        pack_generic::<L>(block.a, [block.first[0], slice], m, [depth, ROWS], a);
        pack_generic::<L>(block.b, [block.first[1], slice], n, [depth, width], b);
        let last = slice + depth == k;
        for (panel, b) in b.chunks_exact(width * depth).enumerate() {
            let columns = width.min(n - panel * width);
            for row in 0..row_panels {
                let rows = ROWS.min(m - row * ROWS);
                let sums = if k > DEPTH { (panel * row_panels + row) * ROWS * width } else { 0 };
                let sums = &mut work.sums[sums..][..ROWS * width];
                let kept = Place { at: sums.as_mut_ptr(), stride: width };
                let from = (slice > 0).then_some(kept);
                let direct = last && rows == ROWS && columns.is_multiple_of(L::LANES);
                // After the last panel of rows the first one comes again, with other columns.
                let next = if row + 1 < row_panels { row + 1 } else { 0 };
                let a = [a[row * ROWS * depth..].as_ptr(), a[next * ROWS * depth..].as_ptr()];
                // SAFETY: `a` and `b` are packed panels of `depth` steps, `sums` is a whole tile, and a tile goes straight
                // to the result only if all its rows and vectors lie within the block.
                unsafe {
                    let at = block.out.at.add((block.first[0] + row * ROWS) * block.out.stride + block.first[1] + panel * width);
                    let out = Place { at, ..block.out };
                    let to = if direct { out } else { kept };
                    match columns.div_ceil(L::LANES) {
                        1 => tile::<L, 1>(depth, a, b.as_ptr(), from, to),
                        2 => tile::<L, 2>(depth, a, b.as_ptr(), from, to),
                        _ => tile::<L, VECTORS>(depth, a, b.as_ptr(), from, to),
                    }
                    if last && !direct {
                        for r in 0..rows {
                            std::ptr::copy_nonoverlapping(kept.at.add(r * width), out.at.add(r * out.stride), columns);
                        }
                    }
                }
            }
        }
    }
}

dispatch! {
    /// [`block_generic`] compiled for an instruction set.
    compute = block_generic(block: &Block, work: WorkSpace)
}

/// True if packing pays and the processor has enough registers.
pub(crate) fn serves(isa: Isa, m: usize, k: usize, n: usize) -> bool {
    isa.level() > Level::Portable && m >= ROWS && n >= UNIT && k >= UNIT
}

/// Rows and columns of a block: at most [`BLOCK`], as even as possible, and in such numbers that threads are idle for at most a
/// tenth of the work if the result is large enough.
fn block_size([m, n]: [usize; 2], width: usize, threads: usize) -> [usize; 2] {
    let even = |len: usize, parts: usize, unit: usize| len.div_ceil(parts).next_multiple_of(unit);
    let mut parts = [m.div_ceil(BLOCK[0]), n.div_ceil(BLOCK[1])];
    loop {
        let size = [even(m, parts[0], ROWS), even(n, parts[1], width)];
        let longer = usize::from(size[1] > size[0]);
        let blocks = m.div_ceil(size[0]) * n.div_ceil(size[1]);
        let idle = blocks.next_multiple_of(threads) - blocks;
        if 10 * idle <= blocks || size[longer] <= [ROWS, width][longer] {
            return size;
        }
        parts[longer] += 1;
    }
}

/// The result; each thread writes blocks of its own.
struct Out(Place);
// SAFETY: only `product` makes one, and its blocks do not overlap.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// `out[m, n] = a[m, k] * b[k, n]`; all three lie within their slices.
pub(crate) fn product(isa: Isa, out: &mut [f32], a: Matrix<f32>, b: Matrix<f32>, [m, k, n]: [usize; 3], parallel: bool) {
    let out = &mut out[..m * n];
    if k == 0 || out.is_empty() {
        return out.fill(0.0);
    }
    let a = PanelSource { data: a.data, lane: a.row_stride, depth: a.column_stride };
    let b = PanelSource { data: b.data, lane: b.column_stride, depth: b.row_stride };
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    let [rows, columns] = block_size([m, n], VECTORS * isa.lanes(), threads);
    let across = n.div_ceil(columns);
    // The blocks are disjoint parts of `out`, which is borrowed for all of this function.
    let out = Out(Place { at: out.as_mut_ptr(), stride: n });
    let one = |i: usize| {
        let first = [i / across * rows, i % across * columns];
        let size = [rows.min(m - first[0]), k, columns.min(n - first[1])];
        let out: &Out = &out;
        WorkSpace::with(isa, size, |work| compute(isa, &Block { a, b, first, size, out: out.0 }, work));
    };
    let blocks = m.div_ceil(rows) * across;
    if parallel {
        (0..blocks).into_par_iter().with_max_len(1).for_each(one);
    } else {
        (0..blocks).for_each(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    /// Every instruction set and every storage order against a plain loop, with edges on all sides.
    #[test]
    fn products_agree_with_a_plain_loop() {
        for [m, k, n] in [[8, 8, 48], [9, 129, 50], [70, 300, 7], [8, 1, 100], [33, 17, 24], [1, 5, 1], [16, 40, 40], [16, 300, 32]] {
            if cfg!(miri) && m * k * n > 10_000 {
                continue;
            }
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
