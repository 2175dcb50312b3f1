//! A histogram that needs no range beforehand.
//!
//! Bins are `width` wide, a power of two, and bin 0 begins at zero. When a value falls outside, the width is doubled and
//! neighbours are added up, which is exact. The width depends on the largest magnitude alone, so the result is the same
//! whatever the order of updates and merges, and however a tensor is cut up among threads.
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Bins on either side of zero.
pub(super) const HALF: usize = 2048;

/// Smallest power of two as a bin's width: its reciprocal is a normal f32.
const FINEST: i32 = -126;

/// Elements that one task counts; a tensor of fewer is counted by the caller's thread.
const PIECE: usize = 1 << 15;

/// Counts of elements by value. Memory: 4,096 counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct Histogram {
    counts: Vec<u64>,
    zeros: u64,
    /// The width of a bin is 2 to this power.
    exponent: i32,
    range: Option<(f32, f32)>,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; 2 * HALF], zeros: 0, exponent: FINEST, range: None }
    }
}

impl Histogram {
    /// Takes in finite elements, of which `lo` is the smallest and `hi` the largest.
    pub(super) fn update(&mut self, x: &[f32], (lo, hi): (f32, f32)) {
        self.reach(lo, hi);
        // A power of two, so the product is exact where it is a normal number.
        let scale = 2f32.powi(-self.exponent);
        let (counts, zeros) = if x.len() <= PIECE {
            count(empty(), x, scale)
        } else {
            x.par_chunks(PIECE).fold(empty, |counted, piece| count(counted, piece, scale)).reduce(empty, |mut a, b| {
                add(&mut a.0, &b.0);
                (a.0, a.1 + b.1)
            })
        };
        add(&mut self.counts, &counts);
        self.zeros += zeros;
    }

    /// Takes in another histogram; exact.
    pub fn merge(&mut self, other: &Histogram) {
        let Some((lo, hi)) = other.range else { return };
        self.reach(lo, hi);
        let mut other = other.clone();
        other.coarsen(self.exponent);
        add(&mut self.counts, &other.counts);
        self.zeros += other.zeros;
    }

    /// Smallest and largest element.
    pub fn range(&self) -> Option<(f32, f32)> {
        self.range
    }

    /// Elements.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Elements that are exactly zero; they are in the bin that begins there too.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Width of a bin.
    pub fn width(&self) -> f64 {
        2f64.powi(self.exponent)
    }

    /// All bins; the one at index [`HALF`] begins at zero.
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
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

/// Counters and the number of exact zeros.
type Counted = (Vec<u64>, u64);

fn empty() -> Counted {
    (vec![0; 2 * HALF], 0)
}

fn add(into: &mut [u64], counts: &[u64]) {
    into.iter_mut().zip(counts).for_each(|(a, b)| *a += b);
}

fn count((mut counts, mut zeros): Counted, x: &[f32], scale: f32) -> Counted {
    for v in x {
        let scaled = v * scale;
        let whole = scaled as i32;
        // Rounded down; what is below zero stays below it even where the product underflows.
        let below = (whole as f32 > scaled) | ((scaled == 0.0) & (*v < 0.0));
        let bin = (whole - i32::from(below) + HALF as i32).clamp(0, 2 * HALF as i32 - 1);
        counts[bin as usize] += 1;
        zeros += u64::from(*v == 0.0);
    }
    (counts, zeros)
}

/// How a histogram is written: without the empty bins at both ends.
#[derive(Serialize, Deserialize)]
struct Packed {
    exponent: i32,
    range: Option<(f32, f32)>,
    zeros: u64,
    first: usize,
    counts: Vec<u64>,
}

impl From<Histogram> for Packed {
    fn from(h: Histogram) -> Packed {
        let first = h.counts.iter().position(|n| *n > 0).unwrap_or(0);
        let end = h.counts.iter().rposition(|n| *n > 0).map_or(first, |last| last + 1);
        Packed { exponent: h.exponent, range: h.range, zeros: h.zeros, first, counts: h.counts[first..end].to_vec() }
    }
}

impl TryFrom<Packed> for Histogram {
    type Error = String;

    fn try_from(p: Packed) -> Result<Self, String> {
        let mut h = Histogram { exponent: p.exponent, range: p.range, zeros: p.zeros, ..Histogram::default() };
        let end = p.first.checked_add(p.counts.len()).filter(|end| *end <= h.counts.len());
        let end = end.ok_or_else(|| format!("a histogram has {} bins", 2 * HALF))?;
        if !(FINEST..=128).contains(&p.exponent) {
            return Err(format!("a bin cannot be 2^{} wide", p.exponent));
        }
        h.counts[p.first..end].copy_from_slice(&p.counts);
        Ok(h)
    }
}
