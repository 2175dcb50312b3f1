//! Participants of a training: their hooks, their state, and their effects on the loop.
mod toy;

use espalier_train as train;
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use tensor::Tensor;
use toy::{Toy, network, settings};
use train::{
    Batch, Batches, CrossEntropy, Executor, GradientSource, Keep, Mode, Objective, Overrides, Participant, ParticipantState, StepContext,
    TrainContext, TrainError, TrainSettings, WeightAverage, gradient_moments, measure_norm_statistics,
};

fn weight(m: &Model, name: &str) -> Vec<f32> {
    m.values.tensor(m.find(name).unwrap()).unwrap().to_f32_vec().unwrap()
}

/// Records which hooks were called at which step, and adds to one element after each update.
#[derive(Default)]
struct Recorder {
    calls: Vec<(&'static str, u64)>,
    nudges: f32,
}

impl Participant for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }
    fn before_step(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        self.calls.push(("before_step", cx.step));
        Ok(())
    }
    fn gradients(&mut self, cx: &mut StepContext, gradients: &mut [Option<Tensor>]) -> Result<(), TrainError> {
        assert_eq!(gradients.len(), cx.parameters.len());
        self.calls.push(("gradients", cx.step));
        Ok(())
    }
    fn after_update(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        self.calls.push(("after_update", cx.step));
        self.nudges += 0.1;
        let id = cx.model.find("fc2.bias").unwrap();
        let mut bias = cx.model.values.tensor(id).unwrap().to_f32_vec().unwrap();
        bias[0] += self.nudges * 1e-3;
        cx.model.values.set_tensor(id, Tensor::vector(bias));
        Ok(())
    }
    fn after_epoch(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        assert_eq!(cx.steps, 3 * cx.settings.epochs);
        self.calls.push(("after_epoch", cx.step));
        Ok(())
    }
    fn finish(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        self.calls.push(("finish", cx.step));
        Ok(())
    }
    fn state(&self, _: &Model) -> ParticipantState {
        ParticipantState { tensors: BTreeMap::new(), values: self.nudges.into() }
    }
    fn restore(&mut self, _: &mut Model, state: &ParticipantState) -> Result<(), TrainError> {
        self.nudges = state.values.as_f64().unwrap() as f32;
        Ok(())
    }
}

#[test]
fn hooks_are_called_in_order() {
    let mut m = network();
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let mut recorder = Recorder::default();
    let mut context = TrainContext { participants: vec![&mut recorder], ..TrainContext::default() };
    train::train(&mut m, &Toy { batches: 3 }, &loss, &settings(2), &mut context).unwrap();
    let step = |n| ["before_step", "gradients", "after_update"].map(|hook| (hook, n));
    let mut expected: Vec<_> = (0..3).flat_map(step).chain([("after_epoch", 3)]).collect();
    expected.extend((3..6).flat_map(step).chain([("after_epoch", 6), ("finish", 6)]));
    assert_eq!(recorder.calls, expected);
}

#[test]
fn a_checkpoint_of_a_model_of_another_shape_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint.safetensors");
    let trained = |mut m: Model| {
        let loss = CrossEntropy::of(&m, 0.0).unwrap();
        let mut context = TrainContext { checkpoint: Some(path.clone()), ..TrainContext::default() };
        train::train(&mut m, &Toy { batches: 3 }, &loss, &settings(1), &mut context)
    };
    trained(network()).unwrap();
    // The same network with one channel less.
    let mut smaller = network();
    for name in ["fc1.weight", "fc1.bias", "bn.scale", "bn.bias", "bn.mean", "bn.var", "fc2.weight"] {
        let id = smaller.find(name).unwrap();
        let kept = Tensor::vector((0..15).collect::<Vec<i64>>());
        let cut = smaller.values.tensor(id).unwrap().gather(&kept, usize::from(name == "fc2.weight")).unwrap();
        smaller.values.set_tensor(id, cut);
    }
    let refused = trained(smaller).unwrap_err().to_string();
    assert!(refused.contains("bn.bias") && refused.contains("[16] in the checkpoint and [15] in the model"), "{refused}");
}

