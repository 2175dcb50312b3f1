//! From an annotated graph to a deployed file, and what that file does.
//!
//! - [`runtime`]: what executes a file (ONNX Runtime, ...), behind one trait.
mod error;
pub mod runtime;

pub use error::{DeployError, Result};
