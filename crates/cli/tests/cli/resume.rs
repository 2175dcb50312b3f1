//! A run that is killed or stopped continues where it was, to the same bytes.
use crate::program::{digits, espalier, parts};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const RECIPE: &str = r#"
name = "tiny"
seed = 3
[data]
train = "digits"
test = "digits"
[data.preprocess]
scale = 0.0625
[model]
arch = "lenet300-100"
input = [1, 8, 8]
classes = 10
width = 0.2
[[stages]]
kind = "quantize"
[[stages]]
kind = "finetune"
epochs = 40
batch = 32
[[stages]]
kind = "deploy"
target = "reference"
"#;

fn command(recipe: &Path, out: &Path) -> Command {
    let data = digits();
    let path = |p: &Path| p.to_str().expect("a UTF-8 path").to_string();
    espalier(&["run", &path(recipe), "--output", &path(out), "--data-root", &path(&data), "--json"])
}

/// Starts a run and waits until its training has a checkpoint.
fn until_checkpoint(recipe: &Path, out: &Path) -> Child {
    let mut child = command(recipe, out).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let has_checkpoint = || {
        let folders = fs::read_dir(out.join("store")).into_iter().flatten().flatten();
        folders.map(|f| f.path()).any(|f| f.join("checkpoint").exists())
    };
    while !has_checkpoint() {
        assert!(child.try_wait().expect("the program can be watched").is_none(), "the run ended before it could be interrupted");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Runs to the end; the statuses of the stages, stderr and the deployed file.
fn finish(recipe: &Path, out: &Path) -> (Vec<String>, String, Vec<u8>) {
    let (code, stdout, stderr) = parts(command(recipe, out).output().expect("the program starts"));
    assert_eq!(code, 0, "{stderr}");
    let envelope: serde_json::Value = serde_json::from_str(&stdout).expect("stdout is JSON");
    let stages = envelope["result"]["stages"].as_array().expect("stages");
    let statuses = stages.iter().map(|s| s["status"].as_str().unwrap_or_default().to_string()).collect();
    (statuses, stderr, fs::read(out.join("deploy.deployed.onnx")).expect("the deployed file"))
}

fn a_killed_run_ends_in_the_same_bytes(text: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = dir.path().join("tiny.toml");
    fs::write(&recipe, text).expect("the recipe is written");
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let (statuses, _, expected) = finish(&recipe, &whole);
    assert_eq!(statuses, ["run", "run", "run"]);

    let mut child = until_checkpoint(&recipe, &killed);
    child.kill().expect("the run is killed");
    child.wait().expect("the run ends");
    assert!(!killed.join("deploy.deployed.onnx").exists());

    let (statuses, told, resumed) = finish(&recipe, &killed);
    assert_eq!(statuses, ["cached", "run", "run"]);
    assert!(told.contains("goes on after epoch"), "{told}");
    assert_eq!(resumed, expected);
    assert_eq!(finish(&recipe, &killed).0, ["cached", "cached", "cached"]);
}

#[test]
fn a_killed_run_goes_on_and_ends_in_the_same_bytes() {
    a_killed_run_ends_in_the_same_bytes(RECIPE);
}

#[test]
fn a_gradual_pruning_that_was_killed_goes_on_and_ends_in_the_same_bytes() {
    let gradual = "kind = \"prune\"\nsparsity = 0.9\ncriterion = { kind = \"taylor\", batches = 2 }\n\
                   sparsity_schedule = { kind = \"cubic\", end = 0.8, every = 7 }";
    a_killed_run_ends_in_the_same_bytes(&RECIPE.replace("kind = \"finetune\"", gradual));
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_after_the_step_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipe = dir.path().join("tiny.toml");
    fs::write(&recipe, RECIPE).expect("the recipe is written");
    let out = dir.path().join("out");
    let child = until_checkpoint(&recipe, &out);
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("the signal is sent");
    assert!(sent.success());
    let (code, stdout, _) = parts(child.wait_with_output().expect("the run ends"));
    assert_eq!(code, 130);
    let envelope: serde_json::Value = serde_json::from_str(&stdout).expect("stdout is JSON");
    assert_eq!(envelope["error"]["message"], "stopped in stage 'finetune'");
    assert!(envelope["error"]["hint"].as_str().unwrap_or_default().contains("run the same command again"));
    assert_eq!(finish(&recipe, &out).0, ["cached", "run", "run"]);
}
