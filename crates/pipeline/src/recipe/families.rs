//! All families of techniques that a recipe chooses from, for `list`, `explain` and the tests of the registry.
use technique::{FamilyManual, manual};

/// All families, in the order of a recipe.
pub fn families() -> Vec<FamilyManual> {
    vec![
        manual::<train::Tasks>(),
        manual::<train::Optimizers>(),
        manual::<train::Schedules>(),
        manual::<train::ScaleLearnings>(),
        manual::<train::Penalties>(),
        manual::<encodings::Encodings>(),
        manual::<quantize::Observers>(),
        manual::<quantize::Corrections>(),
        manual::<prune::Criteria>(),
        manual::<prune::Granularities>(),
        manual::<prune::Scopes>(),
        manual::<prune::Updates>(),
        manual::<prune::SparsitySchedules>(),
        manual::<distill::Losses>(),
        manual::<target::Targets>(),
        manual::<deploy::format::Formats>(),
    ]
}
