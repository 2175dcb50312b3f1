//! Settings of pruning in a recipe.
use crate::{Criteria, Granularities, Needs, Scopes, SparsitySchedules, Updates};
use technique::{Choice, Family, Fault, within};

/// Settings of pruning.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneSettings {
    /// Share of the prunable weights that become zero: at least 0 and below 1. Left out where the granularity (`n_m`) or the scope
    /// (`rates`) decides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f64>,
    /// The criterion of importance: a name, or `{ kind = "taylor", batches = 32 }`.
    #[serde(default, alias = "method")]
    pub criterion: Choice<Criteria>,
    /// When the sparsity is reached: `one_shot` before the training, or `{ kind = "cubic", ... }` step by step during it.
    #[serde(default)]
    pub sparsity_schedule: Choice<SparsitySchedules>,
    /// Which elements become zero together: each by itself, a pattern as `{ kind = "n_m", n = 2, m = 4 }`, or a whole part.
    #[serde(default)]
    pub granularity: Choice<Granularities>,
    /// What becomes of the weights that live, when the others are pruned at once: `keep`, or `least_squares`.
    #[serde(default)]
    pub update: Choice<Updates>,
    /// Over which weights the least important elements are chosen.
    #[serde(default)]
    pub scope: Choice<Scopes>,
    /// Least share of each layer's weights that is kept, 0..1, whatever their importance.
    #[serde(default)]
    pub min_per_layer: f64,
    /// Patterns of weight names that are not pruned; `*` stands for any characters.
    #[serde(default)]
    pub skip: Vec<String>,
}

/// A difference of two sparsities that is none.
const SAME: f64 = 1e-6;

impl PruneSettings {
    /// For a sparsity, with the default of every other setting.
    pub fn new(sparsity: f64) -> Self {
        PruneSettings { sparsity: Some(sparsity), ..Self::of_pattern() }
    }

    /// Without a sparsity, for a granularity or scope that decides it; with the default of every other setting.
    pub fn of_pattern() -> Self {
        PruneSettings {
            sparsity: None,
            criterion: Choice::default(),
            sparsity_schedule: Choice::default(),
            granularity: Choice::default(),
            scope: Choice::default(),
            update: Choice::default(),
            min_per_layer: 0.0,
            skip: vec![],
        }
    }

    /// The sparsity that schedules end with: that of the pattern, the one that is set, or the share 1 of the scope's own rates.
    pub fn target(&self) -> f64 {
        self.granularity.sparsity().or(self.sparsity).or(self.scope.sparsity()).unwrap_or_default()
    }

    /// True if a sparsity has to be set.
    pub fn wants_sparsity(&self) -> bool {
        self.granularity.sparsity().is_none() && self.scope.sparsity().is_none()
    }

    /// A few words on what the settings ask for: `sparsity 0.5`.
    pub fn told(&self) -> String {
        if !self.wants_sparsity() {
            return if self.granularity.sparsity().is_some() { self.granularity.to_string() } else { self.scope.to_string() };
        }
        match self.granularity == Choice::default() {
            true => format!("sparsity {}", self.target()),
            false => format!("sparsity {}, {}", self.target(), self.granularity),
        }
    }

