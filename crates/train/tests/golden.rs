//! The interpreter gives the outputs that ONNX Runtime computed for the real models, to 1e-4 of each output's largest
//! absolute value.
use espalier_train as train;
use std::collections::BTreeMap;
use tensor::Tensor;
use test_support::folders::shared;
use train::{Executor, Mode};

const TOLERANCE: f64 = 1e-4;

fn check(name: &str) {
    let (Some(model), Some(golden)) = (shared(&format!("models/{name}.onnx")), shared(&format!("golden/{name}.npz"))) else { return };
    let model = onnx::load(&model).unwrap();
    let arrays = data::npz::read(&golden).unwrap();
    let with_prefix = |p: &str| -> BTreeMap<String, Tensor> {
        arrays.iter().filter_map(|(k, v)| Some((k.strip_prefix(p)?.to_string(), v.clone()))).collect()
    };
    let outputs = Executor::new(&model).unwrap().run(&with_prefix("in__"), Mode::FLOAT).unwrap();
    let expected = with_prefix("out__");
    assert_eq!(outputs.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (output, expected) in expected {
        let got = &outputs[&output];
        assert_eq!((got.dtype(), got.shape()), (expected.dtype(), expected.shape()), "{output}");
        let (got, expected) = (got.to_f64_vec().unwrap(), expected.to_f64_vec().unwrap());
        let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
        let off = got.iter().zip(&expected).fold(0f64, |m, (a, b)| m.max(if a == b { 0.0 } else { (a - b).abs() }));
        println!("{name} {output}: off by {:.1e} of {largest:.3e}", off / largest);
        assert!(off <= TOLERANCE * largest, "{name} {output}: off by {off}, largest {largest}");
    }
}

macro_rules! golden {
    ($($name:ident),* $(,)?) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

golden!(
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
