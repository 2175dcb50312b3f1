//! Scales that are learned in each way: what trains, what is stored afterwards, and the same bits after an interruption.
mod toy;

use encodings::affine::AffineSettings;
use espalier_train as train;
use graph::Model;
use std::sync::atomic::{AtomicBool, Ordering};
use technique::{Choice, Settings};
use tensor::Tensor;
use toy::{Toy, network, settings};
use train::parameters::trainable;
use train::{
    CrossEntropy, DoReFa, EpochRecord, Keep, LearnScales, Lsq, LsqPlus, OscillationDamping, Pact, ScaleLearnings, TrainContext, TrainError,
    TrainSettings, Watch,
};

/// The small network with a grid on its Relu, one on its input, which is negative, too, and one on a weight.
fn quantized() -> Model {
    let mut m = network();
    let grids = [
        ("r", AffineSettings::activation(3).encoding(Tensor::scalar(0.5f32), Tensor::scalar(0f32))),
        ("x", AffineSettings::activation(4).encoding(Tensor::scalar(0.25f32), Tensor::scalar(5f32))),
        ("fc2.weight", AffineSettings::weight(4, Some(0)).encoding(Tensor::vector(vec![0.1f32; 3]), Tensor::vector(vec![0f32; 3]))),
    ];
    for (name, encoding) in grids {
        let id = m.find(name).unwrap();
        m.annotations.entry(id).encoding = Some(encoding);
    }
    m
}

fn parameter(m: &Model, value: &str, name: &str) -> Vec<f32> {
    m.annotations.encoding(m.find(value).unwrap()).unwrap().parameters[name].to_f32_vec().unwrap()
}

fn with(how: LearnScales) -> TrainSettings {
    TrainSettings { learn_scales: how, keep: Keep::Last, ..settings(3) }
}

fn trained(how: LearnScales) -> (Model, f64) {
    let mut m = quantized();
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let report = train::train(&mut m, &Toy { batches: 10 }, &loss, &with(how), &mut TrainContext::default()).unwrap();
    (m, report.history.last().unwrap().loss / report.history[0].loss)
}

fn ways() -> Vec<LearnScales> {
    let pact = |tanh_weights| Pact { decay: 0.01, tanh_weights }.choice().unwrap();
    let choices: [Choice<ScaleLearnings>; 5] =
        [Lsq {}.choice().unwrap(), LsqPlus {}.choice().unwrap(), pact(false), pact(true), DoReFa {}.choice().unwrap()];
    choices.map(LearnScales::from).into()
}

#[test]
fn every_way_trains_and_leaves_scales_and_zero_points() {
    let before = quantized();
    for (how, way) in ways().into_iter().enumerate() {
        let (m, fell) = trained(way);
        assert!(fell < 0.7, "way {how}: {fell}");
        for value in ["r", "x", "fc2.weight"] {
            let encoding = m.annotations.encoding(m.find(value).unwrap()).unwrap();
            assert_eq!(encoding.parameters.keys().collect::<Vec<_>>(), ["scale", "zero_point"], "way {how}: {value}");
            encodings::affine::Grid::of(encoding).unwrap();
            assert_ne!(parameter(&m, value, "scale"), parameter(&before, value, "scale"), "way {how}: {value}");
        }
        assert_eq!(parameter(&m, "r", "zero_point"), [0.0], "way {how}");
    }
}

#[test]
fn masked_weights_stay_zero_in_every_way() {
    for (how, way) in ways().into_iter().enumerate() {
        let mut m = quantized();
        let id = m.find("fc2.weight").unwrap();
        let live: Vec<bool> = (0..48).map(|i| i % 2 != 0).collect();
        m.annotations.entry(id).mask = Some(Tensor::new(live.clone(), [3, 16]).unwrap());
        let loss = CrossEntropy::of(&m, 0.0).unwrap();
        let damped = vec![OscillationDamping { factor: 0.1, start: 0.0 }.choice().unwrap()];
        let settings = TrainSettings { penalties: damped, ..with(way) };
        train::train(&mut m, &Toy { batches: 10 }, &loss, &settings, &mut TrainContext::default()).unwrap();
        let annotation = m.annotations.get(id).unwrap();
        let stored =
            encodings::store(m.values.tensor(id).unwrap(), annotation.mask.as_ref(), annotation.encoding.as_ref().unwrap()).unwrap();
        let read = encodings::read(&stored.data, annotation.encoding.as_ref().unwrap()).unwrap().to_f32_vec().unwrap();
        assert!(read.iter().zip(&live).all(|(v, live)| *live || v.to_bits() == 0), "way {how}");
        assert!(read.iter().any(|v| *v != 0.0), "way {how}");
    }
}

#[test]
fn lsq_keeps_zero_points_and_is_what_true_means() {
    let (a, b) = (trained(true.into()).0, trained(Lsq {}.choice::<ScaleLearnings>().unwrap().into()).0);
    assert_eq!(parameter(&a, "x", "zero_point"), [5.0]);
    assert_eq!(a.annotations, b.annotations);
    for (id, v) in a.values.iter() {
        assert_eq!(v.constant, b.values[id].constant, "{}", v.name);
    }
}

