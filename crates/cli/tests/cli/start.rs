//! Changes of a run that begins with a model file are relative to that file.
use crate::program::{digits, run};

const RECIPE: &str = r#"
name = "from-a-file"
[data]
train = "digits"
test = "digits"
preprocess = { scale = 0.0625 }
[model]
file = "start.onnx"
[goals]
max_accuracy_drop = 1.0
[[stages]]
kind = "train"
epochs = 3
optimizer = { kind = "sgd", lr = 0.05, nesterov = true, weight_decay = 5e-4 }
[[stages]]
kind = "deploy"
target = "reference"
"#;

#[test]
fn the_model_that_a_run_begins_with_is_measured_and_losses_count_from_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    assert_eq!(run(&["new", "mlp", "-o", &path("start.onnx"), "--input", "1,8,8"]).0, 0);
    std::fs::write(path("recipe.toml"), RECIPE).expect("a recipe");
    let data = digits();
    let data = data.to_str().expect("a UTF-8 path");
    let command = ["run", &path("recipe.toml"), "--output", &path("out"), "--data-root", data, "--json"];
    let (code, stdout, stderr) = run(&command);
    assert_eq!(code, 0, "{stderr}");
    let record = &serde_json::from_str::<serde_json::Value>(&stdout).expect("JSON")["result"];
    let (start, end) = (record["start"]["metrics"]["accuracy"].as_f64(), record["stages"][1]["metrics"]["accuracy"].as_f64());
    let (start, end) = (start.expect("an accuracy"), end.expect("an accuracy"));
    assert!(start < 0.5 && end > 0.7, "an untrained network, then a trained one: {start}, {end}");
    let drop = record["goals"][0]["measured"].as_f64().expect("a measured drop");
    assert!((drop - (start - end) * 100.0).abs() < 1e-9, "{drop}");
    assert_eq!(record["start"]["metrics"]["file_bytes"].as_u64(), std::fs::metadata(path("start.onnx")).ok().map(|m| m.len()));

    let (_, table, _) = run(&["report", &path("out")]);
    assert!(table.lines().nth(2).is_some_and(|l| l.starts_with("start ")), "{table}");
    let (_, again, _) = run(&command);
    assert!(again.contains("cached"), "{again}");
}
