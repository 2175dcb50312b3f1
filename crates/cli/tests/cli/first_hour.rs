//! The first commands with a user's own model: a recipe is written, planned and run; and the short commands.
use crate::program::{digits, run};
use espalier::data::npz;
use espalier::graph::{Dim, Model, Node, Value, ValueType};
use espalier::tensor::{DType, Tensor, random};
use std::path::Path;

/// A folder with a network for the digits, trained for a few epochs.
struct Trained(tempfile::TempDir);

impl Trained {
    fn new() -> Self {
        let dir = Trained(tempfile::tempdir().expect("a folder"));
        let recipe = "name = \"t\"\n[data]\ntrain = \"digits\"\npreprocess = { scale = 0.0625 }\n[model]\narch = \"lenet300-100\"\nwidth = 0.5\n\
                      input = [1, 8, 8]\n[[stages]]\nkind = \"train\"\nepochs = 8\noptimizer = { kind = \"adamw\", lr = 0.003 }\n";
        std::fs::write(dir.path("t.toml"), recipe).expect("a recipe");
        let data = digits();
        let (code, _, error) = run(&["run", &dir.path("t.toml"), "-o", &dir.path("t"), "--data-root", data.to_str().expect("UTF-8"), "-q"]);
        assert_eq!(code, 0, "{error}");
        std::fs::copy(dir.path("t/train.onnx"), dir.path("model.onnx")).expect("the trained model");
        dir
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a UTF-8 path").to_string()
    }

    /// The model without the preprocessing in its metadata.
    fn bare(&self) -> String {
        let mut model = espalier::onnx::load(Path::new(&self.path("model.onnx"))).expect("a model");
        model.metadata.clear();
        espalier::onnx::save(&model, Path::new(&self.path("bare.onnx"))).expect("written");
        self.path("bare.onnx")
    }
}

fn data() -> String {
    digits().join("digits").to_str().expect("a UTF-8 path").to_string()
}

#[test]
fn a_recipe_is_written_with_reasons_and_runs_as_it_is() {
    let dir = Trained::new();
    let (bare, recipe, out) = (dir.bare(), dir.path("r.toml"), dir.path("out"));
    let (code, said, error) = run(&["init", &bare, "--data", &data(), "-o", &recipe]);
    assert_eq!(code, 0, "{error}");
    assert!(said.contains("r.toml: written"), "{said}");
    let text = std::fs::read_to_string(&recipe).expect("the recipe");
    for part in [
        "grey images of 8 x 8",
        "scored best of those tried on 128 images",
        "observer = \"auto\"",
        "kind = \"deploy\"",
        "max_accuracy_drop",
    ] {
        assert!(text.contains(part), "'{part}' in {text}");
    }
    // An existing file is never overwritten.
    let (code, _, error) = run(&["init", &bare, "--data", &data(), "-o", &recipe]);
    assert!(code == 1 && error.contains("exists already"), "{error}");

    let (code, plan, error) = run(&["run", &recipe, "-o", &out, "--dry-run"]);
    assert_eq!(code, 0, "{error}");
    assert!(plan.contains("nothing was run") && plan.contains("[1/2] quantize: about") && plan.contains("359 to test"), "{plan}");
    assert!(!Path::new(&out).exists(), "a dry run writes nothing");

    let (code, table, error) = run(&["run", &recipe, "-o", &out, "--set", "stages.deploy.latency_runs=1"]);
    assert_eq!(code, 0, "{table}{error}");
    assert!(error.contains("observer = \"auto\": ") && error.contains("on 64 samples held back"), "{error}");
    let (_, plan, _) = run(&["run", &recipe, "-o", &out, "--dry-run", "--set", "stages.deploy.latency_runs=1"]);
    assert!(plan.contains("[2/2] deploy: already done"), "{plan}");

    let (code, list, error) = run(&["runs", "list", &dir.path("")]);
    assert!(code == 0 && list.lines().count() == 2 && list.contains("quantize, deploy"), "{list}{error}");
    let (code, diff, _) = run(&["runs", "diff", &dir.path("t"), &out]);
    assert!(code == 0 && diff.contains("deploy accuracy") && diff.contains("stages.train  "), "{diff}");
}

