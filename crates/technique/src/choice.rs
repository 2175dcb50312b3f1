//! A chosen technique.
use crate::{Family, Fault, find};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

/// A member of a family with its settings. Read from `"name"` or `{ kind = "name", ... }`; written in the form it was read in.
pub struct Choice<F: Family> {
    kind: &'static str,
    settings: Map<String, Value>,
    member: Arc<F::Member>,
}

impl<F: Family> Choice<F> {
    /// A member by its name, with settings that differ from its defaults.
    ///
    /// # Errors
    /// A [`Fault`] for an unknown name or invalid settings.
    pub fn new(kind: &str, settings: Map<String, Value>) -> Result<Self, Fault> {
        let entry = find::<F>(kind)?;
        Ok(Choice { kind: entry.manual.name, member: (entry.build)(settings.clone())?, settings })
    }

    /// A member by its name, with its defaults.
    ///
    /// # Errors
    /// A [`Fault`] for an unknown name, or a member that has no defaults.
    pub fn named(kind: &str) -> Result<Self, Fault> {
        Self::new(kind, Map::new())
    }

    /// A member with its defaults, by a name in the code.
    ///
    /// # Panics
    /// If the family has no member of that name with defaults: a programming error, which a test of the caller finds.
    pub fn known(kind: &'static str) -> Self {
        Self::named(kind).expect("the default names a member whose settings have defaults")
    }

    /// A member and its settings by their own type.
    ///
    /// # Errors
    /// As [`Choice::new`].
    pub fn with(kind: &str, settings: &impl Serialize) -> Result<Self, Fault> {
        match serde_json::to_value(settings) {
            Ok(Value::Object(map)) => Self::new(kind, map),
            _ => Err(Fault::new("", format!("the settings of {} '{kind}' are no table", F::NAME))),
        }
    }

    /// A member as it is, without checks.
    pub fn of(kind: &'static str, settings: &impl Serialize, member: Arc<F::Member>) -> Self {
        let settings = match serde_json::to_value(settings) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        };
        Choice { kind, settings, member }
    }

    /// The member's name in recipes.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The given settings.
    pub fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }

    /// The chosen member, with its settings.
    pub fn member(&self) -> &Arc<F::Member> {
        &self.member
    }
}

impl<F: Family> Deref for Choice<F> {
    type Target = F::Member;
    fn deref(&self) -> &F::Member {
        &self.member
    }
}

/// # Panics
/// If the family has no default: a programming error, which the registry's test finds.
impl<F: Family> Default for Choice<F> {
    fn default() -> Self {
        let name = F::DEFAULT.expect("a family whose choice may be left out has a default");
        Choice::named(name).expect("a default needs no settings")
    }
}

impl<F: Family> Clone for Choice<F> {
    fn clone(&self) -> Self {
        Choice { kind: self.kind, settings: self.settings.clone(), member: self.member.clone() }
    }
}

impl<F: Family> PartialEq for Choice<F> {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.settings == other.settings
    }
}

impl<F: Family> fmt::Debug for Choice<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<F: Family> fmt::Display for Choice<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        for (i, (key, value)) in self.settings.iter().enumerate() {
            write!(f, "{}{key} = {value}", if i == 0 { " with " } else { ", " })?;
        }
        Ok(())
    }
}

impl<F: Family> Serialize for Choice<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.settings.is_empty() {
            return serializer.serialize_str(self.kind);
        }
        let mut map = Map::from_iter([("kind".to_string(), Value::from(self.kind))]);
        map.extend(self.settings.clone());
        map.serialize(serializer)
    }
}

impl<'de, F: Family> Deserialize<'de> for Choice<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Read::<F>(PhantomData))
    }
}

struct Read<F>(PhantomData<F>);

impl<'de, F: Family> Visitor<'de> for Read<F> {
    type Value = Choice<F>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name of a {0}, or a table {{ kind = \"NAME\", ... }}", F::NAME)
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Choice<F>, E> {
        Choice::named(name).map_err(|fault| E::custom(fault.to_string()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Choice<F>, A::Error> {
        let mut kind = None;
        let mut settings = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "kind" => kind = Some(map.next_value::<String>()?),
                _ => {
                    settings.insert(key, map.next_value::<Value>()?);
                }
            }
        }
        let kind = kind.or_else(|| F::DEFAULT.map(str::to_string)).ok_or_else(|| A::Error::missing_field("kind"))?;
        Choice::new(&kind, settings).map_err(|fault| A::Error::custom(fault.to_string()))
    }
}

impl<F: Family> JsonSchema for Choice<F> {
    fn schema_name() -> Cow<'static, str> {
        F::NAME.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut choices = vec![];
        for entry in F::members() {
            let manual = &entry.manual;
            choices.push(json!({ "const": manual.name, "description": manual.summary }));
            let mut table = (entry.schema)().to_value();
            if let Some(object) = table.as_object_mut() {
                object.remove("$schema");
                object.remove("title");
                object.insert("description".into(), manual.summary.into());
                object.insert("type".into(), "object".into());
                let properties = object.entry("properties").or_insert_with(|| json!({}));
                properties["kind"] = json!({ "const": manual.name });
                let optional = F::DEFAULT == Some(manual.name);
                let required = object.entry("required").or_insert_with(|| json!([]));
                if let (false, Some(list)) = (optional, required.as_array_mut()) {
                    list.push("kind".into());
                }
            }
            choices.push(table);
        }
        let mut schema = json!({ "description": F::SUMMARY, "oneOf": choices });
        if let Some(default) = F::DEFAULT {
            schema["default"] = default.into();
        }
        Schema::try_from(schema).unwrap_or_default()
    }
}
