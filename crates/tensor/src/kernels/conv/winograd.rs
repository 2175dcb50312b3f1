//! Winograd's minimal filtering, f32, 2-D, for kernels of three rows at stride 1: forward and backward by data.
//!
//! Four rows of the output take six multiplications a column of the kernel instead of twelve: F(4, 3) of Lavin and Gray, "Fast
//! Algorithms for Convolutional Neural Networks", 2016, section 4.1, along the height alone. The columns of the kernel stay a direct
//! convolution, so the transforms combine whole rows and never shuffle lanes, and rounding errors grow by the factor of one
//! axis: with the points 0, 1, -1, 1/2, -2 and infinity to about 1.6 times those of a direct sum (the paper's 2 and -2 for
//! the last two lose 2.1 times; its two-dimensional form the square).
//!
//! Four output rows and the six input rows under them are a tile row; those of all images follow one another. Loop order: strip of tile rows
//! (threads) → block of output channels → vectors of pixels → point → taps. A strip's input is transformed once, into planes
//! `[point][channel][tile row][column]` that replace the padded copy of the direct kernels and stay in the second-level cache. For each
//! block of pixels the sums of all points meet in the first-level cache, where the output's rows are made of them.
use super::planes::clear;
use super::tile::Tile;
use super::{Ahead, Geometry};
use crate::kernels::scratch;
use crate::kernels::simd::{Isa, Lanes, UNIT, dispatch};
use rayon::prelude::*;
use std::ops::Range;

/// Output rows of a tile.
pub(super) const TILE: usize = 4;
/// Points of the polynomials: input rows under a tile.
pub(super) const POINTS: usize = TILE + 2;
/// The rows of a kernel's column at each point: the paper's `G`.
pub(super) const FILTER: [[f32; 3]; POINTS] = [
    [1.0, 0.0, 0.0],
    [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0],
    [-1.0 / 3.0, 1.0 / 3.0, -1.0 / 3.0],
    [-16.0 / 15.0, -8.0 / 15.0, -4.0 / 15.0],
    [1.0 / 15.0, -2.0 / 15.0, 4.0 / 15.0],
    [0.0, 0.0, 1.0],
];
/// The point 1, at which each output row counts once: where a bias is added.
const ONE: usize = 1;

/// Elements of a strip's planes: they stay in a second-level cache beside the weights.
const STRIP: usize = 48 << 10;
/// Vectors of a register block.
const VECTORS: usize = 3;
/// Output pixels below which transforming the weights costs more than it saves.
const PIXELS: usize = 1024;

/// The six rows at their points: the paper's transposed `B`.
#[inline(always)]
fn at_points<L: Lanes>(d: [L; POINTS]) -> [L; POINTS] {
    let (half, one_half, two) = (L::splat(-0.5), L::splat(1.5), L::splat(2.0));
    let (a, b) = (d[4].sub(d[2]), d[3].sub(d[1]));
    [
        one_half.mul_add(b, a).add(d[0].sub(d[2])),
        one_half.mul_add(d[3].add(d[2]), a.add(b)),
        one_half.mul_add(d[3].sub(d[2]), a.sub(b)),
        two.mul_add(b, a),
        half.mul_add(b, a),
        one_half.mul_add(a, d[5].sub(d[3])).sub(b),
    ]
}

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

/// The tile rows of what a stride-1 convolution reads, and their planes.
#[derive(Clone, Debug)]
pub(crate) struct Tiles {
    images: usize,
    groups: usize,
    /// Channels of a group.
    channels: usize,
    /// Size of an image that is read, and of the output.
    image: [usize; 2],
    size: [usize; 2],
    /// Columns of the kernel and their distance.
    columns: [usize; 2],
    before: [usize; 2],
    /// Columns that are read.
    pub(super) pitch: usize,
    /// Tile rows of an image.
    pub(super) down: usize,
    /// Tile rows of a strip.
    pub(super) strip: usize,
    /// A row of padding.
    zeros: Vec<f32>,
}

impl Tiles {
    /// Of a convolution's input, for kernels that the technique fits.
    pub(crate) fn of_input(g: &Geometry) -> Option<Tiles> {
        let size = |of: [usize; 3]| [of[1], of[2]];
        Tiles::new(g, g.group_in(), [size(g.input), size(g.output)], size(g.before))
    }

