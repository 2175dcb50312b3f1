//! A diagnosis as text for a terminal.
use crate::record::{DiagnosisRecord, EffectRecord, LayerErrorRecord, MetricRecord, SuggestionRecord};
use crate::table::NOTHING;
use crate::terminal::columns;
use crate::text::{self, line};
use std::fmt::Write as _;

/// Most layers in the list of the worst.
const WORST: usize = 10;

/// What the description of a grid with one scale ends with, which is not repeated in each row.
const ONE_SCALE: &str = " per tensor";

/// The tables of layers, what to try, and what came of it.
pub fn diagnosis_text(record: &DiagnosisRecord) -> String {
    let mut out = headline(record);
    for note in &record.notes {
        let _ = writeln!(out, "{}", line(note));
    }
    out += "\nError of each layer's result: signal to noise with the whole network quantized (path) and with this layer alone (alone); and by\n\
            cause, in % of the error alone (below 0: works against the others)\n";
    if saturates(record) {
        out += "Alone on AVX2: where sums saturate at 16 bits, on x86 processors with AVX2 alone; the other columns are of exact sums\n";
    }
    out += &causes(record);
    out += "\nCost of each layer alone, the worst first: its share of the change of the outputs, their signal to noise";
    out += if record.measured.is_some() { ", and what it does to loss and metric\n" } else { "\n" };
    out += &costs(record);
    out += &suggestions(record);
    out += &fixed(record);
    out
}

fn headline(record: &DiagnosisRecord) -> String {
    let (float, quantized) = (&record.float, &record.quantized);
    let on = format!("on {} {}", record.samples, line(&record.taken_from));
    let outputs = format!("signal to noise of the outputs {}", db(quantized.sqnr_db()));
    let figures = record.measured.as_ref().zip(float.metric.zip(quantized.metric)).zip(float.loss.zip(quantized.loss));
    match figures {
        Some(((metric, (before, after)), (right, loss))) => format!(
            "{}: {} {} in float, {} quantized ({}); loss {} and {}; {outputs}; {on}\n",
            line(&record.stage),
            metric.label,
            metric.write(before),
            metric.write(after),
            metric.write_change(after - before),
            text::number(right),
            text::number(loss)
        ),
        None => format!("{}: {outputs}; {on}\n", line(&record.stage)),
    }
}

fn db(value: Option<f64>) -> String {
    value.map_or("∞".into(), |db| format!("{db:.1} dB"))
}

fn share(value: f64) -> String {
    let rounded = (value * 100.0).round();
    if rounded == 0.0 { NOTHING.into() } else { format!("{rounded:.0}") }
}

/// True if a sum saturates anywhere.
fn saturates(record: &DiagnosisRecord) -> bool {
    record.layers.iter().any(|l| saturated(l).is_some())
}

/// What saturation adds to a layer's own error, if it is of account.
fn saturated(l: &LayerErrorRecord) -> Option<f64> {
    l.saturated.filter(|s| *s >= 0.01)
}

fn causes(record: &DiagnosisRecord) -> String {
    let head = ["layer", "weights", "data", "path", "alone", "data clipped", "rounded", "weights clipped", "rounded", "mean shifted"];
    let saturates = saturates(record);
    let list = |ways: &[String]| match ways.is_empty() {
        true => NOTHING.into(),
        false => line(&ways.iter().map(|way| way.trim_end_matches(ONE_SCALE)).collect::<Vec<_>>().join(", ")),
    };
    let row = |l: &LayerErrorRecord| {
        let c = &l.causes;
        let shares = [c.data_clipped, c.data_rounded, c.weights_clipped, c.weights_rounded, c.shift].map(share);
        let names = [line(&l.layer), list(&l.weights), list(&l.data), db(l.path_db), db(l.alone_db)];
        let there = |(alone, ratio): (f64, f64)| format!("{:.1} dB", alone - 10.0 * (1.0 + ratio).log10());
        let saturated = saturates.then(|| l.alone_db.zip(saturated(l)).map_or(NOTHING.into(), there));
        names.into_iter().chain(shares).chain(saturated).collect::<Vec<String>>()
    };
    let head: Vec<String> = head.into_iter().chain(saturates.then_some("alone on AVX2")).map(String::from).collect();
    columns(&head, &record.layers.iter().map(row).collect::<Vec<_>>())
}

