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
fn preprocessing_can_be_given_by_flags() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    let data = digits().join("digits");
    let data = data.to_str().expect("a UTF-8 path");
    let (large, colour) = (path("large.onnx"), path("colour.onnx"));
    assert_eq!(run(&["new", "lenet300-100", "-o", &large, "--input", "1,12,10"]).0, 0);
    assert_eq!(run(&["new", "lenet300-100", "-o", &colour, "--input", "3,6,6"]).0, 0);
    for (model, flags) in [(&large, vec!["--size", "12,10"]), (&colour, vec!["--channels", "3", "--crop", "6"])] {
        let (code, said, error) = run(&[vec!["evaluate", model.as_str(), "--data", data], flags].concat());
        assert_eq!(code, 0, "{error}");
        assert!(said.contains("of 359") && said.contains("preprocessing: as given"), "{said}");
    }
    let (code, _, error) = run(&["evaluate", &colour, "--data", data, "--channels", "3", "--crop", "6", "--layout", "nhwc"]);
    assert!(code == 1 && error.contains("[64, 6, 6, 3]"), "{error}");
    assert_eq!(run(&["evaluate", &large, "--data", data, "--size", "0"]).0, 2);
}

#[test]
fn a_stages_result_carries_its_preprocessing_and_equals_the_file_deployed_from_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = digits().join("digits");
    let data = data.to_str().expect("a UTF-8 path");
    let recipe = format!(
        "name = \"q\"\n[data]\ntrain = \"{data}\"\ntest = \"{data}\"\npreprocess = {{ scale = 0.0625 }}\n[model]\narch = \"resnet8\"\n\
         input = [1, 8, 8]\nwidth = 0.5\n[[stages]]\nkind = \"quantize\"\ncalibration = {{ images = 64 }}\n[[stages]]\nkind = \"deploy\"\n\
         target = \"reference\"\nlatency_runs = 1\n"
    );
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    std::fs::write(path("r.toml"), recipe).expect("the recipe is written");
    let (code, _, error) = run(&["run", &path("r.toml"), "--output", &path("out"), "-q"]);
    assert_eq!(code, 0, "{error}");
    let (graph, file) = (path("out/quantize.onnx"), path("out/deploy.deployed.onnx"));
    let score = |model: &str| run(&["evaluate", model, "--data", data]).1;
    assert!(score(&graph).contains("preprocessing: from the model's metadata"));
    assert_eq!(score(&graph).split(',').next(), score(&file).split(',').next());
    let (code, said, error) = run(&["compare", &graph, &file, "--data", data, "--limit", "8"]);
    assert_eq!(code, 0, "{error}");
    let differ: Vec<&str> = said.lines().skip(2).filter(|l| !l.contains("equal")).collect();
    assert!(said.lines().count() > 8 && differ.is_empty(), "{said}");
}

#[test]
fn models_that_have_nothing_in_common_are_not_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    let (a, b) = (path("a.onnx"), path("b.onnx"));
    assert_eq!(run(&["new", "mlp", "-o", &a, "--input", "1,8,8"]).0, 0);
    assert_eq!(run(&["new", "resnet8", "-o", &b, "--input", "1,8,8", "--classes", "7", "--width", "0.5"]).0, 0);
    let (code, said, error) = run(&["compare", &a, &b]);
    assert!(code == 1 && said.is_empty() && error.contains("logits [1, 10]") && error.contains("logits [1, 7]"), "{error}");
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

#[test]
fn a_run_tells_what_each_stage_decided_and_with_v_what_stays_float() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = digits().join("digits");
    let data = data.to_str().expect("a UTF-8 path");
    let recipe = format!(
        "name = \"n\"\n[data]\ntrain = \"{data}\"\ntest = \"{data}\"\n[model]\narch = \"mlp\"\ninput = [1, 8, 8]\n[[stages]]\n\
         kind = \"quantize\"\nskip = [\"/fc1\"]\ncalibration = {{ images = 64 }}\n[[stages]]\nkind = \"prune\"\nsparsity = 0.25\n"
    );
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    std::fs::write(path("r.toml"), recipe).expect("the recipe is written");
    let told = |out: &str, flags: &[&str]| {
        let (code, _, told) = run(&[&["run", &path("r.toml"), "--output", &path(out)], flags].concat());
        assert_eq!(code, 0, "{told}");
        told
    };
    let plain = told("plain", &[]);
    assert!(plain.contains("sparsity 25.0") && !plain.contains("stays float"), "{plain}");
    let verbose = told("verbose", &["-v"]);
    assert!(verbose.contains("stays float: Gemm '"), "{verbose}");
    assert_eq!(told("quiet", &["-q"]), "");
}
