//! All families of techniques that a recipe chooses from: what `list` and `explain` show, and what the tests of the registry go through.
use technique::FamilyManual;

/// All families, in the order of a recipe.
pub fn families() -> Vec<FamilyManual> {
    vec![
        technique::manual::<encodings::Encodings>(),
        technique::manual::<prune::Criteria>(),
        technique::manual::<prune::SparsitySchedules>(),
    ]
}
