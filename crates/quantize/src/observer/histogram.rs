//! A histogram that needs no range beforehand.
//!
//! Bins are `width` wide, a power of two, and bin 0 begins at zero. When a value falls outside, the width is doubled and
//! neighbours are added up, which is exact. The width depends on the largest magnitude alone, so the result is the same
//! whatever the order of updates and merges.
use super::bounds;
use tensor::Tensor;

/// Bins on either side of zero.
const HALF: usize = 2048;

/// Counts of elements by value. Memory: 4,096 counters.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    counts: Vec<u64>,
    /// The width of a bin is 2 to this power.
    exponent: i32,
    range: Option<(f32, f32)>,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; 2 * HALF], exponent: i32::MIN, range: None }
    }
}

impl Histogram {
    /// Takes in the elements of an f32 tensor.
    ///
    /// # Errors
    /// A sentence if an element is NaN or infinite, or the tensor is not f32.
    pub fn update(&mut self, tensor: &Tensor) -> Result<(), String> {
        let Some((lo, hi)) = bounds(tensor)? else { return Ok(()) };
        self.reach(lo, hi);
        let scale = 2f64.powi(-self.exponent);
        for v in tensor.as_slice::<f32>().map_err(|e| e.to_string())? {
            let bin = (f64::from(*v) * scale).floor() as i64 + HALF as i64;
            self.counts[bin.clamp(0, 2 * HALF as i64 - 1) as usize] += 1;
        }
        Ok(())
    }

    /// Takes in another histogram; exact.
    pub fn merge(&mut self, other: &Histogram) {
        let Some((lo, hi)) = other.range else { return };
        self.reach(lo, hi);
        let mut other = other.clone();
        other.coarsen(self.exponent);
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }

    /// Smallest and largest element.
    pub fn range(&self) -> Option<(f32, f32)> {
        self.range
    }

    /// Elements.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Width of a bin.
    pub fn width(&self) -> f64 {
        2f64.powi(self.exponent)
    }

    /// The bins that hold something: lower edge and count.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = (f64, u64)> + '_ {
        let width = self.width();
        self.counts.iter().enumerate().filter(|(_, n)| **n > 0).map(move |(i, n)| ((i as f64 - HALF as f64) * width, *n))
    }

    /// Widens the range; doubles the bins' width as often as that needs.
    fn reach(&mut self, lo: f32, hi: f32) {
        let magnitude = f64::from(lo.abs().max(hi.abs())).max(f64::from(f32::MIN_POSITIVE));
        // The first power of two above the magnitude, so that the largest value falls inside the last bin.
        let needed = magnitude.log2().floor() as i32 + 1 - HALF.ilog2() as i32;
        self.coarsen(needed);
        self.range = Some(self.range.map_or((lo, hi), |(a, b)| (a.min(lo), b.max(hi))));
    }

    fn coarsen(&mut self, exponent: i32) {
        if self.range.is_none() {
            self.exponent = self.exponent.max(exponent);
        }
        while self.exponent < exponent {
            let mut next = vec![0; 2 * HALF];
            for (i, n) in self.counts.iter().enumerate() {
                // Rounding down also below zero keeps each bin inside its parent.
                next[((i as i64 - HALF as i64).div_euclid(2) + HALF as i64) as usize] += n;
            }
            self.counts = next;
            self.exponent += 1;
        }
    }
}