    /// Of the output's gradient, from which the input's is a convolution too.
    pub(crate) fn of_gradient(g: &Geometry) -> Option<Tiles> {
        let size = |of: [usize; 3]| [of[1], of[2]];
        let before = |i: usize| ((g.kernel[i] - 1) * g.dilation[i]).checked_sub(g.before[i]);
        Tiles::new(g, g.group_out(), [size(g.output), size(g.input)], [before(1)?, before(2)?])
    }

    fn new(g: &Geometry, channels: usize, [image, size]: [[usize; 2]; 2], before: [usize; 2]) -> Option<Tiles> {
        let fits = g.is_planar() && g.kernel[1] == 3 && g.stride == [1; 3] && g.dilation[1] == 1;
        let pitch = size[1] + (g.kernel[2] - 1) * g.dilation[2];
        let seen = (before[1] + image[1]).min(pitch).saturating_sub(before[1]);
        if !fits || size[0] == 0 || size[1] < UNIT || seen < UNIT {
            return None;
        }
        let columns = [g.kernel[2], g.dilation[2]];
        let down = size[0].div_ceil(TILE);
        let mut tiles = Tiles {
            images: g.n,
            groups: g.groups,
            channels,
            image,
            size,
            columns,
            before,
            pitch,
            down,
            strip: 1,
            zeros: vec![0.0; image[1]],
        };
        tiles.strip = tiles.strip_of(g.n);
        Some(tiles)
    }

    /// Tile rows of a strip, of those of `images` images: whole images where several fit, and as many as leave no thread
    /// waiting for another.
    pub(super) fn strip_of(&self, images: usize) -> usize {
        let most = STRIP / (POINTS * self.channels * self.pitch).max(1);
        let (all, unit) = if most >= self.down { (images, self.down) } else { (images * self.down, 1) };
        let threads = rayon::current_num_threads();
        let longest = |strip: &usize| all.div_ceil(*strip).div_ceil(threads) * strip;
        (1..=(most / unit).clamp(1, all.max(1))).rev().min_by_key(longest).unwrap_or(1) * unit
    }

    /// Of an array of all images, those that come behind some tile rows, as many, if strips are whole images.
    pub(super) fn behind<'a>(&self, of: &'a [f32], rows: Range<usize>) -> &'a [f32] {
        let image = of.len() / self.images.max(1);
        let (from, to) = (rows.end / self.down * image, (rows.end + rows.len()) / self.down * image);
        if self.strip.is_multiple_of(self.down) { &of[from..to.min(of.len())] } else { &[] }
    }

    /// Elements of the planes at one point.
    pub(super) fn point(&self) -> usize {
        self.channels * self.strip * self.pitch
    }

    /// Where each column of the kernel reads for the first pixel, channel after channel, in the planes of a point.
    pub(super) fn taps(&self) -> Vec<usize> {
        let [columns, distance] = self.columns;
        (0..self.channels * columns).map(|t| t / columns * self.strip * self.pitch + t % columns * distance).collect()
    }

    /// The same tiles in strips within chunks of `images` images.
    pub(super) fn within(self, images: usize) -> Tiles {
        let most = STRIP / (POINTS * self.channels * self.pitch).max(1);
        let strip = if most >= self.down { most / self.down * self.down } else { most.max(1) };
        Tiles { strip: strip.min(images * self.down), ..self }
    }

    /// True where fewer multiplications are worth the transforms: padding to whole tiles and vectors must not eat them up.
    pub(crate) fn pays(&self, images: usize, outputs: usize) -> bool {
        let [height, width] = self.size;
        let ours = self.down * POINTS * width.next_multiple_of(UNIT);
        let direct = 3 * height * if width.is_multiple_of(UNIT) { width } else { self.pitch };
        self.channels >= UNIT && outputs >= UNIT && images * height * width >= PIXELS && 6 * ours <= 5 * direct
    }
}

