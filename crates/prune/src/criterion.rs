//! What a criterion is, and which there are.
use crate::magnitude::Magnitude;
use crate::{Candidate, PruneError, Result};
use graph::Model;

/// Ranks the elements of a weight. Adding a criterion is adding a file and a line in [`all`].
pub trait Criterion: Sync {
    /// Its name in recipes.
    fn name(&self) -> &'static str;

    /// One sentence for `espalier explain`.
    fn summary(&self) -> &'static str;

    /// Importance of each element, in the weight's own order: never negative, comparable between layers; the least
    /// important die first.
    ///
    /// # Errors
    /// If the weight or what the criterion reads beside it is not f32.
    fn importance(&self, model: &Model, candidate: &Candidate) -> Result<Vec<f32>>;
}

/// All criteria.
pub fn all() -> impl Iterator<Item = &'static dyn Criterion> {
    static LIST: &[&dyn Criterion] = &[&Magnitude];
    LIST.iter().copied()
}

/// The criterion of this name.
///
/// # Errors
/// [`PruneError::Setting`], with the known names.
pub fn find(name: &str) -> Result<&'static dyn Criterion> {
    all().find(|c| c.name() == name).ok_or_else(|| {
        let known: Vec<&str> = all().map(|c| c.name()).collect();
        PruneError::Setting { setting: "method", what: format!("is '{name}'; known are: {}", known.join(", ")) }
    })
}
