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
//! use espalier::train::{Batch, Batches, CrossEntropy, TrainContext, TrainError, TrainSettings};
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
//!             let noise = random::uniform(4 * epoch + i, &[8, 1, 28, 28], 0.0, 1.0)?;
//!             let labels = Tensor::vector((0..8i64).collect());
//!             Ok(Batch { inputs: [("input".into(), noise)].into(), targets: [("label".into(), labels)].into(), ..Batch::default() })
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
//! let half = prune::PruneSettings::new(0.5);
//! prune::prune(&mut model, &half)?;
//! quantize::quantize(&mut model, &quantize::QuantizeSettings::default(), Noise.epoch(0))?;
//!
//! // Train a few steps through both.
//! let loss = CrossEntropy::of(&model, 0.0)?;
//! let mut around = TrainContext::default();
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
//!
//! A custom loss and metric over an output of the graph and a ragged target: a network learns how many boxes an image has. Masks,
//! quantizers and a teacher ([`distill::Distillation`] takes any [`train::Objective`]) work with it as with the built-in losses.
//!
//! ```
//! use espalier::graph::{Model, ValueId};
//! use espalier::train::{AdamW, Batch, Batches, Metric, Mode, Objective, TrainContext, TrainError, TrainSettings};
//! use espalier::{technique::Settings, tensor::{self, Tensor, random}, train, zoo};
//! use std::collections::HashMap;
//!
//! /// Images with one to four boxes: the more, the brighter.
//! struct Images;
//! impl Images {
//!     fn batch(&self, number: u64) -> Result<Batch, TrainError> {
//!         let counts: Vec<usize> = (0..8).map(|i| 1 + (i + number as usize) % 4).collect();
//!         let offsets: Vec<i64> = (0..=8).map(|i| counts[..i].iter().sum::<usize>() as i64).collect();
//!         let pixels = counts.iter().flat_map(|n| vec![*n as f32 / 4.0; 64]).collect::<Vec<_>>();
//!         let boxes = random::uniform(number, &[offsets[8] as usize, 4], 0.0, 1.0)?;
//!         Ok(Batch {
//!             inputs: [("input".into(), Tensor::new(pixels, [8, 1, 8, 8])?)].into(),
//!             targets: [("boxes".into(), boxes), ("boxes.offsets".into(), Tensor::vector(offsets))].into(),
//!             ..Batch::default()
//!         })
//!     }
//! }
//! impl Batches for Images {
//!     fn batches(&self) -> u64 {
//!         60
//!     }
//!     fn epoch(&self, _epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
//!         Box::new((0..60).map(|i| self.batch(i)))
//!     }
//! }
//!
//! /// How many boxes: the loss is the squared error, the figure the share of images whose count rounds to the right one.
//! struct Count {
//!     output: ValueId,
//!     right: usize,
//!     images: usize,
//! }
//! impl Objective for Count {
//!     fn taps(&self) -> Vec<ValueId> {
//!         vec![self.output]
//!     }
//!     fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
//!         let counts = batch.ragged("boxes")?.iter().map(|boxes| boxes.shape()[0] as f32).collect::<Vec<_>>();
//!         let wanted = Tensor::new(counts, [batch.len(), 1])?;
//!         Ok(tensor::mse_loss(train::read(values, self.output)?, &wanted)?)
//!     }
//! }
//! impl Metric for Count {
//!     fn taps(&self) -> Vec<ValueId> {
//!         vec![self.output]
//!     }
//!     fn add(&mut self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<(), TrainError> {
//!         let said = train::read(values, self.output)?.to_f32_vec()?;
//!         for (said, boxes) in said.iter().zip(batch.ragged("boxes")?) {
//!             self.right += usize::from(said.round() as usize == boxes.shape()[0]);
//!         }
//!         self.images += batch.len();
//!         Ok(())
//!     }
//!     fn value(&self) -> f64 {
//!         self.right as f64 / self.images.max(1) as f64
//!     }
//! }
//!
//! let entry = zoo::find("mlp")?;
//! let mut model: Model = entry.build(&zoo::ZooOptions { input: vec![1, 8, 8], classes: 1, ..entry.default_options() })?;
//! let count = || Count { output: model.graph.outputs[0], right: 0, images: 0 };
//! let (loss, mut judge) = (count(), count());
//! let settings = TrainSettings { optimizer: AdamW { lr: 0.003, ..AdamW::default() }.choice()?, ..TrainSettings::default() };
//! let mut around = TrainContext::default();
//! train::train(&mut model, &Images, &loss, &settings, &mut around)?;
//! train::measure(&model, (0..4).map(|i| Images.batch(i)), Mode::FLOAT, &mut judge)?;
//! assert_eq!((judge.images, judge.value()), (32, 1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
pub mod commands;
mod data_set;
mod error;

pub use data;
pub use data_set::DataSet;
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
pub use target;
pub use technique;
pub use tensor;
pub use train;
pub use zoo;

/// Result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;
