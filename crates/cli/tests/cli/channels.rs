//! Channels: listed, and removed by one command.
use crate::program::{digits, run};

#[test]
fn groups_are_listed_with_what_keeps_its_channels() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = dir.path().join("net.onnx").to_str().expect("a UTF-8 path").to_string();
    assert_eq!(run(&["new", "resnet8", "-o", &model, "--input", "1,8,8", "--width", "0.25"]).0, 0);
    let (code, said, error) = run(&["inspect", "--groups", &model]);
    assert_eq!(code, 0, "{error}");
    insta::assert_snapshot!("channel_groups", said.replace(&model, "net.onnx"));
    let (_, json, _) = run(&["inspect", "--groups", "--json", &model]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert!(json["result"]["groups"][0]["channels"].as_u64().is_some_and(|n| n > 1), "{json}");
}

#[test]
fn a_share_of_the_macs_is_removed_and_the_file_is_smaller() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("a UTF-8 path").to_string();
    let (model, out, folder) = (path("net.onnx"), path("out.onnx"), path("run"));
    assert_eq!(run(&["new", "resnet8", "-o", &model, "--input", "1,8,8", "--width", "0.5"]).0, 0);
    let data = digits().join("digits");
    let data = data.to_str().expect("a UTF-8 path");
    let given = ["prune", &model, "--data", data, "--scale", "0.0625", "-o", &out, "--run", &folder, "--macs", "0.4", "--epochs", "1"];
    let (code, said, error) = run(&given);
    // A random network may miss the goal on its accuracy.
    assert!([0, 3].contains(&code), "{error}");
    assert!((said.clone() + &error).contains("% of the MACs"), "{said}{error}");
    let bytes = |file: &str| std::fs::metadata(file).expect("a file").len();
    assert!(bytes(&out) < bytes(&model), "{} of {}", bytes(&out), bytes(&model));
    let whole = bytes(&model);
    let most = format!("{} B", whole * 6 / 10);
    let (code, said, error) = run(&[
        "prune",
        &model,
        "--data",
        data,
        "--scale",
        "0.0625",
        "-o",
        &out,
        "--run",
        &path("c"),
        "--file-size",
        &most,
        "--epochs",
        "0",
    ]);
    assert!([0, 3].contains(&code) && bytes(&out) <= whole * 6 / 10, "{} of {whole}: {said}{error}", bytes(&out));
    let (code, _, error) = run(&["prune", &model, "--data", data, "-o", &out, "--latency", "0.3", "--file-size", "90 kB"]);
    assert!(code == 2 && error.contains("--latency"), "{error}");
    let (code, _, error) = run(&["prune", &model, "--data", data, "-o", &out, "--file-size", "90 fB"]);
    assert!(code == 2 && error.contains("--file-size") && error.contains("90 fB"), "{error}");
    let (code, _, error) = run(&["prune", &model, "--data", data, "-o", &out, "--latency", "1.5"]);
    assert!(code == 2 && error.contains("--latency") && error.contains("half is 0.5"), "{error}");
    let (code, _, error) = run(&["prune", &model, "--data", data, "-o", &out, "--macs", "0.4", "--sparsity", "0.5"]);
    assert!(code == 2 && error.contains("--sparsity"), "{error}");
    let (code, _, error) =
        run(&["prune", &model, "--data", data, "--scale", "0.0625", "-o", &out, "--run", &path("b"), "--macs", "0.9999"]);
    assert!(code == 1 && error.contains("at most"), "{error}");
}
