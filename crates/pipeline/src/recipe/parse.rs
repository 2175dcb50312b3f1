//! From text to [`Recipe`], with the places of keys, so that an error can point at one.
use super::check;
use super::error::RecipeError;
use super::stage::COMMON;
use super::{Recipe, Stage, Training};
use crate::stages::{StageEntry, keys_in, keys_of, kinds, take_keys};
use schemars::SchemaGenerator;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::ops::Range;
use technique::did_you_mean;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error, ValueDeserializer};

pub(super) fn parse(text: &str) -> Result<Recipe, RecipeError> {
    let root = DeTable::parse(text).map_err(|e| syntax(text, &e))?;
    let located = Located { text, root: root.get_ref() };
    let mut head = root.clone();
    let stages = head.get_mut().remove("stages");
    let mut recipe = Recipe::deserialize(Deserializer::from(head)).map_err(|e| located.error(&e, root.get_ref(), "", &[]))?;
    if let Some(list) = stages {
        recipe.stages = located.stages(&list)?;
    }
    check::check(&recipe).map_err(|fault| {
        let span = located.find(&fault.path);
        RecipeError::new(fault.what).at(text, span).hint(fault.hint)
    })?;
    Ok(recipe)
}

fn syntax(text: &str, error: &Error) -> RecipeError {
    RecipeError::new(format!("not valid TOML: {}", error.message())).at(text, error.span())
}

/// A parsed text with the places of its keys.
struct Located<'a> {
    text: &'a str,
    root: &'a DeTable<'a>,
}

impl Located<'_> {
    fn stages(&self, list: &Spanned<DeValue>) -> Result<Vec<Stage>, RecipeError> {
        let fault = |span: Range<usize>, message: &str| Err(RecipeError::new(message).at(self.text, Some(span)));
        let Some(items) = list.get_ref().as_array() else {
            return fault(list.span(), "'stages' is a list: write each stage under a heading [[stages]]");
        };
        let mut stages = vec![];
        for item in items.iter() {
            let Some(table) = item.get_ref().as_table() else {
                return fault(item.span(), "a stage is a table: write it under a heading [[stages]]");
            };
            stages.push(self.stage(item.span(), table)?);
        }
        Ok(stages)
    }

    fn stage(&self, span: Range<usize>, table: &DeTable) -> Result<Stage, RecipeError> {
        let known = || format!("the kinds are {}", Stage::kinds().collect::<Vec<_>>().join(", "));
        let Some(kind) = table.get("kind") else {
            return Err(RecipeError::new("a stage needs a kind").at(self.text, Some(heading(self.text, span))).hint(Some(known())));
        };
        let word = kind.get_ref().as_str().unwrap_or_default();
        let Some(entry) = kinds().iter().find(|entry| entry.manual.name == word) else {
            let hint = did_you_mean(word, Stage::kinds()).map_or_else(known, |k| format!("did you mean '{k}'? {}", known()));
            return Err(RecipeError::new(format!("unknown kind of stage '{word}'")).at(self.text, Some(kind.span())).hint(Some(hint)));
        };
        let mut own = table.clone();
        own.remove("kind");
        let name = own.remove("name");
        let name = name.map(|name| self.value::<String>(name, table, word)).transpose()?;
        let training = match entry.epochs {
            Some(epochs) => Some(self.training(&mut own, span.clone(), entry, epochs)?),
            None => None,
        };
        let settings = (entry.read)(Spanned::new(span, own)).map_err(|e| self.in_stage(&e, table, entry))?;
        Ok(Stage { name, training, entry, settings })
    }

    /// Takes the keys of the training loop out of a stage's table and reads them.
    fn training(&self, own: &mut DeTable, span: Range<usize>, entry: &StageEntry, epochs: u64) -> Result<Training, RecipeError> {
        let loops = take_keys::<Training>(own);
        let open = !loops.contains_key("epochs");
        let copy = loops.clone();
        let mut training =
            Training::deserialize(Deserializer::from(Spanned::new(span, loops))).map_err(|e| self.in_stage(&e, &copy, entry))?;
        if open {
            training.epochs = epochs;
        }
        Ok(training)
    }

    fn value<T: DeserializeOwned>(&self, value: Spanned<DeValue>, table: &DeTable, kind: &str) -> Result<T, RecipeError> {
        let read = ValueDeserializer::from(value);
        T::deserialize(read).map_err(|e| self.error(&e, table, &format!(" in a '{kind}' stage"), &[]))
    }

    /// An error in the settings of a stage.
    fn in_stage(&self, error: &Error, table: &DeTable, entry: &StageEntry) -> RecipeError {
        let mut known: Vec<String> = COMMON.iter().map(|(key, _)| key.to_string()).collect();
        known.extend(keys_in(&(entry.schema)(&mut SchemaGenerator::default())));
        if entry.epochs.is_some() {
            known.extend(keys_of::<Training>());
        }
        self.error(error, table, &format!(" in a '{}' stage", entry.manual.name), &known)
    }

    /// serde's error with the place of its key, and a suggestion: the known key that was probably meant, among those that serde
    /// lists and the stage's others.
    fn error(&self, error: &Error, table: &DeTable, place: &str, others: &[String]) -> RecipeError {
        let message = error.message();
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        if message.starts_with("unknown field") || message.starts_with("unknown variant") {
            let what = if message.starts_with("unknown field") { "key" } else { "value" };
            let (written, mut known) = (quoted.first().copied().unwrap_or_default(), quoted.get(1..).unwrap_or_default().to_vec());
            if what == "key" && table.iter().any(|(key, _)| key.get_ref() == written) {
                let more: Vec<&str> = others.iter().map(String::as_str).filter(|key| !known.contains(key)).collect();
                known.extend(more);
            }
            let list = format!("known: {}", known.join(", "));
            let hint = did_you_mean(written, known.iter().copied()).map_or_else(|| list.clone(), |k| format!("did you mean '{k}'?"));
            let span = if what == "key" { find_key(table, written, error.span()) } else { None };
            let message = format!("unknown {what} '{written}'{place}");
            return RecipeError::new(message).at(self.text, span.or(error.span())).hint(Some(hint));
        }
        if let (true, Some(key)) = (message.starts_with("missing field"), quoted.first()) {
            let span = error.span().map(|s| heading(self.text, s));
            return RecipeError::new(format!("the key '{key}' is missing{place}")).at(self.text, span);
        }
        // The fault of a technique's setting begins with its key: "lr = -1: ...". serde gives only the place of the table.
        let key = message.split_once(" = ").zip(error.span()).and_then(|((key, _), near)| {
            let mut found = vec![];
            collect_keys(table, key, &mut found);
            found.into_iter().filter(|place| near.start <= place.start).min_by_key(|place| place.start)
        });
        RecipeError::new(plain(message.trim())).at(self.text, key.or(error.span()))
    }

    /// The place of a value by its path; if it is not written, of the nearest table above it.
    fn find(&self, path: &[String]) -> Option<Range<usize>> {
        let (first, rest) = path.split_first()?;
        let (key, mut value) = self.root.get_key_value(first.as_str())?;
        let mut span = key.span();
        for step in rest {
            let next = match value.get_ref() {
                DeValue::Array(list) => step.parse::<usize>().ok().and_then(|i| list.get(i)).map(|v| (heading(self.text, v.span()), v)),
                DeValue::Table(table) => table.get(step.as_str()).map(|v| (v.span(), v)),
                _ => None,
            };
            let Some((place, inner)) = next else { break };
            (span, value) = (place, inner);
        }
        Some(span)
    }
}

