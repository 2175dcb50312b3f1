//! Convolution through Winograd's minimal filtering: forward, and backward by data.
//!
//! Loop order: strip of tile rows (threads) → block of output channels → vectors of pixels → point → taps. For each block of
//! pixels the sums of all points are in the first-level cache, where the output's rows are computed from them. Meanwhile the next
//! strip's images are prefetched.
use super::{FILTER, POINTS, TILE, Tiles, fill};
use crate::kernels::conv::tile::Tile;
use crate::kernels::conv::{Ahead, Geometry};
use crate::kernels::scratch;
use crate::kernels::simd::{Isa, Lanes, UNIT, dispatch};
use crate::window::reach;
use rayon::prelude::*;
use std::ops::Range;

/// The point 1, at which each output row has factor 1: the bias is added there.
const ONE: usize = 1;

/// Vectors of a register block.
const VECTORS: usize = 3;

/// The four output rows from the sums at the points: the paper's transposed `A`.
#[inline(always)]
fn from_points<L: Lanes>(m: [L; POINTS]) -> [L; TILE] {
    let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
    [
        m[0].add(sum).add(m[3].add(m[4])),
        L::splat(0.5).mul_add(m[3], L::splat(-2.0).mul_add(m[4], difference)),
        L::splat(0.25).mul_add(m[3], L::splat(4.0).mul_add(m[4], sum)),
        L::splat(0.125).mul_add(m[3], L::splat(-8.0).mul_add(m[4], difference)).add(m[5]),
    ]
}

/// A convolution with the data that all strips share.
struct Convolution {
    isa: Isa,
    tiles: Tiles,
    /// Output channels of a group, and those of a register block.
    outputs: usize,
    rows: usize,
    /// Offsets of the kernel's columns in the planes of a point.
    taps: Vec<usize>,
    /// Weights at the points, `[group][outputs / rows][point][tap][rows]`.
    packed: Vec<f32>,
}

impl Convolution {
    /// `weight(group, output, channel, column)` gives a column of the kernel, top to bottom.
    fn new(isa: Isa, tiles: Tiles, outputs: usize, weight: impl Fn(usize, usize, usize, usize) -> [f32; 3] + Sync) -> Self {
        let rows = isa.lanes() / 2;
        let (taps, blocks, width) = (tiles.taps(), outputs.div_ceil(rows), tiles.columns[0]);
        let point = taps.len() * rows;
        let mut packed = vec![0f32; tiles.groups * blocks * POINTS * point];
        packed.par_chunks_mut((POINTS * point).max(1)).enumerate().for_each(|(i, block)| {
            let (group, first) = (i / blocks, i % blocks * rows);
            for t in 0..taps.len() {
                let mut columns = [[0f32; UNIT]; 3];
                for o in first..(first + rows).min(outputs) {
                    let column = weight(group, o, t / width, t % width);
                    (0..3).for_each(|k| columns[k][o - first] = column[k]);
                }
                for (p, at) in FILTER.iter().enumerate() {
                    let all: [f32; UNIT] = std::array::from_fn(|r| (0..3).map(|k| at[k] * columns[k][r]).sum());
                    block[p * point + t * rows..][..rows].copy_from_slice(&all[..rows]);
                }
            }
        });
        Convolution { isa, tiles, outputs, rows, taps, packed }
    }

    /// `x` is `[n, groups * channels, image]`, `out` `[n, groups * outputs, size]`.
    fn run(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let (tiles, pixels) = (&self.tiles, self.tiles.size[0] * self.tiles.size[1]);
        let rows = out.len() / (tiles.groups * self.outputs * pixels) * tiles.down;
        let tasks = rows.div_ceil(tiles.strip) * tiles.groups;
        let out = Out { at: out.as_mut_ptr(), len: out.len() };
        (0..tasks).into_par_iter().for_each(|task| {
            let (group, from) = (task % tiles.groups, task / tiles.groups * tiles.strip);
            let rows = from..(from + tiles.strip).min(rows);
            let bias = bias.map(|b| &b[group * self.outputs..(group + 1) * self.outputs]);
            scratch::with(POINTS * tiles.point(), |planes| {
                fill(self.isa, tiles, x, group, rows.clone(), planes);
                let job = Strip {
                    all: self,
                    group,
                    planes,
                    bias,
                    spots: Spots::of(self, group, rows.clone()),
                    out: &out,
                    next: tiles.behind(x, rows),
                };
                let sums = POINTS * self.rows * VECTORS * self.isa.lanes() + UNIT;
                scratch::with(sums, |sums| strip(self.isa, &job, sums));
            });
        });
    }
}