/// Trains without a stop, then again with a stop in the second epoch and a new participant that continues from the checkpoint.
fn resumes<P: Participant>(mut fresh: impl FnMut() -> P) -> (Model, Model) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint.safetensors");
    let (data, settings) = (Toy { batches: 3 }, TrainSettings { keep: Keep::Best, ..settings(4) });
    let mut whole = network();
    let loss = CrossEntropy::of(&whole, 0.0).unwrap();
    let mut participant = fresh();
    let mut context = TrainContext { participants: vec![&mut participant], ..TrainContext::default() };
    train::train(&mut whole, &data, &loss, &settings, &mut context).unwrap();

    struct StopAt<P>(P);
    impl<P: Participant> Participant for StopAt<P> {
        fn name(&self) -> &'static str {
            self.0.name()
        }
        fn before_step(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
            if cx.step == 7 { Err(TrainError::Interrupted) } else { self.0.before_step(cx) }
        }
        fn after_update(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
            self.0.after_update(cx)
        }
        fn after_epoch(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
            self.0.after_epoch(cx)
        }
        fn state(&self, model: &Model) -> ParticipantState {
            self.0.state(model)
        }
    }
    let mut stops = StopAt(fresh());
    let mut context = TrainContext { checkpoint: Some(path.clone()), participants: vec![&mut stops], ..TrainContext::default() };
    assert_eq!(train::train(&mut network(), &data, &loss, &settings, &mut context).unwrap_err(), TrainError::Interrupted);

    let (mut resumed, mut participant) = (network(), fresh());
    let mut context = TrainContext { checkpoint: Some(path), participants: vec![&mut participant], ..TrainContext::default() };
    train::train(&mut resumed, &data, &loss, &settings, &mut context).unwrap();
    (whole, resumed)
}

fn assert_same_constants(a: &Model, b: &Model) {
    for (id, v) in a.values.iter() {
        assert_eq!(v.constant, b.values[id].constant, "{}", v.name);
    }
}

#[test]
fn state_survives_an_interruption() {
    let (whole, resumed) = resumes(Recorder::default);
    assert_same_constants(&whole, &resumed);
}

#[test]
fn averaging_survives_an_interruption() {
    let (whole, resumed) = resumes(|| WeightAverage::new(1, 2));
    assert_same_constants(&whole, &resumed);
}

/// Settled after the given number of epochs.
struct SettlesAfter(u64);
impl Participant for SettlesAfter {
    fn name(&self) -> &'static str {
        "settles_after"
    }
    fn settled(&self, cx: &StepContext) -> bool {
        cx.epoch >= self.0
    }
}

#[test]
fn epochs_before_the_participants_are_done_are_neither_kept_nor_counted() {
    let run = |settled: u64, patience: Option<u64>| {
        let figures = [0.75, 0.9, 0.75, 0.625, 0.5, 0.25];
        let mut epoch = 0;
        let mut judge = |_: &Model| {
            epoch += 1;
            Ok(figures[epoch - 1])
        };
        let mut model = network();
        let loss = CrossEntropy::of(&model, 0.0).unwrap();
        let settings = TrainSettings { keep: Keep::Best, early_stopping: patience, ..settings(6) };
        let mut participant = SettlesAfter(settled);
        let mut context = TrainContext { validate: Some(&mut judge), participants: vec![&mut participant], ..TrainContext::default() };
        let report = train::train(&mut model, &Toy { batches: 2 }, &loss, &settings, &mut context).unwrap();
        (report.history.len(), report.kept)
    };
    assert_eq!(run(0, None), (6, 1));
    assert_eq!(run(2, None), (6, 2), "0.9 was reached too early");
    assert_eq!(run(0, Some(1)), (3, 1));
    // The third epoch has the metric of the first, which does not count.
    assert_eq!(run(2, Some(2)), (5, 2));
}

/// Requests dense gradients, records those of the first step, and stops.
#[derive(Default)]
struct Dense {
    dense: bool,
    seen: BTreeMap<String, Vec<f32>>,
}
impl Participant for Dense {
    fn name(&self) -> &'static str {
        "dense"
    }
    fn dense_gradients(&self) -> bool {
        self.dense
    }
    fn gradients(&mut self, cx: &mut StepContext, gradients: &mut [Option<Tensor>]) -> Result<(), TrainError> {
        for (p, gradient) in cx.parameters.iter().zip(gradients) {
            self.seen.insert(p.name.clone(), gradient.as_ref().unwrap().to_f32_vec().unwrap());
        }
        Err(TrainError::Interrupted)
    }
}

