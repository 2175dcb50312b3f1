//! `compare`: two models on the same inputs, value by value.
use super::inputs::random_inputs;
use super::samples::{SampleOptions, Samples};
use crate::{Error, Result};
use graph::{Model, ValueId};
use pipeline::actions::Tick;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use tensor::{SignalToNoise, Tensor};
use train::{Batching, Executor, Mode};

/// The inputs of a comparison.
#[derive(Clone, Debug)]
pub enum CompareOn {
    /// An npz file with arrays named after the inputs.
    Arrays(PathBuf),
    /// Rows of a data set.
    Data(PathBuf, Box<SampleOptions>),
    /// Seeded noise of the declared shapes; shapes of inputs by name replace the declared ones.
    Noise {
        /// Shapes by input.
        shapes: BTreeMap<String, Vec<usize>>,
        /// Seed of the noise.
        seed: u64,
    },
}

/// The difference of one value.
#[derive(Clone, Debug, Serialize)]
pub struct ValueDifference {
    /// The value, by the name it has in both models.
    pub value: String,
    /// True for an output of both.
    pub output: bool,
    /// Signal to noise of B against A, in decibels, over the elements that are numbers in both; absent if `equal`, or if there
    /// are no such elements.
    pub sqnr_db: Option<f64>,
    /// True if every element is the same number in both; a NaN is never equal.
    pub equal: bool,
    /// Elements that are NaN in A or in B.
    pub nan: u64,
    /// Largest absolute difference, over the elements that are numbers in both.
    pub max_difference: f64,
    /// Largest absolute value in A.
    pub max_value: f64,
}

/// The differences between two models.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The inputs that both were run on.
    pub inputs: String,
    /// Values that have one name and shape in both, in A's order.
    pub values: Vec<ValueDifference>,
    /// Outputs of A that B does not have, or has in another shape.
    pub missing: Vec<String>,
}

/// Runs both models in the reference interpreter, annotations simulated. `tick` is called with the progress.
///
/// # Errors
/// If a model cannot be read or run, or the data do not fit.
pub fn compare(a: &Path, b: &Path, on: &CompareOn, tick: Tick) -> Result<Comparison> {
    tensor::set_threads(None);
    let (mut a, mut b) = (onnx::load(a)?, onnx::load(b)?);
    let mut totals = Totals::default();
    let told = match on {
        CompareOn::Arrays(path) => {
            totals.add(&a, &b, &data::npz::read(path)?)?;
            path.display().to_string()
        }
        CompareOn::Noise { shapes, seed } => {
            totals.add(&a, &b, &random_inputs(&a, shapes, 1, *seed)?)?;
            format!("seeded noise, seed {seed}")
        }
        CompareOn::Data(path, options) => {
            // Both get the same runs: a fixed batch of one model holds for the other too.
            let whole = (a.clone(), b.clone());
            let fixed = [train::open_batch(&mut a), train::open_batch(&mut b)].map(|batching| matches!(batching, Batching::Fixed { .. }));
            if fixed[0] || fixed[1] {
                (a, b) = whole;
            }
            // A carried state of one model holds for both.
            for key in [data::METADATA_KEY, train::INPUTS_KEY] {
                let carried = [&a, &b].map(|m| m.metadata_get(key).map(str::to_string));
                match carried {
                    [None, Some(json)] => a.metadata_set(key, json),
                    [Some(json), None] => b.metadata_set(key, json),
                    _ => {}
                }
            }
            let samples = Samples::open(if fixed[1] { &b } else { &a }, path, options, false)?;
            let (rows, preprocessing) = (samples.rows, samples.preprocessing);
            for batch in samples.run(tick) {
                totals.add(&a, &b, &batch?.inputs)?;
            }
            format!("{rows} rows of {}, preprocessing {preprocessing}", path.display())
        }
    };
    let outputs: Vec<&str> = a.graph.outputs.iter().map(|v| a.values[*v].name.as_str()).collect();
    let values: Vec<ValueDifference> = totals.sums.into_iter().map(|(name, sum)| sum.finish(name, &outputs)).collect();
    if values.is_empty() {
        return Err(Error::Input(format!(
            "nothing can be compared: no value has the same name and shape in both models; {}",
            totals.unmatched
        )));
    }
    let missing = outputs.iter().filter(|o| values.iter().all(|d| d.value != **o)).map(|o| o.to_string()).collect();
    Ok(Comparison { inputs: told, values, missing })
}

