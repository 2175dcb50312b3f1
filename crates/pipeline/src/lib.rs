//! From a recipe to a deployed, measured file: recipe, stages, content-addressed results, resume, run record.
pub mod recipe;
