//! Regression: numeric targets of any shape.
use super::{Agreement, Better, Figures, MetricFacts, Page, Reads, Score, Task};
use crate::{Batch, Metric, Objective, TrainError, loss_error, read};
use data::{TARGET, Wanted};
use graph::{Model, ValueId};
use std::collections::{BTreeMap, HashMap};
use technique::{Fault, Settings};
use tensor::Tensor;

pub(super) const MANUAL: Page = Page {
    name: "regression",
    summary: "Numbers of any shape for each sample: mean squared error, judged by the mean absolute error.",
    details: "The network's output [n, ...] is compared with the target of the same number of elements a sample, float [n, ...], read from an \
              npz file: the array that `target` names, else y, target or targets. The loss is the mean of (output - target)^2 over all \
              elements. MAE is the mean of |output - target| (lower is better), R2 = 1 - sum (target - output)^2 / sum (target - mean)^2 \
              with a mean for each element of the target (higher is better; 1 is perfect, 0 is as good as the mean). A deployed file may \
              differ from the simulation by 2 % of the targets' standard deviation on average, and by half of it in any element. Bring \
              targets to a range of about -1..1 for training: the loss grows with the square of their unit.",
    source: "",
    example: "task = { kind = \"regression\", target = \"y\" }",
};

static MAE: MetricFacts =
    MetricFacts { key: "mae", label: "MAE", summary: "Mean absolute error, in the targets' unit.", better: Better::Lower, percent: false };

static FURTHER: [MetricFacts; 1] = [MetricFacts {
    key: "r2",
    label: "R²",
    summary: "Share of the targets' variance that the network explains.",
    better: Better::Higher,
    percent: false,
}];

/// Largest allowed mean difference of a deployed file from the simulation, in standard deviations of the targets.
const MEAN_DIFFERENCE: f64 = 0.02;

/// Largest allowed difference of any element, in standard deviations of the targets.
const LARGEST_DIFFERENCE: f64 = 0.5;

/// Quantile of the normal distribution for 95 % intervals.
const Z: f64 = 1.959_963_984_540_054;

/// Numbers to predict.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Regression {
    /// The array of targets in the npz file; absent: `y`, `target`, `targets`, `label` or `labels`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The output with the predictions; absent: the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl Settings for Regression {
    fn check(&self) -> Result<(), Fault> {
        match self.target.as_deref() {
            Some("") => Err(Fault::new("target", "the name of the array of targets is empty")),
            _ => Ok(()),
        }
    }
}

impl Regression {
    fn found(&self, model: &Model) -> Result<ValueId, TrainError> {
        self.output(model).ok_or_else(|| {
            let names: Vec<&str> = model.graph.outputs.iter().map(|v| model.values[*v].name.as_str()).collect();
            let what = match &self.output {
                Some(name) => format!("'{name}' is not an output of the model; its outputs: {}", names.join(", ")),
                None => "the model has no output".to_string(),
            };
            TrainError::Setting { setting: "task.output".into(), what }
        })
    }
}

impl Task for Regression {
    fn wanted(&self) -> Wanted {
        Wanted::Values { array: self.target.clone() }
    }

    fn target(&self) -> &'static str {
        TARGET
    }

    fn main_metric(&self) -> &'static MetricFacts {
        &MAE
    }

    fn further_metrics(&self) -> &'static [MetricFacts] {
        &FURTHER
    }

    fn guessing(&self, _model: &Model, figures: &Figures, _errors: f64) -> Option<String> {
        (*figures.values.get(FURTHER[0].key)? <= 0.0).then(|| "predicting the mean of the targets".to_string())
    }

    fn output(&self, model: &Model) -> Option<ValueId> {
        let outputs = &model.graph.outputs;
        match &self.output {
            Some(name) => outputs.iter().copied().find(|v| model.values[*v].name == *name),
            None => outputs.first().copied(),
        }
    }

    fn example_goal(&self) -> &'static str {
        "# By how much R2 may fall; a missed goal is reported and sets exit code 3. metrics.mae = { max = ... } bounds the mean \
         absolute error.\nmetrics.r2 = { max_drop = 0.02 }\n"
    }

    fn distillation_loss(&self) -> &'static str {
        "outputs"
    }

    fn loss(&self, model: &Model, label_smoothing: f32) -> Result<Box<dyn Objective>, TrainError> {
        if label_smoothing != 0.0 {
            let what = "spreads a class label over all classes; a regression has none: leave it out".to_string();
            return Err(TrainError::Setting { setting: "label_smoothing".into(), what });
        }
        Ok(Box::new(SquaredError { output: self.found(model)? }))
    }

    fn score(&self, model: &Model, reads: Reads) -> Result<Box<dyn Score>, TrainError> {
        let output = match reads {
            Reads::Output(value) => value,
            Reads::Graph => self.found(model)?,
        };
        Ok(Box::new(Residuals { output, spread: Spread::default(), errors: Sums::default(), squares: 0.0, nan: 0 }))
    }

    fn agreement(&self) -> Box<dyn Agreement> {
        Box::new(Nearness::default())
    }
}

