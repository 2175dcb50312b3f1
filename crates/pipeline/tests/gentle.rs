//! What a recipe leaves open must not ruin a network that is good already, and a stage that does says so.
use espalier_pipeline::recipe::{Loaded, parse};
use espalier_pipeline::{Quiet, RunOptions, run};
use report::record::RunRecord;
use std::path::Path;

fn run_stages(out: &Path, model: &str, stages: &str) -> RunRecord {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let data = "[data]\ntrain = \"data/digits\"\ntest = \"data/digits\"\npreprocess = { scale = 0.0625 }\n";
    let text = format!("name = \"g\"\nseed = 1\n{data}[model]\n{model}\n{stages}");
    let loaded = Loaded { recipe: parse(&text, &[]).unwrap(), text, folder, overrides: vec![] };
    run(&loaded, &RunOptions { out: out.to_path_buf(), ..RunOptions::default() }, &mut Quiet).unwrap()
}

#[test]
fn a_trained_file_is_trained_gently_by_default_and_a_rate_that_ruins_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let trained = dir.path().join("trained");
    let first = "[[stages]]\nkind = \"train\"\nepochs = 4\noptimizer = { kind = \"adamw\", lr = 0.003 }\n";
    run_stages(&trained, "arch = \"mlp\"\ninput = [1, 8, 8]", first);
    let model = format!("file = \"{}\"", trained.join("train.onnx").display());
    let record = run_stages(&dir.path().join("gentle"), &model, "[[stages]]\nkind = \"train\"\n");
    let accuracy = |r: &RunRecord| (r.start.as_ref().unwrap().metrics.accuracy.unwrap(), r.stages[0].metrics.accuracy.unwrap());
    let told = |r: &RunRecord, what: &str| r.stages[0].notes.iter().any(|n| n.text.contains(what));
    let (before, after) = accuracy(&record);
    assert!(before > 0.8 && after > before - 0.02, "{before} {after}");
    assert!(told(&record, "the recipe names no optimizer: adamw with lr = 0.0001"), "{:?}", record.stages[0].notes);
    assert!(!told(&record, "below where it began"));

    let ruin = "[[stages]]\nkind = \"train\"\noptimizer = { kind = \"sgd\", lr = 3.0 }\n";
    let record = run_stages(&dir.path().join("ruin"), &model, ruin);
    let (before, after) = accuracy(&record);
    assert!(after < before - 0.1, "{before} {after}");
    let warning = record.stages[0].notes.iter().find(|n| n.text.contains("below where it began")).unwrap();
    assert!(warning.warning && warning.text.contains("lower optimizer.lr (it is 3)"), "{}", warning.text);
    assert!(!told(&record, "names no optimizer"));
}
