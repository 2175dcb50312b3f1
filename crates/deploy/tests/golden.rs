//! The real models, in every runtime, on inputs with known outputs.
use espalier_deploy as deploy;
mod support;

use deploy::DeployError;
use deploy::runtime::{Runtime, SessionOptions, Source};
use std::collections::BTreeMap;
use std::path::Path;
use support::onnxruntime;
use tensor::Tensor;
use test_support::folders::shared;

const MODELS: [&str; 9] = [
    "cifar10_resnet20",
    "cifar10_resnet20_folded",
    "cifar10_resnet56",
    "efficientnet_lite0",
    "mlperf_ic_resnet8",
    "mlperf_kws_dscnn",
    "ppocr_mobile_v2_cls",
    "silero_vad_16k_op15",
    "ultraface_rfb320",
];

/// Largest difference allowed, as a share of an output's largest absolute value.
const TOLERANCE: f32 = 1e-4;

fn golden(folder: &Path, model: &str) -> (BTreeMap<String, Tensor>, BTreeMap<String, Tensor>) {
    let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in data::npz::read(&folder.join(format!("golden/{model}.npz"))).unwrap() {
        if let Some(input) = name.strip_prefix("in__") {
            inputs.insert(input.to_string(), tensor);
        } else if let Some(output) = name.strip_prefix("out__") {
            outputs.insert(output.to_string(), tensor);
        }
    }
    (inputs, outputs)
}

/// Runs each model's file, as made by `prepare`.
fn all_models_agree(runtime: &dyn Runtime, options: SessionOptions, prepare: impl Fn(&Path) -> Vec<u8>) {
    let Some(folder) = shared("") else { return };
    for model in MODELS {
        let (inputs, expected) = golden(&folder, model);
        let path = folder.join(format!("models/{model}.onnx"));
        let file = prepare(&path);
        let mut session = runtime.load(Source::Bytes(&file), options).unwrap();
        let outputs = session.run(&inputs).unwrap_or_else(|e| panic!("{model}: {e}"));
        assert_eq!(outputs.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{model}");
        for (name, want) in &expected {
            let got = &outputs[name];
            assert_eq!(got.shape(), want.shape(), "{model} {name}");
            let (got, want) = (got.as_slice::<f32>().unwrap(), want.as_slice::<f32>().unwrap());
            let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            let off = got.iter().zip(want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(off <= TOLERANCE * largest, "{model} {name}: {off} of {largest}");
        }
    }
}

fn as_it_is(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// The steps of every quantized model before it is written.
#[test]
fn folded_and_lowered_models_give_the_known_outputs() {
    let Some(runtime) = onnxruntime() else { return };
    all_models_agree(runtime.as_ref(), SessionOptions::literal(1), |path| {
        let mut model = onnx::load(path).unwrap();
        train::fold_constants(&mut model).unwrap();
        ops::fold_batch_norm(&mut model).unwrap();
        onnx::to_bytes(&deploy::lower(&model, &deploy::LowerOptions::default()).unwrap().model).unwrap()
    });
}

#[test]
fn onnxruntime_gives_the_known_outputs_in_both_arithmetics() {
    let Some(runtime) = onnxruntime() else { return };
    all_models_agree(runtime.as_ref(), SessionOptions::literal(1), as_it_is);
    all_models_agree(runtime.as_ref(), SessionOptions::default_arithmetic(2), as_it_is);
}

#[test]
fn the_reference_interpreter_gives_the_known_outputs() {
    all_models_agree(&deploy::runtime::Reference, SessionOptions::literal(1), as_it_is);
}

#[test]
fn wrong_inputs_are_named() {
    let (Some(runtime), Some(folder)) = (onnxruntime(), shared("")) else { return };
    let path = folder.join("models/mlperf_kws_dscnn.onnx");
    let mut session = runtime.load(Source::File(&path), SessionOptions::literal(1)).unwrap();
    let mut message = |name: &str, tensor: Tensor| session.run(&BTreeMap::from([(name.to_string(), tensor)])).unwrap_err().to_string();
    assert_eq!(message("inptu", Tensor::scalar(0f32)), "input 'input': is not given");
    assert_eq!(message("input", Tensor::scalar(0i64)), "input 'input': is int64, the model wants float");
    let shape = message("input", Tensor::scalar(0f32));
    assert!(shape.starts_with("onnxruntime cannot run the model: ") && shape.contains("input"), "{shape}");
}

#[test]
fn a_broken_file_is_an_error_in_every_runtime() {
    for runtime in [onnxruntime(), Some(Box::new(deploy::runtime::Reference))].into_iter().flatten() {
        let error = runtime.load(Source::Bytes(b"not a model"), SessionOptions::literal(1)).err().unwrap();
        assert!(matches!(error, DeployError::Runtime { step: "cannot load the model", .. }), "{error}");
        assert!(runtime.load(Source::File(Path::new("absent.onnx")), SessionOptions::literal(1)).is_err());
    }
}
