//! `batch_norm = "keep"`: trained through its own statistics, deployed folded, and refused while the statistics move.
use espalier_pipeline::PipelineError;
use report::RunRecord;
use test_support::recipe::{DEPLOY_REFERENCE, on_digits};
use test_support::runs::run;

const MODEL: &str = "arch = \"resnet8\"\ninput = [1, 8, 8]\nwidth = 0.5";
const TRAIN: &str = "kind = \"train\"\nepochs = 1\noptimizer = { kind = \"adamw\", lr = 0.01 }";
const QUANTIZE: &str = r#"
kind = "quantize"
batch_norm = "keep"
calibration = { images = 128 }
epochs = 2
optimizer = { kind = "adamw", lr = 0.001 }
freeze_statistics = 1"#;
const PRUNE: &str = "kind = \"prune\"\nsparsity = 0.3";
const FINETUNE: &str = r#"
kind = "finetune"
epochs = 1
optimizer = { kind = "adamw", lr = 0.001 }
freeze_statistics = 1"#;

fn deployed(overrides: &[&str]) -> Result<RunRecord, PipelineError> {
    Ok(run(&on_digits(MODEL, &[TRAIN, QUANTIZE, PRUNE, FINETUNE, DEPLOY_REFERENCE]), overrides)?.record)
}

#[test]
fn a_normalization_that_was_kept_is_deployed_folded() {
    let record = deployed(&[]).unwrap();
    let (stage, deploy) = record.deployed().unwrap();
    let literal = &deploy.runtimes[0];
    assert_eq!((literal.agreement, literal.accuracy), (Some(1.0), deploy.simulation_accuracy));
    assert!(stage.notes.iter().any(|n| n.text.contains("BatchNormalization operators, kept so far, were folded")));
    assert!(!stage.notes.iter().any(|n| n.warning), "{:?}", stage.notes);
    // The graph before it, with its normalizations, was simulated as the file computes.
    let tuned = record.stages[3].metrics.accuracy.unwrap();
    let file = literal.accuracy.unwrap();
    assert!(file > 0.5 && (tuned - file).abs() < 0.01, "{tuned} {file}");
}

#[test]
fn statistics_that_moved_in_the_last_epoch_are_refused() {
    let error = deployed(&["stages.finetune.freeze_statistics=0"]).unwrap_err().to_string();
    assert!(error.contains("deploy") && error.contains("freeze_statistics"), "{error}");
}
