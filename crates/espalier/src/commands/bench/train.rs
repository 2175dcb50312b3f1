//! `bench train`: training steps as a recipe's stages make them, on inputs without data.
use super::{BenchOptions, memory, peak_memory};
use crate::Result;
use distill::{Distillation, DistillationSettings};
use graph::Model;
use prune::PruneSettings;
use report::text;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use technique::Settings;
use tensor::{device, profile};
use train::{Batch, Batches, MeanSquaredError, Objective, Sgd, TrainContext, TrainError, TrainSettings, Watch};

/// How the network is compressed while it trains, and in what memory.
#[derive(Clone, Debug, Default)]
pub struct TrainBenchOptions {
    /// Quantize to 8 bits first and train through the quantizers.
    pub qat: bool,
    /// Share of the weights that a mask holds at zero.
    pub sparsity: Option<f64>,
    /// A model to distil from.
    pub teacher: Option<PathBuf>,
    /// Memory budget of a step in bytes; activations are recomputed to stay below it.
    pub memory: Option<u64>,
}

/// Time and memory of a training step.
#[derive(Clone, Debug, Serialize)]
pub struct TrainBench {
    /// Samples a step.
    pub batch: usize,
    /// Steps counted.
    pub steps: usize,
    /// Whether quantizers were simulated and trained through.
    pub qat: bool,
    /// Share of the weights that a mask held at zero.
    pub sparsity: Option<f64>,
    /// Whether a teacher was run in each step.
    pub distilled: bool,
    /// Fastest step: forward, loss, backward and update, in milliseconds.
    pub step_ms_best: f64,
    /// Median step.
    pub step_ms_median: f64,
    /// Samples a second at the median step.
    pub images_per_s: f64,
    /// Largest resident memory of the process so far; absent where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// The memory budget of a step in bytes.
    pub memory_budget_bytes: Option<u64>,
    /// Approximate bytes of a step (weights, gradients, optimizer state, activations) without recomputation.
    pub step_memory_bytes: u64,
    /// The least budget that suffices.
    pub step_memory_least_bytes: u64,
    /// The training's notes: what is recomputed.
    pub notes: Vec<String>,
    /// The device: `cpu`, or the GPU's name.
    pub device: String,
    /// Tensors that a GPU copied back to the CPU in a step, by operator and direction, with their bytes. Empty on the CPU. (The
    /// loss and the norm of the gradients are read in every step.)
    pub host_copies: Vec<HostCopies>,
    /// Mean time of a step by operator and direction, in milliseconds, longest first. What no operator accounts for is
    /// `other`. On a GPU it is the time in which kernels are recorded or waited for, not that of the kernels.
    pub ms_by_operator: Vec<(String, f64)>,
}

/// Tensors that came back from a GPU for an operator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostCopies {
    /// Operator and direction.
    pub operator: String,
    /// Number of copies in a step.
    pub per_step: f64,
    /// Bytes copied in a step, the mean over the steps.
    pub bytes_per_step: f64,
}

/// Times training steps of any graph with float weights: the loss is the mean squared error of every float output to
/// random targets. Quantizing folds constants and BatchNormalization first.
///
/// # Errors
/// If a model cannot be read, has no float weight or output, or does not train.
pub fn bench_train(path: &Path, options: &BenchOptions, compression: &TrainBenchOptions) -> Result<TrainBench> {
    tensor::set_threads(None);
    let teacher = compression.teacher.as_ref().map(|file| onnx::load(file)).transpose()?;
    time_training(onnx::load(path)?, teacher.as_ref(), options, compression)
}

