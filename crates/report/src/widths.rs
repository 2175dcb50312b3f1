//! Views of sensitivities: a table and charts in the page, a page of their own, text for a terminal.
use crate::chart::{Axes, Series, digits, lines};
use crate::html::{escape, section, shell, table};
use crate::record::{GroupRecord, PlanRecord, RunRecord, SensitivityRecord, WidthRecord};
use crate::table::NOTHING;
use crate::terminal::columns;
use crate::text::{self, line};

/// The widths that a run chose for a budget, and what they were chosen by.
pub(crate) fn widths(record: &RunRecord) -> String {
    let Some((stage, plan)) = record.stages.iter().rev().find_map(|s| Some((s, s.plan.as_ref()?))) else { return String::new() };
    let limits: Vec<String> = plan.limits.iter().map(|l| format!("{} of at most {}", l.taken, l.limit)).collect();
    let file = plan.file.as_ref().map_or(String::new(), |f| format!(" The plan as rules: <code>{}</code>.", escape(f)));
    let said = format!(
        "<p class=\"remark\">Chosen: {}. In all: {}. {}{file}</p>",
        escape(&limits.join(", ")),
        escape(&plan.takes.join(", ")),
        escape(&measured(&plan.sensitivity))
    );
    section("widths", &format!("Widths after {}", escape(&stage.name)), &(body(&plan.sensitivity, Some(plan)) + &said))
}

/// A page of its own for a table of sensitivities.
pub fn sensitivity_page(record: &SensitivityRecord) -> String {
    let said = format!("<p class=\"remark\">{}</p>", escape(&measured(record)));
    let parts = section("widths", "Sensitivity to widths", &(body(record, None) + &said));
    shell(&record.name, "", &parts)
}

/// The table for a terminal: the signal to noise of each group at each width, and the change of the metric.
pub fn sensitivity_text(record: &SensitivityRecord) -> String {
    let (head, rows) = cells(record, None);
    let shown: Vec<usize> = (1..head.len()).filter(|c| !head[*c].starts_with(LOSS)).collect();
    let pick = |cells: &Vec<String>| shown.iter().map(|c| line(&cells[*c])).collect::<Vec<String>>();
    columns(&pick(&head), &rows.iter().map(pick).collect::<Vec<_>>()) + &line(&measured(record)) + "\n"
}

/// How headings of losses begin.
const LOSS: &str = "loss ";

/// What was measured, and on what, as a sentence.
fn measured(record: &SensitivityRecord) -> String {
    format!(
        "Each row alone at that width, everything else in float: signal to noise of the outputs against the float network{} on {} {}.",
        if record.measured.is_some() { ", loss and metric" } else { "" },
        record.samples,
        record.taken_from
    )
}

fn find(group: &GroupRecord, bits: u32) -> Option<&WidthRecord> {
    group.widths.iter().find(|w| w.bits == bits)
}

/// The signal to noise of a width.
fn decibels(width: Option<&WidthRecord>) -> String {
    width.map_or(NOTHING.into(), |w| w.sqnr_db().map_or("∞".into(), |db| format!("{db:.1} dB")))
}

/// The heading and the rows.
fn cells(record: &SensitivityRecord, plan: Option<&PlanRecord>) -> (Vec<String>, Vec<Vec<String>>) {
    let widths = record.widths();
    let mut head = vec!["".to_string(), "layers".to_string(), "weights".to_string(), "MACs".to_string()];
    head.extend(plan.map(|_| "chosen".to_string()));
    head.extend(widths.iter().map(|bits| format!("{bits} bits")));
    let changes = record.float_loss.zip(record.float_metric).zip(record.measured.as_ref());
    if let Some((_, metric)) = changes {
        head.extend(widths.iter().map(|bits| format!("{LOSS}{bits}")));
        head.extend(widths.iter().map(|bits| format!("{} at {bits}", metric.label)));
    }
    let row = |(i, group): (usize, &GroupRecord)| {
        let mut row = vec![(i + 1).to_string(), group.name(), text::count(group.elements), text::count(group.macs)];
        row.extend(plan.map(|p| p.chosen.get(i).map_or(NOTHING.into(), |bits| format!("{bits} bits"))));
        row.extend(widths.iter().map(|bits| decibels(find(group, *bits))));
        if let Some(((loss, score), metric)) = changes {
            let of = |f: &dyn Fn(&WidthRecord) -> Option<String>, bits: u32| find(group, bits).and_then(f).unwrap_or(NOTHING.into());
            row.extend(widths.iter().map(|bits| of(&|w| Some(text::signed(w.loss? - loss)), *bits)));
            row.extend(widths.iter().map(|bits| of(&|w| Some(metric.write_change(w.metric? - score)), *bits)));
        }
        row
    };
    (head, record.groups.iter().enumerate().map(row).collect())
}

fn body(record: &SensitivityRecord, plan: Option<&PlanRecord>) -> String {
    let (head, rows) = cells(record, plan);
    let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|c| escape(c)).collect()).collect();
    format!("<div class=\"charts\">{}</div>{}", charts(record, plan), table(&head, &rows))
}

fn charts(record: &SensitivityRecord, plan: Option<&PlanRecord>) -> String {
    let series = |value: &dyn Fn(&WidthRecord) -> Option<f64>| -> Vec<Series> {
        let points = |bits: u32| {
            let found = record.groups.iter().enumerate().filter_map(|(i, g)| Some(((i + 1) as f64, value(find(g, bits)?)?)));
            Series { name: format!("{bits} bits"), points: found.collect() }
        };
        record.widths().into_iter().map(points).collect()
    };
    let axes = Axes {
        title: "Signal to noise of the outputs by width, row by row",
        x: "row",
        y: "signal to noise",
        write_x: |v, _| format!("{v:.0}"),
        write_y: |v, step| if step > 0.0 { format!("{v:.*} dB", digits(step)) } else { format!("{v:.1} dB") },
        least_step: 1.0,
        named: false,
        may_be_logarithmic: false,
    };
    let mut out = lines(&axes, &series(&WidthRecord::sqnr_db));
    if let Some(loss) = record.float_loss {
        let write_y: fn(f64, f64) -> String = |v, step| if step > 0.0 { format!("{v:.*}", digits(step)) } else { text::signed(v) };
        let axes = Axes { title: "Change of the loss by width, row by row", y: "change of the loss", write_y, ..axes };
        out += &lines(&axes, &series(&|w| Some(w.loss? - loss)));
    }
    if let Some(plan) = plan {
        let points = plan.chosen.iter().enumerate().map(|(i, bits)| ((i + 1) as f64, f64::from(*bits))).collect();
        let write_y: fn(f64, f64) -> String = |v, _| format!("{v:.0} bits");
        let axes = Axes { title: "Widths that were chosen, row by row", y: "width", write_y, ..axes };
        out += &lines(&axes, &[Series { name: "chosen".into(), points }]);
    }
    out
}
