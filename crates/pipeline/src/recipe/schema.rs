//! The JSON schema of recipes, for editors.
use super::Recipe;

/// The schema as JSON (draft 2020-12), made from the same types that read a recipe.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Recipe);
    schema.insert("title".into(), "Espalier recipe".into());
    schema.to_value()
}