#[test]
fn lsq_plus_moves_a_grid_that_lies_in_the_wrong_place() {
    // All but the largest inputs are cut off: -0.25 .. 3.5 of about -3 .. 3.
    let mut m = quantized();
    let id = m.find("x").unwrap();
    m.annotations.entry(id).encoding = Some(AffineSettings::activation(4).encoding(Tensor::scalar(0.25f32), Tensor::scalar(1f32)));
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let run = |how: LearnScales| {
        let mut m = m.clone();
        let report = train::train(&mut m, &Toy { batches: 20 }, &loss, &with(how), &mut TrainContext::default()).unwrap();
        (parameter(&m, "x", "zero_point")[0], report.history.last().unwrap().loss)
    };
    let (lsq, plus) = (run(true.into()), run(LsqPlus {}.choice::<ScaleLearnings>().unwrap().into()));
    assert_eq!(lsq.0, 1.0);
    assert!(plus.0 >= 3.0 && plus.1 < lsq.1, "{plus:?} against {lsq:?}");
}

#[test]
fn weights_in_tangents_end_on_their_grid_and_masked_ones_stay_zero() {
    let mut m = quantized();
    let id = m.find("fc2.weight").unwrap();
    let live: Vec<bool> = (0..48).map(|i| i % 5 != 0).collect();
    m.annotations.entry(id).mask = Some(Tensor::new(live.clone(), [3, 16]).unwrap());
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let how = with(DoReFa {}.choice::<ScaleLearnings>().unwrap().into());
    train::train(&mut m, &Toy { batches: 10 }, &loss, &how, &mut TrainContext::default()).unwrap();
    let (weight, annotation) = (m.values.tensor(id).unwrap(), m.annotations.get(id).unwrap());
    assert_eq!(&encodings::simulate(weight, annotation).unwrap(), weight);
    assert_ne!(parameter(&m, "fc2.weight", "scale"), parameter(&quantized(), "fc2.weight", "scale"));
    let stored = encodings::affine::quantize_to_int(weight, annotation.encoding.as_ref().unwrap()).unwrap().to_i64_vec().unwrap();
    assert!(stored.chunks(16).all(|row| row.iter().any(|q| q.abs() == 7)), "a row of {stored:?} does not reach its bound");
    assert!(stored.iter().zip(live).all(|(q, live)| live || *q == 0));
}

#[test]
fn decay_pulls_the_bounds_of_pact_down() {
    let bound = |decay: f64| {
        let (m, _) = trained(Pact { decay, ..Pact::default() }.choice::<ScaleLearnings>().unwrap().into());
        parameter(&m, "r", "scale")[0] * 7.0
    };
    let (free, pulled) = (bound(0.0), bound(0.1));
    assert!(pulled < free - 0.2, "{pulled} with decay, {free} without");
}

/// Stops the training after its second epoch.
struct Stop<'a>(&'a AtomicBool);

impl Watch for Stop<'_> {
    fn epoch(&mut self, record: &EpochRecord) {
        if record.epoch == 1 {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn an_interrupted_training_ends_in_the_same_bits() {
    for how in ways() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint.safetensors");
        let (whole, settings) = (trained(how.clone()).0, with(how));
        let (stop, data) = (AtomicBool::new(false), Toy { batches: 10 });
        let loss = CrossEntropy::of(&whole, 0.0).unwrap();
        let mut watch = Stop(&stop);
        let mut context = TrainContext { watch: &mut watch, checkpoint: Some(path.clone()), stop: Some(&stop), ..TrainContext::default() };
        let mut stopped = quantized();
        assert_eq!(train::train(&mut stopped, &data, &loss, &settings, &mut context).unwrap_err(), TrainError::Interrupted);
        // What is left behind has stored forms, too.
        assert!(parameter(&stopped, "r", "scale").len() == 1 && parameter(&stopped, "x", "zero_point").len() == 1);
        let mut again = quantized();
        let mut context = TrainContext { checkpoint: Some(path), ..TrainContext::default() };
        train::train(&mut again, &data, &loss, &settings, &mut context).unwrap();
        assert_eq!(again.annotations, whole.annotations);
        for (id, v) in whole.values.iter() {
            assert_eq!(v.constant, again.values[id].constant, "{}", v.name);
        }
    }
}

#[test]
fn names_of_what_trains_can_be_frozen() {
    let mut m = quantized();
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let frozen = TrainSettings { freeze: vec!["r/clip".into()], ..with(Pact::default().choice::<ScaleLearnings>().unwrap().into()) };
    train::train(&mut m, &Toy { batches: 5 }, &loss, &frozen, &mut TrainContext::default()).unwrap();
    assert_eq!(parameter(&m, "r", "scale"), parameter(&quantized(), "r", "scale"));
    assert!(trainable(&m, &[], true).unwrap().iter().any(|p| p.name == "r/scale"));
}

#[test]
fn damped_weights_end_near_their_grid_points() {
    let run = |factor: f64| {
        let mut m = quantized();
        let id = m.find("fc1.weight").unwrap();
        let grid = AffineSettings::weight(3, Some(0)).encoding(Tensor::vector(vec![0.3f32; 16]), Tensor::vector(vec![0f32; 16]));
        m.annotations.entry(id).encoding = Some(grid);
        let loss = CrossEntropy::of(&m, 0.0).unwrap();
        let settings = TrainSettings { penalties: vec![OscillationDamping { factor, start: 0.2 }.choice().unwrap()], ..with(false.into()) };
        let report = train::train(&mut m, &Toy { batches: 20 }, &loss, &settings, &mut TrainContext::default()).unwrap();
        let away = encodings::affine::distance(m.values.tensor(id).unwrap(), m.annotations.encoding(id).unwrap()).unwrap().unwrap();
        (away.to_f32_vec().unwrap().iter().map(|d| d * d).sum::<f32>(), report.history.last().unwrap().loss)
    };
    let (free, damped) = (run(0.0), run(0.5));
    assert!(damped.0 < 0.25 * free.0, "squared distances {} without, {} with", free.0, damped.0);
    assert!(damped.1 < free.1 + 0.1, "loss {} without, {} with", free.1, damped.1);
}
