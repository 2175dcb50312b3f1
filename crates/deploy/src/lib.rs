//! From an annotated graph to a deployed file, and measurements of that file.
//!
//! - [`lower`]: annotations become standard ONNX operators; [`lift()`] is its inverse.
//! - [`mod@format`]: how the lowered model is written; one file a format.
//! - [`runtime`]: what executes a file (ONNX Runtime, the reference interpreter, rten), behind one trait.
//! - [`measure`]: accuracy, latency, size, multiply-accumulates, and how far two computations are apart.
//! - [`prove`]: that the file computes what the simulation computed.
mod block_products;
mod digits;
mod error;
mod float_form;
pub mod format;
mod grid;
mod lift;
mod lower;
pub mod measure;
mod placement;
mod processor;
mod prove;
mod raise;
pub mod runtime;
mod sign;
mod table;

pub use error::{DeployError, Result};
pub use lift::lift;
pub use lower::{FloatPart, LowerOptions, Lowered, lower};
pub use placement::{Count, Placement};
pub use processor::Arithmetic;
pub use prove::{Proof, ProofOptions, SQNR_FLOOR_DB, Scores, prove};