/// The output; each strip writes rows of its own.
struct Out {
    at: *mut f32,
    len: usize,
}
// SAFETY: only `Convolution::run` makes one, and its strips share no row of a group's channels.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// Units of pixels of a strip, in whole vectors: a row of the output is cut into units, the last of which ends with the row.
struct Spots {
    /// Offset of each in the planes.
    planes: Vec<usize>,
    /// Offset in the output, of the first of the group's channels and of the tile's rows, and how many rows there are.
    out: Vec<(usize, usize)>,
}

impl Spots {
    fn of(all: &Convolution, group: usize, rows: Range<usize>) -> Self {
        let (tiles, [height, width]) = (&all.tiles, all.tiles.size);
        let mut spots = Spots { planes: vec![], out: vec![] };
        for (i, row) in rows.enumerate() {
            let (image, top) = (row / tiles.down, row % tiles.down * TILE);
            let at = (image * tiles.groups + group) * all.outputs * height * width + top * width;
            for x in (0..width).step_by(UNIT).map(|x| x.min(width - UNIT)) {
                spots.planes.push(i * tiles.pitch + x);
                spots.out.push((at + x, TILE.min(height - top)));
            }
        }
        // An incomplete vector repeats its last unit.
        while !spots.planes.len().is_multiple_of(all.isa.lanes() / UNIT) {
            spots.planes.extend(spots.planes.last().copied());
            spots.out.extend(spots.out.last().copied());
        }
        spots
    }
}

/// One strip of tile rows.
struct Strip<'a> {
    all: &'a Convolution,
    group: usize,
    planes: &'a [f32],
    bias: Option<&'a [f32]>,
    spots: Spots,
    out: &'a Out,
    /// The next strip's input, to be prefetched.
    next: &'a [f32],
}

#[inline(always)]
fn strip_generic<L: Lanes>(job: &Strip, sums: &mut [f32]) {
    // Units of a vector lie side by side where rows are whole vectors.
    match (L::LANES == UNIT, job.all.tiles.size[1].is_multiple_of(L::LANES)) {
        (true, _) => blocks::<L, 4, true>(job, sums),
        (false, true) => blocks::<L, 8, true>(job, sums),
        (false, false) => blocks::<L, 8, false>(job, sums),
    }
}

dispatch! {
    /// [`strip_generic`] compiled for an instruction set.
    strip = strip_generic(job: &Strip, sums: &mut [f32])
}

#[inline(always)]
fn blocks<L: Lanes, const R: usize, const JOINED: bool>(job: &Strip, sums: &mut [f32]) {
    let (all, spots) = (job.all, &job.spots);
    let (per_vector, pixels) = (L::LANES / UNIT, all.tiles.size[0] * all.tiles.size[1]);
    let furthest = |offsets: &[usize]| offsets.iter().max().copied().unwrap_or(0);
    let last = spots.out.iter().map(|(at, rows)| reach(*at, &[[rows - 1, all.tiles.size[1]], [UNIT, 1]])).max().unwrap_or(0);
    assert!(all.rows == R && spots.planes.len().is_multiple_of(per_vector) && spots.planes.len() == spots.out.len());
    assert!(reach(furthest(&all.taps), &[[furthest(&spots.planes), 1], [UNIT, 1]]) <= all.tiles.point());
    assert!(job.planes.len() >= reach(0, &[[POINTS, all.tiles.point()]]));
    assert!(!JOINED || L::LANES == UNIT || all.tiles.size[1].is_multiple_of(L::LANES));
    assert!(reach(last, &[[all.outputs - 1, pixels]]) <= job.out.len && sums.len() >= POINTS * R * VECTORS * L::LANES + UNIT);
    let vectors = spots.planes.len() / per_vector;
    let count = all.outputs.div_ceil(R);
    let mut ahead = Ahead::new(job.next, count * vectors.div_ceil(VECTORS));
    for block in 0..count {
        let rows = (all.outputs - block * R).min(R);
        let weights = (job.group * count + block) * POINTS * all.taps.len() * R;
        let weights = &all.packed[weights..][..POINTS * all.taps.len() * R];
        let bias: [f32; R] = std::array::from_fn(|r| job.bias.filter(|_| r < rows).map_or(0.0, |b| b[block * R + r]));
        let block = Block { job, weights, bias, first: block * R, rows };
        let mut v = 0;
        while v < vectors {
            ahead.ask();
            let units = v * per_vector;
            // SAFETY: every tap of every unit lies within the planes of a point, and every row of every unit of every
            // output channel within the output (both asserted); `sums` has room for `VECTORS` vectors and a unit.
            v += unsafe {
                match vectors - v {
                    1 => block.compute::<L, 1, JOINED>(units, sums),
                    2 | 4 => block.compute::<L, 2, JOINED>(units, sums),
                    _ => block.compute::<L, VECTORS, JOINED>(units, sums),
                }
            };
        }
    }
}

