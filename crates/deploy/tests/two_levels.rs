//! Activations of two levels: the file chooses between them by standard operators, and is read back.
use espalier_deploy as deploy;
#[allow(dead_code)]
mod decoded;
mod support;

use decoded::{encode, input, run};
use deploy::runtime::{SessionOptions, Source};
use deploy::{LowerOptions, lift, lower};
use encodings::binary::{ActivationEstimator, Binary, activation_levels, fit_activation};
use graph::{Model, ValueId};
use support::{Builder, noise, onnxruntime};
use train::Mode;

/// `x -> Conv -> Relu -> Conv -> d -> Identity -> Conv`, plus `d`: two levels of one sign behind the Relu, of both signs behind the
/// Identity. Binary weights. Returns the model and the values of two levels.
fn network() -> (Model, [ValueId; 2]) {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(2), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(5), Some(6), Some(6)]);
    let [c, r, d, e, f] = ["c", "r", "d", "e", "f"].map(|n| b.inner(n));
    let w = b.constant("w", noise(&[5, 2, 1, 1], 1));
    let u = b.constant("u", noise(&[5, 5, 1, 1], 2));
    let v = b.constant("v", noise(&[5, 5, 1, 1], 3));
    b.node("Conv", &[x, w], c);
    b.node("Relu", &[c], r);
    // Without it sums of a few equal numbers would lie on the threshold, where the order of summation decides.
    let bias = b.constant("bias", noise(&[5], 4));
    b.node("Conv", &[r, u, bias], d);
    b.node("Identity", &[d], e);
    b.node("Conv", &[e, v], f);
    b.node("Add", &[f, d], y);
    let mut m = b.model;
    for id in [u, v] {
        encode(&mut m, id, &Binary::default());
    }
    let two = |values: &[(f64, f64)]| Some(fit_activation(values, ActivationEstimator::IrNet).unwrap());
    m.annotations.entry(r).encoding = two(&[(0.0, 3.0), (0.2, 1.0), (0.4, 1.0)]);
    m.annotations.entry(e).encoding = two(&[(-0.3, 3.0), (0.2, 1.0), (0.4, 1.0)]);
    (m, [r, e])
}

#[test]
fn the_file_computes_the_simulation_and_is_read_back() {
    let (m, two) = network();
    let simulated = run(&m, Mode::SIMULATED);
    assert_ne!(run(&m, Mode::FLOAT), simulated);
    let lowered = lower(&m, &LowerOptions::default()).unwrap();
    assert_eq!(run(&lowered.model, Mode::FLOAT), simulated);
    let count = |m: &Model, op: &str| m.graph.nodes.iter().filter(|n| n.op_type == op).count();
    assert_eq!((count(&lowered.model, "Less"), count(&lowered.model, "Where")), (2, 2));
    let file = onnx::to_bytes(&lowered.model).unwrap();
    if let Some(runtime) = onnxruntime() {
        for options in [SessionOptions::literal(1), SessionOptions::default_arithmetic(1)] {
            let mut session = runtime.load(Source::Bytes(&file), options).unwrap();
            let y = session.run(&input()).unwrap()["y"].to_f32_vec().unwrap();
            for (a, b) in y.iter().zip(simulated["y"].to_f32_vec().unwrap()) {
                assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} {b}");
            }
        }
    }
    let mut lifted = onnx::from_bytes(&file, None).unwrap();
    assert_eq!(lift(&mut lifted).unwrap(), 4);
    lifted.verify().unwrap();
    assert_eq!((count(&lifted, "Less"), count(&lifted, "Where")), (0, 0));
    assert_eq!(run(&lifted, Mode::SIMULATED), simulated);
    for id in two {
        let name = &m.values[id].name;
        let levels = |m: &Model| activation_levels(m.annotations.encoding(m.find(name).unwrap()).unwrap()).unwrap().unwrap();
        assert_eq!(levels(&lifted), levels(&m), "{name}");
    }
    let again = lower(&lifted, &LowerOptions::default()).unwrap().model;
    assert_eq!(run(&again, Mode::FLOAT), simulated);
}

/// A Where that chooses between other numbers stays an operator.
#[test]
fn other_choices_stay_as_they_are() {
    let mut b = Builder::new(13);
    let x = b.input("x", &[None, Some(2), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(2), Some(6), Some(6)]);
    let below = b.inner("below");
    let [zero, low, high] = [("zero", 0f32), ("low", -1.0), ("high", 2.0)].map(|(n, v)| b.constant(n, tensor::Tensor::scalar(v)));
    b.node("Less", &[x, zero], below);
    b.node("Where", &[below, low, high], y);
    let mut m = b.model;
    assert_eq!((lift(&mut m).unwrap(), m.graph.nodes.len()), (0, 2));
}
