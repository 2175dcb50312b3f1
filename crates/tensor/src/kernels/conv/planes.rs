//! The padded copy of an image that the direct kernels read: each channel is split into `stride x stride` phase planes,
//! so that the pixels one tap sees along a row are contiguous whatever the stride, and no tap needs a bounds check.

use super::Geometry;

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

/// Pixels behind the last plane that a whole vector may still read.
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

    /// Where each tap of `channels` input channels reads for the first output pixel, in the order of the weights.
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

    /// Where the pixel at `(y, x)` of the padded image lies; its phase must be one that is kept.
    pub(crate) fn offset(&self, channel: usize, y: usize, x: usize) -> usize {
        let [sy, sx] = self.stride;
        channel * self.channel() + (y % sy * self.phases[1] + x % sx) * self.plane + y / sy * self.pitch + x / sx
    }

    /// True if an image of this size has the layout of its planes: nothing need be copied.
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
                return plane.fill(0.0);
            };
            let phase = [i % phases / self.phases[1], i % self.phases[1]];
            // Columns of this phase that lie in the image.
            let first = self.before[1].saturating_sub(phase[1]).div_ceil(self.stride[1]).min(self.pitch);
            let end = (width + self.before[1]).saturating_sub(phase[1]).div_ceil(self.stride[1]).clamp(first, self.pitch);
            let start = (first * self.stride[1] + phase[1]).saturating_sub(self.before[1]);
            for (r, row) in plane.chunks_exact_mut(self.pitch).enumerate() {
                match (r * self.stride[0] + phase[0]).checked_sub(self.before[0]).filter(|y| *y < height) {
                    Some(y) if first < end => {
                        clear(&mut row[..first]);
                        every(self.stride[1], &pixels[y * width + start..(y + 1) * width], &mut row[first..end]);
                        clear(&mut row[end..]);
                    }
                    _ => row.fill(0.0),
                }
            }
        }
    }
}

/// Zeros at the ends of a row, most often one element: a call would cost more than the work.
#[inline]
fn clear(ends: &mut [f32]) {
    match ends {
        [] => {}
        [one] => *one = 0.0,
        more => more.fill(0.0),
    }
}

/// Copies `N` elements without a call.
#[inline]
fn copy<const N: usize>(from: &[f32], to: &mut [f32]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
        *to = *from;
    }
}

/// Every `step`-th element of `from`; the common steps as loops that vectorise.
fn every(step: usize, from: &[f32], to: &mut [f32]) {
    match (step, to.len()) {
        (1, 8) => copy::<8>(from, to),
        (1, 16) => copy::<16>(from, to),
        (1, 32) => copy::<32>(from, to),
        (1, len) => to.copy_from_slice(&from[..len]),
        (2, _) => {
            let (pairs, rest) = from.as_chunks::<2>();
            let whole = pairs.len().min(to.len());
            to[..whole].iter_mut().zip(pairs).for_each(|(t, pair)| *t = pair[0]);
            to[whole..].iter_mut().zip(rest).for_each(|(t, v)| *t = *v);
        }
        _ => to.iter_mut().zip(from.iter().step_by(step)).for_each(|(t, v)| *t = *v),
    }
}
