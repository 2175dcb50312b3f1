//! `espalier sensitivity`: a table for people, files for programs, and its errors.
use crate::program::{digits, run};
use std::fs;

const RECIPE: &str = r#"
name = "widths"
[data]
train = "digits"
test = "digits"
preprocess = { scale = 0.0625 }
[model]
arch = "resnet8"
input = [1, 8, 8]
width = 0.25
[[stages]]
kind = "quantize"
calibration = { images = 32 }
search = { samples = 32 }
[[stages.rules]]
position = "first"
weights = { bits = 8 }
"#;

/// Each number as `#`, so that only the form is compared: rounding depends on the processor.
fn form(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive([' ', '\n']) {
        let bare = word.trim_end();
        let number = bare.parse::<f64>().is_ok() && bare.contains(['.', '+', '-']);
        out += &if number { word.replace(bare, "#") } else { word.to_string() };
    }
    out.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn a_recipes_layers_are_measured_at_each_width_and_the_table_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    fs::write(path("recipe.toml"), RECIPE).expect("a recipe");
    let data = digits();
    let data = data.to_str().expect("a UTF-8 path");
    let files = [path("s.json"), path("s.csv"), path("s.html")];
    let recipe = path("recipe.toml");
    let mut command = vec!["sensitivity", &recipe, "--data-root", data, "--widths", "3,8"];
    files.iter().for_each(|f| command.extend(["-o", f]));
    let (code, said, error) = run(&command);
    assert_eq!(code, 0, "{error}");
    insta::assert_snapshot!("sensitivity", form(&said));
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&files[0]).expect("the table")).expect("JSON");
    let groups = json["groups"].as_array().expect("groups");
    assert!(groups.len() > 4 && groups[0]["widths"].as_array().expect("widths").len() == 2, "{json}");
    let csv = fs::read_to_string(&files[1]).expect("the table");
    assert_eq!((csv.lines().count(), csv.starts_with("layers,elements,macs,bits,noise")), (1 + 2 * groups.len(), true), "{csv}");
    let page = fs::read_to_string(&files[2]).expect("the page");
    assert!(page.contains("<svg") && page.contains("Sensitivity to widths") && !page.contains("http-equiv"), "{page}");

    // The table in place of a measurement.
    let searched = fs::read_to_string(path("recipe.toml")).expect("the recipe");
    let searched =
        searched.replace("search = { samples = 32 }", "budget = \"5 bits\"\nsearch = { widths = [3, 8], sensitivity = \"s.json\" }");
    fs::write(path("budget.toml"), searched).expect("a recipe");
    let (code, _, error) = run(&["run", &path("budget.toml"), "--data-root", data, "--output", &path("out")]);
    assert_eq!(code, 0, "{error}");
    assert!(error.contains("widths within 5 bits: 3 bits in"), "{error}");
    assert!(fs::read_to_string(path("out/quantize.plan.toml")).expect("the plan").contains("[[stages.rules]]"));
}

