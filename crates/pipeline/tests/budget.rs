//! Widths within a budget: from a recipe to the deployed file, with the plan written, read and edited.
use encodings::affine::AffineSettings;
use graph::Model;
use report::record::{PlanRecord, SensitivityRecord, StageRecord};
use test_support::folders;
use test_support::recipe::{DEPLOY_REFERENCE, DIGITS, QUANTIZE, RESNET8, TRAIN, on_digits, recipe};
use test_support::runs::{refused, run, run_in, unreadable};

const BUDGET: &str = "budget = \"4 bits\"\nsearch = { samples = 64 }";
const ENDS: &str = "[[stages.rules]]\nposition = \"first\"\nweights = { bits = 8 }\nactivations = { bits = 8 }\n\
                    [[stages.rules]]\nposition = \"last\"\nweights = { bits = 8 }\nactivations = { bits = 8 }";

fn text(keys: &str) -> String {
    on_digits(RESNET8, &[TRAIN, &format!("{QUANTIZE}\n{keys}"), DEPLOY_REFERENCE])
}

fn stage<'r>(record: &'r report::RunRecord, name: &str) -> &'r StageRecord {
    record.stages.iter().find(|s| s.name == name).unwrap()
}

/// Bits of each layer's weight by the layer's name, with its elements.
fn widths(model: &Model) -> Vec<(String, u32, usize)> {
    let mut out = vec![];
    model.graph.visit(&mut |node| {
        let weight = node.input(1).filter(|w| model.values.tensor(*w).is_some_and(|t| t.rank() > 1));
        if let Some((id, encoding)) = weight.and_then(|w| Some((w, model.annotations.encoding(w)?))) {
            let bits = AffineSettings::of(encoding).unwrap().bits;
            out.push((node.label(&model.values), bits, model.values.tensor(id).unwrap().len()));
        }
    });
    out
}

fn mean(widths: &[(String, u32, usize)]) -> f64 {
    let bits: usize = widths.iter().map(|(_, bits, n)| *bits as usize * n).sum();
    bits as f64 / widths.iter().map(|w| w.2).sum::<usize>() as f64
}

/// The harm of the plan in sum, and of the same width in all groups.
fn harm(plan: &PlanRecord, width: u32) -> (f64, f64) {
    let of = |group: usize, bits: u32| {
        let known = plan.sensitivity.groups[group].widths.iter().find(|w| w.bits == bits);
        known.unwrap().noise
    };
    let groups = 0..plan.chosen.len();
    (groups.clone().map(|g| of(g, plan.chosen[g])).sum(), groups.map(|g| of(g, width)).sum())
}

#[test]
fn the_widths_found_reach_the_file_and_are_written_read_and_edited() {
    let done = run(&text(&format!("{BUDGET}\n{ENDS}")), &[]).unwrap();
    let found = stage(&done.record, "quantize");
    let plan = found.plan.as_ref().unwrap();
    let stored = widths(&done.model("quantize.onnx"));
    assert!(mean(&stored) <= 4.0 && mean(&stored) > 3.0, "{stored:?}");
    assert_eq!((stored[0].1, stored[stored.len() - 1].1), (8, 8));
    for (group, bits) in plan.sensitivity.groups.iter().zip(&plan.chosen) {
        assert!(group.layers.iter().all(|name| stored.iter().any(|(n, b, _)| n == name && b == bits)), "{group:?} {stored:?}");
    }
    let (best, uniform) = harm(plan, 3);
    assert!(best < uniform, "{best} {uniform}");
    assert_eq!(plan.limits[0].limit, "4 bits");
    assert!(found.notes.iter().any(|n| n.text.starts_with("widths within 4 bits: ")), "{:?}", found.notes);
    let page = std::fs::read_to_string(done.path("report.html")).unwrap();
    assert!(page.contains("id=\"widths\"") && page.contains("quantize.plan.toml"));
    let (_, deploy) = done.record.deployed().unwrap();
    assert_eq!(deploy.runtimes[0].agreement, Some(1.0));
    // The samples that sensitivities were measured on had labels.
    assert!(plan.sensitivity.float_loss.is_some() && plan.sensitivity.groups[0].widths[0].metric.is_some());

    // The plan in place of the budget: the same bytes, and nothing is measured.
    let file = done.path("quantize.plan.toml");
    let again = run(&text(&format!("plan = \"{}\"\n{ENDS}", file.display())), &[]).unwrap();
    let bytes = |run: &test_support::runs::Run| std::fs::read(run.path("quantize.onnx")).unwrap();
    assert!(bytes(&again) == bytes(&done), "another model");
    assert!(stage(&again.record, "quantize").plan.is_none());
    // Edited.
    let rules = std::fs::read_to_string(&file).unwrap();
    let edited = rules.replace("\"affine\", bits = 4", "\"affine\", bits = 5").replace("\"affine\", bits = 3", "\"affine\", bits = 5");
    assert_ne!(rules, edited);
    std::fs::write(&file, edited).unwrap();
    let changed = run(&text(&format!("plan = \"{}\"\n{ENDS}", file.display())), &[]).unwrap();
    assert!(widths(&changed.model("quantize.onnx")).iter().any(|w| w.1 == 5));

    // The table in place of measuring, edited too: without its other widths every layer has four bits.
    let table = done.path("quantize.sensitivity.json");
    let mut record = SensitivityRecord::load(&table).unwrap();
    assert_eq!(record.groups, plan.sensitivity.groups);
    record.groups.iter_mut().for_each(|g| g.widths.retain(|w| w.bits == 4));
    std::fs::write(&table, serde_json::to_string(&record).unwrap()).unwrap();
    let keys = format!("budget = \"5 bits\"\nsearch = {{ sensitivity = \"{}\" }}\n{ENDS}", table.display());
    let four = run(&text(&keys), &[]).unwrap();
    let stored = widths(&four.model("quantize.onnx"));
    assert!(stored[1..stored.len() - 1].iter().all(|w| w.1 == 4), "{stored:?}");
    assert!(stage(&four.record, "quantize").notes.iter().any(|n| n.text.contains("has room")));
}

