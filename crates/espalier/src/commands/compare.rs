//! `compare`: two models on the same inputs, value by value.
use super::inputs::random_inputs;
use super::samples::{SampleOptions, Samples};
use crate::{Error, Result};
use graph::{Model, ValueId};
use pipeline::actions::Tick;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use tensor::Tensor;
use train::{Batching, Executor, Mode};

/// What they are compared on.
#[derive(Clone, Debug)]
pub enum CompareOn {
    /// An npz file with arrays named after the inputs.
    Arrays(PathBuf),
    /// Rows of a data set.
    Data(PathBuf, SampleOptions),
    /// Seeded noise of the declared shapes; inputs' shapes by name where the declared ones do not serve.
    Noise {
        /// Shapes by input.
        shapes: BTreeMap<String, Vec<usize>>,
        /// Key of the noise.
        seed: u64,
    },
}

/// How a value differs.
#[derive(Clone, Debug, Serialize)]
pub struct ValueDifference {
    /// The value, by the name it has in both models.
    pub value: String,
    /// True for an output of both.
    pub output: bool,
    /// All elements are equal. One that is not a number (NaN) is equal to nothing.
    pub equal: bool,
    /// Elements that are not a number in A or in B.
    pub not_numbers: usize,
    /// Signal to noise of B against A, in decibels, over the elements that are numbers in both; absent where those are equal.
    pub sqnr_db: Option<f64>,
    /// Largest absolute difference of elements that are numbers in both.
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

/// Runs both models in the reference interpreter, annotations simulated; `tick` hears how far it is.
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
            // Both get the same runs: a batch that one of them keeps is the other's too.
            let whole = (a.clone(), b.clone());
            let fixed = [train::open_batch(&mut a), train::open_batch(&mut b)].map(|batching| matches!(batching, Batching::Fixed { .. }));
            if fixed[0] || fixed[1] {
                (a, b) = whole;
            }
            // What only one of the two carries counts for both.
            for key in [data::METADATA_KEY, train::INPUTS_KEY] {
                let carried = [&a, &b].map(|m| m.metadata_get(key).map(str::to_string));
                match carried {
                    [None, Some(json)] => a.metadata_set(key, json),
                    [Some(json), None] => b.metadata_set(key, json),
                    _ => {}
                }
            }
            let samples = Samples::open(if fixed[1] { &b } else { &a }, path, options, None)?;
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
        return Err(Error::Input(format!("nothing can be compared: no value has one name and shape in both; {}", totals.unmatched)));
    }
    let missing = outputs.iter().filter(|o| values.iter().all(|d| d.value != **o)).map(|o| o.to_string()).collect();
    Ok(Comparison { inputs: told, values, missing })
}

/// Sums over the batches, in the order in which A makes its values.
#[derive(Default)]
struct Totals {
    sums: Vec<(String, Sum)>,
    /// The outputs of both, told where nothing else is.
    unmatched: String,
}

/// What one value comes to.
#[derive(Clone, Copy, Default)]
struct Sum {
    not_numbers: usize,
    signal: f64,
    noise: f64,
    max_difference: f64,
    max_value: f64,
}

impl Totals {
    fn add(&mut self, a: &Model, b: &Model, inputs: &BTreeMap<String, Tensor>) -> Result<()> {
        let (first, second) = (values(a, inputs)?, values(b, inputs)?);
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
                self.not_numbers += 1;
                continue;
            }
            // Infinity less itself is no number, and no difference.
            let difference = if x == y { 0.0 } else { x - y };
            self.signal += x * x;
            self.noise += difference * difference;
            self.max_difference = self.max_difference.max(difference.abs());
            self.max_value = self.max_value.max(x.abs());
        }
    }

    fn finish(self, value: String, outputs: &[&str]) -> ValueDifference {
        let ratio = if self.noise.is_infinite() { 0.0 } else { self.signal / self.noise };
        let sqnr_db = (self.noise > 0.0).then(|| 10.0 * ratio.log10());
        let output = outputs.contains(&value.as_str());
        let (not_numbers, equal) = (self.not_numbers, self.noise == 0.0 && self.not_numbers == 0);
        ValueDifference { value, output, equal, not_numbers, sqnr_db, max_difference: self.max_difference, max_value: self.max_value }
    }
}

fn values(model: &Model, inputs: &BTreeMap<String, Tensor>) -> Result<Vec<(String, Tensor)>> {
    let executor = Executor::unfused(model)?;
    let mut seen: Vec<(ValueId, Tensor)> = vec![];
    executor.run_observed(inputs, Mode::SIMULATED, &mut |id, t| seen.push((id, t.clone())))?;
    let read_as = read_back(executor.model());
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

/// Values that a QuantizeLinear and a DequantizeLinear pass on, by what comes out: a value counts as the layers behind it
/// read it, in a deployed file as in the annotated graph it was lowered from.
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
            let sqnr = match v.sqnr_db {
                None if v.equal => "equal".to_string(),
                None => "NaN".to_string(),
                Some(d) => format!("{d:.1} dB"),
            };
            let mut mark = if v.output { "  output".to_string() } else { String::new() };
            if v.not_numbers > 0 {
                mark += &format!("  {} elements are NaN", v.not_numbers);
            }
            writeln!(f, "{:width$}  {sqnr:>10}  {:>14.3e}  {:>12.3e}{mark}", v.value, v.max_difference, v.max_value)?;
        }
        for name in &self.missing {
            writeln!(f, "output '{name}' has no counterpart of its shape")?;
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
        let shown = Comparison { inputs: "i".into(), values: vec![value.clone()], missing: vec![] }.to_string();
        (value, shown)
    }

    #[test]
    fn what_is_not_a_number_is_equal_to_nothing() {
        for (a, b) in [([f32::NAN, 1.0], [f32::NAN, 1.0]), ([1.0, f32::NAN], [1.0, 2.0]), ([1.0, 2.0], [1.0, f32::NAN])] {
            let (value, shown) = told(&a, &b);
            assert!(!value.equal && value.not_numbers == 1 && !shown.contains("equal"), "{shown}");
            assert!(shown.contains("1 elements are NaN"), "{shown}");
        }
        let (value, shown) = told(&[f32::NEG_INFINITY, 2.0], &[f32::NEG_INFINITY, 2.0]);
        assert!(value.equal && value.max_difference == 0.0 && shown.contains("equal"), "{shown}");
        let (value, shown) = told(&[f32::INFINITY, 2.0], &[1.0, 2.0]);
        assert!(!value.equal && shown.contains("-inf dB"), "{shown}");
    }
}
