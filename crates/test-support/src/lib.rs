//! What the tests of several crates share. A dev-dependency only.
//!
//! [`folders`] says where recipes, fixtures and test data lie; [`recipe`] puts the text of a recipe together; [`runs`] (feature
//! `runs`) takes such a text through a whole run.
pub mod folders;
pub mod recipe;
#[cfg(feature = "runs")]
pub mod runs;
