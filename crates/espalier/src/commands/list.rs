//! `list` and `explain`.
use super::sections;
use crate::{Error, Result};
use pipeline::recipe::{did_you_mean, families, schema};
use pipeline::stages::kinds;
use serde::Serialize;
use std::fmt;

/// The lists of `espalier list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Kinds of stages.
    Stages,
    /// Techniques that a recipe chooses from: observers, criteria, scopes, optimizers, schedules.
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

/// An entry of a list.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its name in a recipe or a command.
    pub name: String,
    /// One sentence.
    pub summary: String,
}

/// All entries of a topic.
pub fn list(topic: Topic) -> Vec<Entry> {
    let entry = |name: &str, summary: &str| Entry { name: name.to_string(), summary: summary.to_string() };
    match topic {
        Topic::Stages => kinds().iter().map(|kind| entry(kind.manual.name, kind.manual.summary)).collect(),
        Topic::Techniques => techniques().into_iter().map(|(name, summary)| Entry { name, summary }).collect(),
        Topic::Architectures => zoo::list().iter().map(|e| entry(e.name, e.summary)).collect(),
        Topic::Operators => ops::all().map(|o| entry(&operator_name(o), o.summary())).collect(),
        Topic::Runtimes => deploy::runtime::all().iter().map(|r| entry(r.name, r.summary)).collect(),
        Topic::Devices => super::device::devices(),
    }
}

/// An operator's name, with its domain where that is not ONNX's own.
fn operator_name(op: &dyn ops::Operator) -> String {
    if op.domain().is_empty() { op.op_type().to_string() } else { format!("{}.{}", op.domain(), op.op_type()) }
}

/// The choices that a recipe offers, each as `KEY = "value"` with its sentence. They are read from the schema, so that none is
/// missed.
fn techniques() -> Vec<(String, String)> {
    const KEYS: &[(&str, &str)] = &[("BatchNorm", "batch_norm"), ("Keep", "keep")];
    let schema = schema();
    let mut list = vec![];
    for (ty, key) in KEYS {
        for choice in schema["$defs"][ty]["oneOf"].as_array().into_iter().flatten() {
            let summary = choice["description"].as_str().unwrap_or_default().replace('\n', " ");
            list.extend(choice["const"].as_str().map(|v| (format!("{key} = \"{v}\""), summary)));
        }
    }
    for family in families() {
        list.extend(family.members.iter().map(|m| (format!("{} = \"{}\"", family.name, m.manual.name), m.manual.summary.to_string())));
    }
    list.extend(ALWAYS.iter().map(|(name, summary)| (name.to_string(), summary.to_string())));
    list
}

/// Techniques without a choice in a recipe.
const ALWAYS: [(&str, &str); 2] = [
    (
        "straight-through",
        "The gradient of a quantizer: that of the identity within its range, zero beyond (Bengio et al. 2013, arXiv:1308.3432); \
         learn_scales trains its scale too (explain lsq, lsq_plus, pact, dorefa).",
    ),
    (
        "label-smoothing",
        "Spreads label_smoothing of the target evenly over all classes (Szegedy et al. 2016, arXiv:1512.00567, section 7).",
    ),
];

/// The keys of a kind of stage from the recipe's schema, with their sentences.
fn keys(kind: &str) -> Vec<(String, String)> {
    let schema = schema();
    let variants = schema["$defs"]["Stage"]["oneOf"].as_array().cloned().unwrap_or_default();
    let Some(variant) = variants.into_iter().find(|v| v["properties"]["kind"]["const"] == kind) else { return vec![] };
    let keys = variant["properties"].as_object().into_iter().flatten().filter(|(key, _)| *key != "kind").map(|(key, v)| {
        let default = v.get("default").filter(|d| !d.is_null()).map_or(String::new(), |d| format!(" (default: {d})"));
        (key.clone(), format!("{}{default}", v["description"].as_str().unwrap_or_default().replace('\n', " ")))
    });
    keys.collect()
}

/// A family by its name, and a member by its own: their manual pages.
fn family_page(name: &str) -> Option<String> {
    let families = families();
    let pages = families.iter().flat_map(|f| f.members.iter().filter(|m| m.manual.name == name).map(|m| m.text(f.name)));
    let pages: Vec<String> = pages.collect();
    if !pages.is_empty() {
        return Some(pages.join("\n"));
    }
    let family = families.iter().find(|f| f.name == name)?;
    let width = family.members.iter().map(|m| m.manual.name.len()).max().unwrap_or(0);
    let lines = family.members.iter().map(|m| format!("  {:width$}  {}\n", m.manual.name, m.manual.summary)).collect::<String>();
    let default = family.default.map_or(String::new(), |d| format!(" Default: {d}."));
    Some(format!("{}: {}{default}\n\n{lines}", family.name, family.summary))
}

