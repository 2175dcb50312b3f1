//! Losses between a student and a teacher, one a file.
//!
//! A loss is a member of the family [`Losses`]: it says which values of the student and of the teacher it compares, gives a scalar, and
//! may own parameters that train with the student (an adapter between features of different width). [`Distillation`] is the
//! [`train::Objective`] that adds several of them, each with a weight, to the loss of the task.
//!
//! To add one: a file with its settings, [`Loss`] and [`Term`], and a line in `losses.rs`.
mod attention_transfer;
mod distillation;
mod feature;
mod hinton;
mod losses;
mod outputs;
mod pairs;
mod settings;
mod teacher;
#[cfg(test)]
mod testing;

pub use attention_transfer::AttentionTransfer;
pub use distillation::Distillation;
pub use feature::Feature;
pub use hinton::Hinton;
pub use losses::{Loss, Losses, Models, Seen, Term};
pub use outputs::Outputs;
pub use settings::{DistillationSettings, WeightedLoss};
pub use teacher::Teacher;
