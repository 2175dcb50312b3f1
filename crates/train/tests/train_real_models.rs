//! Each of the real models trains: ten steps on one fixed batch, the loss falls, every parameter has a finite gradient.
use espalier_train as train;
use graph::Model;
use std::collections::BTreeMap;
use technique::Settings;
use tensor::Tensor;
use test_support::folders::shared;
use train::parameters::{self, Part};
use train::{
    AdamW, Batch, Batches, Constant, CrossEntropy, Executor, MeanSquaredError, Mode, Objective, Overrides, TrainContext, TrainError,
    TrainSettings, Watch,
};

/// Classes of the first images of CIFAR-10's test split.
const CIFAR_LABELS: [i64; 4] = [3, 8, 8, 0];

/// The same batch, ten times.
struct Fixed(Batch);
impl Batches for Fixed {
    fn batches(&self) -> u64 {
        10
    }
    fn epoch(&self, _: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..10).map(|_| Ok(self.0.clone())))
    }
}

/// Losses of the steps.
struct Losses(Vec<f64>);
impl Watch for Losses {
    fn step(&mut self, _: u64, _: u64, loss: f64, _: usize) {
        self.0.push(loss);
    }
}

/// The model's inputs as stored beside it; real images for the CIFAR models.
fn load(name: &str) -> Option<(Model, BTreeMap<String, Tensor>)> {
    let (model, golden) = (shared(&format!("models/{name}.onnx"))?, shared(&format!("golden/{name}.npz"))?);
    let arrays = data::npz::read(&golden).unwrap();
    let inputs = arrays.into_iter().filter_map(|(k, v)| Some((k.strip_prefix("in__")?.to_string(), v))).collect();
    Some((onnx::load(&model).unwrap(), inputs))
}

/// Names of the parameters without a gradient; a gradient that is not finite fails the test.
fn without_gradient(model: &Model, objective: &dyn Objective, batch: &Batch) -> Vec<String> {
    let parameters = parameters::trainable(model, &[], false).unwrap();
    let mut overrides = Overrides::default();
    let mut leaves = vec![];
    for p in &parameters {
        assert_eq!(p.id.part, Part::Master);
        let leaf = parameters::get(model, &p.id).unwrap().tracked().unwrap();
        assert!(leaf.rank() > 0, "{} is a scalar: a setting of the graph, nothing to train", p.name);
        overrides.constants.insert(p.id.value, leaf.clone());
        leaves.push(leaf);
    }
    let executor = Executor::with_taps(model, &objective.taps()).unwrap();
    let out = executor.run_with(&batch.inputs, &overrides, Mode { training: true, ..Mode::FLOAT }, None).unwrap();
    let mut gradients = objective.loss(&out.values, batch).unwrap().backward().unwrap();
    let mut missing = vec![];
    for (p, leaf) in parameters.iter().zip(&leaves) {
        match gradients.take(leaf) {
            Some(g) => assert!(g.to_f32_vec().unwrap().iter().all(|v| v.is_finite()), "{}: gradient", p.name),
            None => missing.push(p.name.clone()),
        }
    }
    println!("{} parameters, without gradient: {missing:?}", parameters.len());
    missing
}

fn check(name: &str) {
    let Some((mut model, inputs)) = load(name) else { return };
    let images = name.contains("cifar10") || name.contains("_ic_");
    let (objective, targets): (Box<dyn Objective>, _) = if images {
        let labels = BTreeMap::from([("label".to_string(), Tensor::vector(CIFAR_LABELS.to_vec()))]);
        (Box::new(CrossEntropy::of(&model, 0.1).unwrap()), labels)
    } else {
        (Box::new(MeanSquaredError::of(&model).unwrap()), train::random_targets(&model, &inputs, 1).unwrap())
    };
    let batch = Batch { inputs, targets, ..Batch::default() };
    assert_eq!(without_gradient(&model, objective.as_ref(), &batch), Vec::<String>::new(), "{name}");
    let settings = TrainSettings {
        // Small enough for all models: the network with raw pixels, 0..255, has correspondingly large gradients.
        optimizer: AdamW { lr: 1e-5, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }.choice().unwrap(),
        schedule: Constant { warm_up: 0.0 }.choice().unwrap(),
        clip_norm: Some(1.0),
        ..TrainSettings::default()
    };
    let mut losses = Losses(vec![]);
    let mut around = TrainContext { watch: &mut losses, ..TrainContext::default() };
    train::train(&mut model, &Fixed(batch), objective.as_ref(), &settings, &mut around).unwrap();
    println!("{name}: {:.4?}", losses.0);
    assert_eq!(losses.0.len(), 10);
    assert!(losses.0[9] < losses.0[0], "{name}: {:?}", losses.0);
}

macro_rules! trains {
    ($($name:ident),* $(,)?) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

trains!(
    cifar10_resnet20,
    cifar10_resnet20_folded,
    cifar10_resnet56,
    efficientnet_lite0,
    mlperf_ic_resnet8,
    mlperf_kws_dscnn,
    ppocr_mobile_v2_cls,
    silero_vad_16k_op15,
    ultraface_rfb320,
);
