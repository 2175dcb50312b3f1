//! Chooses which weights are kept. A [`Criterion`] computes the importance of each element of a weight, a [`Granularity`] says which
//! elements live and die together, a [`Scope`] over which weights a sparsity is reached, a [`SparsitySchedule`] when: four families, one
//! file a technique. The result is a mask in the model's annotations. Values of weights do not change: the mask is applied wherever the
//! graph runs in simulation and where it is lowered.
mod candidates;
pub mod channels;
mod criterion;
mod error;
mod exchange;
mod gradual;
mod granularity;
mod layer;
mod layers;
mod prune;
mod report;
mod schedule;
mod scope;
mod select;
mod settings;
mod update;
mod view;

pub use candidates::{Candidate, Normalization, Place, candidates};
pub use criterion::{
    BnScale, Criteria, Criterion, Fpgm, ImportanceContext, Lamp, Magnitude, Movement, Needs, Obd, Obs, Random, Snip, Taylor, Wanda,
};
pub use error::{PruneError, Result};
pub use gradual::GradualPruning;
pub use granularity::{Block, Column, Element, Filter, Granularities, Granularity, GroupNorm, Kernel, NofM, Row, Units, grouped};
pub use prune::{prune, prune_with};
pub use report::{LayerSparsity, SparsityReport, report};
pub use schedule::{Cubic, Iterative, Linear, OneShot, RigL, SparsitySchedule, SparsitySchedules};
pub use scope::{Allocation, Erk, Global, PerLayer, Rate, Rates, Scope, ScopeLayer, Scopes, UniformPlus};
pub use select::least_important;
pub use settings::PruneSettings;
pub use update::{KeepWeights, LeastSquares, Updates, WeightUpdate};
pub use view::WeightView;