#[test]
fn a_recipes_layers_are_measured_at_each_sparsity_and_shares_follow() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    let begin = RECIPE.split("[[stages]]").next().unwrap_or_default().to_string();
    let stage = |settings: &str| format!("{begin}[[stages]]\nkind = \"prune\"\nsparsity = 0.6\n{settings}\n");
    fs::write(path("recipe.toml"), stage("granularity = \"filter\"")).expect("a recipe");
    let data = digits();
    let data = data.to_str().expect("a UTF-8 path");
    let (files, recipe) = ([path("s.json"), path("s.csv"), path("s.html")], path("recipe.toml"));
    let mut command = vec!["sensitivity", &recipe, "--prune", "--data-root", data, "--sparsities", "0.5,0.75", "--samples", "32"];
    files.iter().for_each(|f| command.extend(["-o", f]));
    let (code, said, error) = run(&command);
    assert_eq!(code, 0, "{error}");
    insta::assert_snapshot!("sensitivity_to_pruning", form(&said));
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&files[0]).expect("the table")).expect("JSON");
    let layers = json["layers"].as_array().expect("layers");
    assert!(layers.len() > 4 && layers[0]["sparsities"].as_array().expect("sparsities").len() == 2, "{json}");
    assert_eq!(fs::read_to_string(&files[1]).expect("the table").lines().count(), 1 + 2 * layers.len());
    assert!(fs::read_to_string(&files[2]).expect("the page").contains("Sensitivity to pruning"));

    // The table in place of a measurement, and a stage that measures.
    for (name, scope, told) in [
        ("table", "{ kind = \"sensitivity\", table = \"s.json\" }", "over 10 weights"),
        ("measured", "{ kind = \"sensitivity\", samples = 16 }", "by what each alone costs on 16 training samples"),
    ] {
        fs::write(path("shares.toml"), stage(&format!("scope = {scope}"))).expect("a recipe");
        let out = path(name);
        let (code, _, error) = run(&["run", &path("shares.toml"), "--data-root", data, "--output", &out]);
        assert_eq!(code, 0, "{name}: {error}");
        assert!(error.contains(told), "{name}: {error}");
    }
    assert!(fs::read_to_string(path("measured/report.html")).expect("the page").contains("Sparsities after prune"));
    assert!(fs::read_to_string(path("measured/prune.sensitivity.json")).expect("the table").contains("\"by\": \"magnitude\""));

    let refused = |arguments: &[&str], what: &str| {
        let (code, _, error) = run(arguments);
        assert!(code != 0 && error.contains(what), "{arguments:?}: {code} {error}");
    };
    refused(&["sensitivity", &recipe, "--sparsities", "0.5"], "--prune");
    refused(&["sensitivity", &recipe, "--prune", "--data-root", data, "--sparsities", "0.5,0.3"], "rising");
    fs::write(path("quantize.toml"), RECIPE).expect("a recipe");
    refused(&["sensitivity", &path("quantize.toml"), "--prune"], "has no prune stage");
}

#[test]
fn a_model_is_measured_on_its_data_and_what_cannot_be_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    let model = path("mlp.onnx");
    assert_eq!(run(&["new", "mlp", "-o", &model, "--input", "1,8,8"]).0, 0);
    let data = digits().join("digits");
    let data = data.to_str().expect("a UTF-8 path");
    let (code, said, error) =
        run(&["sensitivity", &model, "--data", data, "--scale", "0.0625", "--samples", "16", "--widths", "4", "--json"]);
    assert_eq!(code, 0, "{error}");
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((said["command"].as_str(), said["result"]["samples"].as_u64()), (Some("sensitivity"), Some(16)));

    let refused = |arguments: &[&str], what: &str| {
        let (code, _, error) = run(arguments);
        assert!(code == 1 && error.contains(what), "{arguments:?}: {code} {error}");
    };
    refused(&["sensitivity", &model], "a model needs --data");
    refused(&["sensitivity", &model, "--data", data, "-o", &path("s.txt")], "json, csv, html");
    fs::write(
        path("none.toml"),
        RECIPE.replace("kind = \"quantize\"", "kind = \"prune\"\nsparsity = 0.5").split("calibration").next().unwrap_or_default(),
    )
    .expect("a recipe");
    refused(&["sensitivity", &path("none.toml")], "has no quantize stage");
    let later = RECIPE.replace("[[stages]]\n", "[[stages]]\nkind = \"train\"\n[[stages]]\n");
    fs::write(path("later.toml"), later).expect("a recipe");
    refused(&["sensitivity", &path("later.toml"), "--data-root", data], "stage 'train' comes before the stage that is looked at");
    fs::write(path("widths.toml"), RECIPE).expect("a recipe");
    refused(&["sensitivity", &path("widths.toml"), "--widths", "8,4"], "rising");
}
