//! Updates: how the weights that live make up for those that are pruned, without training.
mod keep;
mod least_squares;

pub use keep::KeepWeights;
pub use least_squares::LeastSquares;

use crate::Result;
use graph::Model;
use technique::{Entry, Family};
use train::GradientSource;

/// Gives the weights that live new values, so that the network's results change less.
///
/// An update is a type that holds its settings, in a file of its own, and a line in [`Updates::members`].
pub trait WeightUpdate: Send + Sync {
    /// True if it needs data.
    fn needs_data(&self) -> bool {
        true
    }

    /// Changes the weights of the layers that have masks. Dead elements keep their values below the mask. Returns sentences for the user.
    ///
    /// # Errors
    /// Errors of the graph or the data.
    fn apply(&self, model: &mut Model, skip: &[String], source: &GradientSource) -> Result<Vec<String>>;
}

/// The family of updates.
pub struct Updates;

impl Family for Updates {
    type Member = dyn WeightUpdate;
    const NAME: &'static str = "update";
    const SUMMARY: &'static str =
        "What becomes of the weights that live when others are pruned at once: nothing, or values that make up for it.";
    const DEFAULT: Option<&'static str> = Some("keep");
    fn members() -> &'static [Entry<dyn WeightUpdate>] {
        static LIST: &[Entry<dyn WeightUpdate>] = &[keep::ENTRY, least_squares::ENTRY];
        LIST
    }
}
