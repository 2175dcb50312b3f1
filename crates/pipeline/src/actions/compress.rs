//! The compression that a stage attaches to a graph. It is data, so it can be applied to another network too.
use super::{FoundPlan, Sources, Tick};
use crate::StageError;
use crate::recipe::{QuantizeStage, Training};
use crate::run_dir::Cache;
use graph::Model;
use report::record::{FloatPart, SharesRecord};

/// Masks or quantizers, as a stage of the recipe asks for them.
pub trait Compression {
    /// A short description: `sparsity 0.5`.
    fn told(&self) -> String;

    /// The settings of the quantizers that it attaches, if any. Quantizers come after masks, since importance is computed from
    /// unquantized weights.
    fn quantizers(&self) -> Option<&QuantizeStage> {
        None
    }

    /// A fast variant that attaches the same form, fitted to this many samples; `None` if it does not affect whether the graph
    /// can be deployed.
    fn for_trial(&self, _samples: usize) -> Option<Box<dyn Compression>> {
        None
    }

    /// Attaches the compression to a network.
    ///
    /// # Errors
    /// Errors of the settings, the data or the graph.
    fn apply(&self, model: &mut Model, on: &CompressOn, tick: Tick) -> Result<Compressed, StageError>;
}

/// The context of a compression.
pub struct CompressOn<'a> {
    /// The data sets to calibrate, train and measure on.
    pub sources: &'a Sources,
    /// The recipe's seed.
    pub seed: u64,
    /// Settings of the stage's training loop, for techniques that read training batches.
    pub training: &'a Training,
    /// The target of the deployment.
    pub target: &'a target::Choice,
    /// The cache of earlier calibrations' statistics.
    pub cache: Option<Cache<'a>>,
}

/// The result of attaching.
#[derive(Default)]
pub struct Compressed {
    /// Sentences for the user; true marks a warning.
    pub notes: Vec<(bool, String)>,
    /// Operators that stay float.
    pub float_parts: Vec<FloatPart>,
    /// The widths that were found for a budget.
    pub plan: Option<FoundPlan>,
    /// The shares of layers that were found by what each alone costs.
    pub shares: Option<SharesRecord>,
}
