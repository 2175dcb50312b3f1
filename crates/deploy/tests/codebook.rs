//! Weights in a codebook: the file computes what the simulation computes, in the requested number of bits.
use espalier_deploy as deploy;
mod decoded;
mod support;

use decoded::{check, encode};
use deploy::{LowerOptions, lift, lower, measure};
use encodings::Granularity;
use encodings::codebook::Codebook;
use graph::{AttributeValue, Model, Node};
use support::{Builder, noise};
use tensor::Tensor;

/// Convolution, Flatten, Gemm; both weights in a codebook, two thirds of the first one masked.
fn network(settings: &Codebook, masked: bool) -> Model {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(2), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(3)]);
    let [c, f] = ["c", "f"].map(|n| b.inner(n));
    let w = b.constant("w", noise(&[5, 2, 3, 3], 1));
    let v = b.constant("v", noise(&[3, 80], 3));
    b.node("Conv", &[x, w], c);
    b.node("Flatten", &[c], f);
    b.push(Node::new("Gemm", "head", &[f, v], &[y]).with("transB", AttributeValue::Int(1)));
    let mut m = b.model;
    if masked {
        m.annotations.entry(w).mask = Some(Tensor::new((0..90).map(|i| i % 3 == 0).collect::<Vec<bool>>(), [5, 2, 3, 3]).unwrap());
    }
    for id in [w, v] {
        encode(&mut m, id, settings);
    }
    m
}

fn choices() -> Vec<Codebook> {
    let one = |bits, granularity, channel_scale| Codebook { bits, granularity, channel_scale, ..Codebook::default() };
    let mut all: Vec<Codebook> = (2..=8).map(|bits| one(bits, Granularity::Tensor, true)).collect();
    for bits in [3, 4] {
        all.extend([one(bits, Granularity::Tensor, false), one(bits, Granularity::Channel, false), one(bits, Granularity::Group(2), true)]);
    }
    all
}

#[test]
fn the_file_computes_the_simulation_to_the_bit_and_is_read_back() {
    for settings in choices() {
        for masked in [false, true] {
            let m = network(&settings, masked);
            let (lowered, lifted) = check(&m, 2, &format!("{settings:?}"));
            assert!(lowered.float_parts.iter().any(|p| p.reason.contains("codebook")), "{:?}", lowered.float_parts);
            for name in ["w", "v"] {
                let encoding = |m: &Model| m.annotations.encoding(m.find(name).unwrap()).cloned();
                assert_eq!(encoding(&lifted), encoding(&m), "{settings:?}");
            }
        }
    }
}

#[test]
fn masked_weights_are_zeros_in_the_deployed_file() {
    for settings in choices() {
        let m = network(&Codebook { zero: false, ..settings.clone() }, true);
        let mut file = lower(&m, &LowerOptions::default()).unwrap().model;
        let counted = measure::parameters(&file).unwrap();
        let w = counted.weights.iter().find(|w| w.name == "w").unwrap();
        assert!(w.zeros >= 60 && w.elements == 90, "{w:?}");
        lift(&mut file).unwrap();
        let real = file.values.tensor(file.find("w").unwrap()).unwrap().to_f32_vec().unwrap();
        for (i, v) in real.iter().enumerate().filter(|(i, _)| i % 3 != 0) {
            assert_eq!(v.to_bits(), 0, "element {i} of {settings:?}");
        }
    }
}

#[test]
fn weights_take_the_bits_that_were_asked_for() {
    for bits in 2..=8u32 {
        let settings = Codebook { bits, channel_scale: false, ..Codebook::default() };
        let file = lower(&network(&settings, false), &LowerOptions::default()).unwrap().model;
        let counted = measure::parameters(&file).unwrap();
        let bytes: Vec<u64> = counted.weights.iter().map(|w| w.bytes).collect();
        assert_eq!(bytes, [90, 240].map(|n: u64| (n * u64::from(bits)).div_ceil(8) + (4 << bits)));
        // In the file itself: the stored constants, and no float constants besides the tables.
        let stored = |id: &graph::ValueId| file.values.tensor(*id).map(|t| (t.len() * t.dtype().bits()).div_ceil(8) as u64).unwrap_or(0);
        let all: u64 = file.graph.constants.iter().map(stored).sum();
        let helpers = 400;
        assert!(all <= bytes.iter().sum::<u64>() + helpers, "{bits} bits: {all} bytes for {bytes:?}");
    }
}
