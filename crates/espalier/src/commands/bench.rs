//! `bench`: how long a training step or an inference takes, on random inputs of the graph's shapes.
use super::{execute::session, inputs::random_inputs};
use crate::{Error, Result};
use deploy::measure::{LatencyOptions, latency};
use deploy::runtime::Source;
use graph::{Model, ValueId};
use report::text;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::time::Instant;
use tensor::Tensor;
use train::{Batch, Batches, Executor, Mode, Objective, OptimizerSettings, Surroundings, TrainError, TrainSettings, Watch};

/// What is measured.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Samples a step, where the graph leaves the batch open.
    pub batch: usize,
    /// Steps, or runs, that count; warm-up comes before them.
    pub rounds: usize,
    /// Inputs' shapes by name, where the declared ones do not serve.
    pub shapes: BTreeMap<String, Vec<usize>>,
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
    /// Fastest step: forward, loss, backward and update, in milliseconds.
    pub step_ms_best: f64,
    /// Median step.
    pub step_ms_median: f64,
    /// Samples a second at the median step.
    pub images_per_s: f64,
    /// Largest resident memory of the process so far; absent where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// Time of one forward pass by operator, in milliseconds, longest first, nothing fused.
    pub forward_ms_by_operator: Vec<(String, f64)>,
}

/// Time and memory of an inference.
#[derive(Clone, Debug, Serialize)]
pub struct InferBench {
    /// The runtime.
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
}

/// Times training steps of any graph with float weights: the loss is the mean squared error of every float output to
/// random targets. `qat` folds constants and BatchNormalization and quantizes first.
///
/// # Errors
/// If the model cannot be read, has no float weight or output, or does not train.
pub fn bench_train(path: &Path, options: &BenchOptions, qat: bool) -> Result<TrainBench> {
    let mut model = onnx::load(path)?;
    let inputs = random_inputs(&model, &options.shapes, options.batch, 0)?;
    let batch_size = batch_of(&model, &inputs);
    if qat {
        train::fold_constants(&mut model)?;
        ops::fold_batch_norm(&mut model)?;
        let calibration = Batch { inputs: inputs.clone(), ..Batch::default() };
        quantize::quantize(&mut model, &quantize::QuantizeSettings::default(), std::iter::once(Ok(calibration)))?;
    }
    let forward_ms_by_operator = forward_times(&model, &inputs)?;
    let (objective, targets) = RandomTargets::of(&model, &inputs)?;
    let warm_up = options.rounds.clamp(1, 3);
    let repeated = Repeated { batch: Batch { inputs, targets }, count: (options.rounds.max(1) + warm_up) as u64 };
    let mut watch = StepTimes { last: Instant::now(), times_ms: vec![] };
    // The rate is too small to matter: the work of a step does not depend on it, and random targets must not make it diverge.
    let optimizer = OptimizerSettings::Sgd { lr: 1e-9, momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    let settings = TrainSettings { optimizer, simulate: qat, learn_scales: qat, ..TrainSettings::default() };
    let mut around = Surroundings { validate: None, watch: &mut watch, checkpoint: None, stop: None };
    train::train(&mut model, &repeated, &objective, &settings, &mut around)?;
    let mut times = watch.times_ms.split_off(warm_up);
    times.sort_by(f64::total_cmp);
    let (best, median) = (times[0], times[times.len() / 2]);
    Ok(TrainBench {
        batch: batch_size,
        steps: times.len(),
        qat,
        step_ms_best: best,
        step_ms_median: median,
        images_per_s: batch_size as f64 * 1e3 / median,
        peak_memory_bytes: peak_memory(),
        forward_ms_by_operator,
    })
}

/// Times inferences of a file in a runtime.
///
/// # Errors
/// If the model cannot be read or run, or the runtime is not there.
pub fn bench_infer(path: &Path, options: &BenchOptions, runtime: &str, literal: bool, threads: usize) -> Result<InferBench> {
    let model = onnx::load(path)?;
    let inputs = random_inputs(&model, &options.shapes, options.batch, 0)?;
    let batch = batch_of(&model, &inputs);
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
    })
}

