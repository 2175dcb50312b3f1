//! The summary for a terminal: plain text, columns aligned.
use crate::record::RunRecord;
use crate::table::summary;
use crate::text::{block, line};
use std::fmt::Write as _;

/// The table, then warnings, then the goals.
pub fn terminal(record: &RunRecord) -> String {
    let table = summary(record);
    let width = |s: &str| s.chars().count();
    let widths: Vec<usize> =
        (0..table.head.len()).map(|c| table.rows.iter().map(|r| width(&r[c])).chain([width(table.head[c])]).max().unwrap_or(0)).collect();
    let mut out = String::new();
    let mut row = |cells: &[&str]| {
        let padded = cells.iter().enumerate().map(|(c, text)| {
            let fill = " ".repeat(widths[c].saturating_sub(width(text)));
            if c == 0 { format!("{text}{fill}") } else { format!("{fill}{text}") }
        });
        let _ = writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    row(&table.head);
    row(&widths.iter().map(|w| "─".repeat(*w)).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
    for cells in &table.rows {
        row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    for stage in &record.stages {
        for note in stage.notes.iter().filter(|n| n.warning) {
            let _ = writeln!(out, "warning: {}: {}", line(&stage.name), line(&note.text));
        }
    }
    for goal in &record.goals {
        let _ = writeln!(out, "{} {}", if goal.met { "✓" } else { "✗" }, line(&goal.sentence));
    }
    block(&out)
}
