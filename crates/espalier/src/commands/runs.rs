//! `runs`: listing runs, and comparing two.
use crate::{Error, Result};
use report::record::{MetricRecord, RunRecord, StageRecord};
use report::text;
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// Summary of a run.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    /// Path of the run's folder.
    pub folder: String,
    /// The recipe's name.
    pub name: String,
    /// Start, in seconds since 1970 (UTC).
    pub started_unix: u64,
    /// The stages, in order.
    pub stages: Vec<String>,
    /// The task's main metric.
    pub metric: MetricRecord,
    /// Its value for the original model, or after the first measured stage; absent if it was measured on other samples than the
    /// last.
    pub first: Option<f64>,
    /// Its value at the end.
    pub last: Option<f64>,
    /// `first`, if the metric is accuracy.
    pub first_accuracy: Option<f64>,
    /// `last`, if the metric is accuracy.
    pub last_accuracy: Option<f64>,
    /// Size of the result in bytes.
    pub file_bytes: Option<u64>,
    /// Goals that were missed.
    pub missed: usize,
}

/// The runs below a folder, the latest first. Folders that are no run, or cannot be read, are skipped.
///
/// # Errors
/// If the folder cannot be read, or holds no run.
pub fn list_runs(folder: &Path) -> Result<Vec<RunSummary>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::Input(format!("{}: {e}", folder.display())))?;
    let paths = entries.filter_map(|e| Some(e.ok()?.path())).chain([folder.to_path_buf()]);
    let mut runs: Vec<RunSummary> =
        paths.filter(|p| p.join("run.json").is_file()).filter_map(|p| Some(summary(&p, &RunRecord::load(&p).ok()?))).collect();
    if runs.is_empty() {
        return Err(Error::Input(format!("{} holds no runs: espalier run creates a folder for each run there", folder.display())));
    }
    runs.sort_by(|a, b| b.started_unix.cmp(&a.started_unix).then_with(|| a.folder.cmp(&b.folder)));
    Ok(runs)
}

fn summary(path: &Path, record: &RunRecord) -> RunSummary {
    let metric = record.task.main();
    let scored: Vec<&StageRecord> = record.measured().filter(|s| s.shown(&metric).is_some()).collect();
    let first = scored.first().zip(scored.last()).and_then(|(first, last)| first.shown_beside(&metric, last));
    let last = scored.last().and_then(|s| s.shown(&metric));
    let accuracy = |v: Option<f64>| v.filter(|_| metric == MetricRecord::accuracy());
    RunSummary {
        folder: path.display().to_string(),
        name: record.name.clone(),
        started_unix: record.started_unix,
        stages: record.stages.iter().map(|s| s.name.clone()).collect(),
        first_accuracy: accuracy(first),
        last_accuracy: accuracy(last),
        first,
        last,
        metric,
        file_bytes: record.stages.last().and_then(|s| s.metrics.file_bytes),
        missed: record.goals.iter().filter(|g| !g.met).count(),
    }
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (metric, name) = (&self.metric, if self.metric.percent { "" } else { self.metric.label.as_str() });
        let name = if name.is_empty() { String::new() } else { format!("{name} ") };
        let figure = match (self.first, self.last) {
            (Some(a), Some(b)) => format!("{name}{} -> {}", metric.write(a), metric.write(b)),
            (None, Some(b)) => format!("{name}{}", metric.write(b)),
            _ => format!("no {}", metric.label),
        };
        let size = self.file_bytes.map_or(String::new(), |b| format!(", {}", text::bytes(b)));
        let missed = if self.missed > 0 { format!(", {} goals missed", self.missed) } else { String::new() };
        write!(f, "{}  {}: {figure}{size}{missed}  ({})", date(self.started_unix), self.folder, self.stages.join(", "))
    }
}

/// `2026-11-27 09:30` (UTC), after Howard Hinnant's civil_from_days.
fn date(unix: u64) -> String {
    let (days, seconds) = ((unix / 86_400) as i64, unix % 86_400);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", seconds / 3_600, seconds / 60 % 60)
}

/// The differences between two runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Difference {
    /// Settings by key, with both values; absent where a run has no such setting.
    pub settings: Vec<(String, Option<String>, Option<String>)>,
    /// Figures by stage and name, with both values.
    pub figures: Vec<(String, Option<String>, Option<String>)>,
}

/// Compares two runs: every setting of their recipes, defaults included, and all measurements.
///
/// # Errors
/// If a record cannot be read.
pub fn diff_runs(a: &Path, b: &Path) -> Result<Difference> {
    let (a, b) = (RunRecord::load(a)?, RunRecord::load(b)?);
    let settings = |r: &RunRecord| {
        let mut out = vec![];
        flatten(&mut out, "", &r.recipe.settings);
        out
    };
    let environment = |r: &RunRecord| {
        let e = &r.environment;
        vec![
            ("espalier".to_string(), e.espalier.clone()),
            ("processor".to_string(), e.cpu.clone()),
            ("threads".to_string(), e.threads.to_string()),
        ]
    };
    let mut keys = joined(settings(&a), settings(&b));
    keys.extend(joined(environment(&a), environment(&b)));
    let settings = keys.into_iter().filter(|(_, a, b)| a != b).collect();
    Ok(Difference { settings: stages_of_one(settings), figures: joined(figures(&a), figures(&b)) })
}

