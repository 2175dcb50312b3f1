//! Sections of the page: warnings, the deployed file beside the original, integers and float, classes, time, how to reproduce.
use crate::chart::bar;
use crate::html::{escape, section, table};
use crate::record::{ClassesRecord, RunRecord, StageRecord, Status};
use crate::table::{NOTHING, changes};
use crate::text;
use std::collections::HashMap;

/// Warnings, at the top.
pub(crate) fn warnings(record: &RunRecord) -> String {
    let item = |(stage, text): (&str, &str)| format!("<li class=\"missed\"><b>{}</b> {}</li>", escape(stage), escape(text));
    let items: String = record.warnings().map(item).collect();
    section("warnings", "Warnings", &if items.is_empty() { items } else { format!("<ul class=\"goals\">{items}</ul>") })
}

/// The deployed file beside the model that the run began with.
pub(crate) fn before_and_after(record: &RunRecord) -> String {
    let Some((what, changes)) = changes(record) else { return String::new() };
    let row = |c: &crate::table::Change| vec![escape(&c.what), escape(&c.before), escape(&c.after), escape(&c.ratio)];
    let rows: Vec<Vec<String>> = changes.iter().map(row).collect();
    let body = table(&["", "before", "after", "change"], &rows) + &format!("<p class=\"remark\">{}</p>", escape(&what));
    section("before-after", "Before and after", &body)
}

/// Which nodes the runtime computes on integers and in float.
pub(crate) fn placement(record: &RunRecord) -> String {
    let placed = record.deployed().and_then(|(_, d)| Some((d, d.placement.as_ref()?)));
    let Some((deploy, placement)) = placed else { return String::new() };
    let row = |(op, n): (&String, &crate::record::NodeCount)| vec![escape(op), n.integer.to_string(), n.float.to_string()];
    let rows: Vec<Vec<String>> = placement.operators.iter().map(row).collect();
    let runtime = deploy.runtimes.first().map_or(String::new(), |r| format!("{} {}", r.runtime, r.version.as_deref().unwrap_or_default()));
    let said = format!(
        "<p class=\"remark\">Nodes of the graph that {} itself makes of the file and runs by default, without those that only move elements; \
         {} conversions between integers and float are left.</p>",
        escape(runtime.trim()),
        placement.conversions
    );
    section("placement", "On integers and in float", &(table(&["operator", "on integers", "in float"], &rows) + &said))
}

/// Most classes for a matrix; with more, the worst classes and pairs are listed.
const MOST_DRAWN: usize = 20;

/// Results by class, and the confusion matrix.
pub(crate) fn classes(record: &RunRecord) -> String {
    let Some((stage, after)) = record.stages.iter().rev().find_map(|s| Some((s, s.classes.as_ref()?))) else { return String::new() };
    let first = record.measured().find_map(|s| Some((s, s.classes.as_ref()?))).filter(|(s, _)| s.key != stage.key || s.name != stage.name);
    let first = first.filter(|(s, _)| s.chosen_images() == stage.chosen_images());
    let shares = |c: &ClassesRecord| c.classes.iter().map(|c| (c.label, c.correct as f64 / c.images.max(1) as f64)).collect();
    let before: HashMap<u64, f64> = first.map(|(_, c)| shares(c)).unwrap_or_default();
    let now: HashMap<u64, f64> = shares(after);
    let names: HashMap<u64, &str> = after.classes.iter().filter_map(|c| Some((c.label, c.name.as_deref()?))).collect();
    let name = |label: u64| names.get(&label).map_or_else(|| label.to_string(), |n| (*n).to_string());
    let mut listed: Vec<&crate::record::ClassRecord> = after.classes.iter().collect();
    let all = listed.len();
    if all > MOST_DRAWN {
        listed.sort_by(|a, b| now[&a.label].total_cmp(&now[&b.label]).then(a.label.cmp(&b.label)));
        listed.truncate(MOST_DRAWN);
    }
    let row = |c: &&crate::record::ClassRecord| {
        let share = now[&c.label];
        let was = before.get(&c.label);
        vec![
            escape(&name(c.label)),
            c.images.to_string(),
            was.map_or(NOTHING.into(), |w| text::percent(*w)),
            format!("{}{}", bar(share, "error"), text::percent(share)),
            was.map_or(NOTHING.into(), |w| format!("{:+.2}", (share - w) * 100.0)),
        ]
    };
    let rows: Vec<Vec<String>> = listed.iter().map(row).collect();
    let was = first.map_or("before".to_string(), |(s, _)| format!("after {}", s.name));
    let heads = ["class", "samples", was.as_str(), "accuracy", "points"];
    let mut body = table(&heads, &rows);
    if all > MOST_DRAWN {
        body += &format!("<p class=\"remark\">The {MOST_DRAWN} worst of {all} classes.</p>");
        body += &pairs(after, &name);
    } else {
        body += &matrix(after, &name);
    }
    section("classes", &format!("Classes after {}", escape(&stage.name)), &body)
}

