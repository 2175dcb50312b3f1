//! Networks of the zoo trained on a GPU and on the processor: the losses of each step, and the weights after them, agree.
#![cfg(feature = "gpu")]
use espalier_train as train;
use graph::Model;
use std::collections::BTreeMap;
use technique::Settings;
use tensor::{Tensor, device, gpu, random};
use train::{
    AdamW, Batch, Batches, Constant, CrossEntropy, Executor, Mode, Named, Optimizers, Sgd, TrainContext, TrainError, TrainSettings, Watch,
};
use zoo::ZooOptions;

/// Largest difference of a loss, relative to it: sums in another order, whose difference grows from step to step.
const LOSS: f64 = 1e-3;
/// Largest difference of an output of the trained network, relative to the largest output.
const OUTPUT: f64 = 1e-2;

const STEPS: u64 = 4;
const BATCH: usize = 6;

struct Noise {
    input: String,
    shape: Vec<usize>,
    classes: usize,
}

impl Noise {
    fn inputs(&self, step: u64) -> Named {
        BTreeMap::from([(self.input.clone(), random::uniform(step, &self.shape, -1.0, 1.0).unwrap())])
    }
}

impl Batches for Noise {
    fn batches(&self) -> u64 {
        STEPS
    }

    fn epoch(&self, _: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..STEPS).map(|step| {
            let labels: Vec<i64> = (0..BATCH as i64).map(|i| (i + step as i64) % self.classes as i64).collect();
            Ok(Batch { inputs: self.inputs(step), targets: BTreeMap::from([("label".into(), Tensor::vector(labels))]), ..Batch::default() })
        }))
    }
}

#[derive(Default)]
struct Losses(Vec<f64>);

impl Watch for Losses {
    fn step(&mut self, _: u64, _: u64, loss: f64, _: usize) {
        self.0.push(loss);
    }
}

/// The losses of a few steps, and the trained network's output on one more batch.
fn trained(on_gpu: bool, model: &Model, data: &Noise, optimizer: technique::Choice<Optimizers>) -> (Vec<f64>, Vec<f64>) {
    gpu::scoped(on_gpu, || {
        let mut model = model.clone();
        let objective = CrossEntropy::of(&model, 0.1).unwrap();
        let settings = TrainSettings {
            optimizer,
            schedule: Constant { warm_up: 0.0 }.choice().unwrap(),
            clip_norm: Some(5.0),
            ..TrainSettings::default()
        };
        let mut losses = Losses::default();
        let mut around = TrainContext { watch: &mut losses, ..TrainContext::default() };
        train::train(&mut model, data, &objective, &settings, &mut around).unwrap();
        let out = Executor::new(&model).unwrap().run(&data.inputs(77), Mode::FLOAT).unwrap();
        (losses.0, out.into_values().next().unwrap().to_f64_vec().unwrap())
    })
}

#[test]
fn a_gpu_trains_as_the_processor_does() {
    if let Err(e) = gpu::open(None) {
        assert!(std::env::var_os("ESPALIER_REQUIRE_GPU").is_none(), "{e}");
        eprintln!("skipped: {e}");
        return;
    }
    let sgd = Sgd { lr: 0.02, momentum: 0.9, nesterov: true, weight_decay: 1e-3 }.choice::<Optimizers>().unwrap();
    let adamw = AdamW { lr: 0.002, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 1e-2 }.choice::<Optimizers>().unwrap();
    for (name, input, optimizer) in [("resnet8", vec![3, 16, 16], sgd), ("ds-cnn", vec![1, 49, 10], adamw)] {
        let entry = zoo::find(name).unwrap();
        let options = ZooOptions { width: 0.5, input: input.clone(), ..entry.default_options() };
        let model = entry.build(&options).unwrap();
        let data = Noise {
            input: model.values[model.graph.inputs[0]].name.clone(),
            shape: [vec![BATCH], input].concat(),
            classes: options.classes,
        };
        device::take_host_copies();
        let (losses, outputs) = trained(true, &model, &data, optimizer.clone());
        let copies = device::take_host_copies();
        let (expected, expected_outputs) = trained(false, &model, &data, optimizer);
        println!("{name}: losses {losses:?} against {expected:?}; read by the processor: {copies:?}");
        assert_eq!(losses.len(), STEPS as usize);
        for (step, (got, wanted)) in losses.iter().zip(&expected).enumerate() {
            assert!((got - wanted).abs() <= LOSS * wanted.abs(), "{name}, step {step}: loss {got} against {wanted}");
        }
        let largest = expected_outputs.iter().fold(0f64, |m, v| m.max(v.abs()));
        for (i, (got, wanted)) in outputs.iter().zip(&expected_outputs).enumerate() {
            assert!((got - wanted).abs() <= OUTPUT * largest, "{name}, output {i}: {got} against {wanted}");
        }
        // Layers and their gradients run on the GPU: the CPU reads only losses, norms and results.
        let layers: Vec<_> = copies.iter().filter(|c| c.0.ends_with("backward") || c.0.starts_with("Conv")).collect();
        assert!(layers.is_empty(), "{name}: {layers:?}");
    }
}
