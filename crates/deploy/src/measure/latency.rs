//! How long one run takes.
use crate::runtime::Session;
use crate::{DeployError, Result};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tensor::Tensor;

/// How latency is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyOptions {
    /// Runs that are not counted, at the start.
    pub warm_up: usize,
    /// Runs that are counted.
    pub runs: usize,
    /// No further run starts once this much time has passed; at least one run is counted.
    pub at_most: Duration,
}

impl Default for LatencyOptions {
    fn default() -> Self {
        LatencyOptions { warm_up: 10, runs: 200, at_most: Duration::from_secs(10) }
    }
}

/// Measured latency of one run of a session, as it was fed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Runs that were counted.
    pub runs: usize,
    /// Fastest run, in milliseconds.
    pub best_ms: f64,
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 95th percentile, in milliseconds.
    pub p95_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
}

/// Runs a session again and again on the same inputs (batch 1 for a latency in the usual sense).
///
/// # Errors
/// Whatever a run reports; [`DeployError::Measure`] if no run is asked for.
pub fn latency(session: &mut dyn Session, inputs: &BTreeMap<String, Tensor>, options: LatencyOptions) -> Result<Latency> {
    let start = Instant::now();
    for _ in 0..options.warm_up {
        session.run(inputs)?;
        if start.elapsed() > options.at_most / 2 {
            break;
        }
    }
    let start = Instant::now();
    let mut times_ms = vec![];
    while times_ms.len() < options.runs && (times_ms.is_empty() || start.elapsed() < options.at_most) {
        let run = Instant::now();
        session.run(inputs)?;
        times_ms.push(run.elapsed().as_secs_f64() * 1e3);
    }
    summarize(times_ms)
}

fn summarize(mut times_ms: Vec<f64>) -> Result<Latency> {
    times_ms.sort_by(f64::total_cmp);
    let runs = times_ms.len();
    // Nearest rank: the smallest time that at least this share of the runs does not exceed.
    let percentile = |share: f64| times_ms.get(((share * runs as f64).ceil() as usize).max(1) - 1).copied();
    let all = (percentile(0.0), percentile(0.5), percentile(0.95), percentile(0.99));
    let (Some(best_ms), Some(p50_ms), Some(p95_ms), Some(p99_ms)) = all else {
        return Err(DeployError::Measure { what: "a latency needs at least one run".into() });
    };
    Ok(Latency { runs, best_ms, p50_ms, p95_ms, p99_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let l = summarize((1..=200).rev().map(f64::from).collect()).unwrap();
        assert_eq!((l.runs, l.best_ms, l.p50_ms, l.p95_ms, l.p99_ms), (200, 1.0, 100.0, 190.0, 198.0));
        let one = summarize(vec![3.0]).unwrap();
        assert_eq!((one.p50_ms, one.p99_ms), (3.0, 3.0));
        assert!(summarize(vec![]).is_err());
    }
}
