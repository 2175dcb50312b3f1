//! A regression through the program: targets of any shape, goals on their own figures, evaluation, a first recipe.
use crate::program::{digits, run};
use espalier::data::npz;
use espalier::report::RunRecord;
use espalier::tensor::{Tensor, random};
use std::collections::BTreeMap;
use std::path::Path;

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

const ALL_STAGES: &str = r#"
name = "slant"
seed = 1
task = "regression"
[data]
train = "slant"
test = "slant"
validation = 0.1
preprocess = { scale = 0.0625, mean = [0.3], std = [0.38] }
[model]
arch = "mlp"
input = [1, 8, 8]
classes = 1
[goals]
metrics.mae = { max = 0.15, max_rise = 0.05 }
metrics.r2 = { min = 0.5 }
[[stages]]
kind = "train"
epochs = 12
optimizer = { kind = "adamw", lr = 0.003 }
early_stopping = 12
[[stages]]
kind = "quantize"
calibration = { images = 128 }
processor_safe = true
[[stages]]
kind = "prune"
sparsity = 0.5
[[stages]]
kind = "distill"
teacher = "train"
student = { arch = "mlp", width = 0.5 }
alpha = 0.5
epochs = 12
optimizer = { kind = "adamw", lr = 0.003 }
[[stages]]
kind = "finetune"
teacher = "train"
alpha = 0.5
epochs = 3
optimizer = { kind = "adamw", lr = 0.001 }
[[stages]]
kind = "deploy"
latency_runs = 2
"#;

#[test]
fn six_stages_a_goal_on_the_error_and_the_file_that_ships() {
    let dir = tempfile::tempdir().expect("a folder");
    let (recipe, out) = (dir.path().join("r.toml"), dir.path().join("out"));
    std::fs::write(&recipe, ALL_STAGES).expect("a recipe");
    let data = digits();
    let (code, said, error) = run(&["run", text(&recipe), "-o", text(&out), "--data-root", text(&data)]);
    assert_eq!(code, 0, "{said}{error}");
    assert!(error.contains("validation MAE 0.") && said.contains("MAE") && said.contains("R²"), "{said}{error}");
    assert!(!said.contains("accuracy") && !error.contains("accuracy"), "{said}{error}");

    let record = RunRecord::load(&out).expect("a record");
    assert_eq!((record.task.kind.as_str(), record.goals.len()), ("regression", 3));
    assert!(record.goals.iter().all(|g| g.met && g.measured.is_some()), "{:?}", record.goals);
    let (stage, deploy) = record.deployed().expect("a deployed file");
    let metric = record.task.main();
    let (file, simulated) = (stage.shown(&metric).expect("an error"), deploy.simulation_figure("mae").expect("an error"));
    assert!((file - simulated).abs() < 0.02, "{file} {simulated}");
    assert!(deploy.runtimes.iter().filter(|r| r.runtime != "reference").all(|r| r.agreement.is_none() && r.accuracy.is_none()));
    assert!(deploy.runtimes[1].differences["mean_difference"] < 0.05, "{:?}", deploy.runtimes);
    assert!(stage.classes.is_none() && stage.metrics.intervals.contains_key("mae"));
    // The best epoch is that of the lowest error.
    let epochs = &record.stages[0].epochs;
    let best = epochs.iter().filter_map(|e| e.validation).fold(f64::INFINITY, f64::min);
    assert!(record.stages[0].metrics.validation.expect("an error") <= best + 1e-9);
    let page = std::fs::read_to_string(out.join("report.html")).expect("a page");
    assert!(page.contains("MAE against file size") && !page.contains("ccuracy"));

    // The file holds its task.
    let model = out.join("deploy.deployed.onnx");
    let slant = data.join("slant");
    let (code, said, error) = run(&["evaluate", text(&model), "--data", text(&slant)]);
    assert!(code == 0 && said.starts_with("MAE 0.") && said.contains("R² 0.") && said.contains("on 359 rows"), "{said}{error}");
    let (code, said, error) = run(&["evaluate", text(&model), "--data", text(&slant), "--json"]);
    let told: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert!(code == 0 && told["result"]["mae"].as_f64().is_some_and(|v| (v - file).abs() < 0.02), "{said}{error}");
    let (code, said, _) = run(&["runs", "list", text(dir.path())]);
    assert!(code == 0 && said.contains("MAE 0."), "{said}");
}

