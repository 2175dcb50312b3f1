//! Data shared by all views: the summary table with its notes, and the comparison of the deployed file with the model that the
//! run began with.
use crate::record::{Latency, RunRecord, StageRecord, Status};
use crate::text;

/// Rows of text under headings; the first column is names, the others are numbers.
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

pub(crate) const NOTHING: &str = "–";

/// A sparsity that quantization alone does not reach.
const PRUNED: f64 = 0.05;

/// Stage by stage: the measurements of each. Columns without a value in any stage are left out.
pub(crate) fn summary(record: &RunRecord) -> Table {
    type Column<'a> = (&'a str, Box<dyn Fn(&StageRecord) -> Option<String> + 'a>);
    let metrics = &record.task.metrics;
    let scored = |s: &StageRecord| metrics.iter().any(|m| s.shown(m).is_some());
    let mut columns: Vec<Column> = vec![("stage", Box::new(|s| Some(text::line(&s.name))))];
    for metric in metrics {
        columns.push((&metric.label, Box::new(|s| s.written(metric))));
    }
    let others: [Column; 8] = [
        ("SQNR", Box::new(|s| s.shown_sqnr().filter(|_| !scored(s)).map(|d| format!("{d:.1} dB")))),
        ("size", Box::new(|s| s.metrics.file_bytes.map(text::bytes))),
        ("parameters", Box::new(|s| s.metrics.parameters.map(text::count))),
        ("non-zero", Box::new(|s| s.metrics.nonzeros.map(text::count))),
        ("sparsity", Box::new(|s| s.metrics.sparsity.map(text::percent))),
        ("MACs", Box::new(|s| s.metrics.macs.map(text::count))),
        ("latency p50", Box::new(|s| record.latency_of(s).map(|l| milliseconds(l.p50_ms)))),
        ("time", Box::new(time)),
    ];
    columns.extend(others);
    let kept: Vec<_> = columns.iter().filter(|(_, f)| record.measured().any(|s| f(s).is_some())).collect();
    let row = |s: &StageRecord| kept.iter().map(|(_, f)| f(s).unwrap_or_else(|| NOTHING.into())).collect();
    Table { head: kept.iter().map(|(h, _)| text::line(h)).collect(), rows: record.measured().map(row).collect() }
}

/// Time of a stage when it ran, also if that was in an earlier call.
fn time(stage: &StageRecord) -> Option<String> {
    let took = text::duration(stage.seconds);
    Some(if stage.status == Status::Cached { format!("{took} (earlier)") } else { took })
}

pub(crate) fn milliseconds(ms: f64) -> String {
    if ms < 0.1 { format!("{ms:.3} ms") } else { format!("{ms:.2} ms") }
}

/// Notes on the table's figures, as sentences.
pub(crate) fn remarks(record: &RunRecord) -> Vec<String> {
    let mut out = vec![];
    let metric = record.task.main();
    if let Some(stage) = record.stages.iter().rev().find(|s| s.shown(&metric).is_some())
        && stage.metrics.images.is_some_and(text::few)
        && (metric.percent || stage.metrics.intervals.contains_key(&metric.key))
    {
        let images = stage.metrics.images.unwrap_or_default();
        let all = record.measured().filter(|s| s.chosen_images().is_none()).find_map(|s| s.metrics.images);
        let told = match all.filter(|n| *n != images) {
            Some(all) => format!("{all} test samples, and {images} of them after {}", text::line(&stage.name)),
            None => format!("{images} test samples"),
        };
        out.push(format!("in brackets: the 95 % confidence interval of the {}, from {told}", text::line(&metric.label)));
    }
    if record.deployed().is_some() && record.stages.iter().any(|s| s.deploy.is_none() && s.metrics.file_bytes.is_some()) {
        out.push("sizes before deploy: of the file that the stage's graph would be deployed as".into());
    }
    if record.measured().any(|s| s.metrics.sparsity.is_some_and(|z| z > PRUNED)) {
        out.push(format!("sparsity: {}", text::SPARSITY_ALONE));
    }
    out
}

/// A figure of the original model and of the deployed file.
pub(crate) struct Change {
    pub(crate) what: String,
    pub(crate) before: String,
    pub(crate) after: String,
    /// `3.7 times smaller`; empty where it does not apply.
    pub(crate) ratio: String,
}