/// First dimension of the first input.
fn batch_of(model: &Model, inputs: &BTreeMap<String, Tensor>) -> usize {
    let first = model.free_inputs().first().and_then(|v| inputs.get(&model.values[*v].name));
    first.and_then(|t| t.shape().first().copied()).unwrap_or(1)
}

/// The time between two values that are shown counts for the operator that made the second.
fn forward_times(model: &Model, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<(String, f64)>> {
    let executor = Executor::unfused(model)?;
    let mut times: HashMap<String, f64> = HashMap::new();
    let mut last = Instant::now();
    executor.run_observed(inputs, Mode::SIMULATED, &mut |id, _| {
        let graph = &executor.model().graph;
        if let Some(node) = graph.producer(id).and_then(|i| graph.nodes.get(i)) {
            *times.entry(node.op_type.clone()).or_default() += last.elapsed().as_secs_f64() * 1e3;
        }
        last = Instant::now();
    })?;
    let mut list: Vec<(String, f64)> = times.into_iter().collect();
    list.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(list)
}

/// Mean squared error of every float output to random targets, which go by the outputs' names.
struct RandomTargets(Vec<(ValueId, String)>);

impl RandomTargets {
    fn of(model: &Model, inputs: &BTreeMap<String, Tensor>) -> Result<(Self, BTreeMap<String, Tensor>)> {
        let computed = Executor::new(model)?.run(inputs, Mode::FLOAT)?;
        let named = model.graph.outputs.iter().map(|v| (*v, model.values[*v].name.clone()));
        let float: Vec<_> = named.filter(|(_, name)| computed.get(name).is_some_and(|t| t.dtype() == tensor::DType::F32)).collect();
        if float.is_empty() {
            return Err(Error::Input("the model has no output of type float, so there is nothing to train".into()));
        }
        let mut targets = BTreeMap::new();
        for (i, (_, name)) in float.iter().enumerate() {
            targets.insert(name.clone(), tensor::random::uniform(i as u64, computed[name].shape(), 0.0, 1.0)?);
        }
        Ok((RandomTargets(float), targets))
    }
}

impl Objective for RandomTargets {
    fn taps(&self) -> Vec<ValueId> {
        self.0.iter().map(|(id, _)| *id).collect()
    }

    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        let mut total = Tensor::scalar(0f32);
        for (id, name) in &self.0 {
            let error = tensor::mse_loss(train::read(values, *id)?, batch.target(name)?).map_err(train::loss_error)?;
            total = total.add(&error).map_err(train::loss_error)?;
        }
        Ok(total)
    }
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

struct StepTimes {
    last: Instant,
    times_ms: Vec<f64>,
}

impl Watch for StepTimes {
    fn step(&mut self, _: u64, _: u64, _: f64, _: usize) {
        self.times_ms.push(self.last.elapsed().as_secs_f64() * 1e3);
        self.last = Instant::now();
    }
}

/// Peak resident memory of this process, where the system has `/proc`.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().trim_end_matches("kB").trim();
    Some(kilobytes.parse::<u64>().ok()? * 1024)
}

fn memory(bytes: Option<u64>) -> String {
    bytes.map_or("not known".to_string(), text::bytes)
}

impl fmt::Display for TrainBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.qat { "quantized" } else { "float" };
        writeln!(f, "training step ({kind}, batch {}, {} steps)", self.batch, self.steps)?;
        writeln!(f, "  best    {:.2} ms", self.step_ms_best)?;
        writeln!(f, "  median  {:.2} ms, {:.1} samples/s", self.step_ms_median, self.images_per_s)?;
        writeln!(f, "  memory  {} at most", memory(self.peak_memory_bytes))?;
        writeln!(f, "one forward pass by operator, nothing fused:")?;
        self.forward_ms_by_operator.iter().try_for_each(|(op, ms)| writeln!(f, "  {op:24} {ms:>10.3} ms"))
    }
}

impl fmt::Display for InferBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "inference in {} (batch {}, {} runs)", self.runtime, self.batch, self.runs)?;
        writeln!(f, "  p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms", self.latency_ms_p50, self.latency_ms_p95, self.latency_ms_p99)?;
        writeln!(f, "  {:.1} samples/s, memory {} at most", self.throughput, memory(self.peak_memory_bytes))
    }
}