/// A stage that only one run has is one line, not one for each of its settings.
fn stages_of_one(settings: Vec<(String, Option<String>, Option<String>)>) -> Vec<(String, Option<String>, Option<String>)> {
    let stage = |key: &str| key.strip_prefix("stages.").and_then(|rest| rest.split('.').next()).map(|name| format!("stages.{name}"));
    let kind = |name: &str| settings.iter().find(|(key, ..)| *key == format!("{name}.kind")).cloned();
    let mut out: Vec<(String, Option<String>, Option<String>)> = vec![];
    for (key, a, b) in &settings {
        match stage(key).and_then(|name| Some((kind(&name)?, name))) {
            // The kind differs only if one run has no stage of that name, or another kind of stage under it.
            Some(((_, first, second), name)) if first.is_none() || second.is_none() => {
                if out.last().is_none_or(|(last, ..)| *last != name) {
                    out.push((name, first, second));
                }
            }
            _ => out.push((key.clone(), a.clone(), b.clone())),
        }
    }
    out
}

/// `stages.prune.sparsity = 0.5`, stages by name.
fn flatten(out: &mut Vec<(String, String)>, path: &str, value: &serde_json::Value) {
    let below = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(key, v)| flatten(out, &below(key), v)),
        serde_json::Value::Array(list) if list.iter().any(serde_json::Value::is_object) => {
            for (i, v) in list.iter().enumerate() {
                let name = v["name"].as_str().or(v["kind"].as_str()).map_or(i.to_string(), str::to_string);
                flatten(out, &below(&name), v);
            }
        }
        other => out.push((path.to_string(), other.to_string())),
    }
}

fn figures(record: &RunRecord) -> Vec<(String, String)> {
    let mut out = vec![];
    for stage in record.measured() {
        let mut add = |what: &str, value: Option<String>| out.extend(value.map(|v| (format!("{} {what}", stage.name), v)));
        let chosen = stage.chosen_images().map_or(String::new(), |n| format!(" on {n} samples"));
        for metric in &record.task.metrics {
            add(&format!("{}{chosen}", metric.label), stage.shown(metric).map(|v| metric.write(v)));
        }
        add("size", stage.metrics.file_bytes.map(text::bytes));
        add("MACs", stage.metrics.macs.map(text::count));
        add("nonzero", stage.metrics.nonzeros.map(text::count));
        let latency = stage.deploy.as_ref().and_then(|d| d.runtimes.iter().find_map(|r| r.latency.as_ref()));
        add("latency", latency.map(|l| format!("{:.3} ms", l.p50_ms)));
        add("time", Some(text::duration(stage.seconds)));
    }
    for goal in &record.goals {
        out.push((format!("goal {}", goal.goal), if goal.met { "met" } else { "missed" }.to_string()));
    }
    out
}

/// Every key of either run, in the order of the first, then of the second.
fn joined(a: Vec<(String, String)>, b: Vec<(String, String)>) -> Vec<(String, Option<String>, Option<String>)> {
    let find = |list: &[(String, String)], key: &str| list.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let only = b.iter().filter(|(key, _)| find(&a, key).is_none()).map(|(key, v)| (key.clone(), None, Some(v.clone())));
    a.iter().map(|(key, v)| (key.clone(), Some(v.clone()), find(&b, key))).chain(only).collect()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.settings.is_empty() {
            writeln!(f, "the settings are the same")?;
        }
        let width = self.settings.iter().chain(&self.figures).map(|(key, ..)| key.chars().count()).max().unwrap_or(0);
        let none = "-".to_string();
        for (title, list) in [("settings that differ:", &self.settings), ("measured:", &self.figures)] {
            if !list.is_empty() {
                writeln!(f, "{title}")?;
            }
            for (key, a, b) in list {
                let (a, b) = (a.as_ref().unwrap_or(&none), b.as_ref().unwrap_or(&none));
                let same = if a == b { "  =" } else { "" };
                writeln!(f, "  {key:width$}  {a}  ->  {b}{same}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_827_696), "2000-02-29 12:34");
        assert_eq!(date(1_795_770_000), "2026-11-27 09:00");
    }

    #[test]
    fn a_stage_of_one_run_is_one_line() {
        let line = |key: &str, a: Option<&str>, b: Option<&str>| (key.to_string(), a.map(str::to_string), b.map(str::to_string));
        let told = stages_of_one(vec![
            line("seed", Some("1"), Some("2")),
            line("stages.prune.kind", Some("prune"), None),
            line("stages.prune.sparsity", Some("0.5"), None),
            line("stages.deploy.threads", Some("1"), Some("2")),
        ]);
        let expected = [
            line("seed", Some("1"), Some("2")),
            line("stages.prune", Some("prune"), None),
            line("stages.deploy.threads", Some("1"), Some("2")),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn settings_are_told_by_key_with_stages_by_name() {
        let value = serde_json::json!({ "seed": 1, "stages": [{ "kind": "prune", "sparsity": 0.5, "skip": [] }] });
        let mut out = vec![];
        flatten(&mut out, "", &value);
        let keys: Vec<(&str, &str)> = out.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            keys,
            [("seed", "1"), ("stages.prune.kind", "\"prune\""), ("stages.prune.sparsity", "0.5"), ("stages.prune.skip", "[]")]
        );
        let other = vec![("seed".to_string(), "2".to_string()), ("threads".to_string(), "4".to_string())];
        let all = joined(vec![("seed".to_string(), "1".to_string())], other);
        assert_eq!(all[0], ("seed".to_string(), Some("1".to_string()), Some("2".to_string())));
        assert_eq!(all[1], ("threads".to_string(), None, Some("4".to_string())));
    }
}