#[test]
fn a_dense_gradient_is_that_of_the_weights_that_the_mask_leaves() {
    let mask: Vec<bool> = (0..128).map(|i| i % 3 != 0).collect();
    let first_gradients = |m: &mut Model, dense: bool| {
        let loss = CrossEntropy::of(m, 0.0).unwrap();
        let mut participant = Dense { dense, ..Dense::default() };
        let mut context = TrainContext { participants: vec![&mut participant], ..TrainContext::default() };
        train::train(m, &Toy { batches: 1 }, &loss, &settings(1), &mut context).unwrap_err();
        participant.seen
    };
    let mut masked = network();
    let id = masked.find("fc1.weight").unwrap();
    masked.annotations.entry(id).mask = Some(Tensor::new(mask.clone(), [16, 8]).unwrap());
    let dense = first_gradients(&mut masked, true);
    let sparse = first_gradients(&mut masked, false);
    // The same network without a mask: zeros are written into its weights instead.
    let mut zeroed = network();
    let values: Vec<f32> = weight(&zeroed, "fc1.weight").iter().zip(&mask).map(|(w, live)| if *live { *w } else { 0.0 }).collect();
    zeroed.values.set_tensor(id, Tensor::new(values, [16, 8]).unwrap());
    assert_eq!(dense, first_gradients(&mut zeroed, false));
    for ((dense, sparse), live) in dense["fc1.weight"].iter().zip(&sparse["fc1.weight"]).zip(&mask) {
        assert_eq!(*sparse, if *live { *dense } else { 0.0 });
    }
    assert!(dense["fc1.weight"].iter().zip(&mask).any(|(g, live)| !live && *g != 0.0));
}

fn mean_loss(m: &Model, loss: &dyn Objective, batches: &[Batch]) -> f64 {
    let executor = Executor::with_taps(m, &loss.taps()).unwrap();
    let one = |b: &Batch| {
        let out = executor.run_with(&b.inputs, &Overrides::default(), Mode::SIMULATED, None).unwrap();
        f64::from(loss.loss(&out.values, b).unwrap().to_f32_vec().unwrap()[0])
    };
    batches.iter().map(one).sum::<f64>() / batches.len() as f64
}

#[test]
fn gradient_moments_agree_with_central_differences() {
    let mut m = network();
    let id = m.find("fc1.weight").unwrap();
    m.annotations.entry(id).mask = Some(Tensor::new((0..128).map(|i| i % 5 != 0).collect::<Vec<bool>>(), [16, 8]).unwrap());
    let (loss, data) = (CrossEntropy::of(&m, 0.0).unwrap(), Toy { batches: 3 });
    let source = GradientSource { data: &data, epoch: 4, objective: &loss, simulate: true };
    let moments = |m: &Model, batches: u64| gradient_moments(m, &source, &[id], batches).unwrap().remove(&id).unwrap();
    let batches: Vec<Batch> = data.epoch(4).map(Result::unwrap).collect();
    let found = moments(&m, 3);
    for at in [0, 1, 17, 33, 64, 127] {
        // So small that hardly any rectifier changes its state.
        let eps = 1e-4f32;
        let moved = |by: f32| {
            let mut m = m.clone();
            let mut values = weight(&m, "fc1.weight");
            values[at] += by;
            m.values.set_tensor(id, Tensor::new(values, [16, 8]).unwrap());
            mean_loss(&m, &loss, &batches)
        };
        let numeric = (moved(eps) - moved(-eps)) / f64::from(2.0 * eps);
        assert!((numeric - f64::from(found.mean[at])).abs() < 1e-3, "element {at}: {numeric} against {}", found.mean[at]);
        assert_eq!(at % 5 == 0, found.mean[at] == 0.0);
    }
    // One batch: the mean of squares is the square. Three: that of each, averaged.
    let first = moments(&m, 1);
    assert!(first.mean.iter().zip(&first.mean_square).all(|(g, s)| g * g == *s));
    assert!(found.mean.iter().zip(&found.mean_square).all(|(g, s)| *s >= g * g * 0.999));
    assert!(found.mean.iter().zip(&found.mean_square).any(|(g, s)| *s > 2.0 * g * g && *g != 0.0));
    // A source with fewer batches is no error; the model is unchanged.
    assert_eq!(moments(&m, 99), found);
    let none = GradientSource { data: &Toy { batches: 0 }, ..source };
    assert!(gradient_moments(&m, &none, &[id], 3).unwrap_err().to_string().contains("no batch"));
}

