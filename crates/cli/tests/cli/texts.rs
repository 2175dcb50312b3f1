//! Help, errors and exit codes as they are printed.
use crate::program::run;
use std::fs;

#[test]
fn help_texts() {
    let commands = [
        "run",
        "init",
        "quantize",
        "prune",
        "distill",
        "convert",
        "pack",
        "unpack",
        "execute",
        "inspect",
        "evaluate",
        "compare",
        "sensitivity",
        "diagnose",
        "bench",
        "new",
        "report",
        "list",
        "explain",
    ];
    let mut text = run(&["--help"]).1;
    for command in commands {
        let (code, help, _) = run(&[command, "--help"]);
        assert_eq!(code, 0, "{command}");
        text += &format!("\n==== {command}\n{help}");
    }
    for (group, command) in [("runs", "list"), ("runs", "diff"), ("runtime", "fetch")] {
        text += &format!("\n==== {group} {command}\n{}", run(&[group, command, "--help"]).1);
    }
    for command in ["train", "infer"] {
        text += &format!("\n==== bench {command}\n{}", run(&["bench", command, "--help"]).1);
    }
    insta::assert_snapshot!("help", text);
}

#[test]
fn errors_in_recipes_point_at_the_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let recipes = [
        ("unknown key", "name = \"x\"\n[[stages]]\nkind = \"prune\"\nsparcity = 0.5\n"),
        ("unknown kind", "name = \"x\"\n[[stages]]\nkind = \"prunes\"\n"),
        ("wrong type", "name = \"x\"\n[[stages]]\nkind = \"prune\"\nsparsity = \"half\"\n"),
        ("out of range", "name = \"x\"\n[model]\narch = \"lenet5\"\n[[stages]]\nkind = \"prune\"\nsparsity = 1.5\n"),
        ("not TOML", "name = \"x\n"),
    ];
    let mut text = String::new();
    for (what, recipe) in recipes {
        let path = dir.path().join("recipe.toml");
        fs::write(&path, recipe).expect("the recipe is written");
        let (code, stdout, stderr) = run(&["run", path.to_str().expect("a UTF-8 path"), "--output", "unused"]);
        assert_eq!((code, stdout.as_str()), (1, ""), "{what}");
        text += &format!("==== {what}\n{}\n", stderr.replace(&dir.path().display().to_string(), "DIR"));
    }
    insta::assert_snapshot!("recipe_errors", text);
}

#[test]
fn exit_codes() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("broken.onnx"), [8, 8, 255, 255]).expect("the file is written");
    assert_eq!(run(&["new", "lenet5", "-o", &path("lenet5.onnx")]).0, 0);
    for (arguments, expected) in [
        (vec!["--version"], 0),
        (vec!["list", "stages"], 0),
        (vec!["explain", "Conv"], 0),
        (vec!["explain", "nothing"], 1),
        (vec!["new", "lenet6", "-o", "unused.onnx"], 1),
        (vec!["inspect", "absent.onnx"], 1),
        (vec!["inspect", &path("broken.onnx")], 1),
        (vec!["execute", &path("lenet5.onnx"), "--input", "absent.npz"], 1),
        (vec!["convert", &path("lenet5.onnx"), "-o", &path("none/out.onnx")], 1),
        (vec!["bench", "infer", &path("lenet5.onnx"), "--runtime", "nothing"], 1),
        (vec!["frobnicate"], 2),
        (vec!["inspect"], 2),
        (vec!["list", "things"], 2),
    ] {
        let (code, _, stderr) = run(&arguments);
        assert_eq!(code, expected, "{arguments:?}: {stderr}");
        assert!(!stderr.contains("internal error"), "{stderr}");
    }
}

#[test]
fn a_missed_goal_is_told_and_ends_with_3() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, recipe, out) = (dir.path().join("m.onnx"), dir.path().join("r.toml"), dir.path().join("out"));
    let text = |p: &std::path::Path| p.display().to_string();
    assert_eq!(run(&["new", "lenet300-100", "-o", &text(&model)]).0, 0);
    let goals =
        "name = \"goal\"\n[model]\nfile = \"m.onnx\"\n[goals]\nmax_file_size = \"1 kB\"\n[[stages]]\nkind = \"prune\"\nsparsity = 0.5\n";
    fs::write(&recipe, goals).expect("the recipe is written");
    let (code, stdout, stderr) = run(&["run", &text(&recipe), "--output", &text(&out)]);
    assert_eq!(code, 3, "{stderr}");
    assert!(stdout.contains("✗ size:"), "{stdout}");
}

#[test]
fn results_and_errors_share_one_json_envelope() {
    for (arguments, ok) in [(["explain", "Conv", "--json"], true), (["explain", "nothing", "--json"], false)] {
        let (_, stdout, stderr) = run(&arguments);
        let value: serde_json::Value = serde_json::from_str(&stdout).expect("stdout is JSON");
        assert_eq!((&value["schema_version"], &value["command"]), (&1.into(), &"explain".into()));
        assert_eq!(value["ok"], ok);
        assert_eq!(stderr, "");
    }
    for arguments in [vec!["frobnicate", "--json"], vec!["--json", "inspect"], vec!["list", "things", "--json"]] {
        let (code, stdout, stderr) = run(&arguments);
        let value: serde_json::Value = serde_json::from_str(&stdout).expect("stdout is JSON");
        assert_eq!((code, &value["ok"], &value["error"]["exit_code"]), (2, &false.into(), &2.into()), "{arguments:?}");
        assert!(value["error"]["message"].as_str().is_some_and(|m| !m.is_empty() && !m.starts_with("error")), "{stdout}");
        assert_eq!(stderr, "");
    }
    assert_eq!(run(&["--help", "--json"]).0, 0);
}

#[test]
fn what_is_misspelt_is_suggested() {
    for (written, meant) in [("quantise", "quantize"), ("resnet21", "resnet20"), ("Cov", "Conv"), ("percentil", "percentile")] {
        let (code, _, stderr) = run(&["explain", written]);
        assert_eq!(code, 1);
        assert!(stderr.contains(&format!("did you mean '{meant}'?")), "{stderr}");
    }
}

/// The CPU is always available; unavailable devices are refused by name, with a remedy.
#[test]
fn devices_are_named_and_refused_by_name() {
    let (code, list, _) = run(&["--device", "cpu", "list", "devices"]);
    assert!(code == 0 && list.starts_with("cpu "), "{code} {list}");
    let (code, _, message) = run(&["--device", "tpu", "list", "devices"]);
    assert!(code == 1 && message.contains("'tpu'") && message.contains("cpu, gpu or gpu:N"), "{code} {message}");
    let (code, _, message) = run(&["--device", "gpu:99", "list", "devices"]);
    assert!(code == 1 && message.contains("hint: --device cpu"), "{code} {message}");
    assert!(cfg!(feature = "gpu") || message.contains("--features gpu"), "{message}");
}
