//! Mixed precision: widths for each layer within a budget.
//!
//! 1. [`Layers::of`] lists what can be chosen: groups of weights and activations that must have one width.
//! 2. [`fitted`] fits the grids of every width, from statistics of one calibration.
//! 3. [`sensitivity`] measures each group alone at each width, everything else in float.
//! 4. [`best`] finds the widths with the least harm in sum within the budget.
//! 5. [`Layers::rules`] writes them as rules, as a recipe has them.
mod groups;
mod search;
mod sensitivity;

pub use groups::{ActivationWidths, Cost, Fitted, Group, Layers, Widths, fitted, with_bits};
pub use search::{Candidate, best};
pub use sensitivity::{Sensitivity, sensitivity};
pub use train::Effect;
