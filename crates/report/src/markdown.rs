//! The summary as Markdown, for a README or a merge request.
use crate::record::RunRecord;
use crate::table::{changes, remarks, summary};
use crate::text;
use std::fmt::Write as _;

/// Escaped text: no cell, element, link, emphasis or code begins in it.
fn escape(s: &str) -> String {
    let line = text::line(&s.replace(['\n', '\r'], " "));
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '<' => out += "&lt;",
            '&' => out += "&amp;",
            '\\' | '|' | '[' | ']' | '*' | '`' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// Text inside backticks, which has no escapes.
fn code(s: &str) -> String {
    text::line(s).replace('`', "'")
}

/// The summary: a heading, the table, the file beside the original, warnings, the goals and the command.
pub fn markdown(record: &RunRecord) -> String {
    let table = summary(record);
    let mut out = format!("### {}\n\n", escape(&record.name));
    let row = |cells: &[String]| format!("| {} |", cells.iter().map(|c| escape(c)).collect::<Vec<_>>().join(" | "));
    let _ = writeln!(out, "{}", row(&table.head));
    let _ = writeln!(out, "|---|{}", "---:|".repeat(table.head.len().saturating_sub(1)));
    for cells in &table.rows {
        let _ = writeln!(out, "{}", row(cells));
    }
    out.push('\n');
    for remark in remarks(record) {
        let _ = writeln!(out, "*{}*\n", escape(&remark));
    }
    if let Some((what, changes)) = changes(record) {
        let _ = writeln!(out, "| {} | before | after | change |\n|---|---:|---:|---:|", escape(&what));
        for c in &changes {
            let _ = writeln!(out, "{}", row(&[c.what.clone(), c.before.clone(), c.after.clone(), c.ratio.clone()]));
        }
        out.push('\n');
    }
    for (stage, text) in record.warnings() {
        let _ = writeln!(out, "- **warning:** {}: {}", escape(stage), escape(text));
    }
    for goal in &record.goals {
        let _ = writeln!(out, "- {} {}", if goal.met { "met:" } else { "**missed:**" }, escape(&goal.sentence));
    }
    let e = &record.environment;
    let _ = writeln!(
        out,
        "\n`{}` on {}, {} threads, Espalier {}.",
        code(&text::command_line(&record.command)),
        escape(&e.cpu),
        e.threads,
        escape(&e.espalier)
    );
    out
}