/// The last deployed file beside the model that the run began with, both in the same runtime. Its name and the runtime's, then
/// the figures; `None` if they were not measured beside each other.
pub(crate) fn changes(record: &RunRecord) -> Option<(String, Vec<Change>)> {
    let (stage, deploy) = record.deployed()?;
    let original = deploy.original.as_ref()?;
    let runtime = deploy.runtimes.iter().find(|r| r.latency.is_some())?;
    let first = record.measured().find(|s| s.name == original.stage);
    let mut out = vec![];
    for metric in &record.task.metrics {
        let before = record.measured().find(|s| s.shown(metric).is_some() && s.deploy.is_none());
        if let (Some(first), Some(after)) = (before, stage.shown(metric))
            && let Some(from) = first.shown_beside(metric, stage)
        {
            let own = |s: &StageRecord| s.metrics.intervals.get(&metric.key).copied();
            let written = |v, s: &StageRecord| metric.write_with(v, stage.metrics.images, own(s));
            let ratio = metric.write_change(after - from);
            out.push(Change { what: text::line(&metric.label), before: written(from, first), after: written(after, stage), ratio });
        }
    }
    let mut change = |what: &str, before: Option<f64>, after: Option<f64>, write: fn(f64) -> String, words: [&str; 2]| {
        if let (Some(before), Some(after)) = (before, after) {
            out.push(Change { what: what.to_string(), before: write(before), after: write(after), ratio: ratio(before, after, words) });
        }
    };
    let latency = |l: Option<&Latency>, f: fn(&Latency) -> f64| l.map(f);
    let (theirs, own) = (original.latency.as_ref(), runtime.latency.as_ref());
    let bytes = |n: f64| text::bytes(n as u64);
    let count = |n: f64| text::count(n as u64);
    let of = |n: Option<u64>| n.map(|n| n as f64);
    change("file size", Some(original.file_bytes as f64), of(stage.metrics.file_bytes), bytes, ["smaller", "larger"]);
    change("latency p50", latency(theirs, |l| l.p50_ms), latency(own, |l| l.p50_ms), milliseconds, ["faster", "slower"]);
    change("latency p95", latency(theirs, |l| l.p95_ms), latency(own, |l| l.p95_ms), milliseconds, ["faster", "slower"]);
    change("peak memory", of(original.peak_memory_bytes), of(runtime.peak_memory_bytes), bytes, ["less", "more"]);
    change("MACs", of(original.macs), of(stage.metrics.macs), count, ["fewer", "more"]);
    change("parameters", of(first.and_then(|s| s.metrics.parameters)), of(stage.metrics.parameters), count, ["fewer", "more"]);
    // Runs that were delayed by other work on the machine say nothing about the file.
    if theirs.into_iter().chain(own).any(delayed)
        && let Some(p95) = out.iter_mut().find(|c| c.what == "latency p95")
    {
        p95.ratio = "not compared: other work delayed runs".into();
    }
    let version = runtime.version.as_deref().unwrap_or_default();
    let threads = own.map_or(String::new(), |l| format!(", {} thread{}", l.threads, if l.threads == 1 { "" } else { "s" }));
    Some((format!("{} → {} in {} {version}{threads}, runs in turn", original.stage, stage.name, runtime.runtime), out))
}

/// True if at least one run of twenty took more than three times as long as the median.
fn delayed(l: &Latency) -> bool {
    l.p95_ms > 3.0 * l.p50_ms
}

/// `3.7 times smaller`; nothing if the two are equal.
fn ratio(before: f64, after: f64, [less, more]: [&str; 2]) -> String {
    let (larger, smaller, word) = if after <= before { (before, after, less) } else { (after, before, more) };
    if smaller <= 0.0 || larger / smaller < 1.005 {
        return "the same".to_string();
    }
    let times = larger / smaller;
    let digits = if times < 10.0 { 2 } else { usize::from(times < 99.95) };
    format!("{times:.digits$} times {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_shows_in_late_runs() {
        let of = |p50_ms, p95_ms| delayed(&Latency { p50_ms, p95_ms, runs: 100, threads: 2 });
        assert_eq!([of(0.17, 10.5), of(0.4, 0.5), of(0.4, 1.1)], [true, false, false]);
    }

    #[test]
    fn a_ratio_says_which_way() {
        let size = |a, b| ratio(a, b, ["smaller", "larger"]);
        assert_eq!(size(98.6, 26.4), "3.73 times smaller");
        assert_eq!(size(98.0, 113.0), "1.15 times larger");
        assert_eq!(size(1e6, 1e4), "100 times smaller");
        assert_eq!((size(5.0, 5.0), size(5.0, 0.0)), ("the same".to_string(), "the same".to_string()));
    }
}
