//! The training loop on small graphs: it learns, holds masks, resumes to the same bits, and refuses invalid settings.
mod toy;

use espalier_train as train;
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use technique::Settings;
use tensor::{Tensor, random};
use toy::{Toy, constant, input, network, node, settings};
use train::{
    AdamW, Batch, CrossEntropy, EpochRecord, Executor, Keep, Mode, Overrides, Sgd, Silent, TrainContext, TrainError, TrainSettings, Watch,
};

fn around(watch: &mut dyn Watch) -> TrainContext<'_> {
    TrainContext { watch, ..TrainContext::default() }
}

#[test]
fn a_small_network_learns_and_its_running_statistics_follow() {
    let mut m = network();
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let report = train::train(&mut m, &Toy { batches: 20 }, &loss, &settings(6), &mut around(&mut Silent)).unwrap();
    let (first, last) = (&report.history[0], report.history.last().unwrap());
    assert!(last.loss < 0.5 * first.loss, "{first:?} -> {last:?}");
    assert!(last.train_accuracy.unwrap() > 0.9, "{last:?}");
    let mean = m.values.tensor(m.find("bn.mean").unwrap()).unwrap();
    assert!(mean.as_slice::<f32>().unwrap().iter().any(|v| v.abs() > 1e-3), "running mean is untouched");
}

#[test]
fn masked_weights_stay_zero_through_training() {
    let mut m = network();
    let w = m.find("fc1.weight").unwrap();
    let mask: Vec<bool> = (0..128).map(|i| i % 3 != 0).collect();
    m.annotations.entry(w).mask = Some(Tensor::new(mask.clone(), [16, 8]).unwrap());
    let loss = CrossEntropy::of(&m, 0.1).unwrap();
    train::train(&mut m, &Toy { batches: 10 }, &loss, &settings(2), &mut around(&mut Silent)).unwrap();
    let x = Tensor::full(0.5f32, [2, 8]).unwrap();
    // With every masked weight set to another value, the simulated output must not change.
    let out =
        |m: &Model| Executor::new(m).unwrap().run(&BTreeMap::from([("x".to_string(), x.clone())]), Mode::SIMULATED).unwrap()["y"].clone();
    let before = out(&m);
    let changed: Vec<f32> =
        m.values.tensor(w).unwrap().as_slice::<f32>().unwrap().iter().zip(&mask).map(|(v, live)| if *live { *v } else { 99.0 }).collect();
    m.values.set_tensor(w, Tensor::new(changed, [16, 8]).unwrap());
    assert_eq!(before, out(&m));
}

#[test]
fn an_encoded_activation_is_what_its_parts_are() {
    let mut m = Model::new(17);
    let x = input(&mut m, "x", &[9]);
    let y = node(&mut m, "Relu", &[x], "y");
    m.graph.outputs.push(y);
    let encoding = encodings::affine::AffineSettings::activation(8).encoding(Tensor::scalar(0.004f32), Tensor::scalar(0f32));
    m.annotations.entry(y).encoding = Some(encoding);
    let x = random::uniform(1, &[5, 9], -2.0, 2.0).unwrap();
    let inputs = BTreeMap::from([("x".to_string(), x.clone())]);
    let fused = Executor::new(&m).unwrap().run(&inputs, Mode::SIMULATED).unwrap()["y"].clone();
    assert_eq!(fused, encodings::simulate(&x.relu().unwrap(), m.annotations.get(y).unwrap()).unwrap());
    // An observer gets the activation before its encoding.
    let mut seen = None;
    let unfused = Executor::unfused(&m).unwrap();
    unfused
        .run_observed(&inputs, Mode::SIMULATED, &mut |v, t| {
            if v == y {
                seen = Some(t.clone())
            }
        })
        .unwrap();
    assert_eq!(seen, Some(x.relu().unwrap()));
    // Inputs and values with other references are not overwritten.
    assert_eq!(inputs["x"], random::uniform(1, &[5, 9], -2.0, 2.0).unwrap());
    let plain = Executor::new(&m).unwrap().run(&inputs, Mode::FLOAT).unwrap()["y"].clone();
    assert_eq!((plain, inputs["x"].clone()), (x.relu().unwrap(), x));
}

