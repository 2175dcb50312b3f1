//! Commands that read a data set.
use crate::program::{digits, run};
use espalier::graph::{Dim, ValueType};
use espalier::onnx;

#[test]
fn models_are_scored_and_compared_on_a_data_set() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    let (model, clean) = (path("resnet8.onnx"), path("clean.onnx"));
    let data = digits().join("digits");
    let data = data.to_str().expect("a UTF-8 path");
    assert_eq!(run(&["new", "resnet8", "-o", &model, "--input", "1,8,8"]).0, 0);
    assert_eq!(run(&["convert", &model, "-o", &clean, "--clean"]).0, 0);

    let (code, said, error) = run(&["compare", &model, &clean, "--data", data, "--limit", "20", "--scale", "0.0625"]);
    assert_eq!(code, 0, "{error}");
    assert!(said.starts_with("on 20 rows of ") && said.contains("preprocessing as given"), "{said}");
    let logits = said.lines().find(|l| l.ends_with("output")).expect("an output");
    assert!(logits.starts_with("logits") && (logits.contains("dB") || logits.contains("equal")), "{logits}");

    let (code, said, error) = run(&["evaluate", &model, "--data", data]);
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("of 359") && said.contains("pixels / 255, because the model carries none"), "{said}");
}

#[test]
fn a_model_for_one_image_is_scored_on_many() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    let data = digits().join("digits");
    let data = data.to_str().expect("a UTF-8 path");
    let (open, fixed) = (path("open.onnx"), path("fixed.onnx"));
    assert_eq!(run(&["new", "lenet300-100", "-o", &open, "--input", "1,8,8"]).0, 0);
    let mut model = onnx::load(open.as_ref()).expect("a model");
    for id in model.graph.inputs.iter().chain(&model.graph.outputs) {
        if let ValueType::Tensor { shape: Some(shape), .. } = &mut model.values[*id].ty {
            shape[0] = Dim::Known(1);
        }
    }
    onnx::save(&model, fixed.as_ref()).expect("a file");
    let score = |file: &str, more: &[&str]| {
        let (code, said, error) = run(&[&["evaluate", file, "--data", data], more].concat());
        assert_eq!(code, 0, "{error}");
        said.split_once(')').map(|(accuracy, _)| accuracy.to_string()).expect("an accuracy")
    };
    assert_eq!(score(&fixed, &[]), score(&open, &[]));
    assert_eq!(score(&fixed, &["--batch", "1"]), score(&open, &[]));
}
