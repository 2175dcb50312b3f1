//! The padded copy of an image that the direct kernels read: each channel is split into `stride x stride` phase planes, so that
//! the pixels that one tap reads along a row are contiguous whatever the stride, and no tap needs a bounds check.

use super::Geometry;
use crate::kernels::simd::vectorised;
use std::ops::Range;

/// Layout of the phase planes of one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    /// Strides along height and width.
    stride: [usize; 2],
    /// Phases that some tap reads, along height and width; the others are not kept.
    phases: [usize; 2],
    /// Pixels from one row of a plane to the next.
    pub(crate) pitch: usize,
    /// Pixels of one plane.
    plane: usize,
    /// Padding before the first row and column.
    before: [usize; 2],
}

/// Pixels after the last plane that a whole vector may still read.
const SLACK: usize = 64;

impl Planes {
    /// For a padded image of which `extent` pixels along height and width are read, at stride 1.
    pub(crate) fn unstrided(extent: [usize; 2], before: [usize; 2]) -> Self {
        Planes { stride: [1, 1], phases: [1, 1], pitch: extent[1], plane: extent[0] * extent[1], before }
    }

    /// For the input of a convolution.
    pub(crate) fn of_input(g: &Geometry) -> Self {
        let axis = |i: usize| {
            let (stride, step) = (g.stride[i], g.dilation[i]);
            let extent = (g.output[i] - 1) * stride + (g.kernel[i] - 1) * step + 1;
            let phases = (0..g.kernel[i]).map(|k| k * step % stride + 1).max().unwrap_or(1);
            (extent.div_ceil(stride), phases)
        };
        let ((rows, tall), (pitch, wide)) = (axis(1), axis(2));
        Planes { stride: [g.stride[1], g.stride[2]], phases: [tall, wide], pitch, plane: rows * pitch, before: [g.before[1], g.before[2]] }
    }

    /// The offset of each tap of `channels` input channels for the first output pixel, in the order of the weights.
    pub(crate) fn taps(&self, g: &Geometry, channels: usize) -> Vec<usize> {
        let area = g.kernel[1] * g.kernel[2];
        let place = |t: usize| (t % area / g.kernel[2] * g.dilation[1], t % g.kernel[2] * g.dilation[2]);
        (0..channels * area).map(|t| self.offset(t / area, place(t).0, place(t).1)).collect()
    }

    /// Elements of one channel.
    pub(crate) fn channel(&self) -> usize {
        self.phases[0] * self.phases[1] * self.plane
    }

    /// Elements of the planes of `channels` channels.
    pub(crate) fn len(&self, channels: usize) -> usize {
        channels * self.channel() + SLACK
    }

    /// The position of the pixel at `(y, x)` of the padded image; its phase must be kept.
    pub(crate) fn offset(&self, channel: usize, y: usize, x: usize) -> usize {
        let [sy, sx] = self.stride;
        channel * self.channel() + (y % sy * self.phases[1] + x % sx) * self.plane + y / sy * self.pitch + x / sx
    }

    /// True if an image of this size has the layout of its planes, so that no copy is needed.
    pub(crate) fn is_image(&self, size: [usize; 2]) -> bool {
        self.stride == [1, 1] && self.before == [0, 0] && self.pitch == size[1] && self.plane == size[0] * size[1]
    }

    /// Writes an image `[channels, height, width]` into `out`, zeros around it; every element of the planes is written.
    pub(crate) fn fill(&self, image: &[f32], size: [usize; 2], out: &mut [f32]) {
        let [height, width] = size;
        let phases = self.phases[0] * self.phases[1];
        if self.plane == 0 {
            return;
        }
        for (i, plane) in out.chunks_exact_mut(self.plane).enumerate() {
            let Some(pixels) = image.get(i / phases * height * width..(i / phases + 1) * height * width) else {
                plane.fill(0.0);
                continue;
            };
            let phase = [i % phases / self.phases[1], i % self.phases[1]];
            // Rows and columns of this phase that lie in the image, and the first of them there.
            let [(rows, y), (columns, x)] = [(0, height, self.plane / self.pitch), (1, width, self.pitch)].map(|(axis, len, all)| {
                let (step, before) = (self.stride[axis], self.before[axis]);
                let first = before.saturating_sub(phase[axis]).div_ceil(step).min(all);
                let end = (len + before).saturating_sub(phase[axis]).div_ceil(step).clamp(first, all);
                (first..end, (first * step + phase[axis]).saturating_sub(before))
            });
            if rows.is_empty() || columns.is_empty() {
                plane.fill(0.0);
                continue;
            }
            plane[..rows.start * self.pitch].fill(0.0);
            plane[rows.end * self.pitch..].fill(0.0);
            let to = &mut plane[rows.start * self.pitch..rows.end * self.pitch];
            let from = Lines { pixels: &pixels[y * width + x..], distance: self.stride[0] * width };
            vectorised!(match (self.stride[1], columns.len()) {
                (1, 8) => from.copy(to, self.pitch, columns, copy::<8>),
                (1, 16) => from.copy(to, self.pitch, columns, copy::<16>),
                (1, 32) => from.copy(to, self.pitch, columns, copy::<32>),
                (1, _) => from.copy(to, self.pitch, columns, |from, to| to.copy_from_slice(&from[..to.len()])),
                (2, _) => from.copy(to, self.pitch, columns, every_second),
                (step, _) => from.copy(to, self.pitch, columns, |from, to| {
                    to.iter_mut().zip(from.iter().step_by(step)).for_each(|(t, v)| *t = *v);
                }),
            });
        }
    }
}

/// Lines of an image.
#[derive(Clone, Copy)]
struct Lines<'a> {
    /// From the first pixel of the first line on.
    pixels: &'a [f32],
    /// Pixels from one line to the next.
    distance: usize,
}

impl Lines<'_> {
    /// Writes one line after the other into the `columns` of rows of `pitch` elements, zeros around it.
    #[inline(always)]
    fn copy(self, to: &mut [f32], pitch: usize, columns: Range<usize>, one: impl Fn(&[f32], &mut [f32])) {
        for (i, row) in to.chunks_exact_mut(pitch).enumerate() {
            clear(&mut row[..columns.start]);
            one(&self.pixels[i * self.distance..], &mut row[columns.clone()]);
            clear(&mut row[columns.end..]);
        }
    }
}

/// Zeros at the ends of a row, mostly one element: a call would cost more than the loop.
#[inline(always)]
pub(super) fn clear(ends: &mut [f32]) {
    match ends {
        [] => {}
        [one] => *one = 0.0,
        more => more.fill(0.0),
    }
}

/// Copies `N` elements without a call.
#[inline(always)]
fn copy<const N: usize>(from: &[f32], to: &mut [f32]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
        *to = *from;
    }
}

/// Copies every second element, in a loop that vectorises.
#[inline(always)]
fn every_second(from: &[f32], to: &mut [f32]) {
    let (pairs, rest) = from.as_chunks::<2>();
    let whole = pairs.len().min(to.len());
    to[..whole].iter_mut().zip(pairs).for_each(|(t, pair)| *t = pair[0]);
    to[whole..].iter_mut().zip(rest).for_each(|(t, v)| *t = *v);
}
