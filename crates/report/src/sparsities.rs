//! Views of sensitivities to pruning: a table and charts in the page, a page of their own, text for a terminal.
use crate::effects::{EffectRow, Effects, Measured};
use crate::html::{escape, section, shell};
use crate::record::{PruneSensitivityRecord, PrunedLayer, RunRecord, SharesRecord, SparsityEffect};
use crate::text::{self, line};

/// The shares of layers that a run chose, and what they were chosen by.
pub(crate) fn shares(record: &RunRecord) -> String {
    let found = record.stages.iter().rev().find_map(|s| Some((s, s.shares.as_ref()?)));
    let Some((stage, shares)) = found else { return String::new() };
    let said = format!("<p class=\"remark\">Chosen for {}. {}</p>", text::percent(shares.sparsity), escape(&measured(&shares.sensitivity)));
    let body = effects(&shares.sensitivity, Some(shares)).body() + &said;
    section("sparsities", &format!("Sparsities after {}", escape(&stage.name)), &body)
}

/// A page of its own for a table of sensitivities to pruning.
pub fn prune_sensitivity_page(record: &PruneSensitivityRecord) -> String {
    let said = format!("<p class=\"remark\">{}</p>", escape(&measured(record)));
    let parts = section("sparsities", "Sensitivity to pruning", &(effects(record, None).body() + &said));
    shell(&record.name, "", &parts)
}

/// The table for a terminal: the signal to noise of each layer at each sparsity, and the change of the metric.
pub fn prune_sensitivity_text(record: &PruneSensitivityRecord) -> String {
    effects(record, None).text() + &line(&measured(record)) + "\n"
}

/// What was measured, and on what, as sentences.
fn measured(record: &PruneSensitivityRecord) -> String {
    let dense = match record.dense.as_slice() {
        [] => String::new(),
        some => {
            let list: Vec<String> = some.iter().map(|(name, why)| format!("{name} ({why})")).collect();
            format!(" Dense: {}.", list.join(", "))
        }
    };
    format!(
        "Each row alone pruned to that sparsity by {}, everything else as it is, nothing trained: signal to noise of the outputs against \
         the network as it is{} on {} {}.{dense}",
        record.by,
        if record.measured.is_some() { ", loss and metric" } else { "" },
        record.samples,
        record.taken_from
    )
}

fn effects<'a>(record: &'a PruneSensitivityRecord, shares: Option<&SharesRecord>) -> Effects<'a> {
    let sparsities = record.sparsities();
    let row = |(i, layer): (usize, &PrunedLayer)| {
        let measured = |s: &SparsityEffect| Measured { noise: s.noise, loss: s.loss, metric: s.metric };
        EffectRow {
            cells: vec![layer.weight.clone(), text::count(layer.elements)],
            chosen: shares.and_then(|s| s.chosen.get(i)).copied(),
            effects: sparsities.iter().map(|at| layer.sparsities.iter().find(|s| s.sparsity == *at).map(measured)).collect(),
        }
    };
    // A share without digits that say nothing: `50 %`, `97.5 %`.
    let long = |s: &f64| format!("{} %", (s * 1e4).round() / 1e2);
    Effects {
        what: "sparsity",
        plural: "Sparsities",
        heads: vec!["weight", "elements"],
        levels: sparsities.iter().map(|s| (long(s), long(s))).collect(),
        loss: record.whole_loss,
        metric: record.measured.as_ref().zip(record.whole_metric),
        write_level: |v, _| format!("{:.1} %", v * 100.0),
        rows: record.layers.iter().enumerate().map(row).collect(),
    }
}
