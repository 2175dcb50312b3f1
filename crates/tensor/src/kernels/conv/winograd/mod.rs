//! Winograd's minimal filtering, f32, 2-D, for kernels of three rows at stride 1: common code of its passes.
//!
//! Four rows of the output take six multiplications a column of the kernel instead of twelve: F(4, 3) of Lavin and Gray, "Fast
//! Algorithms for Convolutional Neural Networks", 2016, section 4.1, along the height alone. The columns of the kernel stay a
//! direct convolution, so the transforms combine whole rows and never shuffle lanes, and rounding errors grow by the factor of
//! one axis. With the points 0, 1, -1, 1/2, -2 and infinity, which lost least of those tried, errors are 1.6 to 1.8 times those
//! of direct sums (`cargo test -p espalier-tensor --lib errors_stay -- --nocapture`). A value that is not finite, or that
//! dwarfs those around it, reaches all rows of a tile and up to one of a neighbour's, five at most, where a direct sum confines
//! it to three. Thirds and fifteenths leave no sum exact, so forward passes whose weights lie on a grid of few bits do not come
//! here.
//!
//! Four output rows and the six input rows under them are a tile row; those of all images follow one another. Some of them are
//! a strip, whose input is transformed once into planes `[point][channel][tile row][column]`. They replace the padded copy of
//! the direct kernels and stay in the second-level cache.
mod data;
mod weights;

pub(crate) use data::{backward_data, forward};
pub(crate) use weights::backward_weights;

use super::Geometry;
use super::planes::clear;
use crate::kernels::simd::{Lanes, UNIT, dispatch};
use std::ops::Range;

/// Output rows of a tile.
const TILE: usize = 4;
/// Points of the polynomials: input rows under a tile.
const POINTS: usize = TILE + 2;
/// The rows of a kernel's column at each point: the paper's `G`.
const FILTER: [[f32; 3]; POINTS] = [
    [1.0, 0.0, 0.0],
    [1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0],
    [-1.0 / 3.0, 1.0 / 3.0, -1.0 / 3.0],
    [-16.0 / 15.0, -8.0 / 15.0, -4.0 / 15.0],
    [1.0 / 15.0, -2.0 / 15.0, 4.0 / 15.0],
    [0.0, 0.0, 1.0],
];

/// Elements of a strip's planes: they fit a second-level cache together with the weights.
const STRIP: usize = 48 << 10;
/// Least total number of columns of a strip's tile rows: the weights are read once for each strip.
const COLUMNS: usize = 256;
/// Number of output pixels below which transforming the weights costs more than it saves, and below which the six sums for each
/// weight column do.
const PIXELS: [usize; 2] = [512, 2048];

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

