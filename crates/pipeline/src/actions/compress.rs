//! What a stage attaches to a graph: policy is data, so it can be applied to another network.
use super::{Sources, Tick};
use crate::StageError;
use crate::recipe::{QuantizeStage, Training};
use crate::run_dir::Cache;
use graph::Model;
use report::record::FloatPart;

/// Masks or quantizers, as a stage of the recipe asks for them.
pub trait Compression {
    /// In a few words: `sparsity 0.5`.
    fn told(&self) -> String;

    /// The settings of the quantizers it attaches, if it does; they come after masks, for importance is read from whole weights.
    fn quantizers(&self) -> Option<&QuantizeStage> {
        None
    }

    /// A quick form of it that attaches the same, fitted to so many samples; `None` where it does not matter to whether the graph can
    /// be deployed.
    fn for_trial(&self, _samples: usize) -> Option<Box<dyn Compression>> {
        None
    }

    /// Attaches it to a network.
    ///
    /// # Errors
    /// What the settings, the data or the graph report.
    fn apply(&self, model: &mut Model, on: &CompressOn, tick: Tick) -> Result<Compressed, StageError>;
}

/// What a compression may look at beside the model.
pub struct CompressOn<'a> {
    /// The data sets to calibrate, train and measure on.
    pub sources: &'a Sources,
    /// The recipe's seed.
    pub seed: u64,
    /// Settings of the loop that the stage trains with, for what reads training batches.
    pub training: &'a Training,
    /// What the model will be deployed for.
    pub target: &'a target::Choice,
    /// Where statistics of an earlier calibration may be.
    pub cache: Option<Cache<'a>>,
}

/// What was attached.
#[derive(Default)]
pub struct Compressed {
    /// Sentences for the user, warnings told apart.
    pub notes: Vec<(bool, String)>,
    /// Operators that stay float.
    pub float_parts: Vec<FloatPart>,
}
