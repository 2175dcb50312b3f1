//! How activations are stored.
use encodings::binary::ActivationEstimator;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use technique::{Fault, within};

/// How activations are stored: unsigned and asymmetric integers with one scale for each tensor, two levels, or float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActivationSettings {
    /// Integers with a scale, two levels, or float.
    pub kind: ActivationKind,
    /// Bits an activation, 2 to 16; of two levels 1.
    pub bits: u32,
    /// The gradient of the sign, for two levels.
    pub estimator: ActivationEstimator,
}

/// The form in which activations are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActivationKind {
    /// Integers with a scale and a zero point.
    #[default]
    Affine,
    /// Float: only weights are stored in fewer bits.
    Float,
    /// Two levels of one scale, for what layers read: minus and plus the scale, or behind a ReLU zero and twice the scale.
    Binary,
}

impl Default for ActivationSettings {
    fn default() -> Self {
        ActivationSettings { kind: ActivationKind::Affine, bits: 8, estimator: ActivationEstimator::default() }
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

    /// Two levels of one scale.
    pub fn binary(estimator: ActivationEstimator) -> Self {
        ActivationSettings { kind: ActivationKind::Binary, bits: 1, estimator }
    }

    /// The estimator of values of two levels; `None` for other ones.
    pub fn two_levels(&self) -> Option<ActivationEstimator> {
        (self.kind == ActivationKind::Binary).then_some(self.estimator)
    }

    /// How these values are named beside others: `4bit`, and `1bit` for two levels.
    pub(crate) fn label(&self) -> String {
        format!("{}bit", self.bits)
    }

    /// Checks what is written for the outputs of nodes.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.two_levels().is_some() {
            let hint = "write a rule such as { op = \"Conv\", reads = { kind = \"binary\" } }";
            return Err(Fault::new("kind", "two levels are for what layers read, not for what they make").hint(hint));
        }
        self.check_read()
    }

    /// Checks what is written for the data that nodes read.
    pub(crate) fn check_read(&self) -> Result<(), Fault> {
        self.stored().map_or(Ok(()), |bits| within("bits", f64::from(bits), 2.0, 16.0, "bits of an activation"))
    }
}

impl fmt::Display for ActivationSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ActivationKind::Affine => write!(f, "in {} bits", self.bits),
            ActivationKind::Float => f.write_str("in float"),
            ActivationKind::Binary => write!(f, "as two levels ({})", self.estimator.name()),
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

/// How activations are stored: unsigned and asymmetric, one scale a tensor; or as two levels.
#[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Table {
    /// Integers with a scale, float, or two levels ("binary", for `reads` of a rule).
    #[serde(skip_serializing_if = "is_affine")]
    kind: ActivationKind,
    /// Bits an activation, 2 to 16; 8 where it is left out. Two levels have no bits to choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    bits: Option<u32>,
    /// The gradient of the sign of two levels: "straight_through", "bi_real" or "ir_net".
    #[serde(skip_serializing_if = "Option::is_none")]
    estimator: Option<ActivationEstimator>,
}

fn is_affine(kind: &ActivationKind) -> bool {
    *kind == ActivationKind::Affine
}

impl Serialize for ActivationSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let estimator = self.two_levels();
        Table { kind: self.kind, bits: estimator.is_none().then_some(self.bits), estimator }.serialize(serializer)
    }
}

impl schemars::JsonSchema for ActivationSettings {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Written::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for ActivationSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let refused = |what: &str| serde::de::Error::custom(what);
        let written = Written::deserialize(deserializer).map_err(|_| {
            refused(
                "activations are false (they stay float), or a table { bits = 8 } or { kind = \"float\" }; for reads also \
                 { kind = \"binary\", estimator = \"straight_through\", \"bi_real\" or \"ir_net\" }",
            )
        })?;
        Ok(match written {
            Written::Flag(false) | Written::Kind(ActivationKind::Float) => ActivationSettings::float(),
            Written::Flag(true) | Written::Kind(ActivationKind::Affine) => ActivationSettings::default(),
            Written::Kind(ActivationKind::Binary) => ActivationSettings::binary(ActivationEstimator::default()),
            Written::Table(Table { kind: ActivationKind::Binary, bits, estimator }) => match bits {
                None | Some(1) => ActivationSettings::binary(estimator.unwrap_or_default()),
                Some(_) => return Err(refused("binary activations have two levels; leave bits out")),
            },
            Written::Table(Table { estimator: Some(_), .. }) => {
                return Err(refused("an estimator is for two levels; write kind = \"binary\", or leave it out"));
            }
            Written::Table(Table { kind, bits, .. }) => {
                let default = ActivationSettings::default();
                ActivationSettings { kind, bits: bits.unwrap_or(default.bits), ..default }
            }
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
        let two = read(r#"{"kind": "binary", "estimator": "ir_net"}"#).unwrap();
        assert_eq!((two.two_levels(), two.stored()), (Some(ActivationEstimator::IrNet), None));
        assert_eq!(read(&serde_json::to_string(&two).unwrap()).unwrap(), two);
        assert!(two.check().unwrap_err().to_string().contains("what layers read") && two.check_read().is_ok());
        assert!(read(r#"{"kind": "binary", "bits": 2}"#).unwrap_err().contains("leave bits out"));
        assert!(read(r#"{"bits": 2, "estimator": "ir_net"}"#).unwrap_err().contains("kind = \"binary\""));
        for wrong in ["8", r#"{"bit": 4}"#, "\"codebook\""] {
            assert!(read(wrong).unwrap_err().contains("activations are false"), "{wrong}");
        }
    }
}