#[test]
fn a_first_recipe_for_numbers_is_a_regression() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    assert_eq!(run(&["new", "mlp", "-o", text(&path("m.onnx")), "--input", "1,8,8", "--classes", "1"]).0, 0);
    let data = digits().join("slant");
    let (code, said, error) = run(&["init", text(&path("m.onnx")), "--data", text(&data), "-o", text(&path("r.toml"))]);
    assert_eq!(code, 0, "{error}");
    let recipe = std::fs::read_to_string(path("r.toml")).expect("a recipe");
    assert!(recipe.contains("task = \"regression\"") && recipe.contains("metrics.r2 = { max_drop"), "{recipe}");
    assert!(recipe.contains("pixels / 255 MAE") && said.contains("scores above chance"), "{said}{recipe}");
    let (code, said, error) = run(&["run", text(&path("r.toml")), "-o", text(&path("out")), "--dry-run"]);
    assert_eq!(code, 0, "{said}{error}");
}

#[test]
fn targets_may_have_any_shape_and_another_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    let x = random::uniform(1, &[64, 1, 2, 2], -1.0, 1.0).expect("numbers");
    let angles = random::uniform(2, &[64, 2, 3], -1.0, 1.0).expect("numbers");
    let labels = Tensor::vector(vec![1i64; 64]);
    let write = |angles: &Tensor| {
        let arrays = [("x", &x), ("angles", angles), ("label", &labels)].map(|(n, t)| (n.to_string(), t.clone()));
        npz::write(&path("d.npz"), &BTreeMap::from(arrays)).expect("written");
    };
    write(&angles);
    let recipe = |task: &str, goals: &str| {
        let text = format!(
            "name = \"t\"\ntask = {task}\n[data]\ntrain = \"d.npz\"\ntest = \"d.npz\"\n[model]\narch = \"mlp\"\ninput = [1, 2, 2]\nclasses = 6\n\
             {goals}[[stages]]\nkind = \"train\"\nepochs = 2\n[[stages]]\nkind = \"deploy\"\ntarget = \"reference\"\nlatency_runs = 1\n"
        );
        std::fs::write(path("r.toml"), text).expect("a recipe");
        run(&["run", path("r.toml").to_str().expect("UTF-8"), "-o", path("out").to_str().expect("UTF-8")])
    };
    let named = "{ kind = \"regression\", target = \"angles\" }";
    let (code, said, error) = recipe(named, "");
    assert!(code == 0 && said.contains("MAE"), "{said}{error}");

    for (task, goals, told) in [
        // The usual names come first, and an array called label is one of them: other arrays are inputs.
        ("\"regression\"", "", "is not given (given: angles, x)"),
        ("\"regresion\"", "", "did you mean 'regression'?"),
        ("{ kind = \"regression\", target = \"angle\" }", "", "no array 'angle'; there are angles, label, x"),
        (named, "[goals]\nmin_accuracy = 90\n", "min_accuracy: a regression has no accuracy"),
        (named, "[goals]\nmetrics.mea = { max = 1 }\n", "did you mean 'mae'?"),
        (named, "[goals]\nmetrics.mae = {}\n", "the goal for 'mae' is empty"),
    ] {
        let (code, _, error) = recipe(task, goals);
        assert!(code == 1 && error.contains(told), "{told}: {error}");
    }
    let mut values = angles.to_f32_vec().expect("numbers");
    values[6 * 5 + 2] = f32::NAN;
    write(&Tensor::new(values, [64, 2, 3]).expect("a tensor"));
    let (code, _, error) = recipe(named, "");
    assert!(code == 1 && error.contains("row 5: element 2 of the target 'target' is NaN"), "{error}");
}
