//! Tasks: the targets that a network learns from, the loss, and the metrics.
//!
//! A task is one file with a type that implements [`Task`], and one line in [`Tasks`]. Training, measuring, proofs, goals and
//! reports use the trait and no task's name.
mod classification;
mod confusion;
mod regression;

pub use classification::Classification;
pub use confusion::{Confusion, arg_max};
pub use regression::{Regression, align};

use crate::{Batch, Metric, Mode, Objective, TrainError, measure};
use data::Wanted;
use graph::{Model, ValueId};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use technique::{Choice, Entry, Family, Manual, member};
use tensor::Tensor;

/// Which of two values of a metric is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Better {
    /// The larger: accuracy, R².
    #[default]
    Higher,
    /// The smaller: an error.
    Lower,
}

impl Better {
    /// True if `new` is better than `old`. NaN is never better.
    pub fn better(self, new: f64, old: f64) -> bool {
        self.loss(old, new) < 0.0
    }

    /// True if `new` is better than `old`, or equal.
    pub fn as_good(self, new: f64, old: f64) -> bool {
        self.loss(old, new) <= 0.0
    }

    /// How much worse `new` is than `old`, in the metric's own unit; negative if it is better.
    pub fn loss(self, old: f64, new: f64) -> f64 {
        match self {
            Better::Higher => old - new,
            Better::Lower => new - old,
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricFacts {
    /// Its key in recipes and records: `accuracy`, `mae`, `r2`.
    pub key: &'static str,
    /// Label in tables and sentences: `accuracy`, `MAE`, `R²`.
    pub label: &'static str,
    /// Description, one sentence.
    pub summary: &'static str,
    /// Whether larger or smaller values are better.
    pub better: Better,
    /// True for a share 0..1 that is written in percent; other metrics have the targets' unit, or none.
    pub percent: bool,
}

/// The result of a score over all samples so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Samples scored.
    pub samples: u64,
    /// Samples with a NaN among the outputs.
    pub nan: u64,
    /// Metrics by [`MetricFacts::key`]; absent if not a finite number.
    pub values: BTreeMap<&'static str, f64>,
    /// 95 % confidence intervals by key, if the task defines one.
    pub intervals: BTreeMap<&'static str, (f64, f64)>,
    /// The confusion matrix, for a classification.
    pub confusion: Option<Confusion>,
}

/// The metrics of a task, computed batch by batch. [`Metric::value`] is the main one.
pub trait Score: Metric {
    /// The metrics over all batches so far.
    fn figures(&self) -> Figures;

    /// The main metric of each sample of a batch: 1 or 0 for right or wrong, or an error. Two computations of the same samples
    /// are compared by it, sample by sample.
    ///
    /// # Errors
    /// As [`Metric::add`].
    fn each(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Vec<f64>, TrainError>;
}

/// Agreement of a deployed file's results with the simulation's, computed batch by batch.
pub trait Agreement: Send {
    /// True if it needs targets in the data.
    fn needs_targets(&self) -> bool {
        true
    }

    /// Adds the outputs of both for one batch.
    ///
    /// # Errors
    /// If their shapes differ, or the targets do not fit.
    fn add(&mut self, simulated: &Tensor, deployed: &Tensor, batch: &Batch) -> Result<(), TrainError>;

    /// The agreement by name: `same_class`, `mean_difference`, `largest_difference`; shares.
    fn figures(&self) -> BTreeMap<&'static str, f64>;

    /// Violations of the task's limits, as sentences about the output of this name.
    fn violations(&self, output: &str) -> Vec<String>;
}

/// The values that a score may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Any value of the graph, as computed by the interpreter: for example the logits before a final Softmax.
    Graph,
    /// Only one output of the model, as a runtime returns it.
    Output(ValueId),
}

/// A task.
///
/// It is a type in a file of its own and a line in [`Tasks::members`]. A regression that trains on the mean absolute error, which
/// outliers of the targets pull less at; what does not differ it asks [`Regression`] for. Whole but for its manual page:
/// ```
/// use data::Wanted;
/// use espalier_train::{self as train, Agreement, Batch, MetricFacts, Objective, Reads, Regression, Score, Task, TrainError};
/// use graph::{Model, ValueId};
/// use std::collections::HashMap;
/// use tensor::Tensor;
///
/// #[derive(Debug, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct RobustRegression {
///     /// As a regression has them.
///     #[serde(flatten)]
///     usual: Regression,
/// }
/// impl technique::Settings for RobustRegression {}
/// impl Task for RobustRegression {
///     fn wanted(&self) -> Wanted {
///         self.usual.wanted()
///     }
///     fn target(&self) -> &'static str {
///         self.usual.target()
///     }
///     fn main_metric(&self) -> &'static MetricFacts {
///         self.usual.main_metric()
///     }
///     fn output(&self, model: &Model) -> Option<ValueId> {
///         self.usual.output(model)
///     }
///     fn example_goal(&self) -> &'static str {
///         self.usual.example_goal()
///     }
///     fn distillation_loss(&self) -> &'static str {
///         self.usual.distillation_loss()
///     }
///     fn loss(&self, model: &Model, _label_smoothing: f32) -> Result<Box<dyn Objective>, TrainError> {
///         let missing = || TrainError::Setting { setting: "task.output".into(), what: "the model has no output".into() };
///         Ok(Box::new(AbsoluteError(self.output(model).ok_or_else(missing)?)))
///     }
///     fn score(&self, model: &Model, reads: Reads) -> Result<Box<dyn Score>, TrainError> {
///         self.usual.score(model, reads)
///     }
///     fn agreement(&self) -> Box<dyn Agreement> {
///         self.usual.agreement()
///     }
/// }
/// struct AbsoluteError(ValueId);
/// impl Objective for AbsoluteError {
///     fn taps(&self) -> Vec<ValueId> {
///         vec![self.0]
///     }
///     fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
///         let output = train::read(values, self.0)?;
///         Ok(output.sub(&train::align(output, batch.target(data::TARGET)?)?)?.abs()?.mean_all()?)
///     }
/// }
/// let member = technique::member!(
///     RobustRegression as dyn Task,
///     technique::Manual { name: "robust_regression", summary: "", details: "", source: "", example: "" }
/// );
/// let mut model = Model::new(17);
/// let y = model.values.add_named("y");
/// model.graph.outputs.push(y);
/// let loss = (member.build)(Default::default()).unwrap().loss(&model, 0.0).unwrap();
/// let of = |values: [f32; 2]| Tensor::vector(values.to_vec());
/// let batch = Batch { targets: [(data::TARGET.to_string(), of([1.0, 5.0]))].into(), ..Batch::default() };
/// assert_eq!(loss.loss(&[(y, of([2.0, 2.0]))].into(), &batch).unwrap().item::<f32>().unwrap(), 2.0);
/// ```
pub trait Task: Debug + Send + Sync {
    /// The kind of target that a row must have.
    fn wanted(&self) -> Wanted;

    /// Name of the target in a [`Batch`].
    fn target(&self) -> &'static str;

    /// The main metric, for goals, early stopping and the choice of the best epoch.
    fn main_metric(&self) -> &'static MetricFacts;

    /// Further metrics, in the order in which they are shown.
    fn further_metrics(&self) -> &'static [MetricFacts] {
        &[]
    }

    /// All metrics, the main one first.
    fn metrics(&self) -> Vec<&'static MetricFacts> {
        std::iter::once(self.main_metric()).chain(self.further_metrics()).collect()
    }

