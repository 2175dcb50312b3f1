//! Pooling over windows of a plane, f32.
//!
//! Loop order: planes (threads) → output row → 16 output columns, held in registers over the elements of their windows.
//! So that every read is a whole vector whatever the stride, a plane is first laid out in phases: row `y` of the padded
//! plane becomes `stride` rows, of which row `p` holds columns `p`, `p + stride`, ..; padding is filled with what leaves a
//! result unchanged, so that no window is a special case. A plane's phases stay in the cache. Windows add or compare their
//! elements in the order of the plain loop, so that results are equal to the bit.
use super::scratch;
use super::simd::vectorised;
use std::ops::Range;

/// Output columns at a time.
const LANES: usize = 16;

/// Sizes `[rows, columns]` of one plane and its windows.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) before: [usize; 2],
    /// The divisors of an average along each axis: number of elements in the window for each output row and column.
    pub(crate) seen: [Vec<usize>; 2],
}

impl Geometry {
    pub(crate) fn pixels_in(&self) -> usize {
        self.input.iter().product()
    }

    pub(crate) fn pixels_out(&self) -> usize {
        self.output.iter().product()
    }

    /// Elements of one phase of a row.
    fn phase(&self) -> usize {
        self.output[1].next_multiple_of(LANES) + ((self.kernel[1] - 1) * self.dilation[1]).div_ceil(self.stride[1])
    }

    /// Elements of all phases of a plane.
    fn laid_out(&self) -> usize {
        self.input[0] * self.stride[1] * self.phase()
    }

    /// Window rows that lie inside for an output row.
    fn inside(&self, out: usize) -> Range<usize> {
        range(out * self.stride[0], self.dilation[0], self.before[0], self.input[0], self.kernel[0])
    }

    /// Input row of a window row that lies inside.
    fn row(&self, out: usize, k: usize) -> usize {
        out * self.stride[0] + k * self.dilation[0] - self.before[0]
    }

    /// The position of the `k`-th element of output column 0's window, in the phases of input row `row`.
    fn place(&self, row: usize, k: usize) -> usize {
        let at = k * self.dilation[1];
        (row * self.stride[1] + at % self.stride[1]) * self.phase() + at / self.stride[1]
    }

    /// Calls `f(first column, its place in the phases, columns)` for each phase of an input row.
    #[inline(always)]
    fn columns(&self, row: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (stride, before) = (self.stride[1], self.before[1]);
        for p in 0..stride {
            // First column of this phase: the smallest with (column + before) % stride == p.
            let first = (p + stride - before % stride) % stride;
            if first < self.input[1] {
                let count = (self.input[1] - first).div_ceil(stride);
                let at = (first + before) / stride;
                // Columns behind the last window have no place.
                let count = count.min(self.phase().saturating_sub(at));
                f(first, (row * stride + p) * self.phase() + at, count);
            }
        }
    }

    /// Lays out a plane, with `fill` for the padding.
    #[inline(always)]
    fn lay_out(&self, x: &[f32], phases: &mut [f32], fill: f32) {
        phases.fill(fill);
        for (row, x) in x.chunks_exact(self.input[1]).enumerate() {
            self.columns(row, |first, place, count| {
                let to = &mut phases[place..place + count];
                match self.stride[1] {
                    1 => to.copy_from_slice(&x[first..first + count]),
                    2 => to.iter_mut().zip(x[first..].chunks(2)).for_each(|(o, x)| *o = x[0]),
                    s => to.iter_mut().zip(x[first..].iter().step_by(s)).for_each(|(o, x)| *o = *x),
                }
            });
        }
    }
}

/// Window elements `k` with `0 <= start + k * dilation - before < size`.
pub(crate) fn range(start: usize, dilation: usize, before: usize, size: usize, kernel: usize) -> Range<usize> {
    let first = before.saturating_sub(start).div_ceil(dilation);
    let end = (before + size).saturating_sub(start).div_ceil(dilation).min(kernel);
    first.min(end)..end
}

#[inline(always)]
fn vector(of: &[f32], at: usize) -> [f32; LANES] {
    let mut v = [0.0; LANES];
    v.copy_from_slice(&of[at..at + LANES]);
    v
}

/// Largest element of each window of a plane, and which of the window's elements it is. No window may be empty, and no
/// kernel may have more than 255 elements.
pub(crate) fn max_forward(g: &Geometry, x: &[f32], y: &mut [f32], which: &mut [u8]) {
    let first: Vec<i32> = (0..g.output[1].next_multiple_of(LANES))
        .map(|c| range(c * g.stride[1], g.dilation[1], g.before[1], g.input[1], g.kernel[1]).start as i32)
        .collect();
    scratch::with(g.laid_out(), |phases| {
        vectorised!({
            g.lay_out(x, phases, f32::NEG_INFINITY);
            let rows = y.chunks_exact_mut(g.output[1]).zip(which.chunks_exact_mut(g.output[1]));
            for (out, (y, which)) in rows.enumerate() {
                max_row(g, phases, &first, out, y, which);
            }
        });
    });
}

