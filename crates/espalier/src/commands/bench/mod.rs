//! `bench`: the time of a training step or an inference, and the machine's peak.
mod infer;
mod machine;
mod train;

pub use infer::{InferBench, bench_infer};
pub use machine::{MachineBench, bench_machine};
pub(super) use train::time_training;
pub use train::{TrainBench, TrainBenchOptions, bench_train};

use super::inputs::random_inputs;
use crate::Result;
use ::train::Named;
use graph::Model;
use report::text;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Batch size, number of steps and inputs of a measurement.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Samples a step, where the graph leaves the batch open.
    pub batch: usize,
    /// Timed steps or runs; warm-up comes before them.
    pub rounds: usize,
    /// Shapes of inputs by name, in place of the declared ones.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// An npz file with arrays by input; inputs that it lacks are random.
    pub input: Option<PathBuf>,
}

impl BenchOptions {
    /// The inputs, and the first dimension of the first input.
    fn inputs(&self, model: &Model) -> Result<(Named, usize)> {
        let mut shapes = self.shapes.clone();
        let given = self.input.as_ref().map_or(Ok(Named::new()), |path| data::npz::read(path))?;
        shapes.extend(given.iter().map(|(name, t)| (name.clone(), t.shape().to_vec())));
        let mut inputs = random_inputs(model, &shapes, self.batch, 0)?;
        inputs.extend(given);
        let first = model.free_inputs().first().and_then(|v| inputs.get(&model.values[*v].name));
        let batch = first.and_then(|t| t.shape().first().copied()).unwrap_or(1);
        Ok((inputs, batch))
    }
}

/// Peak resident memory of this process, where the system has `/proc`.
pub(super) fn peak_memory() -> Option<u64> {
    status("VmHWM:")
}

/// Resident memory of this process, where the system has `/proc`.
pub(super) fn resident_memory() -> Option<u64> {
    status("VmRSS:")
}

/// Restarts the count of [`peak_memory`]; false where the system cannot.
pub(super) fn peak_memory_from_here() -> bool {
    // "5" resets the peak resident size: proc_pid_clear_refs(5).
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn status(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|l| l.strip_prefix(key))?.trim().trim_end_matches("kB").trim();
    Some(kilobytes.parse::<u64>().ok()? * 1024)
}

pub(super) fn memory(bytes: Option<u64>) -> String {
    bytes.map_or("not known".to_string(), text::bytes)
}