/// A target in the shape of the output: `[n]` and `[n, 1]` are the same numbers.
///
/// # Errors
/// [`TrainError::Data`] if they do not have the same number of samples and elements.
pub fn align(output: &Tensor, target: &Tensor) -> Result<Tensor, TrainError> {
    if output.shape() == target.shape() {
        return Ok(target.clone());
    }
    if output.len() != target.len() || output.shape().first() != target.shape().first() {
        let what = format!(
            "the output has shape {:?}, the targets {:?}: for each sample both need the same number of elements",
            output.shape(),
            target.shape()
        );
        return Err(TrainError::Data(what));
    }
    target.reshape(output.shape()).map_err(loss_error)
}

/// The mean of the squared differences over all elements.
#[derive(Clone, Debug)]
struct SquaredError {
    output: ValueId,
}

impl Objective for SquaredError {
    fn taps(&self) -> Vec<ValueId> {
        vec![self.output]
    }

    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        let output = read(values, self.output)?;
        tensor::mse_loss(output, &align(output, batch.target(TARGET)?)?).map_err(loss_error)
    }
}

/// Mean and squared deviations of each element of the targets (B. P. Welford, 1962).
#[derive(Clone, Debug, Default)]
struct Spread {
    count: u64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Spread {
    fn add(&mut self, sample: &[f32]) {
        if self.mean.len() != sample.len() {
            (self.mean, self.squares) = (vec![0.0; sample.len()], vec![0.0; sample.len()]);
        }
        self.count += 1;
        for ((mean, squares), v) in self.mean.iter_mut().zip(&mut self.squares).zip(sample) {
            let before = f64::from(*v) - *mean;
            *mean += before / self.count as f64;
            *squares += before * (f64::from(*v) - *mean);
        }
    }

    /// Sum of squared deviations from each element's mean.
    fn total(&self) -> f64 {
        self.squares.iter().sum()
    }

    /// Standard deviation over all elements.
    fn deviation(&self) -> f64 {
        let elements = self.count as f64 * self.mean.len() as f64;
        (self.total() / elements.max(1.0)).sqrt()
    }
}

/// Sum and sum of squares of a number for each sample.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: u64,
    sum: f64,
    squares: f64,
}

impl Sums {
    fn add(&mut self, v: f64) {
        self.count += 1;
        self.sum += v;
        self.squares += v * v;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// 95 % confidence interval of the mean, by the normal distribution; `None` for fewer than two samples.
    fn interval(&self) -> Option<(f64, f64)> {
        if self.count < 2 {
            return None;
        }
        let (n, mean) = (self.count as f64, self.mean());
        let variance = ((self.squares - n * mean * mean) / (n - 1.0)).max(0.0);
        let half = Z * (variance / n).sqrt();
        Some((mean - half, mean + half))
    }
}

/// Differences between outputs and targets so far.
struct Residuals {
    output: ValueId,
    spread: Spread,
    /// Mean absolute error of each sample.
    errors: Sums,
    /// Sum of squared errors over all elements.
    squares: f64,
    nan: u64,
}

/// Output and target of each sample.
fn samples(output: &Tensor, batch: &Batch) -> Result<(Vec<f32>, Vec<f32>, usize), TrainError> {
    let target = align(output, batch.target(TARGET)?)?;
    let (said, wanted) = (output.to_f32_vec().map_err(loss_error)?, target.to_f32_vec().map_err(loss_error)?);
    let elements = (said.len() / output.shape().first().copied().unwrap_or(1).max(1)).max(1);
    Ok((said, wanted, elements))
}

/// Mean absolute difference of a sample.
fn mean_absolute(said: &[f32], wanted: &[f32]) -> f64 {
    let sum: f64 = said.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).sum();
    sum / said.len().max(1) as f64
}

