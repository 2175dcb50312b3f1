//! Figures about a model, measured on the file or on a run, never derived from settings.
mod compare;
mod latency;
mod macs;
mod parameters;
mod runs;
mod score;

pub use compare::{Agreement, Difference, Limits, output_step};
pub use latency::{Latency, LatencyOptions, latencies, latency};
pub use macs::{Macs, NodeMacs, macs};
pub use parameters::{Parameters, StoredValues, WeightCount, parameters};
pub use runs::Runs;
pub use score::score;
