//! One stage of a recipe: its own settings, and those of all stages or of all that train.
use super::{Recipe, Training};
use crate::stages::{StageEntry, StageError, StageKind, kinds};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::IgnoredAny;
use serde::{Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

/// A stage. [`Deref`] gives the settings of its kind.
#[derive(Clone)]
pub struct Stage {
    /// The stage's name; absent: its kind.
    pub(super) name: Option<String>,
    /// The settings of its training loop, if its kind has one.
    pub(super) training: Option<Training>,
    pub(super) entry: &'static StageEntry,
    pub(super) settings: Arc<dyn StageKind>,
}

/// Keys of every stage, each with its description.
pub(super) const COMMON: [(&str, &str); 1] = [("name", "The stage's name; absent: its kind.")];

impl Stage {
    /// The kinds, in the usual order of a recipe.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        kinds().iter().map(|entry| entry.manual.name)
    }

    /// Its kind, as the recipe spells it.
    pub fn kind(&self) -> &'static str {
        self.entry.manual.name
    }

    /// The name given in the recipe, or its kind.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.kind())
    }

    /// The settings of its training loop, if its kind has one.
    pub fn training(&self) -> Option<&Training> {
        self.training.as_ref()
    }

    /// True if it has epochs.
    pub fn trains(&self) -> bool {
        self.training().is_some_and(|t| t.epochs > 0)
    }

    /// The settings of its kind.
    pub fn settings(&self) -> &Arc<dyn StageKind> {
        &self.settings
    }

    /// The stage with the content of the files that it names.
    ///
    /// # Errors
    /// As [`StageKind::with_files`].
    pub(super) fn with_files(&self, place: &dyn Fn(&str) -> PathBuf) -> Result<Stage, StageError> {
        let settings = self.settings.with_files(place)?.unwrap_or_else(|| self.settings.clone());
        Ok(Stage { settings, ..self.clone() })
    }

    /// The stage with the defaults that follow from the rest of the recipe.
    pub(super) fn with_defaults(&self, recipe: &Recipe, index: usize) -> Stage {
        let settings = self.settings.with_defaults(recipe, index).unwrap_or_else(|| self.settings.clone());
        Stage { settings, ..self.clone() }
    }

    /// The settings as those of a kind, if the stage is of that kind.
    pub fn get<T: StageKind>(&self) -> Option<&T> {
        let any: &dyn Any = self.settings.as_ref();
        any.downcast_ref()
    }

    fn to_map(&self) -> serde_json::Result<Map<String, Value>> {
        let mut map = Map::from_iter([("kind".to_string(), Value::from(self.kind()))]);
        map.extend(self.name.iter().map(|name| ("name".to_string(), Value::from(name.as_str()))));
        let training = self.training.as_ref().map(serde_json::to_value).transpose()?;
        for part in [Some((self.entry.write)(self.settings.as_ref())?), training].into_iter().flatten() {
            if let Value::Object(keys) = part {
                map.extend(keys.into_iter().filter(|(_, value)| !value.is_null()));
            }
        }
        Ok(map)
    }
}

impl Deref for Stage {
    type Target = dyn StageKind;
    fn deref(&self) -> &dyn StageKind {
        self.settings.as_ref()
    }
}

impl PartialEq for Stage {
    fn eq(&self, other: &Self) -> bool {
        matches!((self.to_map(), other.to_map()), (Ok(a), Ok(b)) if a == b)
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_map().map(Value::Object).unwrap_or_default())
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_map().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// [`super::parse`] reads stages, since it knows their places in the text.
pub(super) fn none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Stage>, D::Error> {
    <IgnoredAny as serde::Deserialize>::deserialize(deserializer).map(|_| vec![])
}

impl JsonSchema for Stage {
    fn schema_name() -> Cow<'static, str> {
        "Stage".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let training = Training::json_schema(generator).to_value();
        let kinds = kinds().iter().map(|entry| {
            let mut schema = (entry.schema)(generator).to_value();
            let own = schema["properties"].as_object().cloned().unwrap_or_default();
            let mut keys = Map::from_iter([("kind".to_string(), json!({ "type": "string", "const": entry.manual.name }))]);
            keys.extend(COMMON.map(|(key, text)| (key.to_string(), json!({ "type": "string", "description": text }))));
            keys.extend(own);
            if let (Some(epochs), Some(common)) = (entry.epochs, training["properties"].as_object()) {
                keys.extend(common.clone());
                keys["epochs"]["default"] = epochs.into();
            }
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            schema["properties"] = keys.into();
            schema["required"] = std::iter::once("kind".into()).chain(required).collect::<Vec<Value>>().into();
            schema["description"] = entry.manual.summary.into();
            schema["additionalProperties"] = false.into();
            schema
        });
        let kinds: Vec<Value> = kinds.collect();
        Schema::try_from(json!({ "description": "One stage: `kind` says which.", "oneOf": kinds })).unwrap_or_default()
    }
}
