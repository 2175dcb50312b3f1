//! `bench infer`: a file in a runtime.
use super::super::execute::session;
use super::{BenchOptions, memory, peak_memory, peak_memory_from_here, resident_memory};
use crate::Result;
use deploy::measure::{LatencyOptions, latency};
use deploy::runtime::Source;
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// Time and memory of an inference.
#[derive(Clone, Debug, Serialize)]
pub struct InferBench {
    /// Name of the runtime.
    pub runtime: String,
    /// Samples a run.
    pub batch: usize,
    /// Runs counted.
    pub runs: usize,
    /// Median, in milliseconds.
    pub latency_ms_p50: f64,
    /// 95th percentile.
    pub latency_ms_p95: f64,
    /// 99th percentile.
    pub latency_ms_p99: f64,
    /// Samples a second at the median.
    pub throughput: f64,
    /// Largest resident memory of the process so far; absent where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// Largest resident memory while the file was loaded and run, beyond what the process held before; absent where the system
    /// does not tell.
    pub session_memory_bytes: Option<u64>,
}

/// Times inferences of a file in a runtime.
///
/// # Errors
/// If the model or the inputs cannot be read or run, or the runtime is not there.
pub fn bench_infer(path: &Path, options: &BenchOptions, runtime: &str, literal: bool, threads: usize) -> Result<InferBench> {
    tensor::set_threads(None);
    let model = onnx::load(path)?;
    let (inputs, batch) = options.inputs(&model)?;
    drop(model);
    // The library itself does not count as memory of the file.
    let installed = runtime != "onnxruntime" || deploy::runtime::OnnxRuntime::find().is_ok();
    let before = resident_memory().filter(|_| installed && peak_memory_from_here());
    let mut session = session(Source::File(path), runtime, literal, threads)?;
    let l = latency(session.as_mut(), &inputs, LatencyOptions { runs: options.rounds, ..LatencyOptions::default() })?;
    Ok(InferBench {
        runtime: runtime.to_string(),
        batch,
        runs: l.runs,
        latency_ms_p50: l.p50_ms,
        latency_ms_p95: l.p95_ms,
        latency_ms_p99: l.p99_ms,
        throughput: batch as f64 * 1e3 / l.p50_ms,
        peak_memory_bytes: peak_memory(),
        session_memory_bytes: before.zip(peak_memory()).map(|(before, peak)| peak.saturating_sub(before)),
    })
}

impl fmt::Display for InferBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "inference in {} (batch {}, {} runs)", self.runtime, self.batch, self.runs)?;
        writeln!(f, "  p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms", self.latency_ms_p50, self.latency_ms_p95, self.latency_ms_p99)?;
        writeln!(
            f,
            "  {:.1} samples/s, memory {} at most, {} of it for the file and its runs",
            self.throughput,
            memory(self.peak_memory_bytes),
            memory(self.session_memory_bytes)
        )
    }
}
