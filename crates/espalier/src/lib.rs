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
//!
//! The six steps in small: a mask and quantizers are attached to a graph, it trains through them for a few steps, is
//! lowered to standard ONNX, and the file computes what was trained.
//!
//! ```
//! use espalier::train::{Batch, Batches, CrossEntropy, Silent, Surroundings, TrainError, TrainSettings};
//! use espalier::{deploy, onnx, prune, quantize, tensor::{Tensor, random}, train, zoo};
//!
//! /// Four batches of noise with labels.
//! struct Noise;
//! impl Batches for Noise {
//!     fn batches(&self) -> u64 {
//!         4
//!     }
//!     fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
//!         Box::new((0..4).map(move |i| {
//!             let noise = random::uniform(4 * epoch + i, &[8, 1, 28, 28], 0.0, 1.0).map_err(train::loss_error)?;
//!             let labels = Tensor::vector((0..8i64).collect());
//!             Ok(Batch { inputs: [("input".into(), noise)].into(), targets: [("label".into(), labels)].into() })
//!         }))
//!     }
//! }
//!
//! // Load a graph (here one that was just written).
//! let folder = std::env::temp_dir().join(format!("espalier-example-{}", std::process::id()));
//! std::fs::create_dir_all(&folder)?;
//! let (source, file) = (folder.join("lenet5.onnx"), folder.join("deployed.onnx"));
//! let entry = zoo::find("lenet5")?;
//! onnx::save(&entry.build(&entry.default_options())?, &source)?;
//! let mut model = onnx::load(&source)?;
//!
//! // Attach a mask to the half of the weights that matters least, and quantizers to weights and activations.
//! let half = prune::PruneSettings { method: "magnitude".into(), sparsity: 0.5, scope: prune::Scope::Global, skip: vec![] };
//! prune::prune(&mut model, &half)?;
//! quantize::quantize(&mut model, &quantize::QuantizeSettings::default(), Noise.epoch(0))?;
//!
//! // Train a few steps through both.
//! let loss = CrossEntropy::of(&model, 0.0)?;
//! let mut around = Surroundings { validate: None, watch: &mut Silent, checkpoint: None, stop: None };
//! train::train(&mut model, &Noise, &loss, &TrainSettings::default(), &mut around)?;
//!
//! // Lower, write, and run the file.
//! let lowered = deploy::lower(&model, &deploy::LowerOptions::default())?;
//! onnx::save(&lowered.model, &file)?;
//! let input = Tensor::full(0.5f32, [1, 1, 28, 28])?;
//! let mut session = deploy::runtime::by_name("reference")?
//!     .load(deploy::runtime::Source::File(&file), deploy::runtime::SessionOptions::literal(1))?;
//! let outputs = session.run(&[("input".to_string(), input)].into())?;
//! assert_eq!(outputs["logits"].shape(), [1, 10]);
//! # std::fs::remove_dir_all(&folder)?;
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
pub use quantize;
pub use report;
pub use tensor;
pub use train;
pub use zoo;

/// Result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;
