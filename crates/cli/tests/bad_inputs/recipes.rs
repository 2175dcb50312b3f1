//! Recipes, goals and the run's folder.
use crate::support::Folder;
use espalier::tensor::Tensor;

/// A recipe that quantizes and deploys a small network: no training, so that it runs in a moment.
const RECIPE: &str = r#"
name = "small"

[data]
train = "rows.npz"
test = "rows.npz"

[model]
arch = "lenet300-100"
input = [1, 4, 4]
classes = 2

[[stages]]
kind = "quantize"

[[stages]]
kind = "deploy"
latency_runs = 1
"#;

fn folder(recipe: &str) -> Folder {
    let folder = Folder::new();
    let pixels: Vec<u8> = (0..8 * 16).map(|i| (i * 7 % 256) as u8).collect();
    let labels: Vec<i64> = (0..8).map(|i| i % 2).collect();
    folder.arrays("rows.npz", &[("x", Tensor::new(pixels, [8, 4, 4]).unwrap()), ("y", Tensor::vector(labels))]);
    folder.write("r.toml", recipe);
    folder
}

#[test]
fn a_missing_recipe() {
    Folder::new().fails("run nowhere.toml", 1, "nowhere.toml");
}

#[test]
fn a_recipe_that_is_not_toml() {
    folder("name = \"a\"\nstages [").fails("run r.toml", 1, "r.toml:2:");
}

#[test]
fn an_unknown_key() {
    let recipe = format!("{RECIPE}\n[[stages]]\nkind = \"prune\"\nsparsty = 0.5\n");
    let folder = folder(&recipe);
    folder.fails("run r.toml --output out", 1, "did you mean 'sparsity'?");
    assert!(!folder.path("out").exists());
}

#[test]
fn a_misspelt_value() {
    let recipe = RECIPE.replace("kind = \"quantize\"", "kind = \"quantise\"");
    folder(&recipe).fails("run r.toml", 1, "did you mean 'quantize'?");
}

#[test]
fn a_misspelt_architecture() {
    folder(&RECIPE.replace("lenet300-100", "lenet300")).fails("run r.toml", 1, "did you mean 'lenet300-100'?");
}

#[test]
fn a_value_out_of_range() {
    let folder = folder(&format!("{RECIPE}\n[[stages]]\nkind = \"prune\"\nsparsity = 90\n"));
    folder.fails("run r.toml", 1, "90 % is 0.9");
}

#[test]
fn an_override_of_a_stage_that_does_not_exist() {
    folder(RECIPE).fails("run r.toml --set stages.quantise.weights.bits=4", 1, "quantise");
}

#[test]
fn data_that_are_missing() {
    folder(&RECIPE.replace("rows.npz", "nowhere.npz")).fails("run r.toml --output out", 1, "nowhere.npz");
}

#[test]
fn an_output_folder_that_cannot_be_made() {
    let folder = folder(RECIPE);
    folder.write("taken", "a file");
    folder.fails("run r.toml --output taken/out", 1, "taken/out");
}

#[test]
fn a_goal_that_is_missed() {
    let folder = folder(&format!("{RECIPE}\n[goals]\nmax_file_size = \"1 kB\"\n"));
    let output = folder.espalier("run r.toml --output out");
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("$ espalier run r.toml --output out\n{said}{told}exit code {:?}", output.status.code());
    assert_eq!(output.status.code(), Some(3), "{said}{told}");
    assert!(said.contains("the goal allows 1.00 kB"), "{said}");
    assert!(folder.path("out/run.json").exists());
}