/// Some output channels of a strip.
struct Block<'a, const R: usize> {
    job: &'a Strip<'a>,
    /// `[point][tap][R]`.
    weights: &'a [f32],
    bias: [f32; R],
    first: usize,
    rows: usize,
}

impl<const R: usize> Block<'_, R> {
    /// Computes `V` vectors from the unit `units` on, and returns `V`.
    ///
    /// # Safety
    /// The strip must have `V` vectors from there on, all of whose taps lie within its planes and whose rows within the output;
    /// `sums` must hold `V` vectors for each of `R` rows at each point, and a unit behind them.
    #[inline(always)]
    unsafe fn compute<L: Lanes, const V: usize, const JOINED: bool>(&self, units: usize, sums: &mut [f32]) -> usize {
        let (all, spots, per_vector) = (self.job.all, &self.job.spots, L::LANES / UNIT);
        let point = R * V * L::LANES;
        let [height, width] = all.tiles.size;
        // Rows after the end of an image are written after the sums.
        let nowhere = sums[POINTS * point..].as_mut_ptr();
        // SAFETY: as the function's own contract says.
        unsafe {
            for p in 0..POINTS {
                let tile = Tile {
                    planes: self.job.planes.as_ptr().add(p * all.tiles.point()),
                    taps: &all.taps,
                    weights: &self.weights[p * all.taps.len() * R..][..all.taps.len() * R],
                    start: if p == ONE { self.bias } else { [0.0; R] },
                    add: false,
                    to: sums.as_mut_ptr().add(p * point),
                    width: V * L::LANES,
                    rows: R,
                };
                tile.compute::<L, V, JOINED>(&spots.planes[units..]);
            }
            for v in 0..V {
                let unit = units + v * per_vector;
                let halves = [spots.out[unit], spots.out[unit + per_vector - 1]];
                let (to, live) =
                    (halves.map(|(at, _)| self.job.out.at.add(at + self.first * height * width)), halves.map(|(_, rows)| rows));
                for r in 0..self.rows {
                    let at = sums.as_ptr().add((r * V + v) * L::LANES);
                    let mut m = [L::zero(); POINTS];
                    for p in 0..POINTS {
                        m[p] = L::load(at.add(p * point));
                    }
                    let y = from_points(m);
                    for j in 0..TILE {
                        let row = r * height * width + j * width;
                        if JOINED && j < live[0] {
                            y[j].store(to[0].add(row));
                        } else if !JOINED {
                            let place = |half: usize| if j < live[half] { to[half].add(row) } else { nowhere };
                            y[j].store_units(place(0), place(1));
                        }
                    }
                }
            }
        }
        V
    }
}

/// `y[n, o, ..] = conv(x, w) + bias`; `tiles` are those of the input.
pub(crate) fn forward(isa: Isa, tiles: Tiles, g: &Geometry, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let (channels, outputs, columns) = (g.group_in(), g.group_out(), g.kernel[2]);
    let convolution = Convolution::new(isa, tiles, outputs, |group, o, c, k| {
        let at = ((group * outputs + o) * channels + c) * 3 * columns + k;
        [w[at], w[at + columns], w[at + 2 * columns]]
    });
    convolution.run(x, bias, y);
}

/// `dx[n, c, ..]`: the convolution of `dy` with the kernel turned around; `tiles` are those of the gradient.
pub(crate) fn backward_data(isa: Isa, tiles: Tiles, g: &Geometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let (channels, outputs, columns) = (g.group_in(), g.group_out(), g.kernel[2]);
    let convolution = Convolution::new(isa, tiles, channels, |group, c, o, k| {
        let at = ((group * outputs + o) * channels + c) * 3 * columns + columns - 1 - k;
        [w[at + 2 * columns], w[at + columns], w[at]]
    });
    convolution.run(dy, None, dx);
}
