use super::*;
use crate::recipe::{self, Loaded};
use crate::stages::{StageBody, StageOutput};
use report::record::Metrics;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// Marks the model's metadata with its stage, so that the output shows what was read.
struct Dummy {
    ran: Arc<Mutex<Vec<String>>>,
    stop_in: Option<String>,
    accuracy: f64,
}

impl StageBody for Dummy {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let mut model = input.ok_or("no input")?;
        let trail = format!("{}>{}", model.metadata_get("trail").unwrap_or_default(), cx.name);
        model.metadata_set("trail", trail);
        if let Some(teacher) = cx.loaded.recipe.stage(cx.name).and_then(|s| s.teacher()) {
            let trail = cx.teacher(teacher)?.metadata_get("trail").unwrap_or_default().to_string();
            model.metadata_set("teacher", trail);
        }
        cx.progress("train", 1, 2, Some(0.5));
        if self.stop_in.as_deref() == Some(cx.name) {
            std::fs::write(cx.checkpoint()?, b"epoch 1")?;
            cx.stop.store(true, Ordering::Relaxed);
        }
        cx.check_stop()?;
        cx.note(true, "a warning");
        self.ran.lock().unwrap().push(cx.name.to_string());
        let metrics = Metrics { accuracy: Some(self.accuracy), ..Metrics::default() };
        let files = if cx.name == "deploy" { BTreeMap::from([("deployed.onnx".to_string(), b"x".to_vec())]) } else { BTreeMap::new() };
        Ok(StageOutput { metrics, files, ..StageOutput::new(model) })
    }
}

const TEXT: &str = r#"
name = "dummy"
[model]
arch = "mlp"
[data]
train = "rows"
[goals]
max_accuracy_drop = 1.0
[[stages]]
kind = "train"
[[stages]]
kind = "prune"
sparsity = 0.5
[[stages]]
kind = "finetune"
teacher = "train"
[[stages]]
kind = "deploy"
"#;

struct Fixture {
    folder: tempfile::TempDir,
    ran: Arc<Mutex<Vec<String>>>,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("rows")).unwrap();
        std::fs::write(folder.path().join("rows/a"), b"1").unwrap();
        Fixture { folder, ran: Arc::default() }
    }

    fn run(&self, out: &str, overrides: &[&str], stop_in: Option<&str>) -> (Result<RunRecord, PipelineError>, Vec<String>) {
        let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
        let recipe = recipe::parse(TEXT, &overrides).unwrap();
        let loaded = Loaded { recipe, text: TEXT.into(), folder: self.folder.path().to_path_buf(), overrides };
        let options = RunOptions { out: self.folder.path().join(out), ..RunOptions::default() };
        let bodies = |stage: &Stage| {
            let accuracy = if stage.kind() == "deploy" { 0.985 } else { 0.99 };
            Arc::new(Dummy { ran: self.ran.clone(), stop_in: stop_in.map(str::to_string), accuracy }) as Arc<dyn StageBody>
        };
        let result = run_with(&loaded, &options, &mut crate::Quiet, &bodies);
        (result, std::mem::take(&mut *self.ran.lock().unwrap()))
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).unwrap()
    }
}

#[test]
fn stages_follow_each_other_and_results_are_taken_again() {
    let f = Fixture::new();
    let (record, ran) = f.run("out", &[], None);
    let record = record.unwrap();
    assert_eq!(ran, ["train", "prune", "finetune", "deploy"]);
    let model = onnx::load(&f.folder.path().join("out/deploy.onnx")).unwrap();
    assert_eq!(model.metadata_get("trail"), Some(">train>prune>finetune>deploy"));
    assert_eq!(model.metadata_get("teacher"), Some(">train"));
    assert_eq!(f.file("out/deployed.onnx"), b"x");
    assert!(record.goals[0].met && record.stages.iter().all(|s| s.status == Status::Run && s.notes.len() == 1));
    assert_eq!(RunRecord::load(&f.folder.path().join("out")).unwrap(), record);
    assert_eq!(record.stages.iter().map(|s| &s.key).collect::<BTreeSet<_>>().len(), 4);

    let (again, ran) = f.run("out", &[], None);
    assert!(ran.is_empty());
    assert!(again.unwrap().stages.iter().all(|s| s.status == Status::Cached));
}

#[test]
fn a_changed_setting_or_changed_data_repeat_what_depends_on_them() {
    let f = Fixture::new();
    f.run("out", &[], None).0.unwrap();
    assert_eq!(f.run("out", &["stages.prune.sparsity=0.7"], None).1, ["prune", "finetune", "deploy"]);
    assert!(f.run("out", &[], None).1.is_empty(), "the first results are still there");
    assert!(f.run("out", &["stages.prune.memory=1 GB"], None).1.is_empty(), "a memory budget changes no result");
    assert_eq!(f.run("out", &["seed=2"], None).1.len(), 4);
    std::fs::write(f.folder.path().join("rows/a"), b"2").unwrap();
    assert_eq!(f.run("out", &[], None).1.len(), 4);
}

#[test]
fn an_interrupted_run_goes_on_and_ends_with_the_same_bytes() {
    let f = Fixture::new();
    let (stopped, ran) = f.run("a", &[], Some("finetune"));
    assert!(matches!(stopped, Err(PipelineError::Interrupted { stage }) if stage == "finetune"));
    assert_eq!(ran, ["train", "prune"]);
    assert_eq!(f.run("a", &[], None).1, ["finetune", "deploy"]);
    f.run("b", &[], None).0.unwrap();
    assert_eq!(f.file("a/deploy.onnx"), f.file("b/deploy.onnx"));
}

#[test]
fn missing_data_is_an_error_before_anything_runs() {
    let f = Fixture::new();
    std::fs::remove_dir_all(f.folder.path().join("rows")).unwrap();
    let (result, ran) = f.run("out", &[], None);
    assert!(matches!(result, Err(PipelineError::File { .. })));
    assert!(ran.is_empty() && !f.folder.path().join("out").exists());
}
