//! The padded copy of an image that the direct kernels read: each channel is split into `stride x stride` phase planes,
//! so that the pixels one tap sees along a row are contiguous whatever the stride, and no tap needs a bounds check.

/// Layout of the phase planes of one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    /// Strides along height and width.
    stride: [usize; 2],
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
    /// For an image whose padded extent is at least `extent` pixels along height and width.
    pub(crate) fn new(extent: [usize; 2], stride: [usize; 2], before: [usize; 2]) -> Self {
        let pitch = extent[1].div_ceil(stride[1]);
        Planes { stride, pitch, plane: extent[0].div_ceil(stride[0]) * pitch, before }
    }

    /// Elements of the planes of `channels` channels.
    pub(crate) fn len(&self, channels: usize) -> usize {
        channels * self.stride[0] * self.stride[1] * self.plane + SLACK
    }

    /// Where the pixel at `(y, x)` of the padded image lies.
    pub(crate) fn offset(&self, channel: usize, y: usize, x: usize) -> usize {
        let [sy, sx] = self.stride;
        ((channel * sy + y % sy) * sx + x % sx) * self.plane + y / sy * self.pitch + x / sx
    }

    /// Copies an image `[channels, height, width]` into `out`, zeros around it.
    pub(crate) fn fill(&self, image: &[f32], size: [usize; 2], out: &mut [f32]) {
        out.fill(0.0);
        let [height, width] = size;
        if height == 0 || width == 0 {
            return;
        }
        for (channel, rows) in image.chunks(height * width).enumerate() {
            for (y, row) in rows.chunks(width).enumerate() {
                let y = y + self.before[0];
                if self.stride[1] == 1 {
                    let at = self.offset(channel, y, self.before[1]);
                    out[at..at + width].copy_from_slice(row);
                    continue;
                }
                for phase in 0..self.stride[1].min(width) {
                    let at = self.offset(channel, y, self.before[1] + phase);
                    let pixels = row[phase..].iter().step_by(self.stride[1]);
                    for (o, v) in out[at..].iter_mut().zip(pixels) {
                        *o = *v;
                    }
                }
            }
        }
    }
}
