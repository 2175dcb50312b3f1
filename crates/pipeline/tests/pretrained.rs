//! Which epoch counts: the best by a held-out split, but not where a pretrained network has probably seen that split.
use espalier_pipeline::recipe::{Loaded, parse};
use espalier_pipeline::{Quiet, RunOptions, run};
use std::path::Path;

const STAGES: &str = r#"
[[stages]]
kind = "train"
epochs = 2
optimizer = { kind = "adamw", lr = 0.003 }
[[stages]]
kind = "distill"
teacher = "train"
student = { arch = "mlp", width = 0.25 }
epochs = 2
"#;

/// The warnings of each stage.
fn warnings(model: &str, validation: &str) -> Vec<bool> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let data = format!("[data]\ntrain = \"data/digits\"\n{validation}\npreprocess = {{ scale = 0.0625 }}\n");
    let text = format!("name = \"p\"\nseed = 1\n{data}[model]\n{model}\n{STAGES}");
    let loaded = Loaded { recipe: parse(&text, &[]).unwrap(), text, folder, overrides: vec![] };
    let out = tempfile::tempdir().unwrap();
    let record = run(&loaded, &RunOptions { out: out.path().to_path_buf(), ..RunOptions::default() }, &mut Quiet).unwrap();
    let told = |s: &report::record::StageRecord| s.notes.iter().any(|n| n.warning && n.text.starts_with("the last epoch counts"));
    record.stages.iter().map(told).collect()
}

#[test]
fn a_pretrained_network_is_not_judged_by_images_it_has_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mlp.onnx");
    let entry = zoo::find("mlp").unwrap();
    let options = zoo::ZooOptions { input: vec![1, 8, 8], classes: 10, ..entry.default_options() };
    onnx::save(&entry.build(&options).unwrap(), &file).unwrap();
    let (file, fresh) = (format!("file = \"{}\"", file.display()), "arch = \"mlp\"\ninput = [1, 8, 8]\nclasses = 10");
    assert_eq!(warnings(&file, "validation = 0.2"), [true, false], "the student is fresh");
    assert_eq!(warnings(&file, "validation_set = \"data/digits/digits-test.npz\""), [false, false]);
    assert_eq!(warnings(fresh, "validation = 0.2"), [false, false]);
}