/// serde's message in terms of recipes instead of Rust's types.
fn plain(message: &str) -> String {
    let Some((what, expected)) = message.rsplit_once(", expected ") else { return message.to_string() };
    let expected = match expected {
        "u8" => "a whole number, 0 to 255",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list: [ ... ]",
        table if table.starts_with("struct ") || table.starts_with("internally tagged enum ") || table == "a map" => "a table: { ... }",
        other => other,
    };
    format!("{what}, expected {expected}")
}

/// Place of a key of this name in a table or below it, preferably within `near`.
fn find_key(table: &DeTable, name: &str, near: Option<Range<usize>>) -> Option<Range<usize>> {
    let mut found = vec![];
    collect_keys(table, name, &mut found);
    let inside = |s: &Range<usize>| near.as_ref().is_some_and(|n| n.start <= s.start && s.end <= n.end);
    found.iter().find(|s| inside(s)).or(found.first()).cloned()
}

fn collect_keys(table: &DeTable, name: &str, found: &mut Vec<Range<usize>>) {
    for (key, value) in table.iter() {
        if key.get_ref() == name {
            found.push(key.span());
        }
        if let Some(inner) = value.get_ref().as_table() {
            collect_keys(inner, name, found);
        }
    }
}

/// The first line of a place: a table's heading rather than the whole table.
fn heading(text: &str, span: Range<usize>) -> Range<usize> {
    let end = text.get(span.clone()).and_then(|s| s.find('\n')).map_or(span.end, |n| span.start + n);
    span.start..end
}
