//! Targets and formats, named by a recipe.
use graph::Model;
use report::RunRecord;
use test_support::recipe::{DEPLOY, RESNET8, TRAIN, on_digits};
use test_support::runs::{refused, run, unreadable};

fn recipe() -> String {
    on_digits(
        RESNET8,
        &[TRAIN, "kind = \"quantize\"\ncalibration = { images = 64, observer = \"min_max\" }\nprocessor_safe = true", DEPLOY],
    )
}

/// The record and the deployed model.
fn deployed(overrides: &[&str]) -> (RunRecord, Model) {
    let run = run(&recipe(), overrides).unwrap();
    let model = run.model("deploy.deployed.onnx");
    (run.record, model)
}

fn count(model: &Model, op_type: &str) -> usize {
    model.graph.nodes.iter().filter(|n| n.op_type == op_type).count()
}

#[test]
fn a_recipe_names_the_format_and_the_file_agrees_with_the_simulation() {
    for target in ["onnxruntime", "reference"] {
        // These kernels saturate on x86 without VNNI, literally too.
        let safe = "stages.quantize.processor_safe=true";
        let (record, model) = deployed(&[safe, "stages.deploy.format=\"qoperator\"", &format!("stages.deploy.target=\"{target}\"")]);
        assert_eq!((count(&model, "Conv"), count(&model, "Gemm"), count(&model, "QGemm")), (0, 0, 1));
        assert!(count(&model, "QLinearConv") == 9 && count(&model, "QLinearAdd") == 3, "{:?}", model.graph.nodes);
        assert_eq!((count(&model, "QuantizeLinear"), count(&model, "DequantizeLinear")), (1, 1));
        let (stage, deploy) = record.deployed().unwrap();
        assert!(deploy.runtimes[0].agreement.unwrap() > 0.99, "{:?}", deploy.runtimes);
        let notes: Vec<&str> = stage.notes.iter().map(|n| n.text.as_str()).collect();
        assert!(notes.iter().any(|n| n.contains("format qoperator")), "{notes:?}");
        assert!(!stage.notes.iter().any(|n| n.warning && n.text.contains("simulation")), "{notes:?}");
    }
}

#[test]
fn an_unknown_target_or_format_is_refused_with_the_known_ones() {
    let error = |text: &str| unreadable(&recipe(), &[text]);
    let target = error("stages.deploy.target=\"onnxrunntime\"");
    assert!(target.contains("there is no target 'onnxrunntime'") && target.contains("did you mean 'onnxruntime'?"), "{target}");
    let format = error("stages.deploy.format=\"tflite\"");
    assert!(format.contains("there is no format 'tflite'") && format.contains("known: qdq, qoperator"), "{format}");
}

#[test]
fn a_file_for_integers_only_has_none_but_signed_ones() {
    // With 7 bits no kernel saturates, on x86 without VNNI either.
    let seven = "stages.quantize.weights.reduce_range=true";
    let (record, model) = deployed(&[seven, "stages.deploy.target=\"integer_only\"", "stages.deploy.format=\"qoperator\""]);
    assert_eq!((count(&model, "QuantizeLinear"), count(&model, "DequantizeLinear")), (1, 1), "{:?}", model.graph.nodes);
    let unsigned = model.graph.constants.iter().filter(|v| model.values.tensor(**v).is_some_and(|t| t.dtype() == tensor::DType::U8));
    assert_eq!(unsigned.count(), 0);
    let (stage, deploy) = record.deployed().unwrap();
    assert!(stage.float_parts.is_empty(), "{:?}", stage.float_parts);
    assert!(deploy.runtimes[0].agreement.unwrap() > 0.99, "{:?}", deploy.runtimes);
}

#[test]
fn what_a_target_cannot_run_is_found_out_before_training() {
    let (error, trained) = refused(&recipe(), &["stages.deploy.target=\"integer_only\"", "stages.quantize.weights.bits=4"]);
    assert!(error.contains("target 'integer_only'") && error.contains("is stored as int4"), "{error}");
    assert!(error.contains("found by a trial before the run") && !trained, "{error}");
}
