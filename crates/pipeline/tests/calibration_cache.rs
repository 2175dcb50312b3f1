//! The statistics of a calibration serve every observer and width; damaged ones are not used.
use report::record::StageRecord;
use std::path::PathBuf;
use test_support::folders::recipes;
use test_support::recipe::recipe;
use test_support::runs::{run_in, unreadable};

fn text() -> String {
    let data = "train = \"data/digits\"\npreprocess = { scale = 0.0625 }";
    let model = "arch = \"lenet-300-100\"\ninput = [1, 8, 8]\nwidth = 0.25";
    recipe(data, model, &["kind = \"quantize\"\ncalibration = { observer = \"min_max\", images = 64, batch = 16 }"])
}

const REUSED: &str = "statistics of an earlier calibration are used";

struct Fixture(tempfile::TempDir);

impl Fixture {
    /// Runs the recipe with other settings in the same folder and returns the stage's record and file.
    fn run(&self, out: &str, overrides: &[&str]) -> (StageRecord, Vec<u8>) {
        let out = self.0.path().join(out);
        let record = run_in(&recipes(), &out, &text(), overrides).unwrap();
        (record.stages[0].clone(), std::fs::read(out.join("quantize.onnx")).unwrap())
    }

    fn statistics(&self, out: &str) -> Vec<PathBuf> {
        let list = std::fs::read_dir(self.0.path().join(out).join("store")).unwrap().map(|e| e.unwrap().path());
        list.filter(|p| p.extension().is_some_and(|e| e == "statistics")).collect()
    }
}

fn reused(record: &StageRecord) -> bool {
    record.notes.iter().any(|n| n.text.starts_with(REUSED))
}

#[test]
fn other_bits_and_observers_take_the_statistics_that_are_there() {
    let f = Fixture(tempfile::tempdir().unwrap());
    assert!(!reused(&f.run("a", &[]).0));
    assert_eq!(f.statistics("a").len(), 1);
    for (i, observer) in ["moving_average", "percentile", "entropy", "mse"].into_iter().enumerate() {
        let overrides = [format!("stages.quantize.calibration.observer={observer}"), "stages.quantize.activations.bits=6".into()];
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let (record, file) = f.run("a", &overrides);
        assert!(reused(&record), "{observer}");
        let (alone, same) = f.run(&format!("alone{i}"), &overrides);
        assert!(!reused(&alone) && file == same, "{observer}: a file from kept statistics is that of a run of its own");
    }
    assert_eq!(f.statistics("a").len(), 1);
}

#[test]
fn auto_judges_on_images_held_back_and_gives_what_the_observer_it_takes_gives() {
    let f = Fixture(tempfile::tempdir().unwrap());
    f.run("a", &[]);
    let (record, file) = f.run("a", &["stages.quantize.calibration.observer=auto"]);
    assert!(reused(&record), "the statistics are those of any observer");
    let note = record.notes.iter().find(|n| n.text.starts_with("observer = \"auto\": ")).unwrap();
    assert!(note.text.contains("on 64 samples held back") && note.text.contains("min_max"), "{}", note.text);
    let chosen = note.text.trim_start_matches("observer = \"auto\": ").split(' ').next().unwrap().to_string();
    assert_eq!(f.run("b", &[&format!("stages.quantize.calibration.observer={chosen}")]).1, file);
    assert_eq!(f.statistics("a").len(), 1);
}

#[test]
fn what_statistics_depend_on_makes_them_anew() {
    let f = Fixture(tempfile::tempdir().unwrap());
    f.run("a", &[]);
    let skip = "stages.quantize.skip=[\"/fc1\"]";
    let others = ["stages.quantize.calibration.images=48", "stages.quantize.calibration.batch=8", "data.preprocess.scale=0.05", skip];
    for (i, other) in others.into_iter().enumerate() {
        assert!(!reused(&f.run("a", &[other]).0), "{other}");
        assert_eq!(f.statistics("a").len(), i + 2, "{other}");
    }
}

#[test]
fn damaged_statistics_are_made_anew() {
    let f = Fixture(tempfile::tempdir().unwrap());
    let (_, whole) = f.run("a", &[]);
    let path = f.statistics("a").remove(0);
    let good = std::fs::read(&path).unwrap();
    let digit = good.iter().rposition(|b| *b == b'1').unwrap();
    let mut changed = good.clone();
    changed[digit] = b'2';
    // Still JSON and still plausible, cut short, empty, not text at all.
    for (i, damage) in [changed, good[..good.len() / 2].to_vec(), vec![], vec![0xff; 100]].into_iter().enumerate() {
        std::fs::write(&path, damage).unwrap();
        let (record, _) = f.run("a", &[&format!("stages.quantize.weights.bits={}", i + 4)]);
        assert!(!reused(&record));
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }
    assert_eq!(f.run("b", &[]).1, whole);
}

#[test]
fn corrections_work_from_a_recipe_and_share_statistics_where_the_network_is_the_same() {
    let f = Fixture(tempfile::tempdir().unwrap());
    let (_, plain) = f.run("a", &[]);
    let (record, biases) = f.run("a", &["stages.quantize.corrections=[{ kind = \"bias_correction\", samples = 32 }]"]);
    assert!(reused(&record) && biases != plain, "a correction behind the fitting takes the statistics that are there");
    assert!(record.notes.iter().any(|n| n.text.starts_with("bias_correction: the biases of 3 layers")), "{:?}", record.notes);
    let (record, equalized) = f.run("a", &["stages.quantize.corrections=[\"equalize\"]"]);
    assert!(!reused(&record) && equalized != plain, "another network has other statistics");
    assert!(record.notes.iter().any(|n| n.text == "equalize: 2 pairs or groups of layers equalized"), "{:?}", record.notes);
    assert_eq!(f.run("b", &["stages.quantize.corrections=[\"equalize\"]"]).1, equalized);
    let error = unreadable(&text(), &["stages.quantize.corrections=[\"equalise\"]"]);
    assert!(error.contains("there is no correction 'equalise'") && error.contains("did you mean 'equalize'?"), "{error}");
    let overrides = ["stages.quantize.corrections=[\"equalize\"]", "stages.quantize.batch_norm=keep"];
    assert!(unreadable(&text(), &overrides).contains("corrections need folded weights"));
}
