//! The keys that every stage with a training loop has in common.
use super::ByteSize;
use train::{Keep, OptimizerSettings, Schedule};

/// The training settings of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// Passes over the training data.
    pub epochs: u64,
    /// Images a step.
    pub batch: usize,
    /// Optimizer; absent: see [`super::Recipe::optimizer`].
    pub optimizer: Option<OptimizerSettings>,
    /// Learning rate over the stage.
    pub schedule: Schedule,
    /// Share of the target spread over all classes, 0..1.
    pub label_smoothing: f64,
    /// Largest norm of all gradients together.
    pub clip_norm: Option<f64>,
    /// Patterns of parameter names that stay as they are.
    pub freeze: Vec<String>,
    /// Epochs without improvement after which the stage stops.
    pub early_stopping: Option<u64>,
    /// Which epoch's weights the stage ends with.
    pub keep: Keep,
    /// Epochs at the end in which normalizations use and keep their running statistics.
    pub freeze_statistics: u64,
    /// Train the quantizers' scales too.
    pub learn_scales: bool,
    /// What a step may hold.
    pub memory: Option<ByteSize>,
}

pub(super) fn batch() -> usize {
    64
}
pub(super) fn best() -> Keep {
    Keep::Best
}
pub(super) fn one() -> u64 {
    1
}
pub(super) fn zero() -> u64 {
    0
}

/// Declares the settings of a stage with a training loop: its own keys, and those of [`Training`]. (serde cannot both
/// flatten a struct and refuse unknown keys, so the common keys are written into each.)
macro_rules! training_stage {
    ($(#[$doc:meta])* $name:ident, epochs: $epochs:literal, { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The stage's name; absent: its kind.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub name: Option<String>,
            $($(#[$field_doc])* pub $field: $ty,)*
            /// Passes over the training data.
            #[serde(default = $epochs)]
            pub epochs: u64,
            /// Images a step.
            #[serde(default = "training::batch")]
            pub batch: usize,
            /// The optimizer: `{ kind = "sgd", lr, momentum, nesterov, weight_decay }` or `{ kind = "adamw", lr, betas, eps, weight_decay }`.
            /// Absent: sgd with lr = 0.05 for weights that are still random; for weights that have been trained (those of a file, or
            /// of an earlier stage) the gentle adamw with lr = 1e-4.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub optimizer: Option<OptimizerSettings>,
            /// The learning rate over the stage: `{ kind = "constant" | "step" | "cosine", warm_up, ... }`.
            #[serde(default)]
            pub schedule: Schedule,
            /// Share of the target spread over all classes, 0..1.
            #[serde(default)]
            pub label_smoothing: f64,
            /// Largest L2 norm of all gradients together; larger ones are scaled down to it.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub clip_norm: Option<f64>,
            /// Patterns of parameter names that stay as they are (`*` stands for anything).
            #[serde(default)]
            pub freeze: Vec<String>,
            /// Stop after so many epochs without a better validation figure.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub early_stopping: Option<u64>,
            /// Which epoch to end with: the `best` by validation (without validation, the last), or the `last`. A network that
            /// comes from a file has probably seen a split held out of the training data: there the last counts, unless
            /// `data.validation_set` names unseen images.
            #[serde(default = "training::best")]
            pub keep: Keep,
            /// Epochs at the end in which normalizations use and keep their running statistics.
            #[serde(default)]
            pub freeze_statistics: u64,
            /// Train the quantizers' scales together with the weights (not those that follow a BatchNormalization that is kept).
            #[serde(default)]
            pub learn_scales: bool,
            /// What a training step may hold: weights, gradients, the optimizer's state and activations (not the images kept in
            /// memory, nor a teacher's weights). Where it would be more, activations are computed again in the backward pass;
            /// the result is the same to the bit. Absent: all activations are kept.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub memory: Option<ByteSize>,
        }

        impl $name {
            /// The settings of its training loop.
            pub fn training(&self) -> Training {
                Training {
                    epochs: self.epochs,
                    batch: self.batch,
                    optimizer: self.optimizer.clone(),
                    schedule: self.schedule.clone(),
                    label_smoothing: self.label_smoothing,
                    clip_norm: self.clip_norm,
                    freeze: self.freeze.clone(),
                    early_stopping: self.early_stopping,
                    keep: self.keep,
                    freeze_statistics: self.freeze_statistics,
                    learn_scales: self.learn_scales,
                    memory: self.memory,
                }
            }
        }
    };
}
pub(super) use training_stage;
