//! The page: one file with style and charts inside, no network access, light and dark.
use crate::chart::{Axes, Series, bar, digits, lines};
use crate::record::{Arithmetic, RunRecord, RuntimeRecord, StageRecord};
use crate::sections;
use crate::table::{NOTHING, milliseconds, remarks, summary};
use crate::text;
use std::fmt::Write as _;

const STYLE: &str = include_str!("report.css");

/// A mark in every page that [`html`] makes.
pub const PAGE_MARK: &str = " · Espalier</title>";

/// Text as HTML, safe in elements and in quoted attributes.
pub(crate) fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// The record as a self-contained page.
pub fn html(record: &RunRecord) -> String {
    page(record, "")
}

/// [`html`] of a run in progress: the page reloads itself after so many seconds.
pub fn html_live(record: &RunRecord, seconds: u32) -> String {
    page(record, &format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"))
}

fn page(record: &RunRecord, head: &str) -> String {
    let parts = [
        header(record),
        sections::warnings(record),
        goals(record),
        sections::before_and_after(record),
        stages(record),
        curves(record),
        trade(record),
        runtimes(record),
        sections::placement(record),
        floats(record),
        sections::classes(record),
        layers(record),
        crate::widths::widths(record),
        crate::sparsities::shares(record),
        crate::cuts::cuts(record),
        sections::time(record),
        notes(record),
        sections::reproduce(record),
    ];
    shell(&record.name, head, &parts.concat())
}

/// A page with style and title around its sections.
pub(crate) fn shell(name: &str, head: &str, sections: &str) -> String {
    let name = escape(name);
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         {head}<meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\"><title>{name}{PAGE_MARK}\
         <style>{STYLE}</style></head><body><main>{sections}</main></body></html>\n"
    );
    text::block(&page)
}

pub(crate) fn section(id: &str, title: &str, body: &str) -> String {
    if body.is_empty() { String::new() } else { format!("<section id=\"{id}\"><h2>{title}</h2>{body}</section>") }
}

pub(crate) fn table<S: AsRef<str>>(head: &[S], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, row: &mut dyn Iterator<Item = String>| row.map(|c| format!("<{tag}>{c}</{tag}>")).collect::<String>();
    let head = cells("th", &mut head.iter().map(|h| escape(h.as_ref())));
    let rows: String = rows.iter().map(|r| format!("<tr>{}</tr>", cells("td", &mut r.iter().cloned()))).collect();
    format!("<div class=\"scroll\"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>")
}

/// The title with the run's result.
fn header(record: &RunRecord) -> String {
    let mut tiles = String::new();
    let mut tile = |label: &str, value: String, from: Option<String>| {
        let from = from.map_or(String::new(), |f| format!("<small>from {}</small>", escape(&f)));
        let _ = write!(tiles, "<div class=\"tile\"><span>{label}</span><b>{}</b>{from}</div>", escape(&value));
    };
    let first = |f: fn(&StageRecord) -> Option<f64>| record.measured().find_map(f);
    if let Some(last) = record.deployed().map(|d| d.0).or(record.stages.last()) {
        let metric = record.task.main();
        if let Some(value) = last.shown(&metric) {
            let first = record.measured().find(|s| s.shown(&metric).is_some()).and_then(|s| s.shown_beside(&metric, last));
            tile(&escape(&metric.label), metric.write(value), first.map(|v| metric.write(v)));
        } else if let Some(sqnr) = last.shown_sqnr() {
            tile("signal to noise", format!("{sqnr:.1} dB"), None);
        }
        if let Some(bytes) = last.metrics.file_bytes {
            tile("file", text::bytes(bytes), first(|s| s.metrics.file_bytes.map(|b| b as f64)).map(|b| text::bytes(b as u64)));
        }
        if let Some(latency) = record.latency_of(last) {
            let original = last.deploy.as_ref().and_then(|d| d.original.as_ref()?.latency.as_ref());
            tile("latency p50", milliseconds(latency.p50_ms), original.map(|l| milliseconds(l.p50_ms)));
        }
        if let Some(nonzeros) = last.metrics.nonzeros {
            tile("non-zero weights", text::count(nonzeros), first(|s| s.metrics.nonzeros.map(|n| n as f64)).map(|n| text::count(n as u64)));
        }
    }
    tile("run time", text::duration(record.work_seconds()), None);
    format!(
        "<header><h1>{}</h1><p>{} UTC · Espalier {}</p><div class=\"tiles\">{tiles}</div></header>",
        escape(&record.name),
        text::date(record.started_unix),
        escape(&record.environment.espalier)
    )
}

