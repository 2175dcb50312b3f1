//! What each ONNX operator means. One file an operator (or a family that shares all its code); adding an operator is
//! adding a file and one line in [`registry`].
mod cx;
mod error;
mod fold;
mod operator;
mod opset;
mod registry;

mod elementwise;

pub use cx::{EvalCx, Inputs, RunSubgraph};
pub use error::OpError;
pub use fold::{fold_batch_norm, remove_identities};
pub use operator::{MacsCx, Operator, QuantRule, Role, ShapeCx, WeightRule};
pub use opset::convert_opset;
pub use registry::{all, find};