/// [`bench_train`] for a loaded graph and teacher.
pub(in crate::commands) fn time_training(
    mut model: Model,
    teacher: Option<&Model>,
    options: &BenchOptions,
    compression: &TrainBenchOptions,
) -> Result<TrainBench> {
    let (inputs, batch_size) = options.inputs(&model)?;
    if let Some(sparsity) = compression.sparsity {
        prune::prune(&mut model, &PruneSettings::new(sparsity))?;
    }
    if compression.qat {
        train::fold_constants(&mut model)?;
        ops::fold_batch_norm(&mut model)?;
        let calibration = Batch { inputs: inputs.clone(), ..Batch::default() };
        quantize::quantize(&mut model, &quantize::QuantizeSettings::default(), std::iter::once(Ok(calibration)))?;
    }
    let targets = train::random_targets(&model, &inputs, 1)?;
    let task = MeanSquaredError::of(&model)?;
    let objective: Box<dyn Objective + '_> = match teacher {
        Some(teacher) => Box::new(Distillation::new(task, &model, teacher, &DistillationSettings::default(), 0)?),
        None => Box::new(task),
    };
    let warm_up = options.rounds.clamp(1, 3);
    let repeated = Repeated { batch: Batch { inputs, targets, ..Batch::default() }, count: (options.rounds.max(1) + warm_up) as u64 };
    let mut watch = StepTimes { warm_up, last: Instant::now(), times_ms: vec![], notes: vec![] };
    // The rate is too small to matter: the work of a step does not depend on it, and training on random targets must not diverge.
    let optimizer = Sgd { lr: 1e-9, momentum: 0.9, nesterov: false, weight_decay: 0.0 }.choice()?;
    let settings =
        TrainSettings { optimizer, learn_scales: compression.qat.into(), memory: compression.memory, ..TrainSettings::default() };
    let needs = train::step_memory(&model, objective.as_ref(), &repeated.batch, &settings)?;
    let mut around = TrainContext { watch: &mut watch, ..TrainContext::default() };
    train::train(&mut model, &repeated, objective.as_ref(), &settings, &mut around)?;
    let profile = profile::stop();
    let rounds = options.rounds.max(1) as f64;
    let host_copies = device::take_host_copies();
    let per_step =
        |(operator, times, bytes)| HostCopies { operator, per_step: times as f64 / rounds, bytes_per_step: bytes as f64 / rounds };
    let mut times = watch.times_ms.split_off(warm_up);
    let ms_by_operator = by_operator(&profile, &times);
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[times.len() / 2]);
    Ok(TrainBench {
        batch: batch_size,
        steps: times.len(),
        qat: compression.qat,
        sparsity: compression.sparsity,
        distilled: teacher.is_some(),
        step_ms_best: best,
        step_ms_median: median,
        images_per_s: batch_size as f64 * 1e3 / median,
        peak_memory_bytes: peak_memory(),
        memory_budget_bytes: compression.memory,
        step_memory_bytes: needs.whole,
        step_memory_least_bytes: needs.least,
        notes: watch.notes,
        device: device::selected(),
        host_copies: host_copies.into_iter().map(per_step).collect(),
        ms_by_operator,
    })
}

/// Mean times over the steps, longest first, with the remainder.
fn by_operator(profile: &profile::Times, steps_ms: &[f64]) -> Vec<(String, f64)> {
    let steps = steps_ms.len().max(1) as f64;
    let mut list: Vec<(String, f64)> = profile.iter().map(|(name, t)| (name.clone(), t.as_secs_f64() * 1e3 / steps)).collect();
    let known: f64 = list.iter().map(|(_, ms)| ms).sum();
    list.push(("other".into(), (steps_ms.iter().sum::<f64>() / steps - known).max(0.0)));
    list.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    list
}

/// The same batch again and again.
struct Repeated {
    batch: Batch,
    count: u64,
}

impl Batches for Repeated {
    fn batches(&self) -> u64 {
        self.count
    }

    fn epoch(&self, _: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..self.count).map(|_| Ok(self.batch.clone())))
    }
}

/// Times every step, and profiles those after the warm-up.
struct StepTimes {
    warm_up: usize,
    last: Instant,
    times_ms: Vec<f64>,
    notes: Vec<String>,
}

