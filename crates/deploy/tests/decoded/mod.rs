//! Shared by the tests of weights that decode from tables.
use crate::support::{noise, onnxruntime};
use encodings::{Slot, WeightEncoding};
use espalier_deploy as deploy;
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use train::{Executor, Mode, Named};

use deploy::runtime::{SessionOptions, Source};
use deploy::{LowerOptions, Lowered, lift, lower, measure};

pub(crate) fn input() -> Named {
    BTreeMap::from([("x".to_string(), noise(&[5, 2, 6, 6], 9))])
}

pub(crate) fn run(model: &Model, mode: Mode) -> Named {
    Executor::new(model).unwrap().run(&input(), mode).unwrap()
}

/// Fits a weight, with its mask.
pub(crate) fn encode(m: &mut Model, id: ValueId, settings: &dyn WeightEncoding) {
    let mask = m.annotations.mask(id).cloned();
    let live = encodings::live(m.values.tensor(id).unwrap(), mask.as_ref()).unwrap();
    let slot = Slot { axis: Some(0), mask: mask.as_ref(), ..Slot::default() };
    m.annotations.entry(id).encoding = Some(settings.fit(&live, slot).unwrap());
}

/// The lowered model computes the simulation to the bit, the file in ONNX Runtime nearly; it is lifted to so many weights that compute the
/// same, and are stored the same again. Returns the lowered and the lifted model.
pub(crate) fn check(m: &Model, weights: usize, how: &str) -> (Lowered, Model) {
    let simulated = run(m, Mode::SIMULATED);
    let lowered = lower(m, &LowerOptions::default()).unwrap();
    assert_eq!(run(&lowered.model, Mode::FLOAT), simulated, "{how}");
    let file = onnx::to_bytes(&lowered.model).unwrap();
    let mut lifted = onnx::from_bytes(&file, None).unwrap();
    if let Some(runtime) = onnxruntime() {
        for options in [SessionOptions::literal(1), SessionOptions::default_arithmetic(1)] {
            let mut session = runtime.load(Source::Bytes(&file), options).unwrap();
            let y = session.run(&input()).unwrap()["y"].to_f32_vec().unwrap();
            for (a, b) in y.iter().zip(simulated["y"].to_f32_vec().unwrap()) {
                assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{how}: {a} {b}");
            }
        }
    }
    let counted = measure::parameters(&lowered.model).unwrap();
    assert_eq!(counted.weights.len(), weights, "{how}: {:?}", counted.weights);
    assert_eq!(lift(&mut lifted).unwrap(), weights, "{how}");
    assert_eq!(run(&lifted, Mode::SIMULATED), simulated, "{how}");
    assert_eq!(run(&lifted, Mode::FLOAT), simulated, "{how}");
    let again = lower(&lifted, &LowerOptions::default()).unwrap().model;
    assert_eq!(measure::parameters(&again).unwrap(), counted, "{how}");
    (lowered, lifted)
}