impl Metric for Residuals {
    fn taps(&self) -> Vec<ValueId> {
        vec![self.output]
    }

    fn add(&mut self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<(), TrainError> {
        let (said, wanted, elements) = samples(read(values, self.output)?, batch)?;
        for (a, b) in said.chunks(elements).zip(wanted.chunks(elements)) {
            self.spread.add(b);
            self.errors.add(mean_absolute(a, b));
            self.squares += a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
            self.nan += u64::from(a.iter().any(|v| v.is_nan()));
        }
        Ok(())
    }

    fn value(&self) -> f64 {
        self.errors.mean()
    }

    fn better(&self) -> Better {
        Better::Lower
    }
}

impl Score for Residuals {
    fn figures(&self) -> Figures {
        let r2 = 1.0 - self.squares / self.spread.total();
        let known = [(MAE.key, self.errors.mean()), (FURTHER[0].key, r2)];
        let values: BTreeMap<&str, f64> = known.into_iter().filter(|(_, v)| self.errors.count > 0 && v.is_finite()).collect();
        let interval = self.errors.interval().filter(|(low, high)| low.is_finite() && high.is_finite());
        Figures {
            samples: self.errors.count,
            nan: self.nan,
            values,
            intervals: interval.map(|i| (MAE.key, i)).into_iter().collect(),
            confusion: None,
        }
    }

    fn each(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Vec<f64>, TrainError> {
        let (said, wanted, elements) = samples(read(values, self.output)?, batch)?;
        Ok(said.chunks(elements).zip(wanted.chunks(elements)).map(|(a, b)| mean_absolute(a, b)).collect())
    }
}

/// Differences between two computations, relative to the spread of the targets.
#[derive(Default)]
struct Nearness {
    spread: Spread,
    differences: Sums,
    largest: f64,
}

impl Nearness {
    fn shares(&self) -> (f64, f64) {
        // Targets without spread: a difference then counts in their own unit.
        let unit = Some(self.spread.deviation()).filter(|d| *d > 0.0).unwrap_or(1.0);
        (self.differences.mean() / unit, self.largest / unit)
    }
}

impl Agreement for Nearness {
    fn add(&mut self, simulated: &Tensor, deployed: &Tensor, batch: &Batch) -> Result<(), TrainError> {
        let (said, wanted, elements) = samples(simulated, batch)?;
        let other = align(simulated, deployed)?.to_f32_vec().map_err(loss_error)?;
        for ((a, b), target) in said.chunks(elements).zip(other.chunks(elements)).zip(wanted.chunks(elements)) {
            self.spread.add(target);
            self.differences.add(mean_absolute(b, a));
            for (a, b) in a.iter().zip(b) {
                let d = (f64::from(*a) - f64::from(*b)).abs();
                self.largest = if d.is_nan() || self.largest.is_nan() { f64::NAN } else { self.largest.max(d) };
            }
        }
        Ok(())
    }

    fn figures(&self) -> BTreeMap<&'static str, f64> {
        let (mean, largest) = self.shares();
        [("mean_difference", mean), ("largest_difference", largest)].into_iter().filter(|(_, v)| v.is_finite()).collect()
    }

    fn violations(&self, output: &str) -> Vec<String> {
        let (mean, largest) = self.shares();
        let beyond = |value: f64, limit: f64| value.partial_cmp(&limit).is_none_or(std::cmp::Ordering::is_gt);
        let told = |what: &str, value: f64, limit: f64| {
            format!(
                "output '{output}': {what} difference to the simulation is {:.2} % of the targets' standard deviation, more than {:.0} %",
                100.0 * value,
                100.0 * limit
            )
        };
        let mut out = vec![];
        if beyond(mean, MEAN_DIFFERENCE) {
            out.push(told("the mean", mean, MEAN_DIFFERENCE));
        }
        if beyond(largest, LARGEST_DIFFERENCE) {
            out.push(told("the largest", largest, LARGEST_DIFFERENCE));
        }
        out
    }
}

#[cfg(test)]
#[path = "regression_tests.rs"]
mod tests;
