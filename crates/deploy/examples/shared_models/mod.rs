//! The nine shared models and their input samples.
use data::{LoaderOptions, Preprocess};
use graph::Model;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use tensor::Tensor;
use train::{Batch, TrainError};

pub(crate) type Rows = Box<dyn Iterator<Item = Result<Batch, TrainError>>>;

/// Where a model's inputs come from.
#[derive(Clone, Copy)]
pub(crate) enum Inputs {
    /// CIFAR-10, normalized per channel or raw.
    Cifar { raw: bool },
    /// The ImageNet sample: rows 0..200 for calibration.
    ImageNet,
    /// Windows of the spoken digits.
    Digits,
    /// Seeded noise of this shape and amplitude, smooth along its last axis.
    Noise(&'static [usize], f32),
}

pub(crate) const MODELS: [(&str, Inputs); 9] = [
    ("cifar10_resnet20", Inputs::Cifar { raw: false }),
    ("cifar10_resnet20_folded", Inputs::Cifar { raw: false }),
    ("cifar10_resnet56", Inputs::Cifar { raw: false }),
    ("efficientnet_lite0", Inputs::ImageNet),
    ("mlperf_ic_resnet8", Inputs::Cifar { raw: true }),
    ("mlperf_kws_dscnn", Inputs::Noise(&[1, 49, 10], 60.0)),
    ("ppocr_mobile_v2_cls", Inputs::Noise(&[3, 48, 192], 1.0)),
    ("silero_vad_16k_op15", Inputs::Digits),
    ("ultraface_rfb320", Inputs::Noise(&[3, 240, 320], 1.0)),
];

/// The output whose largest element is a decision.
pub(crate) fn scored(model: &Model, name: &str) -> Option<String> {
    let decides = !name.starts_with("silero") && !name.starts_with("ultraface");
    decides.then(|| model.values[model.graph.outputs[0]].name.clone())
}

pub(crate) fn rows(data: &Path, model: &Model, inputs: Inputs, calibrate: bool, samples: usize) -> Result<Rows, Box<dyn Error>> {
    let input = model.values[model.free_inputs()[0]].name.clone();
    let split = if calibrate { "train" } else { "test" };
    match inputs {
        Inputs::Cifar { raw } => {
            let normal = Preprocess { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225], ..Preprocess::default() };
            let preprocess = if raw { Preprocess { scale: 1.0, ..Preprocess::default() } } else { normal };
            let file = data.join(format!("cifar10/{split}-00000-of-00001.parquet"));
            from_data_set(
                &file,
                LoaderOptions { batch: 50, preprocess, input, rows: Some(Arc::new((0..samples).collect())), ..Default::default() },
            )
        }
        Inputs::ImageNet => {
            let preprocess = Preprocess { scale: 1.0, mean: vec![127.0], std: vec![128.0], ..Preprocess::default() };
            let picked = if calibrate { 0..200 } else { 200..200 + samples.min(300) };
            let file = data.join("imagenet_sample/validation-00000-of-00001.parquet");
            from_data_set(
                &file,
                LoaderOptions { batch: 10, preprocess, input, rows: Some(Arc::new(picked.collect())), ..Default::default() },
            )
        }
        Inputs::Digits => digits(data, model, split, (0..samples.min(300)).collect()),
        Inputs::Noise(shape, amplitude) => {
            let batch = if shape[1] > 100 { 1 } else { 10 };
            let count = if batch == 1 { samples.min(40) } else { samples / batch };
            let seed = if calibrate { 1 } else { 1000 };
            let shape: Vec<usize> = std::iter::once(batch).chain(shape.iter().copied()).collect();
            Ok(Box::new((0..count).map(move |i| {
                let noise = noise(&shape, amplitude, seed + i as u64).map_err(|e| TrainError::Data(e.to_string()))?;
                Ok(Batch { inputs: BTreeMap::from([(input.clone(), noise)]), targets: BTreeMap::new(), ..Batch::default() })
            })))
        }
    }
}

/// Windows of these recordings of the spoken digits. They are sorted by digit.
pub(crate) fn digits(data: &Path, model: &Model, split: &str, recordings: Vec<usize>) -> Result<Rows, Box<dyn Error>> {
    let input = model.values[model.free_inputs()[0]].name.clone();
    let preprocess = Preprocess { audio_length: Some(576 * 4), ..Preprocess::default() };
    let file = data.join(format!("fsdd/{split}-00000-of-00001.parquet"));
    let options = LoaderOptions { batch: 20, preprocess, input: input.clone(), rows: Some(Arc::new(recordings)), ..Default::default() };
    Ok(Box::new(from_data_set(&file, options)?.map(move |batch| batch.and_then(|b| speech(b, &input)))))
}

/// The batches, made one at a time: an iterator of its own, so that the source need not outlive it.
fn from_data_set(file: &Path, options: LoaderOptions) -> Result<Rows, Box<dyn Error>> {
    let set = data::open(file, &data::OpenOptions::default())?;
    let loader = data::Loader::new(set, options)?;
    Ok(Box::new(loader.map(|b| b.map(Batch::from).map_err(|e| TrainError::Data(e.to_string())))))
}

/// Four windows of each recording, with a state that starts from zero, as the voice detector needs them.
fn speech(batch: Batch, input: &str) -> Result<Batch, TrainError> {
    let fault = |e: tensor::TensorError| TrainError::Data(e.to_string());
    let sound = batch.inputs.get(input).ok_or_else(|| TrainError::Data("no sound".into()))?;
    let windows = sound.reshape(vec![sound.len() / 576, 576]).map_err(fault)?;
    let state = Tensor::full(0f32, [2, windows.shape()[0], 128]).map_err(fault)?;
    let inputs = BTreeMap::from([(input.to_string(), windows), ("state".into(), state), ("sr".into(), Tensor::scalar(16_000i64))]);
    Ok(Batch { inputs, targets: BTreeMap::new(), ..Batch::default() })
}

/// Noise that changes slowly along the last axis, so that it is not all edges.
fn noise(shape: &[usize], amplitude: f32, seed: u64) -> tensor::Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut value = 0f32;
    let draw = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value = 0.8 * value + 0.4 * ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0);
        amplitude * value.clamp(-1.0, 1.0)
    };
    Tensor::new((0..shape.iter().product::<usize>()).map(draw).collect::<Vec<f32>>(), shape)
}

/// A model before quantization.
pub(crate) fn prepared(data: &Path, name: &str) -> Result<Model, Box<dyn Error>> {
    let mut model = onnx::load(&data.join(format!("models/{name}.onnx")))?;
    train::fold_constants(&mut model)?;
    ops::fold_batch_norm(&mut model)?;
    Ok(model)
}
