//! Defaults must not ruin a trained network, and a stage that makes it worse reports it.
use report::record::RunRecord;
use test_support::recipe::{MLP, on_digits};
use test_support::runs::run;

#[test]
fn a_trained_file_is_trained_gently_by_default_and_a_rate_that_ruins_it_is_told() {
    let trained = run(&on_digits(MLP, &["kind = \"train\"\nepochs = 4\noptimizer = { kind = \"adamw\", lr = 0.003 }"]), &[]).unwrap();
    let model = format!("file = \"{}\"", trained.path("train.onnx").display());
    let train = |keys: &str| run(&on_digits(&model, &[&format!("kind = \"train\"\n{keys}")]), &[]).unwrap().record;
    let record = train("");
    let accuracy = |r: &RunRecord| (r.start.as_ref().unwrap().metrics.accuracy.unwrap(), r.stages[0].metrics.accuracy.unwrap());
    let told = |r: &RunRecord, what: &str| r.stages[0].notes.iter().any(|n| n.text.contains(what));
    let (before, after) = accuracy(&record);
    assert!(before > 0.8 && after > before - 0.02, "{before} {after}");
    assert!(told(&record, "the recipe names no optimizer: adamw with lr = 0.0001"), "{:?}", record.stages[0].notes);
    assert!(!told(&record, "below where it began"));

    let record = train("optimizer = { kind = \"sgd\", lr = 3.0 }");
    let (before, after) = accuracy(&record);
    assert!(after < before - 0.1, "{before} {after}");
    let warning = record.stages[0].notes.iter().find(|n| n.text.contains("below where it began")).unwrap();
    assert!(warning.warning && warning.text.contains("lower optimizer.lr (it is 3)"), "{}", warning.text);
    assert!(!told(&record, "names no optimizer"));
}
