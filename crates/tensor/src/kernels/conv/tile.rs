//! The register block of the convolution kernels: some output channels by some vectors of pixels, summed over all taps.
use crate::kernels::simd::{Lanes, UNIT};

/// One register block and its addresses.
pub(super) struct Tile<'a, const R: usize> {
    pub(super) planes: *const f32,
    pub(super) taps: &'a [usize],
    pub(super) weights: &'a [f32],
    pub(super) start: [f32; R],
    /// Adds to existing values instead of starting from the bias.
    pub(super) add: bool,
    pub(super) to: *mut f32,
    pub(super) width: usize,
    pub(super) rows: usize,
}

impl<const R: usize> Tile<'_, R> {
    /// Computes `V` vectors.
    ///
    /// # Safety
    /// `units` must have the offsets of `V` vectors; `planes` plus any tap and unit must be readable for a unit (a whole
    /// vector if `JOINED`), `weights` must have `R` elements a tap, and `to + r * width` must be writable for `V` vectors
    /// for each of the `rows` rows.
    #[inline(always)]
    pub(super) unsafe fn compute<L: Lanes, const V: usize, const JOINED: bool>(&self, units: &[usize]) {
        let per_vector = L::LANES / UNIT;
        let mut low = [self.planes; V];
        let mut high = [self.planes; V];
        let mut sums = [[L::zero(); V]; R];
        // SAFETY: as the function's own contract says. Plain indices: iterators make the compiler spill accumulators.
        unsafe {
            for v in 0..V {
                low[v] = self.planes.add(units[v * per_vector]);
                high[v] = self.planes.add(units[v * per_vector + per_vector - 1]);
            }
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = if self.add && r < self.rows {
                        L::load(self.to.add(r * self.width + v * L::LANES))
                    } else {
                        L::splat(self.start[r])
                    };
                }
            }
            let mut weights = self.weights.as_ptr();
            for &tap in self.taps {
                if JOINED || per_vector == 1 {
                    L::step(&mut sums, weights, low.map(|unit| unit.add(tap)));
                } else {
                    let mut pixels = [L::zero(); V];
                    for v in 0..V {
                        pixels[v] = L::load_units(low[v].add(tap), high[v].add(tap));
                    }
                    for r in 0..R {
                        let weight = L::splat(*weights.add(r));
                        for v in 0..V {
                            sums[r][v] = weight.mul_add(pixels[v], sums[r][v]);
                        }
                    }
                }
                weights = weights.add(R);
            }
            for r in 0..R {
                if r < self.rows {
                    for v in 0..V {
                        sums[r][v].store(self.to.add(r * self.width + v * L::LANES));
                    }
                }
            }
        }
    }
}