/// Records the weights after each epoch.
#[derive(Default)]
struct Weights(Vec<Vec<f32>>);
impl Participant for Weights {
    fn name(&self) -> &'static str {
        "weights"
    }
    fn after_epoch(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        self.0.push(weight(cx.model, "fc1.weight"));
        Ok(())
    }
}

#[test]
fn weights_are_averaged_over_the_last_epochs_and_statistics_are_theirs() {
    let mut m = network();
    let id = m.find("fc1.weight").unwrap();
    m.annotations.entry(id).mask = Some(Tensor::new((0..128).map(|i| i % 4 != 0).collect::<Vec<bool>>(), [16, 8]).unwrap());
    let mask = m.annotations.mask(id).unwrap().clone();
    let (loss, data) = (CrossEntropy::of(&m, 0.0).unwrap(), Toy { batches: 4 });
    let (mut weights, mut average) = (Weights::default(), WeightAverage::new(2, 3));
    let mut context = TrainContext { participants: vec![&mut weights, &mut average], ..TrainContext::default() };
    train::train(&mut m, &data, &loss, &settings(5), &mut context).unwrap();
    assert_eq!((weights.0.len(), average.count()), (5, 3));
    for (i, w) in weight(&m, "fc1.weight").iter().enumerate() {
        let mean = (2..5).map(|e| f64::from(weights.0[e][i])).sum::<f64>() / 3.0;
        assert!((f64::from(*w) - mean).abs() < 1e-6, "{i}: {w} against {mean}");
    }
    assert_eq!(m.annotations.mask(id), Some(&mask));
    // The statistics of the normalization's input, on the first three batches of the epoch after the last.
    let h: ValueId = m.find("h").unwrap();
    let executor = Executor::with_taps(&m, &[h]).unwrap();
    let (mut mean, mut variance) = ([0f64; 16], [0f64; 16]);
    for batch in data.epoch(5).take(3) {
        let out = executor.run_with(&batch.unwrap().inputs, &Overrides::default(), Mode::SIMULATED, None).unwrap();
        let rows = out.values[&h].to_f32_vec().unwrap();
        for c in 0..16 {
            let column: Vec<f64> = rows.iter().skip(c).step_by(16).map(|v| f64::from(*v)).collect();
            let of_batch = column.iter().sum::<f64>() / 32.0;
            mean[c] += of_batch / 3.0;
            variance[c] += column.iter().map(|v| (v - of_batch).powi(2)).sum::<f64>() / 32.0 / 3.0;
        }
    }
    for (name, expected) in [("bn.mean", mean), ("bn.var", variance)] {
        for (found, expected) in weight(&m, name).iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-4 * expected.abs().max(1.0), "{name}: {found} against {expected}");
        }
    }
}

#[test]
fn a_network_without_running_statistics_stays_as_it_is() {
    let mut m = network();
    let norm = m.graph.nodes.iter().position(|n| n.op_type == "BatchNormalization").unwrap();
    let (from, to) = (m.graph.nodes[norm].outputs[0].unwrap(), m.graph.nodes[norm].input(0).unwrap());
    m.graph.nodes.remove(norm);
    for node in &mut m.graph.nodes {
        node.inputs.iter_mut().filter(|i| **i == Some(from)).for_each(|i| *i = Some(to));
    }
    let before = m.clone();
    assert_eq!(measure_norm_statistics(&mut m, &Toy { batches: 2 }, 0, 2, true, 1), Ok(0));
    assert_same_constants(&before, &m);
}