    /// True if pruning at once reads data.
    pub fn needs_data(&self) -> bool {
        self.criterion.needs().reads_data() || self.update.needs_data()
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// A [`Fault`] at the key that is wrong.
    pub fn check(&self) -> Result<(), Fault> {
        match (self.sparsity, self.granularity.sparsity(), self.scope.sparsity()) {
            (None, None, None) => {
                return Err(Fault::new("sparsity", "sparsity is missing: the share of the weights that become zero, so 90 % is 0.9"));
            }
            (_, Some(_), Some(_)) => {
                let what = format!("{} decides each layer's share, and so does granularity {}", self.scope.kind(), self.granularity.kind());
                return Err(Fault::new("scope", what).hint("leave one of them out; skip = [...] names layers that stay dense"));
            }
            (Some(_), None, Some(_)) => {
                let what = format!("the scope {} decides each layer's share, so a sparsity has no effect", self.scope.kind());
                return Err(Fault::new("sparsity", what).hint("leave it out, or take another scope"));
            }
            (Some(asked), Some(fixed), None) if (asked - fixed).abs() > SAME => {
                let what = format!("sparsity = {asked} does not agree with granularity {}, which makes {fixed}", self.granularity);
                return Err(Fault::new("sparsity", what).hint("leave it out"));
            }
            _ => {}
        }
        if self.granularity.parts().is_some() && self.scope.kind() != Scopes::DEFAULT.unwrap_or_default() {
            let what = format!(
                "granularity {} compares parts of several layers, and {} gives each layer a share",
                self.granularity.kind(),
                self.scope.kind()
            );
            return Err(Fault::new("scope", what).hint("take scope = \"global\"; skip = [...] names layers that stay dense"));
        }
        if self.granularity.empties_layers() && self.min_per_layer > 0.0 {
            let what = format!(
                "min_per_layer = {} keeps a share of each layer, and granularity {} empties layers",
                self.min_per_layer,
                self.granularity.kind()
            );
            return Err(Fault::new("min_per_layer", what).hint("leave it out; skip = [...] names layers that stay dense"));
        }
        if self.scope.measure().is_some() && self.granularity.sparsity().is_some() {
            let what = format!("{} finds each layer's share, and granularity {} decides it", self.scope.kind(), self.granularity.kind());
            return Err(Fault::new("scope", what).hint("leave one of them out"));
        }
        if self.scope.measure().is_some() && self.criterion.needs() == Needs::Movement {
            let what =
                format!("{} measures layers before the training, and {} is known only after", self.scope.kind(), self.criterion.kind());
            return Err(Fault::new("scope", what).hint("take another scope, or another criterion"));
        }
        let schedule = &self.sparsity_schedule;
        if (schedule.exchanges().is_some() || schedule.search().is_some())
            && self.granularity.kind() != Granularities::DEFAULT.unwrap_or_default()
        {
            let what = format!("{} changes single elements, and granularity {} would not hold", schedule.kind(), self.granularity);
            return Err(Fault::new("sparsity_schedule", what).hint("take a cubic schedule, or granularity = \"element\""));
        }
        if self.criterion.needs() == Needs::Movement && !schedule.is_gradual() {
            let what = format!("{} is known only while the stage trains, and {} prunes before", self.criterion.kind(), schedule.kind());
            return Err(
                Fault::new("criterion", what).hint("set sparsity_schedule = { kind = \"cubic\", begin = 0.1 }, or take another criterion")
            );
        }
        if self.criterion.needs() == Needs::Movement && schedule.search().is_some() {
            let what = format!("{} prunes before the first step, when {} knows nothing yet", schedule.kind(), self.criterion.kind());
            return Err(Fault::new("criterion", what).hint("take another criterion, or a cubic schedule"));
        }
        if self.update.needs_data() && schedule.is_gradual() {
            let what =
                format!("update {} follows pruning at once, and {} prunes while the stage trains", self.update.kind(), schedule.kind());
            return Err(Fault::new("update", what).hint("leave one of them out"));
        }
        if let Some(sparsity) = self.sparsity {
            within("sparsity", sparsity, 0.0, 1.0, "it is a share of the weights, so 90 % is 0.9")?;
            if sparsity == 1.0 {
                return Err(Fault::new("sparsity", "sparsity = 1 leaves no weight: it must be below 1"));
            }
        }
        within("min_per_layer", self.min_per_layer, 0.0, 1.0, "it is a share of each layer's weights")?;
        self.sparsity_schedule.check_target(self.target()).map_err(|fault| fault.under("sparsity_schedule"))
    }
}
