//! A histogram that needs no range beforehand.
//!
//! Bins are `width` wide, a power of two, and bin 0 begins at zero. When a value falls outside, the width is doubled and
//! neighbours are added up, which is exact. The width depends on the largest magnitude alone, so the result is the same
//! whatever the order of updates and merges, and however a tensor is cut up among threads.
use super::PIECE;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tensor::vectorised;

/// Bins on either side of zero.
pub(super) const HALF: usize = 2048;

/// Smallest power of two as a bin's width: its reciprocal is a normal f32.
const FINEST: i32 = -126;

/// Counters of each bin during one task, used in turn: with one counter, equal neighbours (a Relu's zeros) would wait for one
/// another.
const TURNS: usize = 4;

/// Elements whose bins are computed together, by vector instructions.
const BATCH: usize = 256;

/// Most elements of a task's 32-bit counters.
const MOST: usize = 1 << 31;

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
    /// Adds finite elements, of which `lo` is the smallest and `hi` the largest.
    pub(super) fn update(&mut self, x: &[f32], (lo, hi): (f32, f32)) {
        self.reach(lo, hi);
        // A power of two, so the product is exact where it is a normal number.
        let scale = 2f32.powi(-self.exponent);
        for x in x.chunks(MOST) {
            let counted = match x.len() <= PIECE {
                true => count(Counted::new(), x, scale),
                false => {
                    x.par_chunks(PIECE).fold(Counted::new, |counted, piece| count(counted, piece, scale)).reduce(Counted::new, Counted::and)
                }
            };
            self.take(&counted);
        }
    }

    fn take(&mut self, counted: &Counted) {
        for (sum, turns) in self.counts.iter_mut().zip(&counted.counts) {
            *sum += turns.iter().map(|n| u64::from(*n)).sum::<u64>();
        }
        self.zeros += counted.zeros;
    }

    /// Adds another histogram; exact.
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

    /// Number of elements.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Number of exact zeros; they are in the bin that begins at zero too.
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

    /// The bins that are not empty: lower edge and count.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = (f64, u64)> + '_ {
        let width = self.width();
        self.counts.iter().enumerate().filter(|(_, n)| **n > 0).map(move |(i, n)| ((i as f64 - HALF as f64) * width, *n))
    }

    /// Widens the range by doubling the bins' width as often as necessary.
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

/// The counts of one task.
struct Counted {
    /// Counters by bin and turn.
    counts: Vec<[u32; TURNS]>,
    zeros: u64,
}

impl Counted {
    fn new() -> Self {
        Counted { counts: vec![[0; TURNS]; 2 * HALF], zeros: 0 }
    }

    fn and(mut self, other: Counted) -> Counted {
        for (a, b) in self.counts.iter_mut().flatten().zip(other.counts.iter().flatten()) {
            *a += b;
        }
        Counted { zeros: self.zeros + other.zeros, ..self }
    }
}

fn add(into: &mut [u64], counts: &[u64]) {
    into.iter_mut().zip(counts).for_each(|(a, b)| *a += b);
}

fn count(mut counted: Counted, x: &[f32], scale: f32) -> Counted {
    let mut bins = [0u32; BATCH];
    for x in x.chunks(BATCH) {
        counted.zeros += u64::from(vectorised!(find_bins(x, scale, &mut bins)));
        for (i, bin) in bins[..x.len()].iter().enumerate() {
            counted.counts[*bin as usize][i % TURNS] += 1;
        }
    }
    counted
}

/// Computes the bins of some elements, and counts their zeros.
#[inline(always)]
fn find_bins(x: &[f32], scale: f32, bins: &mut [u32; BATCH]) -> u32 {
    let mut zeros = 0;
    for (bin, v) in bins.iter_mut().zip(x) {
        *bin = bin_of(*v, scale);
        zeros += u32::from(*v == 0.0);
    }
    zeros
}

/// The bin of an element: its multiple of the width, rounded down. Computed in floats except for the last step, since a
/// saturating cast would prevent vectorization.
#[inline(always)]
fn bin_of(v: f32, scale: f32) -> u32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let scaled = (v * scale).clamp(-(HALF as f32), HALF as f32 - 1.0 / 16.0);
    let nearest = (scaled + ROUND) - ROUND;
    // Negative elements stay in negative bins even where the product underflows.
    let above = (nearest > scaled) | ((scaled == 0.0) & (v < 0.0));
    let whole = nearest - if above { 1.0 } else { 0.0 };
    (whole + HALF as f32 + ROUND).to_bits() - ROUND.to_bits()
}

/// Serialized form of a histogram: without the empty bins at both ends.
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
