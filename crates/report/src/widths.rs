//! Views of sensitivities: a table and charts in the page, a page of their own, text for a terminal.
use crate::effects::{EffectRow, Effects, Measured};
use crate::html::{escape, section, shell};
use crate::record::{GroupRecord, PlanRecord, RunRecord, SensitivityRecord, WidthRecord};
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
    section("widths", &format!("Widths after {}", escape(&stage.name)), &(effects(&plan.sensitivity, Some(plan)).body() + &said))
}

/// A page of its own for a table of sensitivities.
pub fn sensitivity_page(record: &SensitivityRecord) -> String {
    let said = format!("<p class=\"remark\">{}</p>", escape(&measured(record)));
    let parts = section("widths", "Sensitivity to widths", &(effects(record, None).body() + &said));
    shell(&record.name, "", &parts)
}

/// The table for a terminal: the signal to noise of each group at each width, and the change of the metric.
pub fn sensitivity_text(record: &SensitivityRecord) -> String {
    effects(record, None).text() + &line(&measured(record)) + "\n"
}

/// What was measured, and on what, as a sentence.
fn measured(record: &SensitivityRecord) -> String {
    format!(
        "Each row alone at that width, everything else in float: signal to noise of the outputs against the float network{} on {} {}.",
        if record.measured.is_some() { ", loss and metric" } else { "" },
        record.samples,
        record.taken_from
    )
}

/// The effects of each group's widths, with the widths that were chosen.
fn effects<'a>(record: &'a SensitivityRecord, plan: Option<&PlanRecord>) -> Effects<'a> {
    let widths = record.widths();
    let row = |(i, group): (usize, &GroupRecord)| {
        let measured = |w: &WidthRecord| Measured { noise: w.noise, loss: w.loss, metric: w.metric };
        EffectRow {
            cells: vec![group.name(), text::count(group.elements), text::count(group.macs)],
            chosen: plan.and_then(|p| p.chosen.get(i)).map(|bits| f64::from(*bits)),
            effects: widths.iter().map(|bits| group.widths.iter().find(|w| w.bits == *bits).map(measured)).collect(),
        }
    };
    Effects {
        what: "width",
        plural: "Widths",
        heads: vec!["layers", "weights", "MACs"],
        levels: widths.iter().map(|bits| (format!("{bits} bits"), bits.to_string())).collect(),
        loss: record.float_loss,
        metric: record.measured.as_ref().zip(record.float_metric),
        write_level: |v, _| format!("{v:.0} bits"),
        rows: record.groups.iter().enumerate().map(row).collect(),
    }
}