#[test]
fn a_share_of_an_encoded_activation_stays_as_it_was() {
    let mut m = Model::new(17);
    let x = input(&mut m, "x", &[1000]);
    let y = node(&mut m, "Relu", &[x], "y");
    m.graph.outputs.push(y);
    let coarse = encodings::affine::AffineSettings::activation(2).encoding(Tensor::scalar(0.5f32), Tensor::scalar(0f32));
    m.annotations.entry(y).encoding = Some(coarse);
    let inputs = BTreeMap::from([("x".to_string(), random::uniform(1, &[3, 1000], 0.1, 1.4).unwrap())]);
    let executor = Executor::new(&m).unwrap();
    let run = |unencoded: f64, seed: u64| {
        let overrides = Overrides { unencoded, ..Overrides::default() };
        executor.run_with(&inputs, &overrides, Mode { seed, ..Mode::SIMULATED }, None).unwrap().values[&y].to_f32_vec().unwrap()
    };
    let (encoded, plain) = (run(0.0, 1), run(1.0, 1));
    assert_eq!(plain, inputs["x"].to_f32_vec().unwrap());
    let half = run(0.5, 1);
    assert!(half.iter().enumerate().all(|(i, v)| *v == encoded[i] || *v == plain[i]));
    let kept = half.iter().zip(&plain).filter(|(a, b)| a == b).count();
    assert!((1350..1650).contains(&kept), "{kept} of 3000");
    assert_eq!(half, run(0.5, 1));
    assert_ne!(half, run(0.5, 2));
}

/// Stops the training in the given epoch.
struct StopAfter<'a>(u64, &'a AtomicBool);
impl Watch for StopAfter<'_> {
    fn epoch(&mut self, record: &EpochRecord) {
        if record.epoch == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn an_interrupted_training_ends_in_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint.safetensors");
    let data = Toy { batches: 7 };
    let adam = TrainSettings {
        optimizer: AdamW { lr: 0.01, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }.choice().unwrap(),
        keep: Keep::Best,
        ..settings(5)
    };
    for settings in [settings(5), adam] {
        let mut judge =
            |m: &Model| Ok(-f64::from(m.values.tensor(m.find("fc2.bias").unwrap()).unwrap().as_slice::<f32>().unwrap()[0].abs()));
        let mut whole = network();
        let loss = CrossEntropy::of(&whole, 0.0).unwrap();
        let mut surroundings = TrainContext { validate: Some(&mut judge), ..TrainContext::default() };
        train::train(&mut whole, &data, &loss, &settings, &mut surroundings).unwrap();

        let mut first = network();
        let stop = AtomicBool::new(false);
        let mut watch = StopAfter(1, &stop);
        let mut surroundings = TrainContext {
            validate: Some(&mut judge),
            watch: &mut watch,
            checkpoint: Some(path.clone()),
            stop: Some(&stop),
            ..TrainContext::default()
        };
        let stopped = train::train(&mut first, &data, &loss, &settings, &mut surroundings);
        assert_eq!(stopped.unwrap_err(), TrainError::Interrupted);

        let mut second = network();
        let mut surroundings = TrainContext { validate: Some(&mut judge), checkpoint: Some(path.clone()), ..TrainContext::default() };
        let report = train::train(&mut second, &data, &loss, &settings, &mut surroundings).unwrap();
        assert_eq!(report.history.len(), 5);
        for (id, v) in whole.values.iter() {
            assert_eq!(v.constant, second.values[id].constant, "{}", v.name);
        }
        std::fs::remove_file(&path).unwrap();
    }
}

/// The small network with ternary and binary weights.
fn of_few_levels() -> Model {
    use encodings::{Slot, WeightEncoding, binary, ternary};
    let mut m = network();
    let ternary = ternary::Ternary { scales: ternary::Scales::Learned, ..Default::default() };
    let binary = binary::Binary { estimator: binary::Estimator::IrNet, ..Default::default() };
    for (name, settings) in [("fc1.weight", &ternary as &dyn WeightEncoding), ("fc2.weight", &binary)] {
        let id = m.find(name).unwrap();
        let encoding = settings.fit(m.values.tensor(id).unwrap(), Slot { axis: Some(0), ..Slot::default() }).unwrap();
        m.annotations.entry(id).encoding = Some(encoding);
    }
    m
}

