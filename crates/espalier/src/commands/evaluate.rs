//! `evaluate`: a classifier on a data set.
use super::execute::session;
use crate::{Error, Result};
use data::{Loader, LoaderOptions, OpenOptions, Preprocess};
use deploy::runtime::Source;
use report::text;
use serde::Serialize;
use std::fmt;
use std::path::Path;
use train::{Batch, Mode, Score, TrainError};

/// On what, and how.
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// The split.
    pub split: String,
    /// Rows that run at once.
    pub batch: usize,
    /// The runtime.
    pub runtime: String,
    /// The runtime's graph optimizations off.
    pub literal: bool,
    /// Threads of the runtime.
    pub threads: usize,
    /// How an image becomes an input; absent: what the model's metadata say.
    pub preprocess: Option<Preprocess>,
    /// Only so many rows.
    pub limit: Option<usize>,
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
    /// `correct / total`.
    pub accuracy: f64,
    /// Where the preprocessing came from: `flags`, `metadata`, `default`.
    pub preprocessing: &'static str,
}

/// Scores a model's first output on the labels of a data set.
///
/// # Errors
/// If the model or the data cannot be read or do not fit each other.
pub fn evaluate(path: &Path, data: &Path, options: &EvaluateOptions) -> Result<Evaluation> {
    let mut model = onnx::load(path)?;
    let opened = options.batch > 1 && train::open_batch(&mut model)?;
    let (preprocess, preprocessing) = match (&options.preprocess, model.metadata_get(data::METADATA_KEY)) {
        (Some(given), _) => (given.clone(), "flags"),
        (None, Some(json)) => {
            let read = serde_json::from_str(json);
            (read.map_err(|e| Error::Input(format!("the model's metadata '{}': {e}", data::METADATA_KEY)))?, "metadata")
        }
        (None, None) => (Preprocess::default(), "default"),
    };
    let dataset = data::open(data, &OpenOptions::split(&options.split))?;
    let input = model.free_inputs().first().map(|v| model.values[*v].name.clone());
    let input = input.ok_or_else(|| Error::Input("the model has no input".into()))?;
    let rows = options.limit.map(|n| std::sync::Arc::new((0..n.min(dataset.len())).collect()));
    let (batch, classes) = (options.batch, train::classes(&model));
    let loader = Loader::new(dataset, LoaderOptions { batch, preprocess, input, rows, classes, ..LoaderOptions::default() })?;
    let batches = loader.map(|b| b.map(Batch::from).map_err(|e| TrainError::Data(e.to_string())));
    let score = match options.runtime.as_str() {
        "reference" => train::evaluate(&model, batches, Mode::SIMULATED)?,
        _ if opened => {
            let bytes = onnx::to_bytes(&model)?;
            in_runtime(Source::Bytes(&bytes), batches, options)?
        }
        _ => in_runtime(Source::File(path), batches, options)?,
    };
    Ok(Evaluation {
        runtime: options.runtime.clone(),
        correct: score.correct,
        total: score.total,
        accuracy: score.accuracy(),
        preprocessing,
    })
}

fn in_runtime(model: Source, batches: impl Iterator<Item = Result<Batch, TrainError>>, options: &EvaluateOptions) -> Result<Score> {
    let mut session = session(model, &options.runtime, options.literal, options.threads)?;
    let output = session.outputs().first().map(|s| s.name.clone()).unwrap_or_default();
    let mut score = Score::default();
    for batch in batches {
        let batch = batch?;
        let outputs = session.run(&batch.inputs)?;
        let logits = outputs.get(&output).ok_or_else(|| Error::Input(format!("the runtime gave no output '{output}'")))?;
        score.correct += train::count_correct(&train::flat(logits)?, batch.target("label")?)?;
        score.total += batch.len();
    }
    Ok(score)
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accuracy {} ({} of {}), {}, preprocessing: {}",
            text::percent(self.accuracy),
            self.correct,
            self.total,
            self.runtime,
            self.preprocessing
        )
    }
}
