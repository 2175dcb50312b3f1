//! `evaluate`: scores a model on a data set with its task's metrics.
use super::bench::peak_memory;
use super::execute::session;
use super::preprocessing::Preprocessing;
use super::samples::{SampleOptions, Samples};
use crate::Result;
use deploy::Arithmetic;
use deploy::runtime::{Session, Source};
use graph::Model;
use pipeline::actions::Tick;
use pipeline::actions::task_record;
use report::record::{MetricRecord, TaskRecord};
use report::text;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Instant;
use train::{Batching, Figures, Mode, Task};

/// What to evaluate on, and how.
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// Which rows to run on, and their preprocessing.
    pub samples: SampleOptions,
    /// Name of the runtime: `reference`, `onnxruntime` or `rten`.
    pub runtime: String,
    /// The runtime's graph optimizations off.
    pub literal: bool,
    /// The arithmetic of a processor, simulated by the reference interpreter; without it the runtime computes as it does.
    pub arithmetic: Option<Arithmetic>,
    /// Threads of the runtime.
    pub threads: usize,
}

/// The result of an evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Name of the runtime that ran the model.
    pub runtime: String,
    /// The task and its metrics.
    #[serde(skip)]
    pub task: TaskRecord,
    /// Rows with the right class; absent for a task without classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correct: Option<u64>,
    /// Number of rows.
    pub total: u64,
    /// Rows with a NaN among their outputs: none of them counts as right.
    pub nan: u64,
    /// Metrics by key, such as `accuracy`.
    #[serde(flatten)]
    pub figures: BTreeMap<String, f64>,
    /// 95 % confidence intervals of some metrics.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// Where the preprocessing came from.
    pub preprocessing: Preprocessing,
    /// Seconds to read, decode and run all rows.
    pub seconds: f64,
    /// Largest resident memory of the process so far; absent where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// Notes about the data.
    pub notes: Vec<String>,
}

/// Scores a model on the targets of a data set. `tick` is called with the progress. A fixed batch of the model is opened if that
/// provably changes nothing, and kept otherwise.
///
/// # Errors
/// If the model or the data cannot be read or do not fit each other.
pub fn evaluate(path: &Path, data: &Path, options: &EvaluateOptions, tick: Tick) -> Result<Evaluation> {
    tensor::set_threads(None);
    let mut model = onnx::load(path)?;
    let batching = if options.samples.batch > 1 { train::open_batch(&mut model) } else { Batching::Open };
    let opened = batching == Batching::Opened;
    let task = options.samples.task(&model)?;
    let samples = Samples::open(&model, data, &options.samples, true)?;
    let (preprocessing, mut notes) = (samples.preprocessing, samples.notes.clone());
    notes.extend(batching.note());
    let began = Instant::now();
    let batches = samples.run(tick);
    let scored = |mut session: Box<dyn Session>, batches| -> Result<Figures> {
        Ok(deploy::measure::score(session.as_mut(), &model, task.member().as_ref(), batches)?)
    };
    let in_runtime = |file: Source, batches| scored(session(file, &options.runtime, options.literal, options.threads)?, batches);
    let figures = match (options.runtime.as_str(), options.arithmetic) {
        (_, Some(arithmetic)) => scored(arithmetic.session(model.clone())?, batches)?,
        ("reference", _) => train::score(task.member().as_ref(), &model, batches, Mode::SIMULATED)?.figures(),
        _ if opened => {
            let bytes = onnx::to_bytes(&model)?;
            in_runtime(Source::Bytes(&bytes), batches)?
        }
        _ => in_runtime(Source::File(path), batches)?,
    };
    notes.extend(no_better_than_chance(task.member().as_ref(), &model, &figures));
    Ok(Evaluation {
        runtime: options.arithmetic.map_or_else(|| options.runtime.clone(), |a| format!("reference, arithmetic {a}")),
        task: task_record(&task),
        correct: figures.confusion.as_ref().map(train::Confusion::correct),
        total: figures.samples,
        nan: figures.nan,
        figures: figures.values.iter().map(|(key, value)| (key.to_string(), *value)).collect(),
        intervals: figures.intervals.iter().map(|(key, (low, high))| (key.to_string(), [*low, *high])).collect(),
        preprocessing,
        seconds: began.elapsed().as_secs_f64(),
        peak_memory_bytes: peak_memory(),
        notes,
    })
}

/// Fewest rows for a statement about chance.
const FEWEST: u64 = 30;

/// A sentence if the metrics are no better than guessing, within two standard errors.
fn no_better_than_chance(task: &dyn Task, model: &Model, figures: &Figures) -> Option<String> {
    let guess = task.guessing(model, figures, 2.0).filter(|_| figures.samples >= FEWEST)?;
    Some(format!(
        "{guess} does as well: the preprocessing may be wrong (espalier init MODEL --data DATA searches for it; --mean, --std, --scale, \
         --channels and --layout set it), the classes may be in another order, or the network is not trained"
    ))
}

impl Evaluation {
    /// Share of the rows whose class was right, 0..1.
    fn share(&self) -> f64 {
        self.correct.unwrap_or(0) as f64 / self.total.max(1) as f64
    }

    /// The metrics with their labels: `MAE 0.2145 (0.1990..0.2300), R² 0.9120`.
    fn told(&self) -> String {
        let one = |m: &MetricRecord| {
            let value = *self.figures.get(&m.key)?;
            Some(format!("{} {}", m.label, m.write_with(value, Some(self.total), self.intervals.get(&m.key).copied())))
        };
        let told: Vec<String> = self.task.metrics.iter().filter_map(one).collect();
        if told.is_empty() { "no metric has a finite value".into() } else { told.join(", ") }
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runtime = &self.runtime;
        match self.correct {
            Some(correct) => write!(f, "accuracy {} ({correct} of {})", text::percent(self.share()), self.total)?,
            None => write!(f, "{} on {} rows", self.told(), self.total)?,
        }
        writeln!(f, ", {runtime}, {:.1} s", self.seconds)?;
        if self.nan > 0 {
            writeln!(f, "warning: {} of {} rows have NaN among their outputs; none of them counts as right", self.nan, self.total)?;
        }
        writeln!(f, "preprocessing: {}", self.preprocessing)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_guessing_reaches_is_told() {
        let task = technique::Choice::<train::Tasks>::default();
        let told = |correct: u64, samples: u64, classes: usize| {
            let entry = zoo::find("mlp").unwrap();
            let model = entry.build(&zoo::ZooOptions { input: vec![1, 2, 2], classes, ..entry.default_options() }).unwrap();
            let values = [("accuracy", correct as f64 / samples as f64)].into();
            no_better_than_chance(task.member().as_ref(), &model, &Figures { samples, values, ..Figures::default() })
        };
        assert!(told(192, 2000, 10).unwrap().starts_with("guessing among 10 classes does as well"));
        assert_eq!([told(300, 2000, 10), told(2, 20, 10), told(50, 50, 1), told(1956, 2000, 10)], [const { None }; 4]);
    }
}