fn goals(record: &RunRecord) -> String {
    let item = |g: &crate::record::GoalRecord| {
        let (class, mark) = if g.met { ("met", "met") } else { ("missed", "missed") };
        format!("<li class=\"{class}\"><b>{mark}</b> {}</li>", escape(&g.sentence))
    };
    let items: String = record.goals.iter().map(item).collect();
    section("goals", "Goals", &if items.is_empty() { items } else { format!("<ul class=\"goals\">{items}</ul>") })
}

fn stages(record: &RunRecord) -> String {
    let t = summary(record);
    let rows: Vec<Vec<String>> = t.rows.iter().map(|r| r.iter().map(|c| escape(c)).collect()).collect();
    let remarks: String = remarks(record).iter().map(|r| format!("<p class=\"remark\">{}</p>", escape(r))).collect();
    section("stages", "Stage by stage", &(table(&t.head, &rows) + &remarks))
}

fn curves(record: &RunRecord) -> String {
    let trained: Vec<&StageRecord> = record.stages.iter().filter(|s| !s.epochs.is_empty()).collect();
    let whole = |v: f64, _: f64| format!("{v:.0}");
    let loss: Vec<Series> = trained
        .iter()
        .map(|s| Series { name: s.name.clone(), points: s.epochs.iter().map(|e| (e.epoch as f64, e.loss)).collect() })
        .collect();
    let figures: Vec<Series> = trained
        .iter()
        .map(|s| {
            let points = s.epochs.iter().filter_map(|e| Some((e.epoch as f64, e.validation_figure().or(e.train_accuracy)?)));
            Series { name: s.name.clone(), points: points.collect() }
        })
        .filter(|s| !s.points.is_empty())
        .collect();
    let write_y = |v: f64, step: f64| match step {
        0.0 if v >= 10.0 => format!("{v:.1}"),
        0.0 => format!("{v:.3}"),
        step => format!("{v:.*}", digits(step)),
    };
    let loss_axes = Axes {
        title: "Training loss",
        x: "epoch",
        y: "loss",
        write_x: whole,
        write_y,
        least_step: 1.0,
        named: false,
        may_be_logarithmic: true,
    };
    let metric = record.task.main();
    let title = match metric.percent {
        true => format!("{}: validation, where there is none training", capital(&metric.label)),
        false => format!("{}: validation", metric.label),
    };
    let write_y = if metric.percent { share } else { plain };
    let figure_axes = Axes { title: &title, y: &metric.label, write_y, may_be_logarithmic: !metric.percent, ..loss_axes };
    let charts = lines(&loss_axes, &loss) + &lines(&figure_axes, &figures);
    section("curves", "Training", &if charts.is_empty() { charts } else { format!("<div class=\"charts\">{charts}</div>") })
}

/// A word with a capital first letter.
fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A metric at an axis.
fn plain(v: f64, step: f64) -> String {
    if step > 0.0 { format!("{v:.*}", digits(step)) } else { text::number(v) }
}

/// A share at an axis, in percent.
fn share(v: f64, step: f64) -> String {
    format!("{:.*} %", if step > 0.0 { digits(step * 100.0) } else { 2 }, v * 100.0)
}

fn trade(record: &RunRecord) -> String {
    let metric = record.task.main();
    // Metrics over part of the samples are left out of the chart of sizes.
    let points = record.measured().filter(|s| s.chosen_images().is_none()).filter_map(|s| {
        let point = (s.metrics.file_bytes? as f64, s.shown(&metric)?);
        Some(Series { name: s.name.clone(), points: vec![point] })
    });
    let series: Vec<Series> = points.collect();
    let title = format!("{} against file size", if metric.percent { capital(&metric.label) } else { metric.label.clone() });
    let axes = Axes {
        title: &title,
        x: "size",
        y: &metric.label,
        write_x: |v, _| text::bytes(v.max(0.0) as u64),
        write_y: if metric.percent { share } else { plain },
        least_step: 0.0,
        named: true,
        may_be_logarithmic: false,
    };
    // A single point shows no trade-off.
    let body = if series.len() > 1 { format!("<div class=\"charts\">{}</div>", lines(&axes, &series)) } else { String::new() };
    section("trade", "What size costs", &body)
}

