//! From a recipe to a deployed, measured file: recipe, stages, content-addressed results, resume, run record.
//!
//! [`recipe`] reads the recipe; [`run`] runs its stages. A stage's result is stored in the [`run_dir`] under the hash of
//! everything that it depends on, so a run that was killed continues where it stopped. The crate never prints: a [`Listener`]
//! gets the events.
pub mod actions;
mod environment;
mod error;
mod fall;
mod goals;
mod listener;
mod live;
mod plan;
pub mod recipe;
mod run;
pub mod run_dir;
pub mod stages;
mod trial;

pub use environment::environment;
pub use error::{PipelineError, StageError};
pub use goals::judge;
pub use listener::{Event, Listener, Quiet};
pub use plan::{PlannedStage, plan};
pub use run::{RunOptions, run, run_with};