    /// Number of classes that labels are checked against; `None` if targets are no classes, or the model does not tell.
    fn classes(&self, _model: &Model) -> Option<usize> {
        None
    }

    /// Loss of an untrained network, to detect a training that learns nothing; `None` if the model does not tell.
    fn ignorant_loss(&self, _model: &Model) -> Option<f64> {
        None
    }

    /// A way of guessing that does as well as these metrics (`guessing among 10 classes`), if they are not above it by so many
    /// standard errors; `None` if they are, or if that is not known.
    fn guessing(&self, _model: &Model, _figures: &Figures, _errors: f64) -> Option<String> {
        None
    }

    /// The task's output, if it is known.
    fn output(&self, model: &Model) -> Option<ValueId>;

    /// An example goal for a new recipe: lines below `[goals]`, with a comment.
    fn example_goal(&self) -> &'static str;

    /// Name of the default distillation loss.
    fn distillation_loss(&self) -> &'static str;

    /// The loss. `label_smoothing` is the share of the target that is spread over all classes, 0..1.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a model or a smoothing that the task cannot use.
    fn loss(&self, model: &Model, label_smoothing: f32) -> Result<Box<dyn Objective>, TrainError>;

    /// An empty score.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a model that the task cannot score.
    fn score(&self, model: &Model, reads: Reads) -> Result<Box<dyn Score>, TrainError>;

    /// An empty comparison.
    fn agreement(&self) -> Box<dyn Agreement>;
}

/// Scores a model on batches, in the interpreter.
///
/// # Errors
/// Errors of running the model, reading the data or the score.
pub fn score(
    task: &dyn Task,
    model: &Model,
    batches: impl Iterator<Item = Result<Batch, TrainError>>,
    mode: Mode,
) -> Result<Box<dyn Score>, TrainError> {
    let mut score = task.score(model, Reads::Graph)?;
    let metric: &mut dyn Metric = score.as_mut();
    measure(model, batches, mode, metric)?;
    Ok(score)
}

/// The values that a score with [`Reads::Output`] reads, from a runtime's outputs by name.
pub fn by_value(model: &Model, outputs: &BTreeMap<String, Tensor>) -> HashMap<ValueId, Tensor> {
    let found = model.graph.outputs.iter().filter_map(|v| Some((*v, outputs.get(&model.values[*v].name)?.clone())));
    found.collect()
}

/// Key of the task in a model's metadata, as JSON; absent for a classification.
pub const TASK_KEY: &str = "espalier.task";

/// The task in a model's metadata; the default if there is none.
///
/// # Errors
/// [`TrainError::Setting`] for metadata that cannot be read.
pub fn task_of(model: &Model) -> Result<Choice<Tasks>, TrainError> {
    let Some(json) = model.metadata_get(TASK_KEY) else { return Ok(Choice::default()) };
    let fault = |e: serde_json::Error| TrainError::Setting { setting: format!("metadata '{TASK_KEY}'"), what: e.to_string() };
    serde_json::from_str(json).map_err(fault)
}

/// The family of tasks.
#[derive(Clone, Copy, Debug)]
pub struct Tasks;

impl Family for Tasks {
    type Member = dyn Task;
    const NAME: &'static str = "task";
    const SUMMARY: &'static str = "What the network is for: its targets, its loss, and the figures that it is judged by.";
    const DEFAULT: Option<&'static str> = Some("classification");

    fn members() -> &'static [Entry<dyn Task>] {
        static LIST: &[Entry<dyn Task>] =
            &[member!(Classification as dyn Task, classification::MANUAL), member!(Regression as dyn Task, regression::MANUAL)];
        LIST
    }
}

/// The manual page of a member.
type Page = Manual;
