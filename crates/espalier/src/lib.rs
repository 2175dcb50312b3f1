//! Train, quantize, prune, distil, fine-tune and deploy ONNX networks as one annotated graph.
//!
//! Everything that the `espalier` program does can be done from here. The crates of the workspace stand as modules, in
//! the order of the pipeline; [`commands`] holds what the program's subcommands call.
//!
//! ```
//! use espalier::{graph::Model, train::{Executor, Mode}, zoo};
//!
//! // A freshly initialised network, run on one input.
//! let entry = zoo::find("lenet5")?;
//! let model: Model = entry.build(&entry.default_options())?;
//! let input = espalier::tensor::Tensor::full(0f32, [1, 1, 28, 28])?;
//! let outputs = Executor::new(&model)?.run(&[("input".to_string(), input)].into(), Mode::FLOAT)?;
//! assert_eq!(outputs["logits"].shape(), [1, 10]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
pub mod commands;
mod error;

pub use data;
pub use deploy;
pub use distill;
pub use encodings;
pub use error::Error;
pub use graph;
pub use onnx;
pub use ops;
pub use pipeline;
pub use prune;
pub use report;
pub use tensor;
pub use train;
pub use zoo;

/// Result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;