#[test]
fn other_limits_and_two_at_once_hold_and_less_than_the_least_is_refused() {
    let bits_alone = run(&text(BUDGET), &[]).unwrap();
    let takes = |record: &report::RunRecord| stage(record, "quantize").plan.as_ref().unwrap().takes.clone();
    let [_, bytes, _] = takes(&bits_alone.record).try_into().unwrap();
    assert!(bytes.ends_with(" kB") || bytes.ends_with(" B"), "{bytes}");
    let mut least = vec![];
    for budget in ["1 bits", "10 B", "1 BOPs"] {
        let folder = tempfile::tempdir().unwrap();
        let quantize = format!("{QUANTIZE}\nbudget = \"{budget}\"\nsearch = {{ samples = 16 }}");
        let text = recipe(DIGITS, RESNET8, &[&quantize]);
        let error = run_in(&folders::recipes(), folder.path(), &text, &[]).unwrap_err().to_string();
        assert!(error.contains("stage 'quantize'") && error.contains(&format!("budget = {budget} cannot be met")), "{error}");
        let told = error.split("the least possible is ").nth(1).and_then(|t| t.split(" (").next()).unwrap().to_string();
        least.push(told);
    }
    assert_eq!(least[0], "2.000 bits");
    // Just above the least: every layer has two bits.
    let tight = run(&text("budget = [\"2 bits\", \"1 GBOPs\"]\nsearch = { samples = 16 }"), &[]).unwrap();
    assert!(widths(&tight.model("quantize.onnx")).iter().all(|w| w.1 == 2));
    assert_eq!(stage(&tight.record, "quantize").plan.as_ref().unwrap().limits.len(), 2);
}

#[test]
fn a_plan_that_cannot_be_read_or_used_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let error = refused(&text(&format!("plan = \"{}\"", path("none.toml"))), &[]).0;
    assert!(error.contains("stage 'quantize'") && error.contains("none.toml: cannot be read"), "{error}");
    std::fs::write(path("plan.toml"), "[[stages.rules]]\nweights = { bits = 4 }\n").unwrap();
    let error = refused(&text(&format!("plan = \"{}\"", path("plan.toml"))), &[]).0;
    assert!(error.contains("applies to every node"), "{error}");
    std::fs::write(path("table.json"), "{}").unwrap();
    let error = refused(&text(&format!("budget = \"4 bits\"\nsearch = {{ sensitivity = \"{}\" }}", path("table.json"))), &[]).0;
    assert!(error.contains("table.json: is no table of sensitivities"), "{error}");
    let error = unreadable(&text("budget = \"3 apples\""), &[]);
    assert!(error.contains("'3 apples' is no limit"), "{error}");
    let error = unreadable(&text("budget = \"3 bits\"\nsearch = { widths = [4, 2] }"), &[]);
    assert!(error.contains("rising"), "{error}");
    let error = unreadable(&text("budget = \"3 bits\"\nweights = \"ternary\"\nactivations = false"), &[]);
    assert!(error.contains("ternary weights cannot have 2 bits"), "{error}");
}