/// The confusion matrix: a row for each class, a column for each prediction.
fn matrix(classes: &ClassesRecord, name: &dyn Fn(u64) -> String) -> String {
    let mut labels: Vec<u64> = classes.classes.iter().map(|c| c.label).chain(classes.confused.iter().map(|c| c.taken_for)).collect();
    labels.sort_unstable();
    labels.dedup();
    let counts: HashMap<(u64, u64), u64> = classes
        .confused
        .iter()
        .map(|c| ((c.label, c.taken_for), c.images))
        .chain(classes.classes.iter().map(|c| ((c.label, c.label), c.correct)))
        .collect();
    let row = |c: &crate::record::ClassRecord| {
        let cell = |taken: &u64| {
            let n = counts.get(&(c.label, *taken)).copied().unwrap_or(0);
            let (share, class) = (n as f64 / c.images.max(1) as f64, if *taken == c.label { "right" } else { "wrong" });
            // A few wrong predictions among many must still be visible.
            let shade = if n == 0 { 0.0 } else { 12.0 + 68.0 * share };
            format!("<td class=\"{class}\" style=\"--share:{shade:.0}%\">{}</td>", if n == 0 { String::new() } else { n.to_string() })
        };
        format!("<tr><th>{}</th>{}</tr>", escape(&name(c.label)), labels.iter().map(cell).collect::<String>())
    };
    let head: String = labels.iter().map(|l| format!("<th>{}</th>", escape(&name(*l)))).collect();
    let rows: String = classes.classes.iter().map(row).collect();
    format!(
        "<p class=\"remark\">Each row's samples by what they were taken for.</p><div class=\"scroll\"><table class=\"matrix\"><thead><tr><th></th>{head}\
         </tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// The pairs most often confused.
fn pairs(classes: &ClassesRecord, name: &dyn Fn(u64) -> String) -> String {
    let shown = classes.confused.iter().take(MOST_DRAWN);
    let rows: Vec<Vec<String>> = shown.map(|c| vec![escape(&name(c.label)), escape(&name(c.taken_for)), c.images.to_string()]).collect();
    if rows.is_empty() { String::new() } else { table(&["class", "taken for", "samples"], &rows) }
}

/// The time of the run by activity.
pub(crate) fn time(record: &RunRecord) -> String {
    let total = record.work_seconds();
    let row = |s: &StageRecord| {
        let known: f64 = s.spent.values().sum();
        let mut parts: Vec<(String, f64)> = s.spent.iter().map(|(what, t)| (what.clone(), *t)).collect();
        parts.push(("the rest".to_string(), (s.seconds - known).max(0.0)));
        parts.retain(|(_, t)| *t >= 0.01 && *t >= 0.01 * s.seconds);
        parts.sort_by(|a, b| b.1.total_cmp(&a.1));
        let parts: Vec<String> = parts.iter().map(|(what, t)| format!("{what} {}", text::duration(*t))).collect();
        let earlier = if s.status == Status::Cached { " (earlier)" } else { "" };
        let share = s.seconds / total.max(1e-9);
        vec![
            escape(&s.name),
            format!("{}{}{earlier}", bar(share, "sparse"), text::duration(s.seconds)),
            format!("{:.0} %", share * 100.0),
            escape(&parts.join(", ")),
        ]
    };
    let rows: Vec<Vec<String>> = record.measured().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut body = table(&["stage", "time", "share", "for"], &rows);
    if record.measured().any(|s| s.status == Status::Cached) {
        let call = text::duration(record.seconds);
        body += &format!("<p class=\"remark\">The last call took {call}; stages marked “earlier” ran in a call before it.</p>");
    }
    section("time", "Where the time went", &body)
}

/// The command, the recipe, the inputs and the environment.
pub(crate) fn reproduce(record: &RunRecord) -> String {
    let e = &record.environment;
    let mut rows =
        vec![("Espalier", e.espalier.clone()), ("processor", e.cpu.clone()), ("threads", e.threads.to_string()), ("system", e.os.clone())];
    rows.extend(e.runtimes.iter().map(|(name, version)| ("runtime", format!("{name} {version}"))));
    let mut list: String = rows.iter().map(|(k, v)| format!("<dt>{k}</dt><dd>{}</dd>", escape(v))).collect();
    for input in &record.inputs {
        let (role, path, hash) = (escape(&input.role), escape(&input.path), escape(&input.blake3));
        list += &format!("<dt>{role}</dt><dd>{path}<br><code>BLAKE3 {hash}</code></dd>");
    }
    let overrides = match record.recipe.overrides.as_slice() {
        [] => String::new(),
        some => format!("<p class=\"remark\">Changed on the command line: {}</p>", escape(&some.join(", "))),
    };
    let body = format!(
        "<pre id=\"command\">{}</pre><dl>{list}</dl><details open><summary>Recipe</summary>{overrides}<pre>{}</pre></details>",
        escape(&text::command_line(&record.command)),
        escape(&record.recipe.text)
    );
    section("environment", "How to reproduce it", &body)
}
