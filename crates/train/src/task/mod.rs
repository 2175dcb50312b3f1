//! What a network is for: the targets that it learns from, the loss, and the figures that it is judged by.
//!
//! A task is one file with a type that implements [`Task`], and one line in [`Tasks`]. Training, measuring, proofs, goals and
//! reports ask the task and know none by name.
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

/// Which of two figures is the better one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Better {
    /// The larger: accuracy, R².
    #[default]
    Higher,
    /// The smaller: an error.
    Lower,
}

impl Better {
    /// True if `new` is better than `old`. A NaN is better than nothing.
    pub fn better(self, new: f64, old: f64) -> bool {
        self.loss(old, new) < 0.0
    }

    /// True if `new` is better than `old`, or the same.
    pub fn as_good(self, new: f64, old: f64) -> bool {
        self.loss(old, new) <= 0.0
    }

    /// How much worse `new` is than `old`, in the figure's own unit; negative where it is better.
    pub fn loss(self, old: f64, new: f64) -> f64 {
        match self {
            Better::Higher => old - new,
            Better::Lower => new - old,
        }
    }
}

/// A figure that a model is judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricFacts {
    /// Its key in recipes and records: `accuracy`, `mae`, `r2`.
    pub key: &'static str,
    /// What tables and sentences call it: `accuracy`, `MAE`, `R²`.
    pub label: &'static str,
    /// What it is, in one sentence.
    pub summary: &'static str,
    /// Which direction is better.
    pub better: Better,
    /// True for a share 0..1 that is written in percent; other figures have the targets' unit, or none.
    pub percent: bool,
}

/// What a score comes to over all samples so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Samples scored.
    pub samples: u64,
    /// Samples with a NaN among the outputs.
    pub nan: u64,
    /// Figures by [`MetricFacts::key`]. One that is not a finite number is absent.
    pub values: BTreeMap<&'static str, f64>,
    /// Intervals of 95 % confidence by key, where the task knows one.
    pub intervals: BTreeMap<&'static str, (f64, f64)>,
    /// Class by class, for a classification.
    pub confusion: Option<Confusion>,
}

/// The figures of a task, gathered batch by batch. [`Metric::value`] is the main one.
pub trait Score: Metric {
    /// The figures over all batches so far.
    fn figures(&self) -> Figures;

    /// The main figure of each sample of a batch alone: 1 or 0 for right or wrong, an error. Two computations of the same samples are
    /// compared by it, sample by sample.
    ///
    /// # Errors
    /// As [`Metric::add`].
    fn each(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Vec<f64>, TrainError>;
}

/// How near the answers of a deployed file are to those of the simulation, gathered batch by batch.
pub trait Agreement: Send {
    /// True if it can be told only where the data have targets.
    fn needs_targets(&self) -> bool {
        true
    }

    /// Takes in the output of both for one batch.
    ///
    /// # Errors
    /// If their shapes differ, or the targets do not fit.
    fn add(&mut self, simulated: &Tensor, deployed: &Tensor, batch: &Batch) -> Result<(), TrainError>;

    /// What was found, by name: `same_class`, `mean_difference`, `largest_difference`; shares.
    fn figures(&self) -> BTreeMap<&'static str, f64>;

    /// What goes beyond the task's limits, as sentences about the output of this name.
    fn violations(&self, output: &str) -> Vec<String>;
}

/// What a score may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Any value of the graph, as the interpreter makes them: the logits before a final Softmax.
    Graph,
    /// One output of the model alone, as a runtime gives it.
    Output(ValueId),
}

/// A task.
///
/// It is a type in a file of its own and a line in [`Tasks::members`]. A regression that trains on the mean absolute error, which outliers of the
/// targets pull less at; what does not differ it asks [`Regression`] for. Whole but for its manual page:
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
    /// What a row of the data has to say beside its inputs.
    fn wanted(&self) -> Wanted;

    /// Name of the target in a [`Batch`].
    fn target(&self) -> &'static str;

    /// The figure that goals, early stopping and the choice of the best epoch go by.
    fn main_metric(&self) -> &'static MetricFacts;

    /// Further figures, in the order in which they are shown.
    fn further_metrics(&self) -> &'static [MetricFacts] {
        &[]
    }

    /// All figures, the main one first.
    fn metrics(&self) -> Vec<&'static MetricFacts> {
        std::iter::once(self.main_metric()).chain(self.further_metrics()).collect()
    }

    /// Number of classes that labels are checked against; `None` where targets are no classes, or the model does not say.
    fn classes(&self, _model: &Model) -> Option<usize> {
        None
    }

    /// Loss of a network that knows nothing, by which a training that learns nothing is told; `None` where the model does not say.
    fn ignorant_loss(&self, _model: &Model) -> Option<f64> {
        None
    }

    /// What does as well as a model with these figures without looking at a sample (`guessing among 10 classes`), where they are not
    /// above that by so many standard errors; `None` where they are, or that cannot be said.
    fn guessing(&self, _model: &Model, _figures: &Figures, _errors: f64) -> Option<String> {
        None
    }

    /// The output that the task is about, where a proof can tell which one it is.
    fn output(&self, model: &Model) -> Option<ValueId>;

    /// A goal for a new recipe: lines below `[goals]`, with a comment.
    fn example_goal(&self) -> &'static str;

    /// Name of the loss by which a student learns from a teacher where a recipe names none.
    fn distillation_loss(&self) -> &'static str;

    /// The loss. `label_smoothing` is the share of the target that is spread over all classes, 0..1.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a model or a smoothing that the task cannot use.
    fn loss(&self, model: &Model, label_smoothing: f32) -> Result<Box<dyn Objective>, TrainError>;

    /// Nothing scored yet.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a model that the task cannot score.
    fn score(&self, model: &Model, reads: Reads) -> Result<Box<dyn Score>, TrainError>;

    /// Nothing compared yet.
    fn agreement(&self) -> Box<dyn Agreement>;
}

/// Scores a model on batches, in the interpreter.
///
/// # Errors
/// Whatever running the model, reading the data or the score report.
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

/// Key of a model's metadata under which its task stands as JSON, where it is another than classification.
pub const TASK_KEY: &str = "espalier.task";

/// The task that a model's metadata name; the default where they name none.
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

/// A member's page.
type Page = Manual;
