//! The same training in fresh processes gives the same bits, with one thread and with two.
use espalier::technique::Settings;
use espalier::tensor::{Tensor, random, set_threads};
use espalier::train::{self, AdamW, Batch, Batches, CrossEntropy, TrainContext, TrainError, TrainSettings};
use espalier::{distill, graph::Model, ops, prune, quantize, zoo};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;

const THREADS: &str = "ESPALIER_TEST_THREADS";

struct Noise;

impl Batches for Noise {
    fn batches(&self) -> u64 {
        3
    }
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..3).map(move |i| Ok(batch(random::derive(epoch, i)))))
    }
}

fn batch(seed: u64) -> Batch {
    let x = random::normal(seed, &[32, 3, 32, 32], 0.0, 1.0).unwrap();
    let labels = Tensor::vector((0..32).map(|i| i % 10).collect::<Vec<i64>>());
    Batch { inputs: BTreeMap::from([("input".into(), x)]), targets: BTreeMap::from([("label".into(), labels)]), ..Batch::default() }
}

fn network(width: f64) -> Model {
    let entry = zoo::find("resnet8").unwrap();
    entry.build(&zoo::ZooOptions { width, ..entry.default_options() }).unwrap()
}

/// Trains with a mask, quantizers and a teacher; a hash of every constant's and every quantizer parameter's bits.
fn train_jointly() -> u64 {
    let (mut m, teacher) = (network(0.5), network(1.0));
    let settings = prune::PruneSettings::new(0.5);
    prune::prune(&mut m, &settings).unwrap();
    train::fold_constants(&mut m).unwrap();
    ops::fold_batch_norm(&mut m).unwrap();
    quantize::quantize(&mut m, &quantize::QuantizeSettings::default(), std::iter::once(Ok(batch(99)))).unwrap();
    let task = CrossEntropy::of(&m, 0.1).unwrap();
    let objective = distill::Distillation::new(task, &m, &teacher, &distill::DistillationSettings::default(), 0).unwrap();
    let optimizer = AdamW { lr: 1e-5, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }.choice().unwrap();
    let settings = TrainSettings { epochs: 2, optimizer, learn_scales: true.into(), clip_norm: Some(1.0), ..TrainSettings::default() };
    let mut around = TrainContext::default();
    let before = m.clone();
    let report = train::train(&mut m, &Noise, &objective, &settings, &mut around).unwrap();
    assert!(before.values != m.values && before.annotations != m.annotations);
    let mut hash = DefaultHasher::new();
    for t in m.values.iter().filter_map(|(_, v)| v.constant.as_ref()).map(|c| &c.tensor) {
        if let Ok(v) = t.as_slice::<f32>() {
            v.iter().for_each(|x| x.to_bits().hash(&mut hash));
        }
    }
    for t in m.annotations.iter().filter_map(|(_, a)| a.encoding.as_ref()).flat_map(|e| e.parameters.values()) {
        if let Ok(v) = t.as_slice::<f32>() {
            v.iter().for_each(|x| x.to_bits().hash(&mut hash));
        }
    }
    report.history.iter().for_each(|r| r.loss.to_bits().hash(&mut hash));
    hash.finish()
}

#[test]
fn a_joint_training_gives_the_same_bits_in_every_process_and_with_any_number_of_threads() {
    if let Ok(threads) = std::env::var(THREADS) {
        assert_eq!(set_threads(threads.parse().ok()).to_string(), threads);
        println!("\nbits {:016x}", train_jointly());
        return;
    }
    let child = |threads: usize| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let out = command.args(["--nocapture", "--test-threads=1"]).env(THREADS, threads.to_string()).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let bits = text.lines().find_map(|l| l.strip_prefix("bits ")).map(str::to_string);
        bits.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&out.stderr)))
    };
    let once = child(2);
    assert_eq!(once, child(2), "two processes");
    assert_eq!(once, child(1), "one thread and two");
}
