//! Pruning by gradients and by a gradual schedule, and averaging of weights: from a recipe to the deployed file.
use report::RunRecord;
use report::record::StageRecord;
use test_support::recipe::{DEPLOY_REFERENCE, DIGITS, on_digits, recipe};
use test_support::runs::run;

const MODEL: &str = "arch = \"resnet8\"\ninput = [1, 8, 8]\nwidth = 0.5";
const TRAIN: &str = "kind = \"train\"\nepochs = 2\noptimizer = { kind = \"adamw\", lr = 0.01 }";
const AT_ONCE: &str = r#"
name = "at-once"
kind = "prune"
sparsity = 0.4
criterion = { kind = "taylor", batches = 4 }"#;
const GRADUAL: &str = r#"
name = "gradual"
kind = "prune"
sparsity = 0.8
method = "taylor"
sparsity_schedule = { kind = "cubic", end = 0.6, every = 5 }
epochs = 2
optimizer = { kind = "adamw", lr = 0.005 }"#;
const AVERAGE: &str = r#"
kind = "average"
epochs = 3
last = 2
batches = 10
optimizer = { kind = "adamw", lr = 0.002 }
schedule = { kind = "constant" }"#;

fn record(text: &str) -> RunRecord {
    run(text, &[]).unwrap().record
}

fn tells(stage: &StageRecord, text: &str) -> bool {
    stage.notes.iter().any(|n| n.text.contains(text))
}

#[test]
fn criteria_schedules_and_averages_reach_the_deployed_file() {
    let record = record(&on_digits(MODEL, &[TRAIN, AT_ONCE, GRADUAL, AVERAGE, DEPLOY_REFERENCE]));
    let stage = |name: &str| record.stages.iter().find(|s| s.name == name).unwrap();
    let sparsity = |name: &str| stage(name).layers.iter().map(|l| l.sparsity).fold(0.0, f64::max);
    assert!(tells(stage("at-once"), "sparsity 40.0") && sparsity("at-once") > 0.4, "{:?}", stage("at-once").notes);
    assert!(tells(stage("gradual"), "sparsity 80.0"), "{:?}", stage("gradual").notes);
    assert!(tells(stage("gradual"), "write criterion = \"taylor\""), "{:?}", stage("gradual").notes);
    assert!(tells(stage("average"), "weights are the mean over the last 2 epochs; statistics of batch normalizations were measured again"));
    // The mask is in the file, and the file computes the trained network.
    let (deployed, deploy) = record.deployed().unwrap();
    let literal = &deploy.runtimes[0];
    assert_eq!((literal.agreement, literal.accuracy), (Some(1.0), deploy.simulation_accuracy));
    assert_eq!(deployed.metrics.sparsity, stage("gradual").metrics.sparsity);
    assert!(literal.accuracy.unwrap() > 0.8, "{:?}", literal.accuracy);
}

#[test]
fn gradients_are_those_of_the_tasks_loss() {
    let model = format!("{MODEL}\nclasses = 1");
    let text = recipe(&DIGITS.replace("digits", "slant"), &model, &[TRAIN, AT_ONCE, DEPLOY_REFERENCE]);
    let record = record(&text.replace("seed = 1", "seed = 1\ntask = \"regression\""));
    let stage = record.stages.iter().find(|s| s.name == "at-once").unwrap();
    assert!(tells(stage, "sparsity 40.0"), "{:?}", stage.notes);
}
