//! `compare`: two models on the same inputs, value by value.
use super::inputs::random_inputs;
use crate::{Error, Result};
use graph::{Model, ValueId};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use tensor::Tensor;
use train::{Executor, Mode};

/// What they are compared on.
#[derive(Clone, Debug, Default)]
pub struct CompareOptions {
    /// An npz file with arrays named after the inputs; absent: seeded noise of the declared shapes.
    pub input: Option<std::path::PathBuf>,
    /// Inputs' shapes by name, where the declared ones do not serve.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Key of the noise.
    pub seed: u64,
}

/// How a value differs.
#[derive(Clone, Debug, Serialize)]
pub struct ValueDifference {
    /// The value, by the name it has in both models.
    pub value: String,
    /// True for an output of both.
    pub output: bool,
    /// Signal to noise of B against A, in decibels; absent: equal.
    pub sqnr_db: Option<f64>,
    /// Largest absolute difference.
    pub max_difference: f64,
    /// Largest absolute value in A.
    pub max_value: f64,
}

/// How two models differ.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What they were run on.
    pub inputs: String,
    /// Values that have one name and shape in both, in A's order.
    pub values: Vec<ValueDifference>,
    /// Outputs of A that B does not have, or has in another shape.
    pub missing: Vec<String>,
}

/// Runs both models in the reference interpreter, annotations simulated.
///
/// # Errors
/// If a model cannot be read or run.
pub fn compare(a: &Path, b: &Path, options: &CompareOptions) -> Result<Comparison> {
    let (a, b) = (onnx::load(a)?, onnx::load(b)?);
    let (inputs, told) = match &options.input {
        Some(path) => (data::npz::read(path)?, path.display().to_string()),
        None => (random_inputs(&a, &options.shapes, 1, options.seed)?, format!("seeded noise, seed {}", options.seed)),
    };
    let (first, second) = (values(&a, &inputs)?, values(&b, &inputs)?);
    let by_name: HashMap<&str, &Tensor> = second.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let outputs: Vec<&str> = a.graph.outputs.iter().map(|v| a.values[*v].name.as_str()).collect();
    let mut list = vec![];
    for (name, x) in &first {
        if let Some(y) = by_name.get(name.as_str()).filter(|y| y.shape() == x.shape())
            && !inputs.contains_key(name)
            && let (Ok(x), Ok(y)) = (x.to_f32_vec(), y.to_f32_vec())
        {
            list.push(difference(name, outputs.contains(&name.as_str()), &x, &y));
        }
    }
    let missing = outputs.iter().filter(|o| list.iter().all(|d| d.value != **o)).map(|o| o.to_string()).collect();
    Ok(Comparison { inputs: told, values: list, missing })
}

fn values(model: &Model, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<(String, Tensor)>> {
    let executor = Executor::unfused(model)?;
    let mut seen: Vec<(ValueId, Tensor)> = vec![];
    executor.run_observed(inputs, Mode::SIMULATED, &mut |id, t| seen.push((id, t.clone())))?;
    let name = |id: ValueId| executor.model().value(id).map(|v| v.name.clone()).map_err(|e| Error::Input(e.to_string()));
    seen.into_iter().map(|(id, t)| Ok((name(id)?, t))).collect()
}

fn difference(name: &str, output: bool, a: &[f32], b: &[f32]) -> ValueDifference {
    let (mut signal, mut noise, mut max_difference, mut max_value) = (0f64, 0f64, 0f64, 0f64);
    for (x, y) in a.iter().zip(b).map(|(x, y)| (f64::from(*x), f64::from(*y))) {
        signal += x * x;
        noise += (x - y) * (x - y);
        max_difference = max_difference.max((x - y).abs());
        max_value = max_value.max(x.abs());
    }
    let sqnr_db = (noise > 0.0).then(|| 10.0 * (signal / noise).log10());
    ValueDifference { value: name.to_string(), output, sqnr_db, max_difference, max_value }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "on {}", self.inputs)?;
        let width = self.values.iter().map(|v| v.value.chars().count()).max().unwrap_or(0).clamp(5, 60);
        writeln!(f, "{:width$}  {:>10}  {:>14}  {:>12}", "value", "SQNR", "max difference", "max |A|")?;
        for v in &self.values {
            let sqnr = v.sqnr_db.map_or("equal".to_string(), |d| format!("{d:.1} dB"));
            let mark = if v.output { "  output" } else { "" };
            writeln!(f, "{:width$}  {sqnr:>10}  {:>14.3e}  {:>12.3e}{mark}", v.value, v.max_difference, v.max_value)?;
        }
        for name in &self.missing {
            writeln!(f, "output '{name}' has no counterpart of its shape")?;
        }
        Ok(())
    }
}
