//! Running and training a graph.
//!
//! [`Executor`] runs any graph of run-time rank: as a float graph, in simulation (annotated values pass through their masks and
//! encodings), or in training. [`train`] is the loop around it; a caller provides [`Objective`], [`Metric`], [`Batches`],
//! [`Watch`] and [`Participant`].
mod average;
mod checkpoint;
mod codecs;
mod context;
mod diagnosis;
mod effect;
mod error;
mod evaluate;
mod executor;
mod feeding;
mod gradients;
mod layer_inputs;
mod layerwise;
mod limits;
mod loader;
mod logits;
mod loss_parameters;
mod mean_squared_error;
mod metric;
mod norm_statistics;
mod objective;
mod open_batch;
mod optimizer;
pub mod parameters;
mod participant;
mod penalty;
mod plan;
mod prepare;
mod recompute;
mod scales;
mod schedule;
mod segments;
mod sizes;
mod step;
mod task;
mod trainer;
mod units;

pub use average::WeightAverage;
pub use checkpoint::Checkpoint;
pub use context::{Batches, Silent, StepContext, TrainContext, Watch};
pub use effect::{Effect, EffectMeter, Harm};
pub use error::TrainError;
pub use evaluate::{Correct, evaluate};
pub use executor::{Executor, Mode, Named, Overrides, RunOutput};
pub use feeding::{CLASSES_KEY, Feeding, INPUTS_KEY, InputRule, InputRules};
pub use gradients::{GradientMoments, GradientSource, gradient_moments};
pub use layer_inputs::{InputPower, LayerInputs, inverse_factor};
pub use layerwise::Layerwise;
pub use limits::{LOOPS_ENDED, Limits, StopGuard, stop_when, stopped};
pub use loader::LoaderBatches;
pub use logits::{Logits, logits, logits_of};
pub use loss_parameters::LossParameter;
pub use mean_squared_error::{MeanSquaredError, random_targets};
pub use metric::{Accuracy, Metric, measure};
pub use norm_statistics::measure_norm_statistics;
pub use objective::{Batch, CrossEntropy, Judged, Objective, Portion, class_scores, classes, flat, judge, loss_error, read};
pub use open_batch::{Batching, open_batch};
pub use optimizer::{AdamW, Optimizer, OptimizerState, Optimizers, Sgd, Update};
pub use participant::{Participant, ParticipantState};
pub use penalty::{OscillationDamping, Penalized, Penalties, Penalty};
pub use prepare::{Unreached, fold_constants, is_double, prepare, to_float32, unreached};
pub use recompute::{StepMemory, step_memory};
pub use scales::{DoReFa, LearnScales, Lsq, LsqPlus, Pact, ScaleLearning, ScaleLearnings};
pub use schedule::{Constant, Cosine, Linear, Schedule, Schedules, Step};
pub use task::{
    Agreement, Better, Classification, Confusion, Figures, MetricFacts, Reads, Regression, Score, TASK_KEY, Task, Tasks, align, arg_max,
    by_value, score, task_of,
};
pub use trainer::{Best, EpochRecord, Keep, TrainReport, TrainSettings, train};
