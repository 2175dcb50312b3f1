//! The candidates that a removal of channels was chosen among, as a table of the page.
use crate::html::{escape, section, table};
use crate::record::{CutRecord, RunRecord};
use crate::table::NOTHING;
use crate::text;

/// One section for each stage that searched.
pub(crate) fn cuts(record: &RunRecord) -> String {
    let stages = record.stages.iter().filter(|s| !s.cuts.is_empty()).enumerate();
    let id = |i: usize| if i == 0 { "cuts".into() } else { format!("cuts-{}", i + 1) };
    stages.map(|(i, s)| section(&id(i), &format!("Candidates of {}", escape(&s.name)), &body(&s.cuts))).collect()
}

fn body(cuts: &[CutRecord]) -> String {
    let head = ["", "fewer MACs", "fewer parameters", "fewer channels", "file", "one run", "less time", ""].map(String::from);
    let row = |(i, cut): (usize, &CutRecord)| {
        let taken = cut.ms.zip(cut.whole_ms);
        let cells = [
            (i + 1).to_string(),
            text::percent(cut.macs),
            text::percent(cut.parameters),
            cut.channels.to_string(),
            text::bytes(cut.bytes),
            taken.map_or(NOTHING.into(), |(ms, _)| format!("{ms:.3} ms")),
            taken.map_or(NOTHING.into(), |(ms, whole)| text::percent(1.0 - ms / whole)),
            match (cut.chosen, cut.meets) {
                (true, _) => "taken",
                (false, true) => "enough",
                (false, false) => "not enough",
            }
            .to_string(),
        ];
        cells.map(|c| escape(&c)).to_vec()
    };
    let rows: Vec<Vec<String>> = cuts.iter().enumerate().map(row).collect();
    let runtime = cuts.iter().find_map(|c| c.runtime.as_deref()).map_or(String::new(), |name| {
        format!("<p class=\"remark\">Times are medians in {}, each candidate in turn with the uncut network.</p>", escape(name))
    });
    table(&head, &rows) + &runtime
}
