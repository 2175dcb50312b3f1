//! Settings of pruning in a recipe.
use crate::{Criteria, SparsitySchedules};
use technique::{Choice, Fault, within};

/// Over which weights a sparsity is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All weights of the network together: less important layers lose more.
    #[default]
    Global,
    /// Each layer separately, to the same sparsity.
    Layer,
}

/// Settings of pruning.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneSettings {
    /// Share of the prunable weights that become zero: at least 0 and below 1.
    pub sparsity: f64,
    /// The criterion of importance: a name, or `{ kind = "taylor", batches = 32 }`.
    #[serde(default, alias = "method")]
    pub criterion: Choice<Criteria>,
    /// When the sparsity is reached: `one_shot` before the training, or `{ kind = "cubic", ... }` step by step during it.
    #[serde(default)]
    pub sparsity_schedule: Choice<SparsitySchedules>,
    /// Over which weights the least important elements are chosen.
    #[serde(default)]
    pub scope: Scope,
    /// Least share of each layer's weights that is kept, 0..1, whatever their importance.
    #[serde(default)]
    pub min_per_layer: f64,
    /// Patterns of weight names that are not pruned; `*` stands for any characters.
    #[serde(default)]
    pub skip: Vec<String>,
}

impl PruneSettings {
    /// For a sparsity, with the default of every other setting.
    pub fn new(sparsity: f64) -> Self {
        PruneSettings {
            sparsity,
            criterion: Choice::default(),
            sparsity_schedule: Choice::default(),
            scope: Scope::default(),
            min_per_layer: 0.0,
            skip: vec![],
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// A [`Fault`] at the key that is wrong.
    pub fn check(&self) -> Result<(), Fault> {
        within("sparsity", self.sparsity, 0.0, 1.0, "it is a share of the weights, so 90 % is 0.9")?;
        if self.sparsity == 1.0 {
            return Err(Fault::new("sparsity", "sparsity = 1 leaves no weight: it must be below 1"));
        }
        within("min_per_layer", self.min_per_layer, 0.0, 1.0, "it is a share of each layer's weights")?;
        self.sparsity_schedule.check_target(self.sparsity).map_err(|fault| fault.under("sparsity_schedule"))
    }
}
