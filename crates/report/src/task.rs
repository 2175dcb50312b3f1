//! What the network of a run is for, and how its figures are written.
use crate::text;
use serde::{Deserialize, Serialize};

/// Key of the figure that has fields of its own in the record.
pub(crate) const ACCURACY: &str = "accuracy";

/// Which of two figures is the better one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Larger values are better, as of an accuracy.
    #[default]
    Higher,
    /// Smaller values are better, as of an error.
    Lower,
}

/// A figure that the network is judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricRecord {
    /// Its key in the record and in goals: `accuracy`, `mae`.
    pub key: String,
    /// What it is called: `accuracy`, `MAE`.
    pub label: String,
    /// Which direction is better.
    pub better: Better,
    /// True for a share 0..1 that is written in percent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub percent: bool,
}

/// The task that a run was about, and its metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its name in recipes.
    pub kind: String,
    /// Its figures, the main one first.
    pub metrics: Vec<MetricRecord>,
}

/// Classification by accuracy: what records are about that name no task.
impl Default for TaskRecord {
    fn default() -> Self {
        TaskRecord { kind: "classification".into(), metrics: vec![MetricRecord::accuracy()] }
    }
}

impl TaskRecord {
    /// The figure that goals and charts go by.
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

    /// The figure as text: `91.73 %`, `0.2145`.
    pub fn write(&self, value: f64) -> String {
        if self.percent { text::percent(value) } else { text::number(value) }
    }

    /// The figure with its interval of 95 % where it is over few samples: `98.61 % (96.8..99.4)`, `0.2145 (0.1990..0.2300)`.
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

    /// How much worse `new` is than `old`, in the figure's own unit; negative where it is better.
    pub fn loss(&self, old: f64, new: f64) -> f64 {
        match self.better {
            Better::Higher => old - new,
            Better::Lower => new - old,
        }
    }
}
