//! What the Hugging Face metadata of a Parquet file say about its columns.
use parquet::file::metadata::FileMetaData;
use serde_json::{Map, Value};

/// The features by column name; empty where the file has no such metadata.
#[derive(Default)]
pub(crate) struct Features(Map<String, Value>);

impl Features {
    pub(crate) fn of(metadata: &FileMetaData) -> Self {
        let text = metadata
            .key_value_metadata()
            .into_iter()
            .flatten()
            .find(|pair| pair.key == "huggingface")
            .and_then(|pair| pair.value.as_deref());
        let parsed = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
        match parsed.as_ref().and_then(|value| value.pointer("/info/features")) {
            Some(Value::Object(features)) => Features(features.clone()),
            _ => Features::default(),
        }
    }

    fn of_type<'a>(&'a self, types: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let is = move |feature: &Value| feature.get("_type").and_then(Value::as_str).is_some_and(|t| types.contains(&t));
        self.0.iter().filter(move |(_, feature)| is(feature)).map(|(name, _)| name.as_str())
    }

    /// Columns of images or sounds.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &str> {
        self.of_type(&["Image", "Audio"])
    }

    /// Columns of classes.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        self.of_type(&["ClassLabel"])
    }

    /// Names of a column's classes in order of their labels; empty where the metadata do not name them.
    pub(crate) fn class_names(&self, column: &str) -> Vec<String> {
        match self.0.get(column).and_then(|feature| feature.get("names")) {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_string).collect(),
            _ => vec![],
        }
    }
}
