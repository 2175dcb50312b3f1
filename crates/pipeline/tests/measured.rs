//! Sizes, labels, NaN, times and the original model in a run's record.
use graph::Model;
use report::RunRecord;
use report::record::Status;
use std::collections::BTreeMap;
use std::path::Path;
use tensor::Tensor;
use test_support::runs::run_in;

const STAGES: &str = "[[stages]]\nkind = \"quantize\"\ncalibration = { images = 64 }\n\
                      [[stages]]\nkind = \"deploy\"\ntarget = \"reference\"\nlatency_runs = 3\n";

fn network() -> Model {
    let entry = zoo::find("mlp").unwrap();
    entry.build(&zoo::ZooOptions { input: vec![1, 8, 8], classes: 10, ..entry.default_options() }).unwrap()
}

/// Images in a file that has labels or has none.
fn images(path: &Path, labelled: bool) {
    let pixels = tensor::random::uniform(3, &[40, 1, 8, 8], 0.0, 1.0).unwrap();
    let mut arrays = BTreeMap::from([("x".to_string(), pixels)]);
    if labelled {
        arrays.insert("y".to_string(), Tensor::vector((0..40i64).map(|i| i % 10).collect()));
    }
    data::npz::write(path, &arrays).unwrap();
}

fn record(folder: &Path, recipe: &str) -> RunRecord {
    let text = format!("name = \"m\"\nseed = 1\n[data]\ntrain = \"d.npz\"\ntest = \"d.npz\"\n{recipe}");
    run_in(folder, &folder.join("out"), &text, &[]).unwrap()
}

fn from_a_file(folder: &Path, model: &Model, labelled: bool, stages: &str) -> RunRecord {
    onnx::save(model, &folder.join("m.onnx")).unwrap();
    images(&folder.join("d.npz"), labelled);
    record(folder, &format!("[model]\nfile = \"m.onnx\"\n{stages}"))
}

#[test]
fn a_stage_is_as_large_as_the_file_it_would_be_deployed_as_and_the_original_stands_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let r = from_a_file(folder.path(), &network(), true, STAGES);
    let bytes = |i: usize| r.stages[i].metrics.file_bytes.unwrap();
    let on_disk = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
    let start = r.start.as_ref().unwrap();
    assert_eq!(start.metrics.file_bytes, Some(on_disk("m.onnx")));
    assert_eq!((bytes(0), bytes(1)), (on_disk("out/deploy.deployed.onnx"), on_disk("out/deploy.deployed.onnx")));
    assert!(bytes(0) < on_disk("m.onnx") / 3, "{} of {}", bytes(0), on_disk("m.onnx"));

    let (_, deploy) = r.deployed().unwrap();
    let original = deploy.original.as_ref().unwrap();
    assert_eq!((original.stage.as_str(), original.file_bytes), ("start", on_disk("m.onnx")));
    assert_eq!(original.latency.as_ref().map(|l| l.runs), Some(3));
    assert_eq!(r.latency_of(start), original.latency.as_ref());
    assert_eq!(original.macs, r.stages[1].metrics.macs);
    assert!(r.inputs.iter().any(|i| i.role == "data.test" && i.blake3.len() == 64));
    let classes = r.stages[1].classes.as_ref().unwrap();
    let correct: u64 = classes.classes.iter().map(|c| c.correct).sum();
    assert_eq!(classes.classes.len(), 10);
    assert!((correct as f64 / 40.0 - r.stages[1].shown_accuracy().unwrap()).abs() < 1e-9);
}

#[test]
fn data_files_beside_a_model_count_and_a_change_in_them_runs_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = network();
    let weight = model.graph.constants.iter().copied().max_by_key(|v| model.values.tensor(*v).map_or(0, |t| t.len())).unwrap();
    let held = model.values.tensor(weight).unwrap().len() as u64 * 4;
    model.values[weight].constant.as_mut().unwrap().origin =
        graph::Origin::External { location: "weights.bin".into(), offset: 0, entries: vec![] };
    let r = from_a_file(folder.path(), &model, true, STAGES);
    let files = onnx::data_files(&onnx::load(&folder.path().join("m.onnx")).unwrap());
    let [path] = files.as_slice() else { panic!("{files:?}") };
    let (own, beside) = (folder.path().join("m.onnx").metadata().unwrap().len(), path.metadata().unwrap().len());
    assert!(beside >= held && own < held);
    assert_eq!(r.start.unwrap().metrics.file_bytes, Some(own + beside));
    assert_eq!(r.stages[1].deploy.as_ref().unwrap().original.as_ref().unwrap().file_bytes, own + beside);

    let mut bytes = std::fs::read(path).unwrap();
    bytes[0] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let again = record(folder.path(), &format!("[model]\nfile = \"m.onnx\"\n{STAGES}"));
    assert!(again.stages.iter().all(|s| s.status == Status::Run));
}

