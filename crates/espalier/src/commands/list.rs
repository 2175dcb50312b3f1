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
    /// What a stage can be told to do it by: observers, criteria, scopes, optimizers, schedules.
    Techniques,
    /// Architectures of the zoo.
    Architectures,
    /// ONNX operators.
    Operators,
    /// Runtimes.
    Runtimes,
    /// Devices that can compute on this machine.
    Devices,
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
        Topic::Techniques => techniques().into_iter().map(|(name, summary)| Entry { name, summary }).collect(),
        Topic::Architectures => zoo::list().iter().map(|e| entry(e.name, e.summary)).collect(),
        Topic::Operators => ops::all().map(|o| entry(o.op_type(), o.summary())).collect(),
        Topic::Runtimes => super::runtimes().iter().map(|r| entry(r, runtime(r))).collect(),
        Topic::Devices => super::device::devices(),
    }
}

/// The choices that a recipe offers, each as `KEY = "value"` with its sentence, read from the schema so that none is missed.
fn techniques() -> Vec<(String, String)> {
    const KEYS: [(&str, &str); 8] = [
        ("Observer", "calibration.observer"),
        ("BatchNorm", "batch_norm"),
        ("PruneMethod", "method"),
        ("PruneScope", "scope"),
        ("OptimizerSettings", "optimizer.kind"),
        ("Schedule", "schedule.kind"),
        ("Keep", "keep"),
        ("Target", "target"),
    ];
    let schema = schema();
    let mut list = vec![];
    for (ty, key) in KEYS {
        for choice in schema["$defs"][ty]["oneOf"].as_array().into_iter().flatten() {
            let value = choice["const"].as_str().or(choice["properties"]["kind"]["const"].as_str());
            let summary = choice["description"].as_str().unwrap_or_default().replace('\n', " ");
            list.extend(value.map(|v| (format!("{key} = \"{v}\""), summary)));
        }
    }
    list
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

/// What a stage, a technique, an architecture, an operator, a runtime or a device is.
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
    let technique = |quoted: &str| quoted.split('"').nth(1).is_some_and(|v| v.eq_ignore_ascii_case(name));
    let found: Vec<String> =
        techniques().into_iter().filter(|(key, _)| technique(key)).map(|(key, summary)| format!("{key}: {summary}\n")).collect();
    if !found.is_empty() {
        return Ok(found.concat());
    }
    if super::runtimes().contains(&name) {
        return Ok(format!("runtime {name}: {}\n", runtime(name)));
    }
    if let Some(e) = super::device::devices().into_iter().find(|e| e.name == name) {
        return Ok(format!("device {}: {}\n", e.name, e.summary));
    }
    if let Ok(e) = zoo::find(name) {
        return Ok(format!("architecture {}: {}\n\ninput {:?}, {} classes\n", e.name, e.summary, e.input, e.classes));
    }
    if let Some(op) = ops::all().find(|o| o.op_type().eq_ignore_ascii_case(name)) {
        let versions = op.versions().iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        return Ok(format!("operator {}: {}\n\nchanged in opsets {versions}\n", op.op_type(), op.summary()));
    }
    Err(Error::Input(format!(
        "nothing is named '{name}': see espalier list stages, techniques, architectures, operators, runtimes, devices"
    )))
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:36} {}", self.name, self.summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_lists_something_with_a_sentence_that_can_be_explained() {
        for topic in [Topic::Stages, Topic::Techniques, Topic::Architectures, Topic::Operators, Topic::Runtimes, Topic::Devices] {
            let list = list(topic);
            assert!(!list.is_empty() && list.iter().all(|e| !e.summary.is_empty()), "{topic:?}: {list:?}");
            for entry in list {
                let name = entry.name.split('"').nth(1).unwrap_or(&entry.name).to_string();
                assert!(explain(&name).is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn techniques_are_named_by_their_key() {
        let names: Vec<String> = list(Topic::Techniques).into_iter().map(|e| e.name).collect();
        for name in [
            r#"calibration.observer = "percentile""#,
            r#"method = "magnitude""#,
            r#"optimizer.kind = "adamw""#,
            r#"schedule.kind = "cosine""#,
        ] {
            assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
        }
    }
}
