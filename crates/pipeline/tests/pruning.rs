//! Pruning by gradients and by a gradual schedule, and averaging of weights: from a recipe to the deployed file.
use espalier_pipeline::recipe::{Loaded, parse};
use espalier_pipeline::{Quiet, RunOptions, run};
use report::RunRecord;
use report::record::StageRecord;
use std::path::Path;

const RECIPE: &str = r#"
name = "pruning"
seed = 1
[data]
train = "data/digits"
test = "data/digits"
[data.preprocess]
scale = 0.0625
[model]
arch = "resnet8"
input = [1, 8, 8]
width = 0.5
[[stages]]
kind = "train"
epochs = 2
optimizer = { kind = "adamw", lr = 0.01 }
[[stages]]
name = "at-once"
kind = "prune"
sparsity = 0.4
criterion = { kind = "taylor", batches = 4 }
[[stages]]
name = "gradual"
kind = "prune"
sparsity = 0.8
method = "taylor"
sparsity_schedule = { kind = "cubic", end = 0.6, every = 5 }
epochs = 2
optimizer = { kind = "adamw", lr = 0.005 }
[[stages]]
kind = "average"
epochs = 3
last = 2
batches = 10
optimizer = { kind = "adamw", lr = 0.002 }
schedule = { kind = "constant" }
[[stages]]
kind = "deploy"
target = "reference"
latency_runs = 1
"#;

fn record(text: &str) -> RunRecord {
    let recipe = parse(text, &[]).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let loaded = Loaded { recipe, text: text.into(), folder, overrides: vec![] };
    let out = tempfile::tempdir().unwrap();
    run(&loaded, &RunOptions { out: out.path().to_path_buf(), ..RunOptions::default() }, &mut Quiet).unwrap()
}

fn tells(stage: &StageRecord, text: &str) -> bool {
    stage.notes.iter().any(|n| n.text.contains(text))
}

#[test]
fn criteria_schedules_and_averages_reach_the_deployed_file() {
    let record = record(RECIPE);
    let stage = |name: &str| record.stages.iter().find(|s| s.name == name).unwrap();
    let sparsity = |name: &str| stage(name).layers.iter().map(|l| l.sparsity).fold(0.0, f64::max);
    assert!(tells(stage("at-once"), "sparsity 40.0") && sparsity("at-once") > 0.4, "{:?}", stage("at-once").notes);
    assert!(tells(stage("gradual"), "sparsity 80.0"), "{:?}", stage("gradual").notes);
    assert!(tells(stage("gradual"), "write criterion = \"taylor\""), "{:?}", stage("gradual").notes);
    assert!(tells(stage("average"), "weights are the mean over the last 2 epochs; statistics of batch normalizations were measured again"));
    // The mask is in the file, and the file computes what was trained.
    let (deployed, deploy) = record.deployed().unwrap();
    let literal = &deploy.runtimes[0];
    assert_eq!((literal.agreement, literal.accuracy), (Some(1.0), deploy.simulation_accuracy));
    assert_eq!(deployed.metrics.sparsity, stage("gradual").metrics.sparsity);
    assert!(literal.accuracy.unwrap() > 0.8, "{:?}", literal.accuracy);
}

#[test]
fn gradients_are_those_of_the_tasks_loss() {
    let (head, rest) = RECIPE.split_once("[[stages]]\nname = \"gradual\"").unwrap();
    let (_, deploy) = rest.split_once("schedule = { kind = \"constant\" }\n").unwrap();
    let regression = "seed = 1\ntask = \"regression\"";
    let text = format!("{head}{deploy}").replace("digits", "slant").replace("width = 0.5", "width = 0.5\nclasses = 1");
    let record = record(&text.replace("seed = 1", regression));
    let stage = record.stages.iter().find(|s| s.name == "at-once").unwrap();
    assert!(tells(stage, "sparsity 40.0"), "{:?}", stage.notes);
}