/// The tile rows of a stride-1 convolution's input, and their planes.
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
    pitch: usize,
    /// Tile rows of an image.
    down: usize,
    /// Tile rows of a strip.
    strip: usize,
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
        if !fits || channels == 0 || size[0] == 0 || size[1] < UNIT || seen < UNIT {
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
        tiles.strip = tiles.even();
        Some(tiles)
    }

    /// Tile rows of a strip at most.
    fn most(&self) -> usize {
        (STRIP / (POINTS * self.channels * self.pitch)).max(COLUMNS.div_ceil(self.size[1]))
    }

    /// Tile rows of a strip: whole images if they fit, and a number for which no thread waits for another.
    fn even(&self) -> usize {
        let most = self.most();
        let (all, unit) = if most >= self.down { (self.images, self.down) } else { (self.images * self.down, 1) };
        let threads = rayon::current_num_threads();
        let longest = |strip: &usize| all.div_ceil(*strip).div_ceil(threads) * strip;
        (1..=(most / unit).clamp(1, all.max(1))).rev().min_by_key(longest).unwrap_or(1) * unit
    }

    /// Of an array of all images, those that come behind some tile rows, as many, if strips are whole images.
    fn behind<'a>(&self, of: &'a [f32], rows: Range<usize>) -> &'a [f32] {
        let image = of.len() / self.images.max(1);
        let (from, to) = (rows.end / self.down * image, (rows.end + rows.len()) / self.down * image);
        if self.strip.is_multiple_of(self.down) { &of[from..to.min(of.len())] } else { &[] }
    }

    /// Elements of the planes at one point.
    fn point(&self) -> usize {
        self.channels * self.strip * self.pitch
    }

    /// Where each column of the kernel reads for the first pixel, channel after channel, in the planes of a point.
    fn taps(&self) -> Vec<usize> {
        let [columns, distance] = self.columns;
        (0..self.channels * columns).map(|t| t / columns * self.strip * self.pitch + t % columns * distance).collect()
    }

    /// The same tiles in strips within chunks of `images` images.
    fn within(self, images: usize) -> Tiles {
        let most = self.most();
        let strip = if most >= self.down { most / self.down * self.down } else { most };
        Tiles { strip: strip.min(images * self.down), ..self }
    }

    /// True if the saved multiplications outweigh the transforms: padding to whole tiles and vectors must not cost more.
    pub(crate) fn pays(&self, outputs: usize) -> bool {
        self.saves(outputs, PIXELS[0])
    }

    /// The same for the gradient of the weights.
    pub(crate) fn pays_by_weights(&self, outputs: usize) -> bool {
        self.saves(outputs, PIXELS[1])
    }

    fn saves(&self, outputs: usize, pixels: usize) -> bool {
        let [height, width] = self.size;
        let ours = self.down * POINTS * width.next_multiple_of(UNIT);
        let direct = 3 * height * if width.is_multiple_of(UNIT) { width } else { self.pitch };
        self.channels >= UNIT && outputs >= UNIT && self.images * height * width >= pixels && 6 * ours <= 5 * direct
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
    fill = fill_generic(tiles: &Tiles, x: &[f32], group: usize, rows: Range<usize>, out: &mut [f32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::conv::{self, im2col};
    use crate::kernels::simd::Isa;
    use crate::random::uniform_f64;
    use crate::{ConvOptions, Tensor};
    use proptest::prelude::*;

    fn f64s(t: &Tensor) -> &[f64] {
        t.as_slice::<f64>().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// Every instruction set on odd shapes against f64 through patches, in all three directions.
        #[test]
        fn all_directions_agree_with_patches(
            n in 1usize..6, groups in 1usize..3, cg in 1usize..20, og in 1usize..20, h in 1usize..18, w in 1usize..36,
            kw in 1usize..5, dw in 1usize..3, pads in (0usize..3, 0usize..3, 0usize..3, 0usize..3), seed in any::<u64>(),
        ) {
            let options = ConvOptions { strides: vec![1, 1], pads: vec![(pads.0, pads.1), (pads.2, pads.3)], dilations: vec![1, dw], groups };
            let (xs, ws) = ([n, cg * groups, h, w], [og * groups, cg, 3, kw]);
            let g = Geometry::new(&xs, &ws, &options);
            prop_assume!(g.is_ok());
            let g = g.unwrap();
            let draw = |seed, len| uniform_f64(seed, &[len], -1.0, 1.0);
            let (x, w) = (draw(seed, xs.iter().product()), draw(seed ^ 1, ws.iter().product()));
            let (bias, dy) = (draw(seed ^ 2, g.o), draw(seed ^ 3, g.n * g.o * g.pixels_out()));
            // Inputs are rounded to f32 for both.
            let narrow = |t: &Tensor| f64s(t).iter().map(|v| *v as f32).collect::<Vec<f32>>();
            let (x, w, bias, dy) = (narrow(&x), narrow(&w), narrow(&bias), narrow(&dy));
            let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
            let mut expected = [vec![0f64; dy.len()], vec![0f64; x.len()], vec![0f64; w.len()]];
            im2col::forward(&g, &wide(&x), &wide(&w), Some(&wide(&bias)), &mut expected[0]);
            im2col::backward_data(&g, &wide(&dy), &wide(&w), &mut expected[1]);
            im2col::backward_weights(&g, &wide(&x), &wide(&dy), &mut expected[2]);
            let (input, gradient) = (Tiles::of_input(&g), Tiles::of_gradient(&g));
            prop_assume!(input.is_some() || gradient.is_some());
            for isa in Isa::available() {
                // Results start as NaN, so that an element nobody writes is found.
                let mut got = expected.each_ref().map(|e| vec![f32::NAN; e.len()]);
                if let Some(tiles) = input.clone() {
                    forward(isa, tiles.clone(), &g, &x, &w, Some(&bias), &mut got[0]);
                    backward_weights(isa, tiles, &g, &x, &dy, &mut got[2]);
                }
                if let Some(tiles) = gradient.clone() {
                    backward_data(isa, tiles, &g, &dy, &w, &mut got[1]);
                }
                let done = [input.is_some(), gradient.is_some(), input.is_some()];
                for (direction, (got, expected)) in got.iter().zip(&expected).enumerate().filter(|(i, _)| done[*i]) {
                    let largest = expected.iter().fold(1f64, |m, v| m.max(v.abs()));
                    let off = got.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs() / largest).fold(0.0, f64::max);
                    prop_assert!(off <= 5e-6 && !got.iter().any(|v| v.is_nan()), "{:?} direction {} is off by {:e}", isa, direction, off);
                }
            }
        }
    }

    /// Rounding errors beside those of the direct kernels, both against f64: root mean square, as parts of the result's own.
    /// `--nocapture` prints them.
    #[test]
    fn errors_stay_near_those_of_direct_sums() {
        for channels in [16, 64] {
            let options = ConvOptions { strides: vec![1, 1], pads: vec![(1, 1); 2], dilations: vec![1, 1], groups: 1 };
            let g = Geometry::new(&[4, channels, 16, 16], &[channels, channels, 3, 3], &options).unwrap();
            let draw = |seed, len| f64s(&uniform_f64(seed, &[len], -1.0, 1.0)).iter().map(|v| *v as f32).collect::<Vec<f32>>();
            let (x, w, dy) = (draw(1, g.n * g.c * 256), draw(2, g.o * g.c * 9), draw(3, g.n * g.o * 256));
            let wide = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
            let mut expected = [vec![0f64; dy.len()], vec![0f64; x.len()], vec![0f64; w.len()]];
            im2col::forward(&g, &wide(&x), &wide(&w), None, &mut expected[0]);
            im2col::backward_data(&g, &wide(&dy), &wide(&w), &mut expected[1]);
            im2col::backward_weights(&g, &wide(&x), &wide(&dy), &mut expected[2]);
            let [mut direct, mut ours] = [0, 1].map(|_| expected.each_ref().map(|e| vec![0f32; e.len()]));
            let isa = Isa::best();
            conv::direct::forward(isa, &g, &x, &w, None, &mut direct[0]);
            conv::direct::backward_data(isa, &g, &dy, &w, &mut direct[1]);
            conv::weights::backward_weights(isa, &g, &x, &dy, &mut direct[2]);
            let (input, gradient) = (Tiles::of_input(&g).unwrap(), Tiles::of_gradient(&g).unwrap());
            forward(isa, input.clone(), &g, &x, &w, None, &mut ours[0]);
            backward_data(isa, gradient, &g, &dy, &w, &mut ours[1]);
            backward_weights(isa, input, &g, &x, &dy, &mut ours[2]);
            let square = |v: f64| v * v;
            for (i, direction) in ["forward", "by data", "by weights"].into_iter().enumerate() {
                let all = expected[i].iter().map(|v| square(*v)).sum::<f64>();
                let error = |got: &[f32]| (got.iter().zip(&expected[i]).map(|(a, b)| square(f64::from(*a) - b)).sum::<f64>() / all).sqrt();
                let (direct, ours) = (error(&direct[i]), error(&ours[i]));
                println!("{channels} channels, {direction}: direct {direct:.1e}, winograd {ours:.1e}, {:.2} times", ours / direct);
                assert!(ours <= 4.0 * direct, "{channels} channels, {direction}: {ours:e} against {direct:e}");
            }
        }
    }
}
