//! The summary table, which every view shows in its own way.
use crate::record::{RunRecord, StageRecord, Status};
use crate::text;

/// Rows of text under headings; the first column is names, the others are numbers.
pub(crate) struct Table {
    pub(crate) head: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

const NOTHING: &str = "–";

/// Stage by stage: what each left behind. Columns that no stage has a figure for are left out.
pub(crate) fn summary(record: &RunRecord) -> Table {
    let columns: [(&'static str, fn(&StageRecord) -> Option<String>); 9] = [
        ("stage", |s| Some(text::line(&s.name))),
        ("accuracy", |s| s.shown_accuracy().map(text::percent)),
        ("size", |s| s.metrics.file_bytes.map(text::bytes)),
        ("parameters", |s| s.metrics.parameters.map(text::count)),
        ("non-zero", |s| s.metrics.nonzeros.map(text::count)),
        ("sparsity", |s| s.metrics.sparsity.map(text::percent)),
        ("MACs", |s| s.metrics.macs.map(text::count)),
        ("latency p50", |s| {
            let latency = s.deploy.as_ref()?.runtimes.iter().find_map(|r| r.latency.as_ref())?;
            Some(format!("{:.2} ms", latency.p50_ms))
        }),
        ("time", |s| Some(if s.status == Status::Cached { "cached".into() } else { text::duration(s.seconds) })),
    ];
    let kept = columns.iter().filter(|(_, f)| record.measured().any(|s| f(s).is_some()));
    let kept: Vec<_> = kept.collect();
    let row = |s: &StageRecord| kept.iter().map(|(_, f)| f(s).unwrap_or_else(|| NOTHING.into())).collect();
    Table { head: kept.iter().map(|(h, _)| *h).collect(), rows: record.measured().map(row).collect() }
}
