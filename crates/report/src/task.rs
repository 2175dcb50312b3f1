//! The task of a run, and how its metrics are written.
use crate::text;
use serde::{Deserialize, Serialize};

/// Key of the metric that has its own fields in the record.
pub(crate) const ACCURACY: &str = "accuracy";

/// Which of two values of a metric is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Larger values are better, as of an accuracy.
    #[default]
    Higher,
    /// Smaller values are better, as of an error.
    Lower,
}

/// A metric of the task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricRecord {
    /// Key in the record and in goals: `accuracy`, `mae`.
    pub key: String,
    /// Label: `accuracy`, `MAE`.
    pub label: String,
    /// Whether larger or smaller values are better.
    pub better: Better,
    /// True for a share 0..1, written in percent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub percent: bool,
}

/// The task that a run was about, and its metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Name of the task in recipes.
    pub kind: String,
    /// Metrics, the main one first.
    pub metrics: Vec<MetricRecord>,
}

/// Classification with accuracy: the task of records that name none.
impl Default for TaskRecord {
    fn default() -> Self {
        TaskRecord { kind: "classification".into(), metrics: vec![MetricRecord::accuracy()] }
    }
}

impl TaskRecord {
    /// The metric of goals and charts.
    pub fn main(&self) -> MetricRecord {
        self.metrics.first().cloned().unwrap_or_else(MetricRecord::accuracy)
    }

    /// True for the default.
    pub(crate) fn is_default(&self) -> bool {
        *self == TaskRecord::default()
    }
}

impl MetricRecord {
    /// Top-1 accuracy.
    pub fn accuracy() -> Self {
        MetricRecord { key: ACCURACY.into(), label: ACCURACY.into(), better: Better::Higher, percent: true }
    }

    /// A value as text: `91.73 %`, `0.2145`.
    pub fn write(&self, value: f64) -> String {
        if self.percent { text::percent(value) } else { text::number(value) }
    }

    /// A value with its 95 % confidence interval if there are few samples: `98.61 % (96.8..99.4)`, `0.2145 (0.1990..0.2300)`.
    pub fn write_with(&self, value: f64, samples: Option<u64>, interval: Option<[f64; 2]>) -> String {
        if self.percent {
            return text::accuracy(value, samples);
        }
        match interval.filter(|_| samples.is_some_and(text::few)) {
            Some([low, high]) => format!("{} ({}..{})", text::number(value), text::number(low), text::number(high)),
            None => text::number(value),
        }
    }

    /// A difference, as text: `+0.25 points`, `-0.0123, better`.
    pub fn write_change(&self, change: f64) -> String {
        if self.percent {
            return format!("{:+.2} points", change * 100.0);
        }
        match self.loss(0.0, change) {
            0.0 => "the same".into(),
            worse if worse > 0.0 => format!("{}, worse", text::signed(change)),
            _ => format!("{}, better", text::signed(change)),
        }
    }

    /// How much worse `new` is than `old`, in the metric's own unit; negative if it is better.
    pub fn loss(&self, old: f64, new: f64) -> f64 {
        match self.better {
            Better::Higher => old - new,
            Better::Lower => new - old,
        }
    }
}
