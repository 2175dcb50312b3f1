//! The range that loses least information: Kullback-Leibler divergence of the quantized from the clipped distribution.
//!
//! After S. Migacz, "8-bit Inference with TensorRT" (GTC 2017), as ONNX Runtime's `get_entropy_threshold` does it for
//! signed values: for each threshold the elements beyond it are added to the outermost bins, the bins are merged into as
//! many levels as the grid has, each level is spread evenly over its bins that are not empty, and the threshold of the
//! smallest divergence is taken. Where this differs:
//!
//! - The levels are those of the grid that will be used (256 for 8 bits), not always 128.
//! - Bins are divided evenly among levels; there the last level takes the remainder.
//! - The range is clipped at a magnitude but never widened: [-0.3, 9] is clipped to [-0.3, 6], not to [-6, 6].
//! - Elements that are exactly zero (behind a ReLU: most) are left out: every grid holds them, so they say nothing about
//!   where to clip. TensorRT's tool does the same by ignoring its first bin.
//! - 128 thresholds are tried; TensorRT tries each of 1,920.
use super::clipping::cheapest;
use super::histogram::HALF;
use super::{Observer, Statistics};
use encodings::affine::AffineSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Observer> = member!(
    Entropy as dyn Observer,
    Manual {
        name: "entropy",
        summary: "The range that loses least information, by the Kullback-Leibler divergence (TensorRT's method).",
        details: "\
128 thresholds are tried, from the largest magnitude down. For each, the elements beyond it are added to the outermost bins of the
histogram (P), the bins are merged into as many levels as the grid has and spread evenly again (Q); the threshold of the least
sum P ln(P / Q) is taken. Exact zeros do not count. It clips long tails, and often too much where few large values decide.",
        source: "S. Migacz, 8-bit Inference with TensorRT (GTC 2017)",
        example: "calibration = { observer = \"entropy\" }",
    }
);

/// The settings: none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Entropy {}

impl Settings for Entropy {}

impl Observer for Entropy {
    fn range(&self, seen: &Statistics, grid: &AffineSettings) -> Option<(f32, f32)> {
        entropy(seen, grid)
    }
}

/// The count that replaces an empty level in the divergence, as in ONNX Runtime.
const NOTHING: f64 = 1e-4;

/// The range of the smallest divergence; the observed one where the grid is as fine as the histogram.
fn entropy(seen: &Statistics, grid: &AffineSettings) -> Option<(f32, f32)> {
    let mut counts = seen.histogram().counts().to_vec();
    counts[HALF] -= seen.histogram().zeros().min(counts[HALF]);
    let levels = usize::try_from(grid.qmax() - grid.qmin() + 1).unwrap_or(usize::MAX);
    let Some(first) = counts.iter().position(|n| *n > 0) else { return seen.histogram().range() };
    let end = counts.iter().rposition(|n| *n > 0).map_or(first, |last| last + 1);
    cheapest(seen.histogram(), |bins, _| {
        // The bin of zero belongs to every range.
        let (from, to) = (first.max(HALF - bins).min(HALF), end.min(HALF + bins).max(HALF + 1));
        divergence(&counts, from, to, levels)
    })
}

/// Divergence of the quantized bins `from..to` from the clipped distribution, in which all elements beyond are added at the ends.
fn divergence(counts: &[u64], from: usize, to: usize, levels: usize) -> f64 {
    let kept = &counts[from..to];
    if kept.len() < levels {
        return f64::INFINITY;
    }
    let mut clipped: Vec<u64> = kept.to_vec();
    clipped[0] += counts[..from].iter().sum::<u64>();
    clipped[kept.len() - 1] += counts[to..].iter().sum::<u64>();
    let (all, inside) = (counts.iter().sum::<u64>() as f64, (kept.iter().sum::<u64>() as f64).max(NOTHING));
    let mut sum = 0.0;
    for level in 0..levels {
        let bins = level * kept.len() / levels..(level + 1) * kept.len() / levels;
        let held = kept[bins.clone()].iter().sum::<u64>() as f64;
        let live = clipped[bins.clone()].iter().filter(|n| **n > 0).count();
        let each = (held / live.max(1) as f64).max(NOTHING) / inside;
        sum += clipped[bins].iter().filter(|n| **n > 0).map(|n| (*n as f64 / all, each)).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
    }
    sum
}
