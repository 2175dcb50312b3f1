//! An objective with a parameter of its own: it trains together with the model's, is clipped with them, and is restored after a
//! stop.
use espalier_train as train;
use graph::{AttributeValue, Dim, Model, Node, Value, ValueId, ValueType};
use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use technique::Settings;
use tensor::{DType, Tensor, random};
use train::{AdamW, Batch, Batches, EpochRecord, LossParameter, Objective, Sgd, Silent, TrainContext, TrainError, TrainSettings, Watch};

/// `y = x W^T`, from 4 to 2.
fn network() -> Model {
    let mut m = Model::new(17);
    let shape = Some(vec![Dim::Symbol("N".into()), Dim::Known(4)]);
    let x = m.values.add(Value { name: "x".into(), ty: ValueType::Tensor { dtype: DType::F32, shape }, ..Value::default() });
    let w = m.values.add_constant("w", random::normal(1, &[2, 4], 0.0, 0.5).unwrap());
    let y = m.values.add_named("y");
    m.graph.inputs.push(x);
    m.graph.constants.push(w);
    m.graph.nodes.push(Node::new("Gemm", "fc", &[x, w], &[y]).with("transB", AttributeValue::Int(1)));
    m.graph.outputs.push(y);
    m.verify().unwrap();
    m
}

struct Data;
impl Batches for Data {
    fn batches(&self) -> u64 {
        10
    }
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..10).map(move |i| {
            let x = random::normal(random::derive(epoch, i), &[16, 4], 0.0, 1.0).unwrap();
            Ok(Batch { inputs: BTreeMap::from([("x".into(), x)]), ..Batch::default() })
        }))
    }
}

/// The mean squared error between `y A` and the first three elements of `x`; `A` `[2, 3]` is its own.
struct Adapted {
    output: ValueId,
    start: Tensor,
    /// `A` as the last step saw it.
    seen: Mutex<Option<Tensor>>,
}

impl Adapted {
    fn of(model: &Model) -> Self {
        Adapted { output: model.graph.outputs[0], start: random::normal(2, &[2, 3], 0.0, 0.3).unwrap(), seen: Mutex::new(None) }
    }
    fn seen(&self) -> Tensor {
        self.seen.lock().unwrap().clone().unwrap()
    }
}

impl Objective for Adapted {
    fn taps(&self) -> Vec<ValueId> {
        vec![self.output]
    }
    fn parameters(&self) -> Vec<LossParameter> {
        vec![LossParameter { name: "adapter".into(), value: self.start.clone(), decays: true }]
    }
    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        self.loss_with(std::slice::from_ref(&self.start), values, batch)
    }
    fn loss_with(&self, parameters: &[Tensor], values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        *self.seen.lock().unwrap() = Some(parameters[0].detach());
        let wanted = batch.inputs["x"].detach().narrow(1, 0, 3)?;
        let y = train::read(values, self.output)?.matmul(&parameters[0])?;
        Ok(tensor::mse_loss(&y, &wanted)?)
    }
}

fn settings(epochs: u64, momentum: f64, clip_norm: Option<f64>) -> TrainSettings {
    let optimizer = Sgd { lr: 0.1, momentum, nesterov: false, weight_decay: 0.0 }.choice().unwrap();
    TrainSettings { epochs, optimizer, clip_norm, ..TrainSettings::default() }
}

fn around(watch: &mut dyn Watch) -> TrainContext<'_> {
    TrainContext { watch, ..TrainContext::default() }
}

fn weight(model: &Model) -> Tensor {
    model.values.tensor(model.find("w").unwrap()).unwrap().clone()
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_f64_vec().unwrap(), b.to_f64_vec().unwrap());
    a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[test]
fn a_parameter_of_the_objective_trains_and_leaves_the_model_its_own() {
    let mut model = network();
    let objective = Adapted::of(&model);
    let (names, before) = (model.values.len(), weight(&model));
    let report = train::train(&mut model, &Data, &objective, &settings(30, 0.9, None), &mut around(&mut Silent)).unwrap();
    // Two numbers cannot determine three: a third of the variance of x is the least possible error.
    let loss = report.history.last().unwrap().loss;
    assert!((0.25..0.4).contains(&loss), "{loss}");
    assert!(distance(&objective.seen(), &objective.start) > 0.1 && distance(&weight(&model), &before) > 0.1);
    assert_eq!(model.values.len(), names, "the model has no value more");
}

#[test]
fn its_gradient_is_clipped_with_those_of_the_model() {
    let mut model = network();
    let (objective, before) = (Adapted::of(&model), weight(&model));
    struct One;
    impl Batches for One {
        fn batches(&self) -> u64 {
            1
        }
        fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
            Box::new(Data.epoch(epoch).take(1))
        }
    }
    // Two epochs of one step: the second uses the result of the first.
    train::train(&mut model, &One, &objective, &settings(1, 0.0, Some(0.01)), &mut around(&mut Silent)).unwrap();
    let first = distance(&weight(&model), &before);
    let (mut model, objective) = (network(), Adapted::of(&network()));
    train::train(&mut model, &One, &objective, &settings(2, 0.0, Some(0.01)), &mut around(&mut Silent)).unwrap();
    let moved = first + distance(&objective.seen(), &objective.start);
    assert!((moved.sqrt() - 0.1 * 0.01).abs() < 1e-6, "{}", moved.sqrt());
}

/// Stops after an epoch.
struct StopAfter<'a>(u64, &'a AtomicBool);
impl Watch for StopAfter<'_> {
    fn epoch(&mut self, record: &EpochRecord) {
        if record.epoch == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_training_that_was_stopped_ends_in_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint.safetensors");
    let adamw = AdamW { lr: 0.01, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }.choice().unwrap();
    for settings in [settings(5, 0.9, Some(0.5)), TrainSettings { optimizer: adamw, ..settings(5, 0.0, None) }] {
        let mut whole = network();
        let expected = Adapted::of(&whole);
        train::train(&mut whole, &Data, &expected, &settings, &mut around(&mut Silent)).unwrap();

        let stop = AtomicBool::new(false);
        let mut watch = StopAfter(1, &stop);
        let mut context = TrainContext { checkpoint: Some(path.clone()), stop: Some(&stop), ..around(&mut watch) };
        let mut first = network();
        let stopped = train::train(&mut first, &Data, &Adapted::of(&network()), &settings, &mut context);
        assert_eq!(stopped.unwrap_err(), TrainError::Interrupted);

        let mut second = network();
        let resumed = Adapted::of(&second);
        let mut silent = Silent;
        let mut context = TrainContext { checkpoint: Some(path.clone()), ..around(&mut silent) };
        train::train(&mut second, &Data, &resumed, &settings, &mut context).unwrap();
        assert_eq!((weight(&second), resumed.seen()), (weight(&whole), expected.seen()));
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_checkpoint_of_another_objective_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint.safetensors");
    struct Plain(Adapted);
    impl Objective for Plain {
        fn taps(&self) -> Vec<ValueId> {
            self.0.taps()
        }
        fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
            self.0.loss(values, batch)
        }
    }
    let run = |objective: &dyn Objective, epochs: u64| {
        let mut silent = Silent;
        let mut context = TrainContext { checkpoint: Some(path.clone()), ..around(&mut silent) };
        train::train(&mut network(), &Data, objective, &settings(epochs, 0.0, None), &mut context)
    };
    run(&Plain(Adapted::of(&network())), 1).unwrap();
    let refused = run(&Adapted::of(&network()), 2).unwrap_err().to_string();
    assert!(refused.contains("adapter") && refused.contains("is not in the checkpoint"), "{refused}");
}
