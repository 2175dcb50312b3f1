//! How activations are stored.
use serde::{Deserialize, Deserializer};
use std::fmt;
use technique::{Fault, within};

/// How activations are stored: unsigned and asymmetric integers with one scale for each tensor, or float.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ActivationSettings {
    /// Integers with a scale, or float.
    #[serde(skip_serializing_if = "ActivationKind::is_affine")]
    pub kind: ActivationKind,
    /// Bits an activation, 2 to 16.
    pub bits: u32,
}

/// The form in which activations are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationKind {
    /// Integers with a scale and a zero point.
    #[default]
    Affine,
    /// Float: only weights are stored in fewer bits.
    Float,
}

impl ActivationKind {
    fn is_affine(&self) -> bool {
        *self == ActivationKind::Affine
    }
}

impl Default for ActivationSettings {
    fn default() -> Self {
        ActivationSettings { kind: ActivationKind::Affine, bits: 8 }
    }
}

impl ActivationSettings {
    /// Activations that stay float.
    pub fn float() -> Self {
        ActivationSettings { kind: ActivationKind::Float, ..Self::default() }
    }

    /// Bits of the stored integers; `None` where they stay float.
    pub fn stored(&self) -> Option<u32> {
        (self.kind == ActivationKind::Affine).then_some(self.bits)
    }

    pub(crate) fn check(&self) -> Result<(), Fault> {
        self.stored().map_or(Ok(()), |bits| within("bits", f64::from(bits), 2.0, 16.0, "bits of an activation"))
    }
}

impl fmt::Display for ActivationSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stored() {
            Some(bits) => write!(f, "in {bits} bits"),
            None => f.write_str("in float"),
        }
    }
}

/// How activations are stored: a table, or false where they stay float.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Activations")]
enum Written {
    Flag(bool),
    Kind(ActivationKind),
    Table(Table),
}

/// How activations are stored: unsigned and asymmetric, one scale a tensor.
#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Table {
    /// Integers with a scale, or float.
    kind: ActivationKind,
    /// Bits an activation, 2 to 16.
    bits: u32,
}

impl schemars::JsonSchema for ActivationSettings {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Written::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

impl Default for Table {
    fn default() -> Self {
        let ActivationSettings { kind, bits } = ActivationSettings::default();
        Table { kind, bits }
    }
}

impl<'de> Deserialize<'de> for ActivationSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let written = Written::deserialize(deserializer).map_err(|_| {
            serde::de::Error::custom("activations are false (they stay float), or a table { bits = 8 } or { kind = \"float\" }")
        })?;
        Ok(match written {
            Written::Flag(false) | Written::Kind(ActivationKind::Float) => ActivationSettings::float(),
            Written::Flag(true) | Written::Kind(ActivationKind::Affine) => ActivationSettings::default(),
            Written::Table(Table { kind, bits }) => ActivationSettings { kind, bits },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_read_from_every_spelling() {
        let read = |text: &str| serde_json::from_str::<ActivationSettings>(text).map_err(|e| e.to_string());
        assert_eq!(read(r#"{"bits": 4}"#).unwrap().stored(), Some(4));
        assert_eq!(read("true").unwrap(), ActivationSettings::default());
        for float in ["false", "\"float\"", r#"{"kind": "float"}"#] {
            let settings = read(float).unwrap();
            assert_eq!(settings.stored(), None);
            assert_eq!(read(&serde_json::to_string(&settings).unwrap()).unwrap(), settings);
        }
        for wrong in ["8", r#"{"bit": 4}"#, "\"codebook\""] {
            assert!(read(wrong).unwrap_err().contains("activations are false"), "{wrong}");
        }
    }
}
