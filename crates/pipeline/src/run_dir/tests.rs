use super::*;
use report::record::StageRecord;
use std::collections::BTreeMap;

fn key(text: &str) -> Key {
    KeyBuilder::default().part("t", text).finish()
}

#[test]
fn parts_of_a_key_cannot_run_into_each_other() {
    let a = KeyBuilder::default().part("a", "bc").finish();
    assert_ne!(a, KeyBuilder::default().part("ab", "c").finish());
    assert_eq!(a, KeyBuilder::default().part("a", "bc").finish());
}

#[test]
fn a_result_is_absent_or_whole() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::open(folder.path(), 0).unwrap();
    let stage = run.stage(&key("x"));
    assert!(stage.result().is_none());
    std::fs::write(stage.checkpoint_path().unwrap(), b"half way").unwrap();
    let files = BTreeMap::from([("deployed.onnx".to_string(), b"file".to_vec())]);
    stage.commit(b"model", &files, &StageRecord { name: "x".into(), ..StageRecord::default() }).unwrap();
    let result = stage.result().unwrap();
    assert_eq!(std::fs::read(&result.model).unwrap(), b"model");
    assert_eq!(result.record.name, "x");
    assert!(result.files.contains_key("deployed.onnx"));
    assert!(!stage.checkpoint_path().unwrap().exists());

    std::fs::write(&result.model, b"mod").unwrap();
    assert!(stage.result().is_none(), "a damaged result is not taken");
}

#[test]
fn what_a_killed_commit_left_is_no_result_and_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::open(folder.path(), 0).unwrap();
    let stage = run.stage(&key("x"));
    let left = folder.path().join("store").join(format!("{}.new", key("x")));
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("model.onnx"), b"half").unwrap();
    assert!(stage.result().is_none());
    stage.commit(b"model", &BTreeMap::new(), &StageRecord::default()).unwrap();
    assert!(stage.result().is_some() && !left.exists());
}

#[test]
fn one_run_at_a_time_and_room_is_checked_first() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::open(folder.path(), 0).unwrap();
    assert!(matches!(RunDir::open(folder.path(), 0), Err(PipelineError::Locked { .. })));
    drop(run);
    assert!(matches!(RunDir::open(folder.path(), u64::MAX), Err(PipelineError::Space { .. })));
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(RunDir::open(&file, 0), Err(PipelineError::File { .. })));
}

#[test]
fn a_fingerprint_follows_names_and_contents() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), b"1").unwrap();
    let before = fingerprint(folder.path()).unwrap();
    assert_eq!(before, fingerprint(folder.path()).unwrap());
    std::fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
    assert_ne!(before, fingerprint(folder.path()).unwrap());
}

#[test]
fn a_folder_with_other_files_is_not_taken_for_a_runs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("deploy.onnx"), b"a user's").unwrap();
    let refused = RunDir::open(folder.path(), 0).err().unwrap().to_string();
    assert!(refused.contains("is not a run's folder: it holds 'deploy.onnx'"), "{refused}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was made in it");
    std::fs::rename(folder.path().join("deploy.onnx"), folder.path().join(".gitkeep")).unwrap();
    drop(RunDir::open(folder.path(), 0).unwrap());
    std::fs::write(folder.path().join("notes.txt"), b"").unwrap();
    RunDir::open(folder.path(), 0).unwrap();
}

#[test]
fn what_a_run_reads_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("rows/out");
    let open = |inputs: Vec<PathBuf>, outputs: &[String]| RunDir::reading(&out, 0, inputs, outputs);
    let inside = open(vec![folder.path().to_path_buf()], &[]).err().unwrap().to_string();
    assert!(inside.contains("lies inside the data set") && !out.exists(), "{inside}");
    drop(open(vec![], &[]).unwrap());
    let model = out.join("deploy.onnx");
    std::fs::write(&model, b"a user's").unwrap();
    let refused = open(vec![model.clone()], &["deploy.onnx".to_string()]).err().unwrap().to_string();
    assert!(refused.contains("is read by this run"), "{refused}");
    // An unexpected name is refused when it is written.
    let run = open(vec![out.join("../out/deploy.onnx")], &[]).unwrap();
    assert!(run.write("deploy.onnx", b"ours").is_err());
    assert_eq!(std::fs::read(&model).unwrap(), b"a user's");
}

#[test]
fn what_killed_runs_left_is_cleared() {
    let folder = tempfile::tempdir().unwrap();
    drop(RunDir::open(folder.path(), 0).unwrap());
    // No process has the number 0.
    let left =
        [".run.json.0.partial", "store/.x.statistics.0.partial", "store/abc.partial/.checkpoint.0.partial", "store/abc.new/model.onnx"];
    for name in left {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"half").unwrap();
    }
    std::fs::write(folder.path().join("store/abc.partial/checkpoint"), b"kept").unwrap();
    drop(RunDir::open(folder.path(), 0).unwrap());
    assert!(left.iter().all(|name| !folder.path().join(name).exists()));
    assert!(folder.path().join("store/abc.partial/checkpoint").exists() && !folder.path().join("store/abc.new").exists());
}

#[test]
fn a_manifest_names_no_file_outside_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::open(folder.path(), 0).unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, b"not theirs").unwrap();
    let hash = blake3::hash(b"not theirs").to_hex().to_string();
    for (i, name) in ["../../secret", secret.to_str().unwrap(), "./model.onnx", "..", ""].into_iter().enumerate() {
        let stage = run.stage(&key(&i.to_string()));
        stage.commit(b"model", &BTreeMap::new(), &StageRecord::default()).unwrap();
        let manifest = folder.path().join("store").join(key(&i.to_string()).to_string()).join("stage.json");
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
        json["files"][name] = hash.clone().into();
        std::fs::write(&manifest, json.to_string()).unwrap();
        assert!(stage.result().is_none(), "'{name}' was taken");
    }
    assert_eq!(std::fs::read(&secret).unwrap(), b"not theirs");
}

#[test]
fn a_folder_or_a_file_in_the_wrong_place_does_not_stop_a_run_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::open(folder.path(), 0).unwrap();
    // In the store, a file in a result's place is no result and is removed.
    let stage = run.stage(&key("x"));
    std::fs::write(folder.path().join("store").join(key("x").to_string()), b"a file").unwrap();
    std::fs::write(folder.path().join("store").join(format!("{}.partial", key("x"))), b"a file").unwrap();
    assert!(stage.result().is_none());
    stage.checkpoint_path().unwrap();
    stage.commit(b"model", &BTreeMap::new(), &StageRecord::default()).unwrap();
    std::fs::remove_file(&stage.result().unwrap().model).unwrap();
    std::fs::create_dir(folder.path().join("store").join(key("x").to_string()).join("model.onnx")).unwrap();
    assert!(stage.result().is_none());
    stage.commit(b"model", &BTreeMap::new(), &StageRecord::default()).unwrap();
    // In the user's folder it may be the user's file: the error names it, with advice.
    std::fs::create_dir(folder.path().join("quantize.onnx")).unwrap();
    let refused = run.publish(&stage.result().unwrap().model, "quantize.onnx").unwrap_err().to_string();
    assert!(refused.contains("quantize.onnx") && refused.contains("move it away"), "{refused}");
}