#[test]
fn a_model_is_quantized_and_pruned_without_a_recipe() {
    let dir = Trained::new();
    let (model, small) = (dir.path("model.onnx"), dir.path("small.onnx"));
    let quick = ["--set", "stages.deploy.latency_runs=1"];
    let (code, _, told) = run(&[&["quantize", &model, "--data", &data(), "-o", &small, "--run", &dir.path("q")][..], &quick].concat());
    assert_eq!(code, 0, "{told}");
    assert!(
        told.contains("this command runs the recipe")
            && told.contains("kind = \"quantize\"")
            && told.contains("small.onnx (again: espalier run "),
        "{told}"
    );
    let size = |path: &str| std::fs::metadata(path).expect("a file").len();
    assert!(size(&small) < size(&model) / 2);
    assert!(told.contains("\nlatency_runs = 1\n"), "what it prints is what it runs: {told}");
    let (code, plan, _) = run(&["run", &dir.path("q/recipe.toml"), "-o", &dir.path("q"), "--dry-run"]);
    assert!(code == 0 && plan.contains("[2/2] deploy: already done"), "the recipe stands for the run: {plan}");
    // The model itself is never written over.
    let (code, _, error) = run(&["quantize", &model, "--data", &data(), "-o", &model]);
    assert!(code == 1 && error.contains("is the model itself"), "{error}");
    // The width of a file is fixed.
    let (code, _, error) = run(&["distill", &model, "--data", &data(), "--student", &small, "--width", "0.5", "-o", &dir.path("s.onnx")]);
    assert!(code == 1 && error.contains("width = 0.5 is for an architecture of the zoo"), "{error}");
    let pruned = dir.path("pruned.onnx");
    let arguments = ["prune", &model, "--data", &data(), "-o", &pruned, "--run", &dir.path("p"), "--epochs", "1", "--sparsity", "0.6"];
    let (code, _, told) = run(&[&arguments[..], &quick].concat());
    // One epoch may lose more accuracy than the recipe's goal allows.
    assert!(code == 0 || code == 3, "{told}");
    assert!(told.contains("sparsity 60.00 %") && Path::new(&pruned).exists(), "{told}");
}

/// `y = x · w · k + s` with a scalar `k`, and samples of `s` along its second axis; and six rows for it.
fn with_a_state_and_a_scalar(dir: &Path) {
    let mut m = Model::new(17);
    let mut value = |name: &str, shape: &[Option<usize>]| {
        let dims = shape.iter().map(|n| n.map_or(Dim::Symbol("N".into()), Dim::Known)).collect();
        m.values.add(Value { name: name.into(), ty: ValueType::Tensor { dtype: DType::F32, shape: Some(dims) }, ..Value::default() })
    };
    let (x, s, k) = (value("x", &[None, Some(4)]), value("s", &[Some(1), None, Some(3)]), value("k", &[]));
    let y = value("y", &[None, Some(3)]);
    let w = m.values.add_constant("w", random::normal(1, &[4, 3], 0.0, 0.5).expect("a weight"));
    let first = m.values.add_constant("first", Tensor::vector(vec![0i64]));
    let [product, scaled, state] = ["product", "scaled", "state"].map(|n| m.values.add_named(n));
    (m.graph.inputs, m.graph.outputs, m.graph.constants) = (vec![x, s, k], vec![y], vec![w, first]);
    m.graph.nodes = vec![
        Node::new("MatMul", "fc", &[x, w], &[product]),
        Node::new("Mul", "scale", &[product, k], &[scaled]),
        Node::new("Squeeze", "state", &[s, first], &[state]),
        Node::new("Add", "add", &[scaled, state], &[y]),
    ];
    espalier::onnx::save(&m, &dir.join("m.onnx")).expect("a model");
    let rows = |seed, shape: &[usize]| random::normal(seed, shape, 0.0, 1.0).expect("rows");
    let arrays = [("x", rows(2, &[6, 4])), ("s", rows(3, &[1, 6, 3])), ("k", Tensor::scalar(0.5f32))];
    npz::write(&dir.join("d.npz"), &arrays.map(|(name, t)| (name.to_string(), t)).into()).expect("data");
}