/// Sums over the batches, in the order in which A makes its values.
#[derive(Default)]
struct Totals {
    sums: Vec<(String, Sum)>,
    /// The outputs of both models, for messages.
    unmatched: String,
}

/// The difference of one value over all batches.
#[derive(Clone, Copy, Default)]
struct Sum {
    ratio: SignalToNoise,
    nan: u64,
    numbers: u64,
    max_difference: f64,
    max_value: f64,
}

impl Totals {
    fn add(&mut self, a: &Model, b: &Model, inputs: &BTreeMap<String, Tensor>) -> Result<()> {
        let (first, second) = (values(a, b, inputs)?, values(b, a, inputs)?);
        let by_name: HashMap<&str, &Tensor> = second.iter().map(|(n, t)| (n.as_str(), t)).collect();
        for (name, x) in first.iter().filter(|(name, _)| !inputs.contains_key(name)) {
            if let Some(y) = by_name.get(name.as_str()).filter(|y| y.shape() == x.shape())
                && let (Ok(x), Ok(y)) = (x.to_f32_vec(), y.to_f32_vec())
            {
                let at = self.sums.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                    self.sums.push((name.clone(), Sum::default()));
                    self.sums.len() - 1
                });
                self.sums[at].1.add(&x, &y);
            }
        }
        if self.sums.is_empty() {
            let outputs = |model: &Model, values: &[(String, Tensor)]| {
                let names: Vec<&str> = model.graph.outputs.iter().map(|v| model.values[*v].name.as_str()).collect();
                let told = values.iter().filter(|(n, _)| names.contains(&n.as_str())).map(|(n, t)| format!("{n} {:?}", t.shape()));
                told.collect::<Vec<_>>().join(", ")
            };
            self.unmatched = format!("outputs are {} and {}", outputs(a, &first), outputs(b, &second));
        }
        Ok(())
    }
}

impl Sum {
    fn add(&mut self, a: &[f32], b: &[f32]) {
        for (x, y) in a.iter().zip(b).map(|(x, y)| (f64::from(*x), f64::from(*y))) {
            if x.is_nan() || y.is_nan() {
                self.nan += 1;
                continue;
            }
            self.numbers += 1;
            // The same infinity on both sides is no difference.
            if x == y && x.is_infinite() {
                continue;
            }
            let difference = x - y;
            self.ratio.add(x, difference);
            self.max_difference = self.max_difference.max(difference.abs());
            self.max_value = self.max_value.max(x.abs());
        }
    }

    fn finish(self, value: String, outputs: &[&str]) -> ValueDifference {
        let sqnr_db = (self.ratio.noise > 0.0 && self.numbers > 0).then(|| self.ratio.db());
        let (output, equal) = (outputs.contains(&value.as_str()), self.nan == 0 && self.ratio.noise == 0.0);
        let Sum { nan, max_difference, max_value, .. } = self;
        ValueDifference { value, output, sqnr_db, equal, nan, max_difference, max_value }
    }
}

