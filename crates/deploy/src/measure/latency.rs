//! Latency of one run.
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
    let mut measured = latencies(&mut [(session, inputs)], options)?;
    measured.pop().ok_or_else(|| DeployError::Measure { what: "there is nothing to run".into() })
}

/// Runs several sessions in turn, so that other load on the machine affects all of them alike. Each runs `options.runs` times;
/// `options.at_most` holds for each.
///
/// # Errors
/// As [`latency`].
pub fn latencies(sessions: &mut [(&mut dyn Session, &BTreeMap<String, Tensor>)], options: LatencyOptions) -> Result<Vec<Latency>> {
    let at_most = options.at_most * u32::try_from(sessions.len()).unwrap_or(u32::MAX);
    let start = Instant::now();
    for _ in 0..options.warm_up {
        for (session, inputs) in sessions.iter_mut() {
            session.run(inputs)?;
        }
        if start.elapsed() > at_most / 2 {
            break;
        }
    }
    let start = Instant::now();
    let mut times_ms = vec![vec![]; sessions.len()];
    for round in 0..options.runs {
        if round > 0 && start.elapsed() >= at_most {
            break;
        }
        for ((session, inputs), times_ms) in sessions.iter_mut().zip(&mut times_ms) {
            let run = Instant::now();
            session.run(inputs)?;
            times_ms.push(run.elapsed().as_secs_f64() * 1e3);
        }
    }
    times_ms.into_iter().map(summarize).collect()
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
    use crate::runtime::Slot;
    use std::sync::{Arc, Mutex};

    /// Logs the order of the runs.
    struct Told(char, Arc<Mutex<String>>);

    impl Session for Told {
        fn inputs(&self) -> &[Slot] {
            &[]
        }

        fn outputs(&self) -> &[Slot] {
            &[]
        }

        fn run(&mut self, _: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
            self.1.lock().unwrap().push(self.0);
            Ok(BTreeMap::new())
        }
    }

    #[test]
    fn sessions_take_turns_and_each_is_counted_by_itself() {
        let (told, none) = (Arc::default(), BTreeMap::new());
        let (mut a, mut b) = (Told('a', Arc::clone(&told)), Told('b', Arc::clone(&told)));
        let options = LatencyOptions { warm_up: 1, runs: 3, at_most: Duration::from_secs(60) };
        let both = latencies(&mut [(&mut a, &none), (&mut b, &none)], options).unwrap();
        assert_eq!(*told.lock().unwrap(), "abababab");
        assert!(both.len() == 2 && both.iter().all(|l| l.runs == 3));
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let l = summarize((1..=200).rev().map(f64::from).collect()).unwrap();
        assert_eq!((l.runs, l.best_ms, l.p50_ms, l.p95_ms, l.p99_ms), (200, 1.0, 100.0, 190.0, 198.0));
        let one = summarize(vec![3.0]).unwrap();
        assert_eq!((one.p50_ms, one.p99_ms), (3.0, 3.0));
        assert!(summarize(vec![]).is_err());
    }
}
