//! `list` and `explain`: what there is, and what it is.
use crate::{Error, Result};
use pipeline::recipe::{Stage, schema};
use serde::Serialize;
use std::fmt;

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Kinds of stages.
    Stages,
    /// Architectures of the zoo.
    Architectures,
    /// ONNX operators.
    Operators,
    /// Runtimes.
    Runtimes,
}

/// Something with a name.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// One sentence.
    pub summary: String,
}

/// All there is of a topic.
pub fn list(topic: Topic) -> Vec<Entry> {
    let entry = |name: &str, summary: &str| Entry { name: name.to_string(), summary: summary.to_string() };
    match topic {
        Topic::Stages => Stage::KINDS.iter().map(|kind| entry(kind, stage(kind).0.as_str())).collect(),
        Topic::Architectures => zoo::list().iter().map(|e| entry(e.name, e.summary)).collect(),
        Topic::Operators => ops::all().map(|o| entry(o.op_type(), o.summary())).collect(),
        Topic::Runtimes => super::runtimes().iter().map(|r| entry(r, runtime(r))).collect(),
    }
}

fn runtime(name: &str) -> &'static str {
    match name {
        "reference" => "The built-in interpreter: literal arithmetic, always there",
        "onnxruntime" => "ONNX Runtime, its library found and loaded at run time",
        "rten" => "RTen, in builds with the feature of that name",
        _ => "",
    }
}

/// A kind of stage from the recipe's schema: its sentence, and its keys with theirs.
fn stage(kind: &str) -> (String, Vec<(String, String)>) {
    let schema = schema();
    let text = |v: &serde_json::Value| v["description"].as_str().unwrap_or_default().replace('\n', " ");
    let variants = schema["$defs"]["Stage"]["oneOf"].as_array().cloned().unwrap_or_default();
    let Some(variant) = variants.into_iter().find(|v| v["properties"]["kind"]["const"] == kind) else { return Default::default() };
    let keys = variant["properties"].as_object().into_iter().flatten().filter(|(key, _)| *key != "kind").map(|(key, v)| {
        let default = v.get("default").filter(|d| !d.is_null()).map_or(String::new(), |d| format!(" (default: {d})"));
        (key.clone(), format!("{}{default}", text(v)))
    });
    (text(&variant), keys.collect())
}

/// What a stage, an architecture or an operator is.
///
/// # Errors
/// [`Error::Input`] if there is nothing of that name.
pub fn explain(name: &str) -> Result<String> {
    if Stage::KINDS.contains(&name) {
        let (summary, keys) = stage(name);
        let width = keys.iter().map(|(k, _)| k.len()).max().unwrap_or(0);
        let lines: Vec<String> = keys.iter().map(|(k, v)| format!("  {k:width$}  {v}")).collect();
        return Ok(format!("stage {name}: {summary}\n\n{}\n", lines.join("\n")));
    }
    if let Ok(e) = zoo::find(name) {
        return Ok(format!("architecture {}: {}\n\ninput {:?}, {} classes\n", e.name, e.summary, e.input, e.classes));
    }
    if let Some(op) = ops::all().find(|o| o.op_type().eq_ignore_ascii_case(name)) {
        let versions = op.versions().iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        return Ok(format!("operator {}: {}\n\nchanged in opsets {versions}\n", op.op_type(), op.summary()));
    }
    Err(Error::Input(format!("nothing is named '{name}': see espalier list stages, architectures, operators")))
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:24} {}", self.name, self.summary)
    }
}