/// Writes the planes of some tile rows of a group.
#[inline(always)]
fn fill_generic<L: Lanes>(tiles: &Tiles, x: &[f32], group: usize, rows: Range<usize>, out: &mut [f32]) {
    let ([height, width], pitch) = (tiles.image, tiles.pitch);
    // Columns of the planes that show the image.
    let first = tiles.before[1];
    let end = (first + width).min(pitch);
    assert!(end - first >= UNIT && end - first <= width && width <= tiles.zeros.len());
    for channel in 0..tiles.channels {
        for (i, row) in rows.clone().enumerate() {
            let image = (row / tiles.down * tiles.groups + group) * tiles.channels + channel;
            let image = &x[image * height * width..][..height * width];
            let top = row % tiles.down * TILE;
            let (mut from, mut to) = ([tiles.zeros.as_ptr(); POINTS], [std::ptr::null_mut(); POINTS]);
            for (k, from) in from.iter_mut().enumerate() {
                let y = (top + k).wrapping_sub(tiles.before[0]);
                if y < height {
                    *from = image[y * width..][..width].as_ptr();
                }
            }
            for (p, to) in to.iter_mut().enumerate() {
                let line = &mut out[p * tiles.point() + (channel * tiles.strip + i) * pitch..][..pitch];
                clear(&mut line[..first]);
                clear(&mut line[end..]);
                *to = line[first..end].as_mut_ptr();
            }
            // SAFETY: each of the lines is `width` long, each place to write `end - first`, a unit at least (asserted).
            unsafe {
                match end - first {
                    count if count >= L::LANES => line::<L>(from, to, count),
                    count => line::<L::Narrow>(from, to, count),
                }
            }
        }
    }
}

/// One row at all points.
///
/// # Safety
/// `count` must be a vector at least, each of `from` valid for reading and each of `to` for writing as many elements.
#[inline(always)]
unsafe fn line<L: Lanes>(from: [*const f32; POINTS], to: [*mut f32; POINTS], count: usize) {
    for x in (0..count).step_by(L::LANES) {
        // The last vector ends with the row, wherever it begins.
        let x = x.min(count - L::LANES);
        // SAFETY: the vector lies within `count` elements, as the function's own contract says.
        unsafe {
            let mut d = [L::zero(); POINTS];
            for k in 0..POINTS {
                d[k] = L::load(from[k].add(x));
            }
            let d = at_points(d);
            for p in 0..POINTS {
                d[p].store(to[p].add(x));
            }
        }
    }
}

dispatch! {
    /// [`fill_generic`] compiled for an instruction set.
    pub(super) fill = fill_generic(tiles: &Tiles, x: &[f32], group: usize, rows: Range<usize>, out: &mut [f32])
}

/// A convolution with what is the same for all strips.
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
        let (taps, blocks, columns) = (tiles.taps(), outputs.div_ceil(rows), tiles.columns[0]);
        let point = taps.len() * rows;
        let mut packed = vec![0f32; tiles.groups * blocks * POINTS * point];
        packed.par_chunks_mut((POINTS * point).max(1)).enumerate().for_each(|(i, block)| {
            let (group, first) = (i / blocks, i % blocks * rows);
            for o in first..(first + rows).min(outputs) {
                for t in 0..taps.len() {
                    let [top, middle, bottom] = weight(group, o, t / columns, t % columns);
                    for (p, at) in FILTER.iter().enumerate() {
                        block[p * point + t * rows + o - first] = at[0] * top + at[1] * middle + at[2] * bottom;
                    }
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

/// The output, of which each strip writes rows of its own.
struct Out {
    at: *mut f32,
    len: usize,
}
// SAFETY: only `Convolution::run` makes one, and its strips share no row of a group's channels.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// Units of pixels of a strip, in whole vectors: a row of the output is cut into units, of which the last one ends with the row.
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
        // A vector that is not whole repeats its last unit.
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
    /// What the next strip reads, to be asked for meanwhile.
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
    let last = spots.out.iter().map(|(at, rows)| at + (rows - 1) * all.tiles.size[1] + UNIT).max().unwrap_or(0);
    assert!(all.rows == R && spots.planes.len().is_multiple_of(per_vector) && spots.planes.len() == spots.out.len());
    assert!(furthest(&all.taps) + furthest(&spots.planes) + UNIT <= all.tiles.point() && job.planes.len() >= POINTS * all.tiles.point());
    assert!(!JOINED || L::LANES == UNIT || all.tiles.size[1].is_multiple_of(L::LANES));
    assert!(last + (all.outputs - 1) * pixels <= job.out.len && sums.len() >= POINTS * R * VECTORS * L::LANES + UNIT);
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
            // output channel within the output (both asserted); `sums` has room for `VECTORS` vectors
            // and a unit.
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
        // Rows behind the end of an image go behind the sums.
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
