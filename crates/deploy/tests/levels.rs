//! Weights of few levels (ternary, binary, powers of two): the file computes what the simulation computes, in the requested
//! number of bits.
use espalier_deploy as deploy;
mod decoded;
mod support;

use decoded::{check, encode};
use deploy::{LowerOptions, lift, lower, measure};
use encodings::additive_power_of_two::AdditivePowerOfTwo;
use encodings::binary::{Binary, Estimator};
use encodings::codebook::Codebook;
use encodings::power_of_two::PowerOfTwo;
use encodings::ternary::{Scales, Ternary};
use encodings::{Granularity, Slot, WeightEncoding};
use graph::{AttributeValue, Model, Node, ValueId};
use support::{Builder, noise};
use tensor::Tensor;

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

#[test]
fn the_file_computes_the_simulation_to_the_bit_and_is_read_back() {
    for settings in choices() {
        check(&network([settings.as_ref(); 3], false), 3, &format!("{settings:?}"));
    }
}

#[test]
fn encodings_share_a_file() {
    let (ternary, binary, codebook) = (Ternary::default(), Binary::default(), Codebook { bits: 2, ..Codebook::default() });
    let learned = Ternary { scales: Scales::Learned, ..Ternary::default() };
    for settings in [[&ternary as &dyn WeightEncoding, &binary, &codebook], [&learned, &ternary, &binary], [&codebook, &codebook, &learned]]
    {
        check(&network(settings, false), 3, &format!("{settings:?}"));
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
        check(&m, 3, &format!("{settings:?}"));
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
