//! Learned scales at a rate that is far too large for them.
use espalier::technique::Settings;
use espalier::tensor::{Tensor, random};
use espalier::train::parameters::{Part, trainable};
use espalier::train::{self, AdamW, Batch, Batches, CrossEntropy, TrainContext, TrainError, TrainSettings};
use espalier::{graph::Model, ops, quantize, zoo};
use std::collections::BTreeMap;

struct Noise;

impl Batches for Noise {
    fn batches(&self) -> u64 {
        4
    }
    fn epoch(&self, _: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..4).map(|i| Ok(batch(i))))
    }
}

fn batch(seed: u64) -> Batch {
    let x = random::normal(seed, &[8, 3, 16, 16], 0.0, 1.0).unwrap();
    let labels = Tensor::vector((0..8).collect::<Vec<i64>>());
    Batch { inputs: BTreeMap::from([("input".into(), x)]), targets: BTreeMap::from([("label".into(), labels)]), ..Batch::default() }
}

fn network() -> Model {
    let entry = zoo::find("resnet8").unwrap();
    let mut m = entry.build(&zoo::ZooOptions { width: 0.25, input: vec![3, 16, 16], ..entry.default_options() }).unwrap();
    train::fold_constants(&mut m).unwrap();
    ops::fold_batch_norm(&mut m).unwrap();
    quantize::quantize(&mut m, &quantize::QuantizeSettings::default(), std::iter::once(Ok(batch(9)))).unwrap();
    m
}

#[test]
fn scales_stay_positive_at_any_rate() {
    let mut m = network();
    let weights = trainable(&m, &[], false).unwrap();
    assert!(weights.iter().all(|p| p.id.part == Part::Master));
    // Without projection, a step of 10 would make every scale of this network negative.
    let settings = TrainSettings {
        epochs: 1,
        optimizer: AdamW { lr: 10.0, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }.choice().unwrap(),
        learn_scales: true.into(),
        freeze: weights.into_iter().map(|p| p.name).collect(),
        ..TrainSettings::default()
    };
    let objective = CrossEntropy::of(&m, 0.0).unwrap();
    let mut around = TrainContext::default();
    train::train(&mut m, &Noise, &objective, &settings, &mut around).unwrap();
    let scales = m.annotations.iter().filter_map(|(_, a)| a.encoding.as_ref()).filter_map(|e| e.parameters.get("scale"));
    let lowest = scales.flat_map(|s| s.to_f32_vec().unwrap()).fold(f32::INFINITY, f32::min);
    assert!(lowest > 0.0 && lowest.is_finite(), "{lowest}");
}
