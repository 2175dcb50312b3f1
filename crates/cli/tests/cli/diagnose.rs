//! `espalier diagnose`: a run's folder and a recipe, what is suggested and tried, files, and its errors.
use crate::program::{digits, run};
use serde_json::Value;
use std::fs;

const RECIPE: &str = r#"
name = "coarse"
[data]
train = "digits"
test = "digits"
preprocess = { scale = 0.0625 }
[model]
arch = "resnet8"
input = [1, 8, 8]
width = 0.25
[[stages]]
kind = "train"
epochs = 1
[[stages]]
kind = "quantize"
weights = { bits = 3, granularity = "tensor" }
calibration = { images = 32, observer = "min_max" }
search = { samples = 64 }
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a UTF-8 path").to_string()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path(name)).expect("the file")).expect("JSON")
    }
}

fn number(v: &Value) -> f64 {
    v.as_f64().expect("a number")
}

#[test]
fn a_run_is_diagnosed_and_what_is_tried_is_kept_only_if_better() {
    let dir = Folder(tempfile::tempdir().expect("a folder"));
    fs::write(dir.path("recipe.toml"), RECIPE).expect("a recipe");
    let data = digits();
    let data = data.to_str().expect("a UTF-8 path");
    let (code, _, error) = run(&["run", &dir.path("recipe.toml"), "--data-root", data, "--output", &dir.path("out")]);
    assert_eq!(code, 0, "{error}");

    // The folder of data is the run's.
    let files = ["d.json", "d.csv"].map(|name| dir.path(name));
    let (code, said, error) = run(&["diagnose", &dir.path("out"), "-o", &files[0], "-o", &files[1]]);
    assert_eq!(code, 0, "{error}");
    assert!(said.starts_with("quantize: accuracy ") && said.contains("on 64 training samples that are not calibration samples"), "{said}");
    for heading in ["mean shifted", "Cost of each layer alone", "Worth trying", "corrections = ["] {
        assert!(said.contains(heading), "{heading}: {said}");
    }
    let found = dir.json("d.json");
    let layers = found["layers"].as_array().expect("layers");
    let named = |l: &Value| l["weights"].as_array().is_some_and(|w| w[0] == "int4 per tensor" || w[0] == "int3 per tensor");
    assert_eq!(layers.iter().filter(|l| named(l)).count(), 10, "{found}");
    for layer in layers {
        let sum: f64 = layer["causes"].as_object().expect("causes").values().map(number).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{layer}");
    }
    assert!((layers.iter().map(|l| number(&l["share"])).sum::<f64>() - 1.0).abs() < 1e-6);
    let csv = fs::read_to_string(&files[1]).expect("the table");
    assert!(csv.starts_with("layer,op,weights") && csv.lines().count() == layers.len() + 1, "{csv}");

    let fixed = dir.path("fixed.toml");
    let (code, said, error) = run(&["diagnose", &dir.path("out"), "--fix", "--budget", "3", "-o", &fixed, "-o", &files[0]]);
    assert_eq!(code, 0, "{error}");
    let fix = &dir.json("d.json")["fixed"];
    assert!(fix["tried"] == 3 && said.contains("Tried 3, kept "), "{fix} {said}");
    let kept = fix["kept"].as_array().expect("settings");
    assert!(!kept.is_empty() && number(&fix["after"]["noise"]) < number(&fix["before"]["noise"]), "{fix}");
    // The recipe that was written has what is kept: diagnosed again, it begins where the trials ended.
    assert!(error.contains("written: ") && fs::read_to_string(&fixed).expect("a recipe").contains("# stages.quantize."), "{error}");
    let model = dir.path("out/train.onnx");
    let (code, _, error) = run(&["diagnose", &fixed, "--model", &model, "--data-root", data, "-o", &files[0]]);
    assert_eq!(code, 0, "{error}");
    let again = number(&dir.json("d.json")["quantized"]["noise"]);
    let after = number(&fix["after"]["noise"]);
    assert!((again - after).abs() < 1e-4 * after, "{again} {after}");
}

#[test]
fn a_model_is_diagnosed_on_its_data_and_what_cannot_be_is_told() {
    let dir = Folder(tempfile::tempdir().expect("a folder"));
    let model = dir.path("mlp.onnx");
    assert_eq!(run(&["new", "mlp", "-o", &model, "--input", "1,8,8"]).0, 0);
    let data = digits().join("digits");
    let data = data.to_str().expect("a UTF-8 path");
    let (code, said, error) = run(&["diagnose", &model, "--data", data, "--scale", "0.0625", "--samples", "16", "--json"]);
    assert_eq!(code, 0, "{error}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((said["command"].as_str(), said["result"]["samples"].as_u64()), (Some("diagnose"), Some(16)));
    assert!(said["result"].get("fixed").is_none());

    let refused = |arguments: &[&str], code: i32, what: &str| {
        let (got, _, error) = run(arguments);
        assert!(got == code && error.contains(what), "{arguments:?}: {got} {error}");
    };
    refused(&["diagnose", &model], 1, "a model needs --data");
    refused(&["diagnose", &dir.path("")], 1, "no run record can be read");
    refused(&["diagnose", &model, "-o", &dir.path("s.html")], 1, "json, csv, toml");
    refused(&["diagnose", &model, "-o", &dir.path("s.toml")], 1, "add --fix");
    refused(&["diagnose", &model, "--budget", "3"], 2, "--fix");
    refused(&["diagnose", &model, "--fix", "--budget", "long"], 2, "neither a time");
    refused(&["diagnose", &dir.path(""), "--set", "seed=2"], 1, "--set goes with a recipe");
}
