//! The summary for a terminal: plain text, columns aligned.
use crate::record::RunRecord;
use crate::table::{changes, remarks, summary};
use crate::text::{block, line};
use std::fmt::Write as _;

/// The table, then the file beside the original, then warnings, then the goals.
pub fn terminal(record: &RunRecord) -> String {
    terminal_after(record, &|_, _| false)
}

/// [`terminal`] without the warnings (stage, text) that were shown before.
pub fn terminal_after(record: &RunRecord, seen: &dyn Fn(&str, &str) -> bool) -> String {
    let table = summary(record);
    let mut out = columns(&table.head, &table.rows);
    for remark in remarks(record) {
        let _ = writeln!(out, "{remark}");
    }
    if let Some((what, changes)) = changes(record) {
        let _ = writeln!(out, "\n{}:", line(&what));
        for c in &changes {
            let ratio = if c.ratio.is_empty() { String::new() } else { format!(" ({})", c.ratio) };
            let _ = writeln!(out, "  {:11}  {} → {}{ratio}", c.what, c.before, c.after);
        }
        out.push('\n');
    }
    for (stage, text) in record.warnings().filter(|(stage, text)| !seen(stage, text)) {
        let _ = writeln!(out, "warning: {}: {}", line(stage), line(text));
    }
    for goal in &record.goals {
        let _ = writeln!(out, "{} {}", if goal.met { "✓" } else { "✗" }, line(&goal.sentence));
    }
    block(&out)
}

/// Rows below a heading with a line, columns aligned: the first to the left, the others to the right.
pub(crate) fn columns(head: &[String], rows: &[Vec<String>]) -> String {
    let width = |s: &str| s.chars().count();
    let widths: Vec<usize> =
        (0..head.len()).map(|c| rows.iter().map(|r| width(&r[c])).chain([width(&head[c])]).max().unwrap_or(0)).collect();
    let mut out = String::new();
    let mut row = |cells: &[&str]| {
        let padded = cells.iter().enumerate().map(|(c, text)| {
            let fill = " ".repeat(widths[c].saturating_sub(width(text)));
            if c == 0 { format!("{text}{fill}") } else { format!("{fill}{text}") }
        });
        let _ = writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    row(&head.iter().map(String::as_str).collect::<Vec<_>>());
    row(&widths.iter().map(|w| "─".repeat(*w)).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
    for cells in rows {
        row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    out
}
