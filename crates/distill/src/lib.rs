//! What a student learns from a teacher, one technique a file. A technique is a [`train::Objective`] like any other loss:
//! it reads values of the student's forward pass, asks a [`Teacher`] about the same batch, and gives a scalar.
mod hinton;
mod logits;
mod teacher;

pub use hinton::{Hinton, HintonSettings};
pub use logits::{Logits, logits_value};
pub use teacher::Teacher;
