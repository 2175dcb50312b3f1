//! Quantities with a unit.
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A number of bytes, written as a whole number or with a unit: `"100 kB"`, `"512 MB"`, `"2 GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("kiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

impl ByteSize {
    fn read(text: &str) -> Option<ByteSize> {
        let text = text.trim();
        let split = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
        let (number, unit) = (text[..split].trim(), text[split..].trim());
        let factor = if unit.is_empty() { 1 } else { UNITS.iter().find(|(name, _)| *name == unit)?.1 };
        let bytes = number.parse::<f64>().ok()? * factor as f64;
        (0.0..9e18).contains(&bytes).then_some(ByteSize(bytes.round() as u64))
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ByteSize::read(text).ok_or_else(|| "a size such as \"512 MB\" or a whole number of bytes is needed".into())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&report::text::bytes(self.0))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a size such as \"100 kB\", \"512 MB\" or a whole number of bytes")
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<ByteSize, E> {
                u64::try_from(v).map(ByteSize).map_err(|_| E::invalid_value(de::Unexpected::Signed(v), &self))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(v))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<ByteSize, E> {
                ByteSize::read(v).ok_or_else(|| E::invalid_value(de::Unexpected::Str(v), &self))
            }
        }
        from.deserialize_any(Visitor)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Bytes: a whole number, or a number with a unit (B, kB, MB, GB, KiB, MiB, GiB).",
            "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": r"^\s*[0-9.]+\s*(B|[kKMG]B|[kKMG]iB)?\s*$" }]
        })
    }
}

/// A limit of a search over widths: `"3 bits"` (the mean over the weights), `"90 kB"` (the weights as stored), `"1.2 GBOPs"`
/// (multiply-accumulates for one sample, each times the bits of weight and activation).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Mean bits a weight.
    Bits(f64),
    /// Bytes of the weights.
    Bytes(ByteSize),
    /// Bit operations for one sample.
    BitOps(f64),
}

const BIT_OPS: [(&str, f64); 5] = [("BOPs", 1.0), ("kBOPs", 1e3), ("MBOPs", 1e6), ("GBOPs", 1e9), ("TBOPs", 1e12)];

impl Limit {
    const NEEDED: &str = "a limit such as \"3 bits\" (mean of the weights), \"90 kB\" (the weights) or \"1.2 GBOPs\"";

    fn read(text: &str) -> Option<Limit> {
        let text = text.trim();
        let split = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
        let (number, unit) = (text[..split].trim().parse::<f64>().ok()?, text[split..].trim());
        if !(number > 0.0 && number < 1e15) {
            return None;
        }
        if ["bit", "bits"].contains(&unit) {
            return Some(Limit::Bits(number));
        }
        match BIT_OPS.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => Some(Limit::BitOps(number * factor)),
            None if unit.is_empty() => None,
            None => ByteSize::read(text).map(Limit::Bytes),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Bits(bits) => write!(f, "{bits} bits"),
            Limit::Bytes(bytes) => write!(f, "{bytes}"),
            Limit::BitOps(n) => {
                let (unit, factor) = BIT_OPS.iter().rev().find(|(_, factor)| n >= factor).unwrap_or(&BIT_OPS[0]);
                write!(f, "{} {unit}", n / factor)
            }
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            // The size as a text may be rounded.
            Limit::Bytes(bytes) => to.collect_str(&format_args!("{} B", bytes.0)),
            other => to.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Limit::read(&text).ok_or_else(|| de::Error::custom(format!("'{text}' is no limit: {} is needed", Limit::NEEDED)))
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Mean bits of the weights (\"3 bits\"), bytes of the weights (\"90 kB\"), or bit operations for one sample (\"1.2 GBOPs\").",
            "type": "string",
            "pattern": r"^\s*[0-9.]+\s*(bits?|[kKMG]?B|[kKMG]iB|[kMGT]?BOPs)\s*$"
        })
    }
}

/// One limit, or two that both hold.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Budget {
    /// One limit.
    One(Limit),
    /// Two limits.
    Two([Limit; 2]),
}

impl Budget {
    /// The limits.
    pub fn limits(&self) -> &[Limit] {
        match self {
            Budget::One(limit) => std::slice::from_ref(limit),
            Budget::Two(limits) => limits,
        }
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Budget;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "{}, or a list of two of them", Limit::NEEDED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Budget, E> {
                Limit::deserialize(de::value::StrDeserializer::new(text)).map(Budget::One)
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Budget, A::Error> {
                let mut limits = vec![];
                while let Some(limit) = list.next_element::<Limit>()? {
                    limits.push(limit);
                }
                match limits.as_slice() {
                    [one] => Ok(Budget::One(*one)),
                    [one, other] => Ok(Budget::Two([*one, *other])),
                    other => Err(de::Error::invalid_length(other.len(), &self)),
                }
            }
        }
        from.deserialize_any(Visitor)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.limits().iter().map(|l| l.to_string()).collect();
        f.write_str(&all.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, ByteSize, Limit};

    #[test]
    fn sizes_with_units() {
        for (text, bytes) in [("100 kB", Some(100_000)), ("1.5MB", Some(1_500_000)), ("2 GiB", Some(2 << 30)), ("12", Some(12))] {
            assert_eq!(ByteSize::read(text).map(|b| b.0), bytes, "{text}");
        }
        for text in ["", "kB", "-1 kB", "3 apples", "1e400 B"] {
            assert_eq!(ByteSize::read(text), None, "{text}");
        }
    }

    #[test]
    fn limits_with_units() {
        for (text, limit) in [
            ("3 bits", Some(Limit::Bits(3.0))),
            (" 2.5bit ", Some(Limit::Bits(2.5))),
            ("90 kB", Some(Limit::Bytes(ByteSize(90_000)))),
            ("1.2 GBOPs", Some(Limit::BitOps(1.2e9))),
            ("5 BOPs", Some(Limit::BitOps(5.0))),
            ("3", None),
            ("0 bits", None),
            ("-1 kB", None),
            ("3 apples", None),
            ("NaN bits", None),
        ] {
            assert_eq!(Limit::read(text), limit, "{text}");
            if let Some(limit) = limit {
                let written = serde_json::to_string(&limit).unwrap();
                assert_eq!(serde_json::from_str::<Limit>(&written).unwrap(), limit, "{written}");
            }
        }
        let read = |text: &str| serde_json::from_str::<Budget>(text).map_err(|e| e.to_string());
        assert_eq!(read("\"3 bits\"").unwrap().to_string(), "3 bits");
        let both = read("[\"3 bits\", \"1.2 GBOPs\"]").unwrap();
        assert_eq!((both.to_string(), both.limits().len()), ("3 bits and 1.2 GBOPs".to_string(), 2));
        assert_eq!(read(&serde_json::to_string(&both).unwrap()).unwrap(), both);
        assert!(read("\"3 bytes\"").unwrap_err().contains("'3 bytes' is no limit: a limit such as \"3 bits\""));
        assert!(read("3").unwrap_err().contains("a limit such as \"3 bits\""));
        assert!(read("[]").unwrap_err().contains("a list of two"));
    }
}