#[test]
fn without_labels_the_file_is_proved_and_its_noise_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let r = from_a_file(folder.path(), &network(), false, STAGES);
    assert!(r.measured().all(|s| s.shown_accuracy().is_none() && s.classes.is_none()));
    let deploy = r.stages[1].deploy.as_ref().unwrap();
    assert!(deploy.outputs[0].sqnr_db.unwrap() > 20.0, "{:?}", deploy.outputs);
    assert!(deploy.runtimes[0].agreement.is_some());
    assert!(!r.stages[1].notes.iter().any(|n| n.warning && n.text.contains("signal to noise")), "{:?}", r.stages[1].notes);

    let coarse = STAGES.replace("kind = \"quantize\"", "kind = \"quantize\"\nweights = { bits = 2 }\nactivations = { bits = 2 }");
    let r = record(folder.path(), &format!("[model]\nfile = \"m.onnx\"\n{coarse}"));
    let sqnr = r.stages[1].shown_sqnr().unwrap();
    assert!(sqnr < 10.0, "{sqnr}");
    let told = |n: &report::record::Note| n.warning && n.text.contains("dB of signal to noise against the float network, below 10 dB");
    assert!(r.stages[1].notes.iter().any(told), "{:?}", r.stages[1].notes);
}

#[test]
fn rows_with_nan_are_told_and_none_of_them_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = network();
    // The bias of class 0: a NaN there once counted as the largest score, so that class 0 was predicted.
    let bias = model.graph.constants.iter().copied().find(|v| model.values.tensor(*v).is_some_and(|t| t.shape() == [10])).unwrap();
    let mut values = vec![0f32; 10];
    values[0] = f32::NAN;
    model.values.set_tensor(bias, Tensor::vector(values));
    let r = from_a_file(folder.path(), &model, true, "[[stages]]\nkind = \"deploy\"\ntarget = \"reference\"\nlatency_runs = 1\n");
    let start = r.start.as_ref().unwrap();
    assert_eq!((start.metrics.accuracy, start.metrics.nan_images, start.metrics.images), (Some(0.0), Some(40), Some(40)));
    assert!(start.notes.iter().any(|n| n.warning && n.text.starts_with("40 of 40 test samples have NaN")), "{:?}", start.notes);
    let deploy = &r.stages[0];
    assert_eq!((deploy.shown_accuracy(), deploy.metrics.nan_images), (Some(0.0), Some(40)));
    assert!(deploy.notes.iter().any(|n| n.warning && n.text.contains("40 of 40 samples have NaN")), "{:?}", deploy.notes);
}

#[test]
fn a_file_on_chosen_images_is_judged_by_the_start_on_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = network();
    // Always class 3, which is right on every fourth image: those are the chosen ones.
    let bias = model.graph.constants.iter().copied().find(|v| model.values.tensor(*v).is_some_and(|t| t.shape() == [10])).unwrap();
    model.values.set_tensor(bias, Tensor::vector((0..10).map(|i| if i == 3 { 1e4f32 } else { 0.0 }).collect::<Vec<_>>()));
    onnx::save(&model, &folder.path().join("m.onnx")).unwrap();
    let pixels = tensor::random::uniform(3, &[40, 1, 8, 8], 0.0, 1.0).unwrap();
    let labels = Tensor::vector((0..40i64).map(|i| if i % 4 == 0 { 3 } else { 0 }).collect());
    data::npz::write(&folder.path().join("d.npz"), &BTreeMap::from([("x".to_string(), pixels), ("y".to_string(), labels)])).unwrap();
    let recipe = "[model]\nfile = \"m.onnx\"\n[goals]\nmax_accuracy_drop = 1.0\n[[stages]]\nkind = \"deploy\"\ntarget = \"reference\"\n\
                  latency_runs = 1\nimages = 10\n";
    let r = record(folder.path(), recipe);
    let (_, deploy) = r.deployed().unwrap();
    assert_eq!((r.start.as_ref().unwrap().shown_accuracy(), r.stages[0].shown_accuracy()), (Some(0.25), Some(1.0)));
    assert_eq!((deploy.chosen_images, deploy.original.as_ref().unwrap().accuracy), (Some(10), Some(1.0)));
    assert_eq!(r.goals[0].sentence, "accuracy fell by 0.00 points; the goal allows 1");
    assert!(!report::terminal(&r).contains("+75.00 points"), "{}", report::terminal(&r));
}

