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
