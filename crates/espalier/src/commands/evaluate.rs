//! `evaluate`: a classifier on a data set.
use super::bench::peak_memory;
use super::execute::session;
use super::preprocessing::Preprocessing;
use super::samples::{SampleOptions, Samples};
use crate::{Error, Result};
use deploy::runtime::Source;
use pipeline::actions::Tick;
use report::text;
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::time::Instant;
use train::{Batch, Batching, Mode, Score, TrainError};

/// On what, and how.
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// The rows.
    pub samples: SampleOptions,
    /// The runtime.
    pub runtime: String,
    /// The runtime's graph optimizations off.
    pub literal: bool,
    /// Threads of the runtime.
    pub threads: usize,
}

/// How it did.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The runtime.
    pub runtime: String,
    /// Rows whose class was right.
    pub correct: usize,
    /// Rows.
    pub total: usize,
    /// Rows with a NaN among their outputs: none of them counts as right.
    pub nan: usize,
    /// `correct / total`.
    pub accuracy: f64,
    /// Where the preprocessing came from.
    pub preprocessing: Preprocessing,
    /// Reading, decoding and running all rows.
    pub seconds: f64,
    /// Largest resident memory of the process so far; absent where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// What the user should know of the data.
    pub notes: Vec<String>,
}

/// Scores a model's first output on the labels of a data set; `tick` hears how far it is. A batch that the model fixes is
/// opened where that can be shown to change nothing, and kept to otherwise.
///
/// # Errors
/// If the model or the data cannot be read or do not fit each other.
pub fn evaluate(path: &Path, data: &Path, options: &EvaluateOptions, tick: Tick) -> Result<Evaluation> {
    tensor::set_threads(None);
    let mut model = onnx::load(path)?;
    let batching = if options.samples.batch > 1 { train::open_batch(&mut model) } else { Batching::Open };
    let opened = batching == Batching::Opened;
    let samples = Samples::open(&model, data, &options.samples, train::classes(&model))?;
    let (preprocessing, mut notes) = (samples.preprocessing, samples.notes.clone());
    notes.extend(batching.note());
    let began = Instant::now();
    let batches = samples.run(tick);
    let score = match options.runtime.as_str() {
        "reference" => train::evaluate(&model, batches, Mode::SIMULATED)?,
        _ if opened => {
            let bytes = onnx::to_bytes(&model)?;
            in_runtime(Source::Bytes(&bytes), batches, options)?
        }
        _ => in_runtime(Source::File(path), batches, options)?,
    };
    notes.extend(train::classes(&model).and_then(|classes| no_better_than_chance(&score, classes)));
    Ok(Evaluation {
        runtime: options.runtime.clone(),
        correct: score.correct,
        total: score.total,
        nan: score.nan,
        accuracy: score.accuracy(),
        preprocessing,
        seconds: began.elapsed().as_secs_f64(),
        peak_memory_bytes: peak_memory(),
        notes,
    })
}

fn in_runtime(model: Source, batches: impl Iterator<Item = Result<Batch, TrainError>>, options: &EvaluateOptions) -> Result<Score> {
    let mut session = session(model, &options.runtime, options.literal, options.threads)?;
    let output = session.outputs().first().map(|s| s.name.clone()).unwrap_or_default();
    let mut score = Score::default();
    for batch in batches {
        let batch = batch?;
        let outputs = batch.counted_values(session.run(&batch.inputs)?)?;
        let logits = outputs.get(&output).ok_or_else(|| Error::Input(format!("the runtime gave no output '{output}'")))?;
        let judged = train::judge(&train::flat(logits)?, batch.target("label")?)?;
        score.correct += judged.correct;
        score.nan += judged.nan;
        score.total += batch.len();
    }
    Ok(score)
}

/// Rows below which chance is not told from anything.
const FEWEST: usize = 30;

/// A sentence where the figure is one that guessing reaches, by two standard errors.
fn no_better_than_chance(score: &Score, classes: usize) -> Option<String> {
    let (rows, chance) = (score.total as f64, 1.0 / classes.max(1) as f64);
    let reached = chance + 2.0 * (chance * (1.0 - chance) / rows.max(1.0)).sqrt();
    (classes > 1 && score.total >= FEWEST && score.accuracy() <= reached).then(|| {
        format!(
            "guessing among {classes} classes does as well: the preprocessing may be another (espalier init MODEL --data DATA looks for it; \
             --mean, --std, --scale, --channels and --layout set it), or the order of the classes, or the network is not trained"
        )
    })
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accuracy, runtime) = (text::percent(self.accuracy), &self.runtime);
        writeln!(f, "accuracy {accuracy} ({} of {}), {runtime}, {:.1} s", self.correct, self.total, self.seconds)?;
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
        let told = |correct, total, classes| no_better_than_chance(&Score { correct, total, ..Score::default() }, classes);
        assert!(told(192, 2000, 10).unwrap().starts_with("guessing among 10 classes does as well"));
        assert_eq!([told(300, 2000, 10), told(2, 20, 10), told(50, 50, 1), told(1956, 2000, 10)], [const { None }; 4]);
    }
}
