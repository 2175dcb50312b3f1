//! The key of a recipe: `true`, `false`, or how.
use super::{ScaleLearning, ScaleLearnings};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use technique::Choice;

/// Whether and how the parameters of quantizers are trained: `true` for LSQ, `false`, or a choice of the family.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LearnScales(Option<Choice<ScaleLearnings>>);

impl LearnScales {
    /// True unless they stay as they are.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// How they are learned, if they are.
    pub fn how(&self) -> Option<&dyn ScaleLearning> {
        self.0.as_ref().map(|choice| choice.member().as_ref())
    }
}

impl From<bool> for LearnScales {
    fn from(on: bool) -> Self {
        LearnScales(on.then(Choice::default))
    }
}

impl From<Choice<ScaleLearnings>> for LearnScales {
    fn from(how: Choice<ScaleLearnings>) -> Self {
        LearnScales(Some(how))
    }
}

impl Serialize for LearnScales {
    /// LSQ is written `true`, as it was before there was a choice.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => serializer.serialize_bool(false),
            Some(how) if *how == Choice::default() => serializer.serialize_bool(true),
            Some(how) => how.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for LearnScales {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read)
    }
}

struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = LearnScales;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, or how scales are learned: a name, or a table { kind = \"NAME\", ... }")
    }

    fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<LearnScales, E> {
        Ok(on.into())
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<LearnScales, E> {
        Choice::deserialize(StrDeserializer::new(name)).map(|how| LearnScales(Some(how)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LearnScales, A::Error> {
        Choice::deserialize(MapAccessDeserializer::new(map)).map(|how| LearnScales(Some(how)))
    }
}

impl JsonSchema for LearnScales {
    fn schema_name() -> Cow<'static, str> {
        "LearnScales".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "boolean" }, Choice::<ScaleLearnings>::json_schema(generator)] })
    }
}
