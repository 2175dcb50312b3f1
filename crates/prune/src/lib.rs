//! Chooses which weights live. A [`Criterion`] says how important each element of a weight is (one file a criterion), a [`Scope`]
//! over what a sparsity is reached, a [`SparsitySchedule`] when. The result is a mask in the model's annotations. Values of weights
//! stay as they are: the mask is part of the value wherever the graph runs in simulation and where it is lowered.
mod candidates;
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
