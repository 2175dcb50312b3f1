//! A plan that cannot be deployed is refused before anything is trained.
use test_support::recipe::{DEPLOY, QUANTIZE, RESNET8, TRAIN, on_digits};

/// The error, and whether a stage had a result by then.
fn refused(overrides: &[&str]) -> (String, bool) {
    test_support::runs::refused(&on_digits(RESNET8, &[TRAIN, QUANTIZE, DEPLOY]), overrides)
}

#[test]
fn an_operator_set_that_the_runtime_lacks_is_found_out_before_training() {
    if deploy::runtime::choose().note.is_some() {
        eprintln!("skipped: ONNX Runtime is not there");
        return;
    }
    let (error, trained) = refused(&["stages.quantize.weights.bits=2"]);
    assert!(error.contains("stage 'deploy'") && error.contains("weights.bits = 2"), "{error}");
    assert!(error.contains("trial before the run") && error.contains("target = \"reference\""), "{error}");
    assert!(!trained);
}

#[test]
fn activations_of_few_bits_before_a_clip_are_found_out_before_training() {
    if deploy::runtime::choose().note.is_some() {
        eprintln!("skipped: ONNX Runtime is not there");
        return;
    }
    // Its Relu6 are Clips.
    let (error, trained) = refused(&["model.arch=\"mobilenet-v2\"", "stages.quantize.activations.bits=4"]);
    assert!(error.contains("stage 'deploy'") && error.contains("what activations.bits = 4 needs"), "{error}");
    assert!(error.contains("trial before the run") && error.contains("target = \"reference\""), "{error}");
    assert!(!trained);
}

#[test]
fn statistics_that_will_still_move_are_found_out_before_training() {
    let overrides = ["stages.quantize.batch_norm=\"keep\"", "stages.quantize.epochs=1", "stages.deploy.target=\"reference\""];
    let (error, trained) = refused(&overrides);
    assert!(error.contains("freeze_statistics") && error.contains("trial before the run"), "{error}");
    assert!(!trained);
}

#[test]
fn a_pattern_that_names_nothing_is_found_out_before_training() {
    let (error, trained) = refused(&["stages.quantize.skip=[\"nothing\"]", "stages.deploy.target=\"reference\""]);
    assert!(error.contains("stage 'quantize'") && error.contains("'nothing' matches no node"), "{error}");
    assert!(!trained);
}
