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
mod rewinding;
mod schedule;
mod scope;
mod search;
mod select;
mod sensitivity;
mod settings;
mod update;
mod view;

pub use candidates::{Candidate, Normalization, Place, candidates};
pub use criterion::{
    Apoz, BnScale, Criteria, Criterion, Fpgm, Grasp, ImportanceContext, Lamp, Magnitude, Movement, Needs, Obd, Obs, Random, Snip, SynFlow,
    Taylor, Wanda,
};
pub use error::{PruneError, Result};
pub use gradual::GradualPruning;
pub use granularity::{
    Block, Column, Element, Filter, Granularities, Granularity, GroupNorm, Head, Kernel, NofM, Parts, ResidualBlock, Row, Units,
    WholeLayer, grouped,
};
pub use prune::{prune, prune_with};
pub use report::{LayerSparsity, SparsityReport, report};
pub use schedule::{Cubic, Iterative, Linear, MaskSearch, OneShot, Rewind, Rewound, RigL, SparsitySchedule, SparsitySchedules};
pub use scope::{Allocation, Erk, Global, Measure, PerLayer, Rate, Rates, Scope, ScopeLayer, Scopes, SensitivityShares, UniformPlus};
pub use select::least_important;
pub use sensitivity::{Curve, LayerEffects, PruneSensitivity, sensitivity};
pub use settings::PruneSettings;
pub use update::{KeepWeights, LeastSquares, Updates, WeightUpdate};
pub use view::WeightView;
