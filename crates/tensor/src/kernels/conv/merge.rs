//! Pointwise convolutions of small images as convolutions of fewer, larger ones.
//!
//! A 1x1 convolution does not depend on which image a pixel belongs to. If an image has only a few pixels (late layers), vectors
//! would be half empty and every image would read all weights again, so several images are laid side by side:
//! `[n, channel, pixel]` becomes `[n / images, channel, images * pixel]`.
use super::Geometry;
use crate::{ConvOptions, recycle};
use rayon::prelude::*;

/// Images with at least so many pixels are not merged.
const ENOUGH: usize = 32;
/// Least number of pixels of a merged image.
const PIXELS: usize = 256;
/// The number of pixels of merged images should be a multiple of this: whole vectors.
const VECTOR: usize = 16;

/// How images are laid side by side.
pub(crate) struct Merge {
    /// Number of images in a merged one.
    images: usize,
    /// The convolution of the merged images.
    pub(crate) geometry: Geometry,
}

impl Merge {
    /// For a convolution that becomes faster by it.
    pub(crate) fn of(g: &Geometry) -> Option<Merge> {
        let pixels = g.pixels_in();
        let pointwise = g.kernel == [1; 3] && g.stride == [1; 3] && g.before == [0; 3] && g.input == g.output && g.groups == 1;
        if !pointwise || pixels == 0 || pixels >= ENOUGH || g.n < 4 {
            return None;
        }
        // At least two merged images, so that two threads have work.
        let mut candidates = (2..=g.n / 2).filter(|i| g.n.is_multiple_of(*i));
        let large = |i: &usize| i * pixels >= PIXELS;
        let images = candidates
            .clone()
            .find(|i| large(i) && (i * pixels).is_multiple_of(VECTOR))
            .or_else(|| candidates.clone().find(large))
            .or_else(|| candidates.next_back())?;
        let geometry = Geometry::new(&[g.n / images, g.c, 1, images * pixels], &[g.o, g.c, 1, 1], &ConvOptions::plain(2)).ok()?;
        Some(Merge { images, geometry })
    }

    fn pixels(&self) -> usize {
        self.geometry.input[2] / self.images
    }

    /// `[n, channels, pixel]` laid side by side.
    pub(crate) fn merged(&self, x: &[f32], channels: usize) -> Vec<f32> {
        let (pixels, image) = (self.pixels(), channels * self.pixels());
        let mut out = recycle::take(x.len());
        out.par_chunks_mut(self.images * image).zip(x.par_chunks(self.images * image)).for_each(|(out, x)| {
            for (c, row) in out.chunks_mut(self.images * pixels).enumerate() {
                for (i, to) in row.chunks_mut(pixels).enumerate() {
                    to.copy_from_slice(&x[i * image + c * pixels..][..pixels]);
                }
            }
        });
        out
    }

    /// The reverse of [`Merge::merged`].
    pub(crate) fn split(&self, merged: Vec<f32>, channels: usize, out: &mut [f32]) {
        let (pixels, image) = (self.pixels(), channels * self.pixels());
        out.par_chunks_mut(self.images * image).zip(merged.par_chunks(self.images * image)).for_each(|(out, merged)| {
            for (i, image) in out.chunks_mut(image).enumerate() {
                for (c, to) in image.chunks_mut(pixels).enumerate() {
                    to.copy_from_slice(&merged[(c * self.images + i) * pixels..][..pixels]);
                }
            }
        });
        recycle::give(merged);
    }
}
