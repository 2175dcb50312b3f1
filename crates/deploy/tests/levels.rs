//! Weights of few levels (ternary, binary, powers of two): the file computes what the simulation computes, in the requested
//! number of bits.
use espalier_deploy as deploy;
mod support;

use deploy::runtime::{SessionOptions, Source};
use deploy::{LowerOptions, lift, lower, measure};
use encodings::additive_power_of_two::AdditivePowerOfTwo;
use encodings::binary::{Binary, Estimator};
use encodings::codebook::Codebook;
use encodings::power_of_two::PowerOfTwo;
use encodings::ternary::{Scales, Ternary};
use encodings::{Granularity, Slot, WeightEncoding};
use graph::{AttributeValue, Model, Node, ValueId};
use std::collections::BTreeMap;
use support::{Builder, noise, onnxruntime};
use tensor::Tensor;
use train::{Executor, Mode, Named};

fn run(model: &Model, mode: Mode) -> Named {
    let inputs = BTreeMap::from([("x".to_string(), noise(&[5, 2, 6, 6], 9))]);
    Executor::new(model).unwrap().run(&inputs, mode).unwrap()
}

fn encode(m: &mut Model, id: ValueId, settings: &dyn WeightEncoding) {
    let mask = m.annotations.mask(id).cloned();
    let live = encodings::live(m.values.tensor(id).unwrap(), mask.as_ref()).unwrap();
    let slot = Slot { axis: Some(0), mask: mask.as_ref(), ..Slot::default() };
    m.annotations.entry(id).encoding = Some(settings.fit(&live, slot).unwrap());
}

/// Two convolutions, Flatten, Gemm, each weight in an encoding of its own; two thirds of the first weight masked.
fn network(settings: [&dyn WeightEncoding; 3], masked: bool) -> Model {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(2), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(3)]);
    let [c, d, f] = ["c", "d", "f"].map(|n| b.inner(n));
    let w = b.constant("w", noise(&[5, 2, 3, 3], 1));
    let u = b.constant("u", noise(&[5, 5, 1, 1], 2));
    let v = b.constant("v", noise(&[3, 80], 3));
    b.node("Conv", &[x, w], c);
    b.node("Conv", &[c, u], d);
    b.node("Flatten", &[d], f);
    b.push(Node::new("Gemm", "head", &[f, v], &[y]).with("transB", AttributeValue::Int(1)));
    let mut m = b.model;
    if masked {
        m.annotations.entry(w).mask = Some(Tensor::new((0..90).map(|i| i % 3 == 0).collect::<Vec<bool>>(), [5, 2, 3, 3]).unwrap());
    }
    for (id, settings) in [w, u, v].into_iter().zip(settings) {
        encode(&mut m, id, settings);
    }
    m
}

fn choices() -> Vec<Box<dyn WeightEncoding>> {
    let mut all: Vec<Box<dyn WeightEncoding>> = vec![];
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        for scales in [Scales::Weights, Scales::Learned] {
            all.push(Box::new(Ternary { granularity, scales, ..Ternary::default() }));
        }
        for estimator in [Estimator::StraightThrough, Estimator::IrNet] {
            all.push(Box::new(Binary { granularity, estimator }));
        }
        for bits in 2..=5 {
            all.push(Box::new(PowerOfTwo { bits, granularity, power_of_two_scale: bits == 3 }));
            all.push(Box::new(AdditivePowerOfTwo { bits, granularity, normalize: bits == 3 }));
        }
    }
    all
}

