//! Accuracy of a model on labelled data.
use super::compare::arg_max;
use crate::runtime::Session;
use crate::{DeployError, Result};
use std::collections::BTreeMap;
use tensor::Tensor;
use train::{Batch, Executor, Mode, TrainError};

/// Anything that computes a model's outputs: a session of a runtime, or an executor in some mode.
pub trait Runs {
    /// Named outputs of named inputs.
    ///
    /// # Errors
    /// Whatever the run reports.
    fn outputs_of(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>>;
}

impl Runs for Box<dyn Session> {
    fn outputs_of(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        self.run(inputs)
    }
}

impl Runs for (&Executor<'_>, Mode) {
    fn outputs_of(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        Ok(self.0.run(inputs, self.1)?)
    }
}

/// How often a classifier was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// Samples scored.
    pub samples: u64,
    /// Samples whose largest output is at the label.
    pub top1: u64,
    /// Samples whose label is among the five largest outputs.
    pub top5: u64,
    /// Samples with a NaN in their outputs: none of them counts as right.
    pub nan: u64,
}

impl Accuracy {
    /// Adds one batch of outputs `[n, classes, ...]` (trailing axes of size 1) and labels `[n]` of any integer type.
    ///
    /// # Errors
    /// [`DeployError::Measure`] if the shapes do not fit, or a label is not a class.
    pub fn add(&mut self, scores: &Tensor, labels: &Tensor) -> Result<()> {
        for (row, label) in scored_rows(scores, labels)? {
            self.samples += 1;
            let Some(best) = arg_max(&row) else {
                self.nan += 1;
                continue;
            };
            self.top1 += u64::from(best == label);
            self.top5 += u64::from(row.iter().filter(|v| **v > row[label]).count() < 5);
        }
        Ok(())
    }

    /// Share of samples that are right, 0..1.
    pub fn top1_share(&self) -> f64 {
        self.top1 as f64 / self.samples.max(1) as f64
    }

    /// Share of samples whose label is among the five largest, 0..1.
    pub fn top5_share(&self) -> f64 {
        self.top5 as f64 / self.samples.max(1) as f64
    }
}

/// The scores of each sample with its label, as an index of a class.
///
/// # Errors
/// [`DeployError::Measure`] if the shapes do not fit, or a label is not a class.
pub(super) fn scored_rows(scores: &Tensor, labels: &Tensor) -> Result<Vec<(Vec<f32>, usize)>> {
    let labels_of = labels.to_i64_vec()?;
    let rows = scores.to_f32_vec()?;
    let classes = if labels_of.is_empty() { 0 } else { rows.len() / labels_of.len() };
    if classes == 0 || scores.shape().first() != Some(&labels_of.len()) || rows.len() != classes * labels_of.len() {
        let what = format!("outputs of shape {:?} cannot be scored against labels of shape {:?}", scores.shape(), labels.shape());
        return Err(DeployError::Measure { what });
    }
    let class = |label: i64| {
        let what = || DeployError::Measure { what: format!("label {label} is not one of {classes} classes") };
        usize::try_from(label).ok().filter(|l| *l < classes).ok_or_else(what)
    };
    rows.chunks(classes).zip(labels_of).map(|(row, label)| Ok((row.to_vec(), class(label)?))).collect()
}

/// Samples that one of two sets of scores has right and the other wrong.
///
/// # Errors
/// [`DeployError::Measure`] if the shapes do not fit, or a label is not a class.
pub(crate) fn split(one: &Tensor, other: &Tensor, labels: &Tensor) -> Result<u64> {
    let right = |(row, label): &(Vec<f32>, usize)| arg_max(row) == Some(*label);
    let (one, other) = (scored_rows(one, labels)?, scored_rows(other, labels)?);
    Ok(one.iter().zip(&other).filter(|(a, b)| right(a) != right(b)).count() as u64)
}

/// Scores a classifier over batches with a target `label`. `output` names the scores; without it the model's only output
/// is taken.
///
/// # Errors
/// Whatever a run or the data reports; [`DeployError::Measure`] if there is no such output or target.
pub fn evaluate(
    model: &mut dyn Runs,
    output: Option<&str>,
    batches: &mut dyn Iterator<Item = Result<Batch, TrainError>>,
) -> Result<Accuracy> {
    let mut accuracy = Accuracy::default();
    for batch in batches {
        let batch = batch?;
        let outputs = batch.counted_values(model.outputs_of(&batch.inputs)?)?;
        accuracy.add(scores(&outputs, output)?, batch.target("label")?)?;
    }
    Ok(accuracy)
}

/// The output to score.
pub(crate) fn scores<'o>(outputs: &'o BTreeMap<String, Tensor>, output: Option<&str>) -> Result<&'o Tensor> {
    let found = match output {
        Some(name) => outputs.get(name),
        None if outputs.len() == 1 => outputs.values().next(),
        None => None,
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = outputs.keys().map(String::as_str).collect();
        let what = match output {
            Some(name) => format!("the model has no output '{name}'; it has {}", names.join(", ")),
            None => format!("name the output to score: the model has {}", names.join(", ")),
        };
        DeployError::Measure { what }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_counted_and_ties_go_to_the_first() {
        let mut a = Accuracy::default();
        let scores = Tensor::new(vec![0f32, 1.0, 1.0, 0.5, 0.1, 0.2], [2, 3]).unwrap();
        a.add(&scores, &Tensor::vector(vec![2i64, 0])).unwrap();
        assert_eq!(a, Accuracy { samples: 2, top1: 1, top5: 2, nan: 0 });
        let error = a.add(&scores, &Tensor::vector(vec![3i64, 0])).unwrap_err();
        assert_eq!(error.to_string(), "label 3 is not one of 3 classes");
        assert!(a.add(&scores, &Tensor::vector(vec![0i64])).is_err());
    }

    #[test]
    fn samples_that_only_one_has_right_are_counted() {
        let of = |values: [f32; 8]| Tensor::new(values.to_vec(), [4, 2]).unwrap();
        let one = of([0.0, 1.0, 1.0, 0.0, 0.0, 1.0, f32::NAN, 0.0]);
        let other = of([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(split(&one, &other, &Tensor::vector(vec![1i64, 0, 0, 0])).unwrap(), 2);
    }

    #[test]
    fn a_nan_is_never_right() {
        let mut a = Accuracy::default();
        let scores = Tensor::new(vec![f32::NAN, 1.0, 2.0, f32::NAN, 5.0, 1.0], [3, 2]).unwrap();
        a.add(&scores, &Tensor::vector(vec![0i64, 0, 0])).unwrap();
        assert_eq!(a, Accuracy { samples: 3, top1: 1, top5: 1, nan: 2 });
    }
}