/// Every name that [`explain`] knows.
pub fn explainable() -> Vec<String> {
    const TOPICS: [Topic; 6] = [Topic::Stages, Topic::Techniques, Topic::Architectures, Topic::Runtimes, Topic::Operators, Topic::Devices];
    let listed = TOPICS.into_iter().flat_map(list).map(|e| e.name.split('"').nth(1).unwrap_or(&e.name).to_string());
    let families = families().into_iter().map(|f| f.name.to_string());
    let mut names: Vec<String> = sections::names().map(str::to_string).chain(families).chain(listed).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// The explanation of a section of recipes, a stage, a technique, an architecture, an operator, a runtime or a device.
///
/// # Errors
/// [`Error::Input`] if there is nothing of that name.
pub fn explain(name: &str) -> Result<String> {
    if let Some(kind) = kinds().iter().find(|kind| kind.manual.name == name) {
        let (keys, manual) = (keys(name), &kind.manual);
        let width = keys.iter().map(|(k, _)| k.len()).max().unwrap_or(0);
        let lines: Vec<String> = keys.iter().map(|(k, v)| format!("  {k:width$}  {v}")).collect();
        let details = if manual.details.is_empty() { String::new() } else { format!("\n\n{}", manual.details) };
        let source = if manual.source.is_empty() { String::new() } else { format!("\n\nSource: {}", manual.source) };
        let example = format!("[[stages]]\nkind = \"{name}\"\n{}", manual.example);
        return Ok(format!("stage {name}: {}{details}\n\n{}{source}\n\nIn a recipe:\n\n{example}", manual.summary, lines.join("\n")));
    }
    if let Some(text) = sections::explain(name) {
        return Ok(text);
    }
    if let Some(page) = family_page(name) {
        return Ok(page);
    }
    let technique = |key: &str| key.split('"').nth(1).unwrap_or(key).eq_ignore_ascii_case(name);
    let found: Vec<String> =
        techniques().into_iter().filter(|(key, _)| technique(key)).map(|(key, summary)| format!("{key}: {summary}\n")).collect();
    if !found.is_empty() {
        return Ok(found.concat());
    }
    if let Some(runtime) = deploy::runtime::all().iter().find(|r| r.name == name) {
        return Ok(format!("runtime {name}: {}\n", runtime.summary));
    }
    if let Some(e) = super::device::devices().into_iter().find(|e| e.name == name) {
        return Ok(format!("device {}: {}\n", e.name, e.summary));
    }
    if let Ok(e) = zoo::find(name) {
        return Ok(format!("architecture {}: {}\n\ninput {:?}, {} classes\n", e.name, e.summary, e.input, e.classes));
    }
    if let Some(op) = ops::all().find(|o| operator_name(*o).eq_ignore_ascii_case(name)) {
        let versions = op.versions().iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        return Ok(format!("operator {}: {}\n\nchanged in opsets {versions}\n", operator_name(op), op.summary()));
    }
    let known = explainable();
    let meant = did_you_mean(name, known.iter().map(String::as_str)).map_or(String::new(), |k| format!("; did you mean '{k}'?"));
    let sections = sections::names().collect::<Vec<_>>().join(", ");
    let topics = "espalier list stages, techniques, architectures, operators, runtimes, devices";
    Err(Error::Input(format!("nothing is named '{name}'{meant} (sections of recipes are {sections}; or see {topics})")))
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
    fn a_stages_example_is_a_recipe() {
        let train = "name = \"x\"\n[data]\ntrain = \"d\"\n[model]\narch = \"mlp\"\n[[stages]]\nkind = \"train\"\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        for kind in kinds().iter().map(|kind| kind.manual.name) {
            let text = explain(kind).unwrap();
            let (_, example) = text.split_once("In a recipe:\n\n").unwrap();
            assert!(example.lines().count() > 2, "{kind}");
            let recipe = format!("{train}{}", example.replace("kind = \"train\"", "kind = \"train\"\nname = \"again\""));
            std::fs::write(&path, recipe).unwrap();
            pipeline::recipe::load(&path, &[]).unwrap();
        }
    }

    #[test]
    fn techniques_are_named_by_their_key() {
        let names: Vec<String> = list(Topic::Techniques).into_iter().map(|e| e.name).collect();
        for name in [r#"observer = "percentile""#, r#"criterion = "taylor""#, r#"optimizer = "adamw""#, r#"schedule = "cosine""#] {
            assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
        }
    }
}
