//! The keys of every stage with a training loop. To add a key, add a field here.
use super::ByteSize;
use prune::channels::GrowingSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Choice, Fault};
use train::{Keep, LearnScales, Optimizers, Penalties, Schedules};

/// The training settings of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Passes over the training data.
    pub epochs: u64,
    /// Samples in a step.
    pub batch: usize,
    /// The optimizer: a name, or `{ kind = "adamw", lr = 0.001 }`.
    /// Absent: sgd with lr = 0.05, momentum = 0.9, nesterov = true and weight_decay = 5e-4 for weights that are still random; for
    /// weights that have been trained (those of a file, or of an earlier stage) adamw with lr = 1e-4, which changes them in small
    /// steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Choice<Optimizers>>,
    /// The learning rate over the stage, as a factor of the optimizer's `lr`: a name, or `{ kind = "cosine", warm_up = 0.1 }`.
    pub schedule: Choice<Schedules>,
    /// Share of the target spread over all classes, 0..1.
    pub label_smoothing: f64,
    /// Largest L2 norm of all gradients together; larger ones are scaled down to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Patterns of parameter names that are not trained (`*` stands for any characters).
    pub freeze: Vec<String>,
    /// Stop after this many epochs without a better validation metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<u64>,
    /// Which epoch's weights are kept: those of the `best` by validation (without validation, of the last), or of the `last`. A
    /// network from a file has probably been trained on samples held out of the training data: there the last is kept, unless
    /// `data.validation_set` names unseen images.
    pub keep: Keep,
    /// Number of epochs at the end in which normalizations use and keep their running statistics.
    pub freeze_statistics: u64,
    /// Train the quantizers' scales together with the weights (not those that follow a BatchNormalization that is kept): `true` (as
    /// "lsq"), or how, as "lsq_plus" or `{ kind = "pact", decay = 2e-4 }`.
    pub learn_scales: LearnScales,
    /// Terms that are added to the loss and depend on weights and their quantizers alone, each by its name or as
    /// `{ kind = "oscillation_damping", factor = 0.01 }`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub penalties: Vec<Choice<Penalties>>,
    /// Pushes the channels that a later prune_channels stage removes towards zero, ever more, so that the others learn to do without them
    /// (Wang et al. 2021): `{ channels = { remove = { macs = 0.5 } }, largest = 10.0, end = 0.8, every = 10 }`, `channels` as that stage
    /// has them. After each step their parameters are divided by 1 + lr * factor; the factor rises every `every` steps, to `largest` at
    /// the share `end` of the stage's steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growing_penalty: Option<GrowingSettings>,
    /// Memory budget of a training step: weights, gradients, the optimizer's state and activations (not the images kept in
    /// memory, nor a teacher's weights). To stay below it, activations are recomputed in the backward pass; the result is the
    /// same to the bit. Absent: all activations are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
}

impl Default for Training {
    fn default() -> Self {
        Training {
            epochs: 0,
            batch: 64,
            optimizer: None,
            schedule: Choice::default(),
            label_smoothing: 0.0,
            clip_norm: None,
            freeze: vec![],
            early_stopping: None,
            keep: Keep::Best,
            freeze_statistics: 0,
            learn_scales: LearnScales::default(),
            penalties: vec![],
            growing_penalty: None,
            memory: None,
        }
    }
}

impl Training {
    /// Checks ranges; `validates` tells whether there are validation samples.
    ///
    /// # Errors
    /// A [`Fault`] at the key.
    pub(super) fn check(&self, validates: bool) -> Result<(), Fault> {
        if self.batch == 0 {
            return Err(Fault::new("batch", "batch = 0: at least one image a step is needed"));
        }
        technique::within("label_smoothing", self.label_smoothing, 0.0, 1.0, "it is a share of the target")?;
        if self.clip_norm.is_some_and(|c| c.is_nan() || c <= 0.0) {
            return Err(Fault::new("clip_norm", "clip_norm must be above 0"));
        }
        if self.memory == Some(ByteSize(0)) {
            return Err(Fault::new("memory", "memory = 0: a size such as \"2 GB\" is needed; absent: no limit"));
        }
        if let Some(growing) = &self.growing_penalty {
            growing.check().map_err(|fault| fault.under("growing_penalty"))?;
        }
        match self.early_stopping {
            Some(0) => Err(Fault::new("early_stopping", "early_stopping = 0: it is a number of epochs, at least 1; absent: never")),
            Some(_) if !validates => {
                let message = "early_stopping needs validation images, and the recipe has none: it would never stop";
                let hint = "hold images out with data.validation = 0.1, or name some with data.validation_set; or leave early_stopping out";
                Err(Fault::new("early_stopping", message).hint(hint))
            }
            _ => Ok(()),
        }
    }
}