#[test]
fn scales_follow_their_weights_and_gradients_the_training_s_progress() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint.safetensors");
    let data = Toy { batches: 12 };
    let settings = TrainSettings { learn_scales: true.into(), simulate: true, keep: Keep::Last, ..settings(4) };
    let mut whole = of_few_levels();
    let loss = CrossEntropy::of(&whole, 0.0).unwrap();
    let report = train::train(&mut whole, &data, &loss, &settings, &mut TrainContext::default()).unwrap();
    assert!(report.history[3].loss < 0.8 * report.history[0].loss, "{:?}", report.history);
    let of = |m: &Model, value: &str, name: &str| m.annotations.encoding(m.find(value).unwrap()).unwrap().parameters[name].clone();
    assert_eq!(of(&whole, "fc2.weight", "progress").to_f32_vec().unwrap(), [1.0]);
    assert_ne!(of(&whole, "fc1.weight", "positive"), of(&of_few_levels(), "fc1.weight", "positive"));
    for name in ["fc1.weight", "fc2.weight"] {
        let id = whole.find(name).unwrap();
        let e = whole.annotations.encoding(id).unwrap();
        let followed = encodings::follow(whole.values.tensor(id).unwrap(), None, e, 1.0).unwrap().unwrap();
        assert_eq!(followed, e.parameters, "{name}");
    }
    let stop = AtomicBool::new(false);
    let mut watch = StopAfter(1, &stop);
    let mut context = TrainContext { watch: &mut watch, checkpoint: Some(path.clone()), stop: Some(&stop), ..TrainContext::default() };
    let stopped = train::train(&mut of_few_levels(), &data, &loss, &settings, &mut context);
    assert_eq!(stopped.unwrap_err(), TrainError::Interrupted);
    let mut again = of_few_levels();
    let mut context = TrainContext { checkpoint: Some(path), ..TrainContext::default() };
    train::train(&mut again, &data, &loss, &settings, &mut context).unwrap();
    assert_eq!(again.annotations, whole.annotations);
    for (id, v) in whole.values.iter() {
        assert_eq!(v.constant, again.values[id].constant, "{}", v.name);
    }
}

#[test]
fn of_equal_epochs_the_last_counts_and_patience_counts_from_the_first() {
    let run = |patience: Option<u64>| {
        let figures = [0.5, 0.75, 0.75, 0.625, 0.75, 0.5];
        let mut epoch = 0;
        let mut judge = |_: &Model| {
            epoch += 1;
            Ok(figures[epoch - 1])
        };
        let mut model = network();
        let loss = CrossEntropy::of(&model, 0.0).unwrap();
        let settings = TrainSettings { keep: Keep::Best, early_stopping: patience, ..settings(6) };
        let mut around = TrainContext { validate: Some(&mut judge), ..TrainContext::default() };
        let report = train::train(&mut model, &Toy { batches: 2 }, &loss, &settings, &mut around).unwrap();
        (report.history.len(), report.kept)
    };
    assert_eq!(run(None), (6, 4));
    assert_eq!(run(Some(2)), (4, 2), "two epochs after the first of the best without a better one");
}

#[test]
fn what_cannot_train_is_refused_by_name() {
    let mut m = network();
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let data = Toy { batches: 3 };
    let mut run = |s: TrainSettings| train::train(&mut m, &data, &loss, &s, &mut around(&mut Silent)).unwrap_err().to_string();
    let misspelt = TrainSettings { freeze: vec!["fc9.*".into()], ..settings(1) };
    assert_eq!(run(misspelt), "setting 'freeze': 'fc9.*' matches no trainable parameter");
    let all = TrainSettings { freeze: vec!["*".into()], ..settings(1) };
    assert_eq!(run(all), "setting 'freeze': leaves nothing that trains");
    let explode =
        TrainSettings { optimizer: Sgd { lr: 1e30, momentum: 0.9, nesterov: false, weight_decay: 0.0 }.choice().unwrap(), ..settings(1) };
    let error = run(explode);
    assert!(error.contains("is not finite") || error.contains("the loss is"), "{error}");
}

#[test]
fn frozen_parameters_stay_and_others_move() {
    let mut m = network();
    let before: Vec<Tensor> = ["fc1.weight", "fc2.weight"].iter().map(|n| m.values.tensor(m.find(n).unwrap()).unwrap().clone()).collect();
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let s = TrainSettings { freeze: vec!["fc1.*".into(), "bn.*".into()], ..settings(1) };
    train::train(&mut m, &Toy { batches: 3 }, &loss, &s, &mut around(&mut Silent)).unwrap();
    assert_eq!(before[0], *m.values.tensor(m.find("fc1.weight").unwrap()).unwrap());
    assert_ne!(before[1], *m.values.tensor(m.find("fc2.weight").unwrap()).unwrap());
}

/// Two images, of which the first has three boxes and the second none.
fn boxes(offsets: Vec<i64>) -> Batch {
    let values = Tensor::new((0..12).map(|v| v as f32).collect(), [3, 4]).unwrap();
    let targets = BTreeMap::from([("boxes".into(), values), ("boxes.offsets".into(), Tensor::vector(offsets))]);
    Batch { inputs: BTreeMap::from([("x".into(), Tensor::full(0f32, [2, 8]).unwrap())]), targets, ..Batch::default() }
}