#[test]
fn times_of_earlier_calls_stay_and_curves_are_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let stages = "[[stages]]\nkind = \"train\"\nepochs = 2\nbatch = 8\n[[stages]]\nkind = \"prune\"\nsparsity = 0.5\n";
    let first = from_a_file(folder.path(), &network(), true, stages);
    assert!(first.stages[0].spent["train"] > 0.0 && first.stages[0].spent.values().sum::<f64>() <= first.stages[0].seconds);
    assert!(first.stages[1].notes.iter().any(|n| n.text.contains("zeros alone make neither the file smaller nor the run faster")));
    let again = record(folder.path(), &format!("[model]\nfile = \"m.onnx\"\n{stages}"));
    assert!(again.measured().all(|s| s.status == Status::Cached));
    assert_eq!(again.work_seconds(), first.work_seconds());
    let time = report::text::duration(first.stages[0].seconds);
    assert!(report::terminal(&again).contains(&format!("{time} (earlier)")), "{}", report::terminal(&again));
    let curves = std::fs::read_to_string(folder.path().join("out/curves.csv")).unwrap();
    assert_eq!(curves.lines().count(), 3);
    assert!(curves.starts_with("stage,epoch,loss,") && curves.contains("\ntrain,2,"), "{curves}");
}

#[test]
fn zeros_of_few_bits_are_counted_as_they_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let r =
        from_a_file(folder.path(), &network(), true, &STAGES.replace("kind = \"quantize\"", "kind = \"quantize\"\nweights = { bits = 4 }"));
    let deployed = onnx::load(&folder.path().join("out/deploy.deployed.onnx")).unwrap();
    let counted = deploy::measure::parameters(&deployed).unwrap();
    assert!(counted.sparsity() > 0.03, "{}", counted.sparsity());
    for stage in &r.stages {
        assert!((stage.metrics.sparsity.unwrap() - counted.sparsity()).abs() < 1e-9, "{:?}", stage.metrics);
        assert_eq!(stage.metrics.nonzeros, Some(counted.nonzero), "{}", stage.name);
    }
}

#[test]
fn rows_of_one_file_train_and_test_and_the_packed_size_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    onnx::save(&network(), &folder.path().join("m.onnx")).unwrap();
    images(&folder.path().join("d.npz"), true);
    let run = |rows: &str| {
        let text = format!(
            "name = \"m\"\nseed = 1\n[data]\ntrain = \"d.npz\"\ntest = \"d.npz\"\n{rows}\n[model]\nfile = \"m.onnx\"\n{}pack = true\n",
            STAGES.replace("64", "12"),
        );
        run_in(folder.path(), &folder.path().join("out"), &text, &[])
    };
    let r = run("train_rows = [28, 40]\ntest_rows = [0, 25]").unwrap();
    let classes = &r.stages[1].classes.as_ref().unwrap().classes;
    // Labels count from 0 to 9 again and again.
    assert_eq!(classes.iter().map(|c| c.images).collect::<Vec<_>>(), [3, 3, 3, 3, 3, 2, 2, 2, 2, 2]);
    let file = std::fs::read(folder.path().join("out/deploy.deployed.onnx")).unwrap();
    let (archive, _) = pack::pack(&file).unwrap();
    let told = format!("packed by `espalier pack`: {} bytes", archive.len());
    assert!(r.stages[1].notes.iter().any(|n| n.text.starts_with(&told)), "{:?}", r.stages[1].notes);
    for rows in ["train_rows = [28, 41]", "test_rows = [9, 9]"] {
        let error = run(rows).unwrap_err().to_string();
        assert!(error.contains("are not within its 40 rows"), "{error}");
    }
}