fn costs(record: &DiagnosisRecord) -> String {
    let mut layers: Vec<&LayerErrorRecord> = record.layers.iter().collect();
    layers.sort_by(|a, b| b.share.total_cmp(&a.share));
    let mut head = vec!["layer".to_string(), "share".into(), "outputs".into()];
    let measured = record.measured.as_ref().zip(record.float.loss).zip(record.float.metric);
    if let Some(((metric, _), _)) = &measured {
        head.extend(["loss".to_string(), metric.label.clone()]);
    }
    let row = |l: &&LayerErrorRecord| {
        let mut row = vec![line(&l.layer), format!("{:.1} %", l.share * 100.0), db(l.alone.sqnr_db())];
        if let Some(((metric, loss), score)) = measured {
            row.push(l.alone.loss.map_or(NOTHING.into(), |v| text::signed(v - loss)));
            row.push(l.alone.metric.map_or(NOTHING.into(), |v| metric.write_change(v - score)));
        }
        row
    };
    let more = layers.len().saturating_sub(WORST);
    let mut out = columns(&head, &layers.iter().take(WORST).map(row).collect::<Vec<_>>());
    if more > 0 {
        let rest: f64 = layers.iter().skip(WORST).map(|l| l.share).sum();
        let _ = writeln!(out, "and {more} more with {:.1} % in all", rest * 100.0);
    }
    out
}

fn suggestions(record: &DiagnosisRecord) -> String {
    if record.suggestions.is_empty() {
        return "\nNothing to try: no setting is known that should take away more than chance.\n".into();
    }
    let mut out = String::from("\nWorth trying, the most promising first\n");
    for (i, s) in record.suggestions.iter().enumerate() {
        let _ = writeln!(out, "{:2}. {}", i + 1, line(&s.why));
        for text in s.line.lines() {
            let _ = writeln!(out, "      {}", line(text));
        }
        if let Some(text) = came_of(s, record.measured.as_ref()) {
            let _ = writeln!(out, "    {text}");
        }
    }
    out
}

/// What came of a suggestion.
fn came_of(s: &SuggestionRecord, metric: Option<&MetricRecord>) -> Option<String> {
    let tried = s.tried.as_ref()?;
    Some(match (&tried.effect, &tried.error) {
        (_, Some(error)) => format!("cannot be used: {}", line(error)),
        (Some(effect), _) => {
            let verdict = if tried.kept { "kept" } else { "not better, left out" };
            format!("{verdict}: {} ({})", figures(effect, metric), text::duration(tried.seconds))
        }
        (None, None) => return None,
    })
}

fn figures(effect: &EffectRecord, metric: Option<&MetricRecord>) -> String {
    let outputs = format!("outputs {}", db(effect.sqnr_db()));
    match (metric, effect.metric, effect.loss) {
        (Some(metric), Some(score), Some(loss)) => {
            format!("{} {}, loss {}, {outputs}", metric.label, metric.write(score), text::number(loss))
        }
        _ => outputs,
    }
}

fn fixed(record: &DiagnosisRecord) -> String {
    let Some(fix) = &record.fixed else { return String::new() };
    let metric = record.measured.as_ref();
    let kept = record.suggestions.iter().filter(|s| s.tried.as_ref().is_some_and(|tried| tried.kept)).count();
    let mut out = format!("\nTried {}, kept {kept}\n", fix.tried);
    let _ = writeln!(out, "  before  {}", figures(&fix.before, metric));
    let _ = writeln!(out, "  after   {}", figures(&fix.after, metric));
    if let Some(metric) = metric
        && record.float.metric.is_some()
    {
        let _ = writeln!(out, "  float   {}", figures(&record.float, Some(metric)));
    }
    for setting in &fix.kept {
        let _ = writeln!(out, "  --set '{}'", line(setting));
    }
    out
}