fn check(m: &Model, how: &str) {
    let simulated = run(m, Mode::SIMULATED);
    let lowered = lower(m, &LowerOptions::default()).unwrap();
    assert_eq!(run(&lowered.model, Mode::FLOAT), simulated, "{how}");
    let file = onnx::to_bytes(&lowered.model).unwrap();
    let mut lifted = onnx::from_bytes(&file, None).unwrap();
    if let Some(runtime) = onnxruntime() {
        for options in [SessionOptions::literal(1), SessionOptions::default_arithmetic(1)] {
            let mut session = runtime.load(Source::Bytes(&file), options).unwrap();
            let inputs = BTreeMap::from([("x".to_string(), noise(&[5, 2, 6, 6], 9))]);
            let y = session.run(&inputs).unwrap()["y"].to_f32_vec().unwrap();
            for (a, b) in y.iter().zip(simulated["y"].to_f32_vec().unwrap()) {
                assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{how}: {a} {b}");
            }
        }
    }
    let counted = measure::parameters(&lowered.model).unwrap();
    assert_eq!(counted.weights.len(), 3, "{how}: {:?}", counted.weights);
    assert_eq!(lift(&mut lifted).unwrap(), 3, "{how}");
    assert_eq!(run(&lifted, Mode::SIMULATED), simulated, "{how}");
    assert_eq!(run(&lifted, Mode::FLOAT), simulated, "{how}");
    let again = lower(&lifted, &LowerOptions::default()).unwrap().model;
    assert_eq!(measure::parameters(&again).unwrap(), counted, "{how}");
}

#[test]
fn the_file_computes_the_simulation_to_the_bit_and_is_read_back() {
    for settings in choices() {
        check(&network([settings.as_ref(); 3], false), &format!("{settings:?}"));
    }
}

#[test]
fn encodings_share_a_file() {
    let (ternary, binary, codebook) = (Ternary::default(), Binary::default(), Codebook { bits: 2, ..Codebook::default() });
    let learned = Ternary { scales: Scales::Learned, ..Ternary::default() };
    for settings in [[&ternary as &dyn WeightEncoding, &binary, &codebook], [&learned, &ternary, &binary], [&codebook, &codebook, &learned]]
    {
        check(&network(settings, false), &format!("{settings:?}"));
    }
}

#[test]
fn masked_weights_are_zeros_in_the_deployed_file() {
    let with_zero = |s: &dyn WeightEncoding| {
        let e = s.fit(&noise(&[3, 8], 1), Slot::default()).unwrap();
        encodings::open(&e).unwrap().keeps_zero(&e.parameters)
    };
    for settings in choices().iter().filter(|s| with_zero(s.as_ref())) {
        let m = network([settings.as_ref(); 3], true);
        check(&m, &format!("{settings:?}"));
        let mut file = lower(&m, &LowerOptions::default()).unwrap().model;
        lift(&mut file).unwrap();
        let real = file.values.tensor(file.find("w").unwrap()).unwrap().to_f32_vec().unwrap();
        for (i, v) in real.iter().enumerate().filter(|(i, _)| i % 3 != 0) {
            assert_eq!(v.to_bits(), 0, "element {i} of {settings:?}");
        }
    }
}

#[test]
fn weights_take_the_bits_that_were_asked_for() {
    let bytes = |settings: &dyn WeightEncoding| {
        let file = lower(&network([settings; 3], false), &LowerOptions::default()).unwrap().model;
        let stored = |id: &ValueId| file.values.tensor(*id).map(|t| (t.len() * t.dtype().bits()).div_ceil(8) as u64).unwrap_or(0);
        let all: u64 = file.graph.constants.iter().map(stored).sum();
        let counted: Vec<u64> = measure::parameters(&file).unwrap().weights.iter().map(|w| w.bytes).collect();
        assert!(all <= counted.iter().sum::<u64>() + 400, "{settings:?}: {all} bytes for {counted:?}");
        counted
    };
    let scales = [4 * 5, 4 * 5, 4 * 3];
    let elements = [90u64, 25, 240];
    let of = |digits: u64| (0..3).map(|i| elements[i].div_ceil(digits) + scales[i]).collect::<Vec<u64>>();
    // Five ternary values in a byte, eight binary ones.
    assert_eq!(bytes(&Ternary::default()), of(5));
    assert_eq!(bytes(&Binary::default()), of(8));
    let nibbles: Vec<u64> = (0..3).map(|i| elements[i].div_ceil(2) + 4 * 16 + scales[i]).collect();
    assert_eq!(bytes(&PowerOfTwo::default()), nibbles);
}
