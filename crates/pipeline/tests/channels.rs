//! Removing channels: from a recipe to the deployed file, and together with masks, quantizers and a teacher.
use report::RunRecord;
use report::record::StageRecord;
use test_support::recipe::{DEPLOY_REFERENCE, on_digits};
use test_support::runs::run;

const MODEL: &str = "arch = \"resnet8\"\ninput = [1, 8, 8]";
const TRAIN: &str = "kind = \"train\"\nepochs = 2\noptimizer = { kind = \"adamw\", lr = 0.01 }";
const CUT: &str = r#"
name = "cut"
kind = "prune_channels"
remove = { macs = 0.4 }
criterion = { kind = "taylor", batches = 4 }
round_to = 4
teacher = "train"
temperature = 2.0
epochs = 2
optimizer = { kind = "adamw", lr = 0.005 }"#;
const MASK: &str = "kind = \"prune\"\nsparsity = 0.5";
const QUANTIZE: &str = "kind = \"quantize\"";
const TEACH: &str = "kind = \"finetune\"\nteacher = \"train\"\nepochs = 1\noptimizer = { kind = \"adamw\", lr = 0.002 }";

fn record(stages: &[&str]) -> RunRecord {
    run(&on_digits(MODEL, stages), &[]).unwrap().record
}

fn stage<'a>(record: &'a RunRecord, name: &str) -> &'a StageRecord {
    record.stages.iter().find(|s| s.name == name).unwrap()
}

#[test]
fn a_smaller_network_is_trained_quantized_and_deployed() {
    let record = record(&[TRAIN, CUT, MASK, QUANTIZE, TEACH, DEPLOY_REFERENCE]);
    let (whole, cut) = (&stage(&record, "train").metrics, &stage(&record, "cut").metrics);
    let tells = |text: &str| stage(&record, "cut").notes.iter().any(|n| n.text.contains(text));
    assert!(cut.macs.unwrap() <= whole.macs.unwrap() * 6 / 10 + 1, "{:?} of {:?}", cut.macs, whole.macs);
    assert!(
        tells("removed") && tells("outputs differ by at most") && tells("is an output of the network"),
        "{:?}",
        stage(&record, "cut").notes
    );
    // The file computes what was trained, with the mask on the smaller weights.
    let (deployed, deploy) = record.deployed().unwrap();
    let literal = &deploy.runtimes[0];
    assert_eq!((literal.agreement, literal.accuracy), (Some(1.0), deploy.simulation_accuracy));
    assert_eq!(deployed.metrics.macs, cut.macs);
    assert!(deployed.metrics.sparsity.unwrap() > 0.4 && literal.accuracy.unwrap() > 0.8, "{:?}", literal.accuracy);
}

#[test]
fn channels_that_will_go_are_pushed_to_zero_before() {
    let push = format!(
        "name = \"push\"\n{TEACH}\ngrowing_penalty = {{ channels = {{ remove = {{ macs = 0.4 }} }}, largest = 1e4, end = 0.5, every = 2 }}"
    );
    let cut = "name = \"cut\"\nkind = \"prune_channels\"\nremove = { macs = 0.4 }";
    let record = record(&[TRAIN, &push, cut]);
    let note = stage(&record, "push").notes.iter().find(|n| n.text.contains("pushed towards zero")).unwrap().text.clone();
    // It ends in `from 3.2 to 0.001`.
    let words: Vec<&str> = note.split_whitespace().rev().collect();
    let (after, before): (f64, f64) = (words[0].parse().unwrap(), words[2].parse().unwrap());
    assert!(after < 0.01 * before, "{note}");
    // What was pushed is what goes: nothing is lost by the cut.
    let accuracy = |name: &str| stage(&record, name).metrics.accuracy.unwrap();
    assert!((accuracy("cut") - accuracy("push")).abs() < 0.01, "{} {}", accuracy("cut"), accuracy("push"));
}

#[test]
fn channels_that_masks_have_emptied_go() {
    let mask = "kind = \"prune\"\nsparsity = 0.4\ngranularity = \"filter\"\nscope = \"layer\"";
    let empty = "name = \"empty\"\nkind = \"prune_channels\"\nremove = { dead = true }";
    let record = record(&[TRAIN, mask, empty, DEPLOY_REFERENCE]);
    let notes = &stage(&record, "empty").notes;
    assert!(notes.iter().any(|n| n.text.contains("channels that had no weights left")), "{notes:?}");
    let macs = |name: &str| stage(&record, name).metrics.macs.unwrap();
    assert!(macs("empty") < macs("prune"));
    // Up to the order of sums, nothing changes.
    let accuracy = |name: &str| stage(&record, name).metrics.accuracy.unwrap();
    assert!((accuracy("empty") - accuracy("prune")).abs() < 0.003, "{} {}", accuracy("empty"), accuracy("prune"));
}

#[test]
fn a_residual_block_without_weights_is_its_shortcut_in_the_file() {
    let mask = "kind = \"prune\"\nsparsity = 0.2\ngranularity = \"residual_block\"\ncriterion = \"taylor\"";
    let empty = "name = \"empty\"\nkind = \"prune_channels\"\nremove = { dead = true }";
    let record = record(&[TRAIN, mask, empty, TEACH, DEPLOY_REFERENCE]);
    let tells = |name: &str, text: &str| stage(&record, name).notes.iter().any(|n| n.text.contains(text));
    assert!(tells("prune", "of 3 residual blocks are left, gone: "), "{:?}", stage(&record, "prune").notes);
    assert!(!tells("prune", "min_per_layer"), "a block that goes is no mistake: {:?}", stage(&record, "prune").notes);
    assert!(tells("empty", "removed 1 branch "), "{:?}", stage(&record, "empty").notes);
    let macs = |name: &str| stage(&record, name).metrics.macs.unwrap();
    assert!(macs("empty") < macs("prune"));
    let accuracy = |name: &str| stage(&record, name).metrics.accuracy.unwrap();
    assert!((accuracy("empty") - accuracy("prune")).abs() < 0.003, "{} {}", accuracy("empty"), accuracy("prune"));
    let (deployed, deploy) = record.deployed().unwrap();
    assert_eq!((deployed.metrics.macs.unwrap(), deploy.runtimes[0].accuracy), (macs("empty"), deploy.simulation_accuracy));
}

#[test]
fn masks_and_quantizers_are_cut_with_their_weights() {
    let untrained = CUT
        .replace("teacher = \"train\"\ntemperature = 2.0\nepochs = 2", "epochs = 0")
        .replace("optimizer = { kind = \"adamw\", lr = 0.005 }", "");
    let record = record(&[TRAIN, MASK, QUANTIZE, &untrained, TEACH, DEPLOY_REFERENCE]);
    let (_, deploy) = record.deployed().unwrap();
    let literal = &deploy.runtimes[0];
    assert_eq!((literal.agreement, literal.accuracy), (Some(1.0), deploy.simulation_accuracy));
    assert!(literal.accuracy.unwrap() > 0.7, "{:?}", literal.accuracy);
}