impl Watch for StepTimes {
    fn step(&mut self, _: u64, _: u64, _: f64, _: usize) {
        self.times_ms.push(self.last.elapsed().as_secs_f64() * 1e3);
        if self.times_ms.len() == self.warm_up {
            profile::start();
            device::take_host_copies();
        }
        self.last = Instant::now();
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_string());
    }
}

impl fmt::Display for TrainBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.qat { "quantized" } else { "float" };
        let pruned = self.sparsity.map_or(String::new(), |s| format!(", {:.0} % pruned", s * 100.0));
        let taught = if self.distilled { ", distilled" } else { "" };
        writeln!(f, "training step ({kind}{pruned}{taught}, batch {}, {} steps)", self.batch, self.steps)?;
        writeln!(f, "  best    {:.2} ms", self.step_ms_best)?;
        writeln!(f, "  median  {:.2} ms, {:.1} samples/s", self.step_ms_median, self.images_per_s)?;
        writeln!(f, "  memory  {} at most", memory(self.peak_memory_bytes))?;
        let (whole, least) = (memory(Some(self.step_memory_bytes)), memory(Some(self.step_memory_least_bytes)));
        writeln!(f, "  a step holds about {whole}, {least} at the least under a memory budget")?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))?;
        if self.device != "cpu" {
            writeln!(f, "  device  {}", self.device)?;
            writeln!(f, "left to the processor in a step:")?;
            for c in &self.host_copies {
                writeln!(f, "  {:32} {:>10.1} tensors, {}", c.operator, c.per_step, text::bytes(c.bytes_per_step as u64))?;
            }
        }
        writeln!(f, "mean step by operator:")?;
        let total: f64 = self.ms_by_operator.iter().map(|(_, ms)| ms).sum();
        let line = |(op, ms): &(String, f64)| format!("  {op:32} {ms:>10.3} ms {:>5.1} %\n", ms * 100.0 / total);
        f.write_str(&self.ms_by_operator.iter().map(line).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn operators_and_the_rest_make_up_the_step() {
        let profile = [("a".to_string(), Duration::from_millis(4)), ("b".to_string(), Duration::from_millis(6))].into();
        let list = by_operator(&profile, &[10.0, 10.0]);
        assert_eq!(list.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["other", "b", "a"]);
    }

    #[test]
    fn a_joint_step_is_timed() {
        let folder = std::env::temp_dir().join(format!("espalier-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("m.onnx");
        let entry = zoo::find("resnet8").unwrap();
        let options = zoo::ZooOptions { width: 0.25, input: vec![3, 8, 8], ..entry.default_options() };
        onnx::save(&entry.build(&options).unwrap(), &file).unwrap();
        let bench = BenchOptions { batch: 2, rounds: 2, shapes: Default::default(), input: None };
        let joint = TrainBenchOptions { qat: true, sparsity: Some(0.5), teacher: Some(file.clone()), memory: None };
        let done = bench_train(&file, &bench, &joint).unwrap();
        assert!(done.batch == 2 && done.steps == 2 && done.distilled);
        let names: Vec<&str> = done.ms_by_operator.iter().map(|(n, _)| n.as_str()).collect();
        for expected in ["Conv forward", "conv backward", "fake_quantize backward", "simulation forward", "update"] {
            assert!(names.contains(&expected), "{expected} in {names:?}");
        }
        assert!(done.step_memory_least_bytes < done.step_memory_bytes && done.notes.is_empty());
        let tight = TrainBenchOptions { memory: Some(done.step_memory_least_bytes), ..joint };
        let done = bench_train(&file, &bench, &tight).unwrap();
        assert!(done.notes[0].contains("are recomputed"), "{:?}", done.notes);
        assert!(done.ms_by_operator.iter().any(|(name, _)| name == "recomputation"));
        let refused = bench_train(&file, &bench, &TrainBenchOptions { memory: Some(1000), ..tight }).unwrap_err().to_string();
        assert!(refused.contains("setting 'memory': is 1.0 kB, but a step"), "{refused}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
