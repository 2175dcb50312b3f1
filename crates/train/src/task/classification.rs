//! One class a sample.
use super::confusion::{Confusion, arg_max, scored_rows};
use super::{Agreement, Better, Figures, MetricFacts, Page, Reads, Score, Task};
use crate::{Batch, CrossEntropy, Metric, Objective, TrainError, classes, flat, logits, loss_error, read};
use data::Wanted;
use graph::{Model, ValueId};
use std::collections::{BTreeMap, HashMap};
use technique::Settings;
use tensor::Tensor;

pub(super) const MANUAL: Page = Page {
    name: "classification",
    summary: "One class a sample: cross-entropy, judged by accuracy.",
    details: "The first output holds a score for each class, [n, classes]; labels are int64 [n]. The loss is the cross-entropy of the softmax of \
              the scores, with label_smoothing where a stage asks for it; a final Softmax of the network is left out of it. Accuracy is the \
              share of samples whose largest score is at their label. A deployed file must decide as the simulation on 99.5 % of the samples.",
    source: "C. Szegedy et al., \"Rethinking the Inception Architecture for Computer Vision\", arXiv:1512.00567, section 7 (label smoothing)",
    example: "task = \"classification\"",
};

static ACCURACY: MetricFacts = MetricFacts {
    key: "accuracy",
    label: "accuracy",
    summary: "Share of the samples whose largest output is at their label.",
    better: Better::Higher,
    percent: true,
};

/// Name of the target: int64 `[n]`.
const LABEL: &str = "label";

/// Smallest share of samples with the same decision in a deployed file and in the simulation.
const SAME_CLASS: f64 = 0.995;

/// Classes; the task has no settings.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Classification {}

impl Settings for Classification {}

impl Task for Classification {
    fn wanted(&self) -> Wanted {
        Wanted::Class
    }

    fn target(&self) -> &'static str {
        LABEL
    }

    fn main_metric(&self) -> &'static MetricFacts {
        &ACCURACY
    }

    fn classes(&self, model: &Model) -> Option<usize> {
        classes(model)
    }

    fn ignorant_loss(&self, model: &Model) -> Option<f64> {
        classes(model).map(|n| (n as f64).ln())
    }

    fn guessing(&self, model: &Model, figures: &Figures, errors: f64) -> Option<String> {
        let classes = classes(model).filter(|n| *n > 1)?;
        let (rows, chance) = (figures.samples as f64, 1.0 / classes as f64);
        let reached = chance + errors * (chance * (1.0 - chance) / rows.max(1.0)).sqrt();
        (*figures.values.get(ACCURACY.key)? <= reached).then(|| format!("guessing among {classes} classes"))
    }

    /// The only output, if it is `[n, classes]`.
    fn output(&self, model: &Model) -> Option<ValueId> {
        let is_scores = |v: &ValueId| model.values[*v].shape().is_none_or(|s| s.len() == 2);
        match model.graph.outputs.as_slice() {
            [one] if is_scores(one) => Some(*one),
            _ => None,
        }
    }

    fn example_goal(&self) -> &'static str {
        "# Percentage points of accuracy that may be lost; a missed goal is reported and sets exit code 3.\nmax_accuracy_drop = 1.0\n"
    }

    fn distillation_loss(&self) -> &'static str {
        "hinton"
    }

    fn loss(&self, model: &Model, label_smoothing: f32) -> Result<Box<dyn Objective>, TrainError> {
        Ok(Box::new(CrossEntropy::of(model, label_smoothing)?))
    }

    fn score(&self, model: &Model, reads: Reads) -> Result<Box<dyn Score>, TrainError> {
        let scores = match reads {
            Reads::Output(value) => value,
            Reads::Graph => logits(model)?,
        };
        Ok(Box::new(Classified { scores, confusion: Confusion::default() }))
    }

    fn agreement(&self) -> Box<dyn Agreement> {
        Box::new(SameClass::default())
    }
}

/// The predictions counted so far.
struct Classified {
    scores: ValueId,
    confusion: Confusion,
}

impl Classified {
    fn accuracy(&self) -> f64 {
        self.confusion.correct() as f64 / self.confusion.total().max(1) as f64
    }
}

impl Metric for Classified {
    fn taps(&self) -> Vec<ValueId> {
        vec![self.scores]
    }

    fn add(&mut self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<(), TrainError> {
        self.confusion.add(&flat(read(values, self.scores)?)?, batch.target(LABEL)?)
    }

    fn value(&self) -> f64 {
        self.accuracy()
    }
}

impl Score for Classified {
    fn figures(&self) -> Figures {
        Figures {
            samples: self.confusion.total(),
            nan: self.confusion.nan,
            values: BTreeMap::from([(ACCURACY.key, self.accuracy())]),
            intervals: BTreeMap::new(),
            confusion: Some(self.confusion.clone()),
        }
    }

    fn each(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Vec<f64>, TrainError> {
        let rows = scored_rows(&flat(read(values, self.scores)?)?, batch.target(LABEL)?)?;
        Ok(rows.iter().map(|(row, label)| f64::from(u8::from(arg_max(row) == Some(*label)))).collect())
    }
}

/// How often two computations make the same decision. A row with NaN has no decision and equals no other.
#[derive(Default)]
struct SameClass {
    rows: u64,
    equal: u64,
}

impl SameClass {
    fn share(&self) -> f64 {
        if self.rows == 0 { 1.0 } else { self.equal as f64 / self.rows as f64 }
    }
}

impl Agreement for SameClass {
    fn needs_targets(&self) -> bool {
        false
    }

    fn add(&mut self, simulated: &Tensor, deployed: &Tensor, _batch: &Batch) -> Result<(), TrainError> {
        let (a, b) = (simulated.to_f32_vec().map_err(loss_error)?, deployed.to_f32_vec().map_err(loss_error)?);
        let row = simulated.shape().last().copied().unwrap_or(1).max(1);
        for (x, y) in a.chunks(row).zip(b.chunks(row)) {
            self.rows += 1;
            self.equal += u64::from(arg_max(x).is_some_and(|place| arg_max(y) == Some(place)));
        }
        Ok(())
    }

    fn figures(&self) -> BTreeMap<&'static str, f64> {
        BTreeMap::from([("same_class", self.share())])
    }

    fn violations(&self, output: &str) -> Vec<String> {
        let told = || {
            format!(
                "output '{output}': the decision agrees on {:.2} % of the rows, fewer than {:.2} %",
                100.0 * self.share(),
                100.0 * SAME_CLASS
            )
        };
        (self.share() < SAME_CLASS).then(told).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_that_differs_too_often_is_told() {
        let of = |values: [f32; 4]| Tensor::new(values.to_vec(), [2, 2]).unwrap();
        let mut same = SameClass::default();
        same.add(&of([1.0, 2.0, 3.0, 1.0]), &of([1.0, 2.0, 1.0, 3.0]), &Batch::default()).unwrap();
        assert_eq!(same.figures()["same_class"], 0.5);
        assert_eq!(same.violations("y"), ["output 'y': the decision agrees on 50.00 % of the rows, fewer than 99.50 %"]);
        let mut same = SameClass::default();
        same.add(&of([1.0, 2.0, f32::NAN, 1.0]), &of([1.0, 2.0, f32::NAN, 1.0]), &Batch::default()).unwrap();
        assert_eq!(same.share(), 0.5, "a NaN equals no other, not even itself");
    }
}