#[test]
fn samples_along_any_axis_and_scalars_need_no_recipe() {
    let dir = tempfile::tempdir().expect("a folder");
    with_a_state_and_a_scalar(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    let (model, data, small) = (path("m.onnx"), path("d.npz"), path("small.onnx"));
    let (code, _, error) = run(&["init", &model, "--data", &data, "-o", &path("r.toml")]);
    assert_eq!(code, 0, "{error}");
    let text = std::fs::read_to_string(path("r.toml")).expect("the recipe");
    assert!(text.contains("arrays, given to the model as they are, without labels: 6 to train"), "{text}");
    let quick = ["--set", "stages.deploy.latency_runs=1"];
    let (code, _, told) = run(&[&["quantize", &model, "--data", &data, "-o", &small, "--run", &path("q")][..], &quick].concat());
    assert_eq!(code, 0, "{told}");
    assert!(!told.contains("the memory that a file takes is not known"), "a scalar has the empty shape: {told}");
}

#[test]
fn a_student_may_be_a_file_and_losses_count_from_the_teacher() {
    let dir = Trained::new();
    let (model, student) = (dir.path("model.onnx"), dir.path("student.onnx"));
    assert_eq!(run(&["new", "mlp", "-o", &student, "--input", "1,8,8", "--width", "0.5"]).0, 0);
    let arguments = [
        "distill",
        &model,
        "--student",
        &student,
        "--data",
        &data(),
        "-o",
        &dir.path("out.onnx"),
        "--run",
        &dir.path("d"),
        "--epochs",
        "4",
    ];
    let (_, table, told) = run(&[&arguments[..], &["--set", "stages.deploy.latency_runs=1", "--json"]].concat());
    let record = &serde_json::from_str::<serde_json::Value>(&table).unwrap_or_else(|e| panic!("{e}: {table}{told}"))["result"];
    let teacher = record["stages"][0]["metrics"]["other"]["teacher_accuracy"].as_f64().expect("the teacher's accuracy");
    let end = record["stages"][1]["deploy"]["runtimes"][0]["accuracy"].as_f64().expect("the file's accuracy");
    let drop = record["goals"][0]["measured"].as_f64().expect("a drop");
    assert!(teacher > 0.8 && end > 0.5 && (drop - (teacher - end) * 100.0).abs() < 1.5, "{teacher} {end} {drop}");
}

#[test]
fn old_spellings_are_read_with_a_hint() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = dir.path().join("r.toml");
    std::fs::write(
        &recipe,
        "name = \"x\"\n[model]\narch = \"mlp\"\n[data]\ntrain = \"digits\"\n[[stages]]\nkind = \"prune\"\nsparsity = 0.5\n",
    )
    .expect("a recipe");
    let (recipe, out, root) = (recipe.display().to_string(), dir.path().join("out").display().to_string(), digits().display().to_string());
    let (code, _, told) = run(&["run", &recipe, "--out", &out, "--data", &root, "--dry-run"]);
    assert!(code == 0 && told.contains("--out is now called --output") && told.contains("--data is now called --data-root"), "{told}");
    assert_eq!(run(&["run", &recipe, "--out", &out, "--output", &out]).0, 2);
}

#[test]
fn sections_are_explained_and_names_completed() {
    for section in ["data", "model", "goals", "preprocess", "calibration", "schedule"] {
        let (code, said, error) = run(&["explain", section]);
        assert!(code == 0 && said.starts_with(&format!("{section}: ")) && said.contains("In a recipe:"), "{said}{error}");
    }
    let (_, script, _) = run(&["completions", "bash"]);
    for name in ["resnet20", "onnxruntime", "calibration"] {
        assert!(script.contains(name), "{name}");
    }
}
