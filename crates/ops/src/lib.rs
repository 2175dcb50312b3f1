//! What each ONNX operator means. One file an operator (or a family that shares all its code); adding an operator is
//! adding a file and one line in [`registry`].
mod activation;
mod arithmetic;
mod cast;
mod dtypes;
mod einsum;
mod generate;
mod indexing;
mod layout;
mod logic;
mod matmul;
mod nn_tmp;
mod random;
mod ranking;
mod rearrange;
mod reduction;
mod shapes;
mod simple;
mod slicing;
mod softmax;
#[cfg(test)]
mod testing;
mod cx;
mod error;
mod fold;
mod operator;
mod opset;
mod registry;


pub use cx::{EvalCx, Inputs, RunSubgraph};
pub use error::OpError;
pub use fold::{fold_batch_norm, remove_identities};
pub use operator::{MacsCx, Operator, QuantRule, Role, ShapeCx, WeightRule};
pub use opset::convert_opset;
pub use registry::{all, find};
