//! Which epoch is kept: the best by a held-out split, but not if a pretrained network has probably seen that split.
use test_support::recipe::{MLP, recipe};
use test_support::runs::run;

const TRAIN: &str = "kind = \"train\"\nepochs = 2\noptimizer = { kind = \"adamw\", lr = 0.003 }";
const DISTIL: &str = "kind = \"distill\"\nteacher = \"train\"\nstudent = { arch = \"mlp\", width = 0.25 }\nepochs = 2";

/// The warnings of each stage.
fn warnings(model: &str, validation: &str) -> Vec<bool> {
    let data = format!("train = \"data/digits\"\n{validation}\npreprocess = {{ scale = 0.0625 }}");
    let record = run(&recipe(&data, model, &[TRAIN, DISTIL]), &[]).unwrap().record;
    let told = |s: &report::record::StageRecord| s.notes.iter().any(|n| n.warning && n.text.starts_with("the last epoch is kept"));
    record.stages.iter().map(told).collect()
}

#[test]
fn a_pretrained_network_is_not_judged_by_images_it_has_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mlp.onnx");
    let entry = zoo::find("mlp").unwrap();
    let options = zoo::ZooOptions { input: vec![1, 8, 8], classes: 10, ..entry.default_options() };
    onnx::save(&entry.build(&options).unwrap(), &file).unwrap();
    let file = format!("file = \"{}\"", file.display());
    assert_eq!(warnings(&file, "validation = 0.2"), [true, false], "the student is fresh");
    assert_eq!(warnings(&file, "validation_set = \"data/digits/digits-test.npz\""), [false, false]);
    assert_eq!(warnings(MLP, "validation = 0.2"), [false, false]);
}
