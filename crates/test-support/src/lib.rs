//! Code shared by the tests of several crates. A dev-dependency only.
//!
//! [`folders`] finds recipes, fixtures and test data; [`recipe`] builds the text of a recipe; `runs` (feature `runs`) runs such a recipe
//! as a whole.
pub mod folders;
pub mod recipe;
#[cfg(feature = "runs")]
pub mod runs;
