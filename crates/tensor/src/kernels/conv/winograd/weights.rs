//! Backward by weights through Winograd's minimal filtering.
//!
//! The transpose of the forward pass: with `y = A'((G w) * (B' d))`, the gradient of the weights is `G'((A dy) * (B' d))`, summed
//! over all tiles. Loop order: chunk of images (threads) → strip of tile rows → point → the loops of the direct kernel, which see
//! at each point a convolution whose kernel has one row. `A dy` is made in place from the transposed gradient, `[tile
//! row][point][column][output channel]`; at the first and the last point it is the tile's first and last row.
use super::{FILTER, POINTS, TILE, Tiles, fill};
use crate::kernels::conv::Geometry;
use crate::kernels::conv::weights::{Job, accumulate, chunks, per_chunk, transpose};
use crate::kernels::scratch;
use crate::kernels::simd::{Isa, Lanes, dispatch};

/// The place of each of a tile's rows among the points, before they are made of them.
const PLACES: [usize; TILE] = [0, 1, 2, POINTS - 1];

/// Makes the rows at the inner points of a tile's rows: the paper's `A`, all in place.
#[inline(always)]
fn spread_generic<L: Lanes>(tile: &mut [f32]) {
    let len = tile.len() / POINTS;
    assert!(len.is_multiple_of(L::LANES));
    let at = tile.as_mut_ptr();
    for x in (0..len).step_by(L::LANES) {
        // SAFETY: `tile` holds `POINTS` rows of `len` elements, whole vectors (asserted).
        unsafe {
            let row = |i: usize| at.add(i * len + x);
            let (a, b, c, d) = (L::load(row(PLACES[0])), L::load(row(PLACES[1])), L::load(row(PLACES[2])), L::load(row(PLACES[3])));
            let (even, odd) = (a.add(c), b.add(d));
            even.add(odd).store(row(1));
            even.sub(odd).store(row(2));
            L::splat(0.125).mul_add(d, L::splat(0.25).mul_add(c, L::splat(0.5).mul_add(b, a))).store(row(3));
            L::splat(-8.0).mul_add(d, L::splat(4.0).mul_add(c, L::splat(-2.0).mul_add(b, a))).store(row(4));
        }
    }
}

dispatch! {
    /// [`spread_generic`] compiled for an instruction set.
    spread = spread_generic(tile: &mut [f32])
}

/// `dw[o, c / groups, ..]` from `x` and `dy`; `tiles` are those of the input.
pub(crate) fn backward_weights(isa: Isa, tiles: Tiles, g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (outputs, columns, [height, width]) = (g.group_out(), g.kernel[2], [g.output[1], g.output[2]]);
    let tiles = tiles.within(per_chunk(g));
    let job = Job::new(isa, outputs, tiles.taps(), [tiles.pitch, width], POINTS);
    let row = width * job.padded;
    let image_out = outputs * height * width;
    let parts = chunks(g, |images, group| {
        let mut sums = vec![0f32; POINTS * job.len()];
        scratch::with(POINTS * tiles.point(), |planes| {
            scratch::with(tiles.strip * POINTS * row, |gradient| {
                if job.padded > outputs {
                    gradient.fill(0.0);
                }
                let end = images.end * tiles.down;
                for from in (images.start * tiles.down..end).step_by(tiles.strip) {
                    let rows = from..(from + tiles.strip).min(end);
                    fill(isa, &tiles, x, group, rows.clone(), planes);
                    for (tile, at) in gradient.chunks_exact_mut(POINTS * row).zip(rows.clone()) {
                        let (image, top) = (at / tiles.down, at % tiles.down * TILE);
                        let dy = &dy[(image * g.groups + group) * image_out..][..image_out];
                        for (j, place) in PLACES.iter().enumerate() {
                            let to = &mut tile[place * row..][..row];
                            match top + j < height {
                                true => transpose(isa, &dy[(top + j) * width..], [outputs, height * width], width, job.padded, to),
                                false => to.fill(0.0),
                            }
                        }
                        spread(isa, tile);
                    }
                    let next = [x, dy].map(|of| tiles.behind(of, rows.clone()));
                    for p in 0..POINTS {
                        let next = next.map(|of| &of[of.len() * p / POINTS..of.len() * (p + 1) / POINTS]);
                        let (planes, gradient) = (&planes[p * tiles.point()..][..tiles.point()], &gradient[p * row..]);
                        accumulate(isa, &job, planes, gradient, rows.len(), &mut sums[p * job.len()..][..job.len()], next);
                    }
                }
            });
        });
        sums
    });
    job.reduce(g, &parts, dw, |row, tap, totals: [f32; POINTS]| {
        for k in 0..3 {
            row[(tap / columns * 3 + k) * columns + tap % columns] = FILTER.iter().zip(totals).map(|(at, total)| at[k] * total).sum();
        }
    });
}
