//! Chooses which weights are kept. A [`Criterion`] computes the importance of each element of a weight (one file a criterion); a
//! [`Scope`] says over which weights a sparsity is reached, a [`SparsitySchedule`] when. The result is a mask in the model's
//! annotations. Values of weights do not change: the mask is applied wherever the graph runs in simulation and where it is
//! lowered.
mod candidates;
pub mod channels;
mod criterion;
mod cubic;
mod error;
mod gradual;
mod magnitude;
mod one_shot;
mod prune;
mod report;
mod schedule;
mod select;
mod settings;
mod taylor;

pub use candidates::{Candidate, Normalization, candidates};
pub use criterion::{Criteria, Criterion, ImportanceContext, Needs};
pub use cubic::Cubic;
pub use error::{PruneError, Result};
pub use gradual::GradualPruning;
pub use magnitude::Magnitude;
pub use one_shot::OneShot;
pub use prune::{prune, prune_with};
pub use report::{LayerSparsity, SparsityReport, report};
pub use schedule::{SparsitySchedule, SparsitySchedules};
pub use select::least_important;
pub use settings::{PruneSettings, Scope};
pub use taylor::Taylor;