#[inline(always)]
fn max_row(g: &Geometry, phases: &[f32], first: &[i32], out: usize, y: &mut [f32], which: &mut [u8]) {
    let inside = g.inside(out);
    for (block, (y, which)) in y.chunks_mut(LANES).zip(which.chunks_mut(LANES)).enumerate() {
        let column = block * LANES;
        // The first element inside stands where all are minus infinity.
        let mut at = [0i32; LANES];
        at.copy_from_slice(&first[column..column + LANES]);
        at.iter_mut().for_each(|v| *v += (inside.start * g.kernel[1]) as i32);
        let mut best = [f32::NEG_INFINITY; LANES];
        for ky in inside.clone() {
            for kx in 0..g.kernel[1] {
                let v = vector(phases, g.place(g.row(out, ky), kx) + column);
                let code = (ky * g.kernel[1] + kx) as i32;
                for i in 0..LANES {
                    let take = (v[i] > best[i]) | v[i].is_nan();
                    best[i] = if take { v[i] } else { best[i] };
                    at[i] = if take { code } else { at[i] };
                }
            }
        }
        y.iter_mut().zip(best).for_each(|(y, v)| *y = v);
        which.iter_mut().zip(at).for_each(|(w, v)| *w = v as u8);
    }
}

/// Calls `f(output pixel, input pixel)` for the largest element of each window.
#[inline(always)]
pub(crate) fn each_largest(g: &Geometry, which: &[u8], mut f: impl FnMut(usize, usize)) {
    let offsets: Vec<isize> = (0..g.kernel[0] * g.kernel[1])
        .map(|k| {
            let axis = |k: usize, i: usize| (k * g.dilation[i]) as isize - g.before[i] as isize;
            axis(k / g.kernel[1], 0) * g.input[1] as isize + axis(k % g.kernel[1], 1)
        })
        .collect();
    for (row, line) in which.chunks_exact(g.output[1]).enumerate() {
        let start = row * g.stride[0] * g.input[1];
        for (column, code) in line.iter().enumerate() {
            let at = (start + column * g.stride[1]) as isize + offsets[usize::from(*code)];
            f(row * g.output[1] + column, at as usize);
        }
    }
}

/// Turns the gradient by the largest elements into that by the plane.
pub(crate) fn max_backward(g: &Geometry, which: &[u8], dy: &[f32], dx: &mut [f32]) {
    dx.fill(0.0);
    each_largest(g, which, |out, at| dx[at] += dy[out]);
}

/// The divisors of an output row.
#[inline(always)]
fn divisor(g: &Geometry, out: usize, column: usize) -> f32 {
    (g.seen[0][out] * g.seen[1][column]).max(1) as f32
}

/// Mean of each window of a plane.
pub(crate) fn average_forward(g: &Geometry, x: &[f32], y: &mut [f32]) {
    scratch::with(g.laid_out(), |phases| {
        vectorised!({
            g.lay_out(x, phases, 0.0);
            for (out, y) in y.chunks_exact_mut(g.output[1]).enumerate() {
                for (block, y) in y.chunks_mut(LANES).enumerate() {
                    let mut sums = [0f32; LANES];
                    for ky in g.inside(out) {
                        for kx in 0..g.kernel[1] {
                            let v = vector(phases, g.place(g.row(out, ky), kx) + block * LANES);
                            sums.iter_mut().zip(v).for_each(|(s, v)| *s += v);
                        }
                    }
                    let columns = block * LANES..;
                    y.iter_mut().zip(sums).zip(columns).for_each(|((y, s), column)| *y = s / divisor(g, out, column));
                }
            }
        });
    });
}

/// Turns the gradient by the means into that by the plane.
pub(crate) fn average_backward(g: &Geometry, dy: &[f32], dx: &mut [f32]) {
    scratch::with(g.laid_out() + g.output[1], |space| {
        let (phases, shares) = space.split_at_mut(g.laid_out());
        vectorised!({
            phases.fill(0.0);
            for (out, dy) in dy.chunks_exact(g.output[1]).enumerate() {
                shares.iter_mut().zip(dy).enumerate().for_each(|(column, (s, d))| *s = d / divisor(g, out, column));
                for ky in g.inside(out) {
                    // In the order from a window's last element on, an input element meets its windows in their order.
                    for kx in (0..g.kernel[1]).rev() {
                        let place = g.place(g.row(out, ky), kx);
                        phases[place..place + shares.len()].iter_mut().zip(&*shares).for_each(|(d, s)| *d += s);
                    }
                }
            }
            for (row, dx) in dx.chunks_exact_mut(g.input[1]).enumerate() {
                // Columns behind the last window have no place.
                dx.fill(0.0);
                g.columns(row, |first, place, count| {
                    let from = &phases[place..place + count];
                    match g.stride[1] {
                        1 => dx[first..first + count].copy_from_slice(from),
                        2 => dx[first..].chunks_mut(2).zip(from).for_each(|(d, v)| d[0] = *v),
                        s => dx[first..].iter_mut().step_by(s).zip(from).for_each(|(d, v)| *d = *v),
                    }
                });
            }
        });
    });
}