fn runtimes(record: &RunRecord) -> String {
    let Some((_, deploy)) = record.deployed() else { return String::new() };
    let share = |v: Option<f64>| v.map_or(NOTHING.into(), text::percent);
    let metrics = &record.task.metrics;
    let rows: Vec<Vec<String>> = deploy
        .runtimes
        .iter()
        .map(|r| {
            let arithmetic = if r.arithmetic == Arithmetic::Literal { "literal (the proof)" } else { "default (what ships)" };
            let latency = |f: fn(&crate::record::Latency) -> f64| r.latency.as_ref().map_or(NOTHING.into(), |l| milliseconds(f(l)));
            let ships = |a: Arithmetic| a == Arithmetic::Default;
            let of = |o: &crate::record::OutputRecord| if ships(r.arithmetic) { o.sqnr_db } else { o.literal_sqnr_db };
            let sqnr = deploy.outputs.iter().filter_map(of).reduce(f64::min).filter(|_| r.runtime != "reference" || ships(r.arithmetic));
            let mut cells = vec![escape(&format!("{} {}", r.runtime, r.version.as_deref().unwrap_or_default())), arithmetic.to_string()];
            cells.extend(metrics.iter().map(|m| r.figure(&m.key).map_or(NOTHING.into(), |v| escape(&m.write(v)))));
            cells.extend([
                sqnr.map_or(NOTHING.into(), |d| format!("{d:.1} dB")),
                agreement(r, share),
                latency(|l| l.p50_ms),
                latency(|l| l.p95_ms),
                r.latency.as_ref().map_or("–".into(), |l| l.threads.to_string()),
            ]);
            cells
        })
        .collect();
    let mut head = vec!["runtime", "arithmetic"];
    head.extend(metrics.iter().map(|m| m.label.as_str()));
    head.extend(["SQNR to float", "agrees with simulation", "latency p50", "p95", "threads"]);
    let simulated = metrics.iter().filter_map(|m| {
        let value = m.write(deploy.simulation_figure(&m.key)?);
        Some(if metrics.len() > 1 { format!("{} {value}", m.label) } else { value })
    });
    let simulated = simulated.collect::<Vec<_>>().join(", ");
    let simulation = match simulated.is_empty() {
        true => String::new(),
        false => format!(" The simulation it was lowered from: {}.", escape(&simulated)),
    };
    let file = format!(
        "<p><code>{}</code>, opset {}, BLAKE3 <code>{}</code>.{simulation}</p>",
        escape(&deploy.file),
        deploy.opset,
        escape(&deploy.blake3)
    );
    section("runtimes", "The deployed file: literal against default arithmetic", &(file + &table(&head, &rows)))
}

/// Agreement of a file's results with the simulation's: the share that is equal, or the differences.
fn agreement(r: &RuntimeRecord, share: impl Fn(Option<f64>) -> String) -> String {
    match (r.differences.get("mean_difference"), r.differences.get("largest_difference")) {
        (Some(mean), Some(largest)) => {
            format!("differs by {:.2} % of the targets' standard deviation, at most {:.2} %", mean * 100.0, largest * 100.0)
        }
        _ => share(r.agreement),
    }
}

fn layers(record: &RunRecord) -> String {
    let Some(stage) = record.stages.iter().rev().find(|s| !s.layers.is_empty()) else { return String::new() };
    // 60 dB and more is a full bar.
    const FULL_DB: f64 = 60.0;
    let row = |l: &crate::record::LayerRecord| {
        let error = l.sqnr_db.map_or("–".into(), |d| format!("{}{d:.1} dB", bar(d / FULL_DB, "error")));
        vec![
            format!("<code>{}</code>", escape(&l.name)),
            text::count(l.elements),
            format!("{}{}", bar(l.sparsity, "sparse"), text::percent(l.sparsity)),
            escape(l.encoding.as_deref().unwrap_or("float")),
            error,
        ]
    };
    let rows: Vec<Vec<String>> = stage.layers.iter().map(row).collect();
    section(
        "layers",
        &format!("Layers after {}", escape(&stage.name)),
        &table(&["weight", "elements", "zeros", "stored as", "signal to noise"], &rows),
    )
}

fn floats(record: &RunRecord) -> String {
    let Some(stage) = record.stages.iter().rev().find(|s| !s.float_parts.is_empty()) else { return String::new() };
    let rows: Vec<Vec<String>> = stage.float_parts.iter().map(|p| vec![escape(&p.node), escape(&p.op_type), escape(&p.reason)]).collect();
    section("float", "What is computed in float", &table(&["node", "operator", "reason"], &rows))
}

fn notes(record: &RunRecord) -> String {
    let notes = record.measured().flat_map(|s| s.notes.iter().map(move |n| (s, n)));
    let item = |(s, n): (&StageRecord, &crate::record::Note)| {
        let class = if n.warning { "missed" } else { "" };
        format!("<li class=\"{class}\"><b>{}</b> {}</li>", escape(&s.name), escape(&n.text))
    };
    let items: String = notes.map(item).collect();
    section("notes", "Notes", &if items.is_empty() { items } else { format!("<ul class=\"goals\">{items}</ul>") })
}