/// All values of a model, by name, as the layers behind them read them. If the output of a quantizer has a name that `other`
/// gives to a value of its own (an activation whose node was left out, because its quantizer clips alike), it stands for that
/// value only.
fn values(model: &Model, other: &Model, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<(String, Tensor)>> {
    let executor = Executor::unfused(model)?;
    let mut seen: Vec<(ValueId, Tensor)> = vec![];
    executor.run_observed(inputs, Mode::SIMULATED, &mut |id, t| seen.push((id, t.clone())))?;
    let mut read_as = read_back(executor.model());
    let theirs: HashSet<&str> = other.values.iter().map(|(_, v)| v.name.as_str()).collect();
    read_as.retain(|read, _| executor.model().value(*read).is_ok_and(|v| !theirs.contains(v.name.as_str())));
    let stored: HashMap<ValueId, Tensor> = seen.iter().filter_map(|(id, t)| Some((*read_as.get(id)?, t.clone()))).collect();
    let name = |id: ValueId| executor.model().value(id).map(|v| v.name.clone()).map_err(|e| Error::Input(e.to_string()));
    let value = |(id, t): (ValueId, Tensor)| {
        let read = match (stored.get(&id), executor.model().annotations.get(id)) {
            (Some(read), _) => read.clone(),
            (None, Some(annotation)) => encodings::simulate(&t, annotation).map_err(|e| Error::Input(e.to_string()))?,
            (None, None) => t,
        };
        Ok((name(id)?, read))
    };
    seen.into_iter().map(value).collect()
}

/// Values that pass a QuantizeLinear and a DequantizeLinear, by the output: a value counts as the layers behind it read it, in a
/// deployed file as in the annotated graph that it was lowered from.
fn read_back(model: &Model) -> HashMap<ValueId, ValueId> {
    let (mut quantized, mut out) = (HashMap::new(), HashMap::new());
    model.graph.visit(&mut |node| match (node.op_type.as_str(), node.input(0), node.output(0)) {
        ("QuantizeLinear", Some(from), Some(to)) => {
            quantized.insert(to, from);
        }
        ("DequantizeLinear", Some(from), Some(to)) => out.extend(quantized.get(&from).map(|value| (to, *value))),
        _ => {}
    });
    out
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "on {}", self.inputs)?;
        let width = self.values.iter().map(|v| v.value.chars().count()).max().unwrap_or(0).clamp(5, 60);
        writeln!(f, "{:width$}  {:>10}  {:>14}  {:>12}", "value", "SQNR", "max difference", "max |A|")?;
        for v in &self.values {
            let sqnr = match (v.equal, v.sqnr_db) {
                (true, _) => "equal".to_string(),
                (false, Some(d)) => format!("{d:.1} dB"),
                (false, None) => "NaN".to_string(),
            };
            let mark = if v.output { "  output" } else { "" };
            let nan = if v.nan > 0 { format!("  {} elements are NaN", v.nan) } else { String::new() };
            writeln!(f, "{:width$}  {sqnr:>10}  {:>14.3e}  {:>12.3e}{mark}{nan}", v.value, v.max_difference, v.max_value)?;
        }
        for name in &self.missing {
            writeln!(f, "output '{name}' has no counterpart of the same shape")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(a: &[f32], b: &[f32]) -> (ValueDifference, String) {
        let mut sum = Sum::default();
        sum.add(a, b);
        let value = sum.finish("y".into(), &["y"]);
        let text = Comparison { inputs: "x".into(), values: vec![value.clone()], missing: vec![] }.to_string();
        (value, text)
    }

    #[test]
    fn a_nan_is_never_equal_and_is_counted() {
        let (equal, text) = told(&[1.0, f32::INFINITY], &[1.0, f32::INFINITY]);
        assert!(equal.equal && equal.nan == 0 && text.contains("     equal"), "{text}");
        for (a, b) in [([f32::NAN, 1.0], [f32::NAN, 1.0]), ([0.0, 1.0], [f32::NAN, 1.0])] {
            let (nan, text) = told(&a, &b);
            assert!(!nan.equal && nan.nan == 1 && nan.sqnr_db.is_none(), "{nan:?}");
            assert!(!text.contains("equal") && text.contains("1 elements are NaN"), "{text}");
        }
        let (both, text) = told(&[f32::NAN, 2.0], &[1.0, 1.0]);
        assert!((both.sqnr_db.unwrap() - 10.0 * 4f64.log10()).abs() < 1e-9, "{text}");
    }
}