#[test]
fn a_ragged_target_is_read_sample_by_sample_and_does_not_change_the_count() {
    let batch = boxes(vec![0, 3, 3]);
    assert_eq!(batch.len(), 2);
    let shapes: Vec<Vec<usize>> = batch.ragged("boxes").unwrap().iter().map(|t| t.shape().to_vec()).collect();
    assert_eq!(shapes, [vec![3, 4], vec![0, 4]]);
    for wrong in [vec![0, 2], vec![1, 3], vec![0, 4, 3], vec![]] {
        assert!(boxes(wrong).ragged("boxes").unwrap_err().to_string().contains("boxes.offsets"));
    }
    assert!(batch.ragged("letters").unwrap_err().to_string().contains("letters"));
}

/// 8 → 3 through `middle`, whose last value are the logits.
fn through(middle: impl FnOnce(&mut Model, ValueId) -> ValueId) -> Model {
    let mut m = Model::new(17);
    let x = input(&mut m, "x", &[8]);
    let w = constant(&mut m, "fc.weight", random::normal(1, &[3, 8], 0.0, 0.4).unwrap());
    let b = constant(&mut m, "fc.bias", Tensor::full(0f32, [3]).unwrap());
    let h = node(&mut m, "Gemm", &[x, w, b], "h");
    let y = middle(&mut m, h);
    m.graph.outputs.push(y);
    m.verify().unwrap();
    m
}

#[test]
fn a_root_of_zero_takes_no_part_in_the_step() {
    let mut m = through(|m, h| {
        let r = node(m, "Relu", &[h], "r");
        node(m, "Sqrt", &[r], "root")
    });
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let report = train::train(&mut m, &Toy { batches: 20 }, &loss, &settings(4), &mut around(&mut Silent)).unwrap();
    assert!(report.history[3].loss < report.history[0].loss, "{:?}", report.history);
    let w = m.values.tensor(m.find("fc.weight").unwrap()).unwrap();
    assert!(w.as_slice::<f32>().unwrap().iter().all(|v| v.is_finite()));
}

#[test]
fn what_is_not_finite_is_named_with_its_node() {
    let fails = |mut m: Model| {
        let loss = CrossEntropy::of(&m, 0.0).unwrap();
        train::train(&mut m, &Toy { batches: 2 }, &loss, &settings(1), &mut around(&mut Silent)).unwrap_err().to_string()
    };
    let e = fails(through(|m, h| {
        let r = node(m, "Relu", &[h], "r");
        node(m, "Log", &[r], "l")
    }));
    assert!(
        e.contains("step 0: the loss is") && e.contains("the result of node 'l_node' (Log) holds -inf; an argument that is zero"),
        "{e}"
    );
    // Finite values with an infinite slope: the square of 1e25 overflows f32. A mask of -inf is no fault.
    let e = fails(through(|m, h| {
        let tiny = constant(m, "tiny", Tensor::scalar(1e-25f32));
        let small = node(m, "Mul", &[h, tiny], "small");
        let large = node(m, "Reciprocal", &[small], "large");
        let y = node(m, "Mul", &[large, tiny], "y");
        let mask = constant(m, "mask", Tensor::vector(vec![0f32, f32::NEG_INFINITY, 0.0]));
        let masked = node(m, "Add", &[y, mask], "masked");
        let weights = node(m, "Softmax", &[masked], "weights");
        node(m, "Add", &[y, weights], "logits")
    }));
    assert!(e.contains("a gradient is not finite: the training diverges: the gradient through node 'large_node' (Reciprocal)"), "{e}");
}

#[test]
fn the_gradient_of_two_levels_follows_the_training_s_progress_and_their_scale_is_trained() {
    use encodings::binary::{ActivationEstimator, activation_levels, fit_activation};
    let binary = || {
        let mut m = network();
        let id = m.find("r").unwrap();
        let seen = [(0.0, 8.0), (0.5, 4.0), (1.0, 3.0), (2.0, 1.0)];
        m.annotations.entry(id).encoding = Some(fit_activation(&seen, ActivationEstimator::IrNet).unwrap());
        m
    };
    let settings = TrainSettings { learn_scales: true.into(), simulate: true, keep: Keep::Last, ..settings(6) };
    let mut m = binary();
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let report = train::train(&mut m, &Toy { batches: 12 }, &loss, &settings, &mut TrainContext::default()).unwrap();
    assert!(report.history[5].loss < 0.8 * report.history[0].loss, "{:?}", report.history);
    let of = |m: &Model| m.annotations.encoding(m.find("r").unwrap()).unwrap().clone();
    assert_eq!(of(&m).parameters["progress"].to_f32_vec().unwrap(), [1.0]);
    let levels = |m: &Model| activation_levels(&of(m)).unwrap().unwrap();
    assert_ne!(levels(&m)[1], levels(&binary())[1]);
}
