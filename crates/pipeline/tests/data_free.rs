//! Calibration without any data: on images that are made for it.
use test_support::recipe::{DEPLOY, recipe};
use test_support::runs::{refused, run, unreadable};

const GENERATED: &str =
    "kind = \"quantize\"\ncalibration = { data = \"generated\", images = 32, batch = 16 }\ncorrections = [\"bias_correction\"]";
const NETWORK: &str = "arch = \"resnet8\"\ninput = [3, 16, 16]\nwidth = 0.25";

#[test]
fn a_network_is_quantized_where_the_recipe_names_no_data() {
    let no_data = recipe("preprocess = { scale = 0.0039, mean = [0.5], std = [0.25] }", NETWORK, &[GENERATED, DEPLOY]);
    let first = run(&no_data, &[]).unwrap();
    let told = |r: &report::record::RunRecord| r.stages[0].notes.iter().any(|n| n.text.contains("32 generated images, without any data"));
    assert!(told(&first.record), "{:?}", first.record.stages[0].notes);
    let file = |run: &test_support::runs::Run, name: &str| std::fs::read(run.path(name)).unwrap();
    let again = run(&no_data, &[]).unwrap();
    assert_eq!(file(&first, "quantize.onnx"), file(&again, "quantize.onnx"));
    let other = run(&no_data, &["stages.quantize.calibration.seed=7"]).unwrap();
    assert_ne!(file(&first, "quantize.onnx"), file(&other, "quantize.onnx"), "another seed makes other images");
}

#[test]
fn a_recipe_without_data_is_refused_and_so_is_a_model_that_takes_no_image() {
    let data = "preprocess = { scale = 0.0039 }";
    assert!(unreadable(&recipe(data, NETWORK, &["kind = \"quantize\""]), &[]).contains("stage 'quantize' needs training data"));
    let (error, _) = refused(&recipe(data, "arch = \"resnet8\"\ninput = [2, 16, 16]\nwidth = 0.25", &[GENERATED]), &[]);
    assert!(error.contains("1 or 3 channels are made"), "{error}");
}
