//! W8A8 of the nine shared models: quantize, lower, run in ONNX Runtime, compare with the simulation; prints Markdown.
//!
//! `cargo run --release -p espalier-deploy --example nine_models -- DATA [SAMPLES] [NAME] [FOLDER]`: DATA is the folder with
//! `models/`, SAMPLES (default 500) how many are compared, NAME a part of a model's name ("" for all). With FOLDER the deployed
//! files and the samples of calibration and comparison are written there, for `benches/peers/static_quality.py`.
use data::{LoaderOptions, Preprocess};
use deploy::runtime::{self, Source};
use deploy::{LowerOptions, Proof, ProofOptions, lower, prove};
use espalier_deploy as deploy;
use graph::Model;
use quantize::QuantizeSettings;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tensor::Tensor;
use train::{Batch, TrainError};

/// How many nodes of an operator stay float for a reason.
type FloatParts = BTreeMap<(String, String), usize>;
type Rows = Box<dyn Iterator<Item = Result<Batch, TrainError>>>;

/// Where a model's inputs come from.
#[derive(Clone, Copy)]
enum Inputs {
    /// CIFAR-10, normalized per channel or raw.
    Cifar { raw: bool },
    /// The ImageNet sample: rows 0..200 for calibration.
    ImageNet,
    /// Windows of the spoken digits.
    Digits,
    /// Seeded noise of this shape and amplitude, smooth along its last axis.
    Noise(&'static [usize], f32),
}

const MODELS: [(&str, Inputs); 9] = [
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

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().ok_or("usage: nine_models DATA [SAMPLES] [NAME] [FOLDER]")?);
    let samples: usize = arguments.next().map_or(Ok(500), |s| s.parse())?;
    let only = arguments.next().unwrap_or_default();
    let folder = arguments.next().map(PathBuf::from);
    println!(
        "| model | data, samples | output | rms of quantization | rms file - simulation | share | largest, steps | argmax | top-1 float / \
         simulated / literal / default, % | within limits |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut float_parts = vec![];
    for (name, inputs) in MODELS.into_iter().filter(|(name, _)| name.contains(&only)) {
        match one(&data, name, inputs, samples, folder.as_deref()) {
            Ok(parts) => float_parts.push((name, parts)),
            Err(e) => println!("| {name} | failed: {e} |"),
        }
    }
    println!("\n| model | nodes that compute in float | reason |\n|---|---|---|");
    for (name, parts) in float_parts {
        for ((op_type, reason), count) in parts {
            println!("| {name} | {count} {op_type} | {reason} |");
        }
    }
    Ok(())
}

fn one(data: &Path, name: &str, inputs: Inputs, samples: usize, folder: Option<&Path>) -> Result<FloatParts, Box<dyn Error>> {
    let mut model = onnx::load(&data.join(format!("models/{name}.onnx")))?;
    train::fold_constants(&mut model)?;
    ops::fold_batch_norm(&mut model)?;
    let calibration = rows(data, &model, inputs, true, 256)?;
    let report = quantize::quantize(&mut model, &QuantizeSettings::default(), calibration)?;
    report.warnings.iter().for_each(|warning| eprintln!("{name}: {warning}"));
    let lowered = lower(&model, &LowerOptions::default())?;
    let file = onnx::to_bytes(&lowered.model)?;
    if let Some(folder) = folder {
        let input = model.values[model.free_inputs()[0]].name.clone();
        write_samples(&folder.join(format!("{name}.calibration.npz")), &input, rows(data, &model, inputs, true, 256)?)?;
        write_samples(&folder.join(format!("{name}.test.npz")), &input, rows(data, &model, inputs, false, 64)?)?;
        std::fs::write(folder.join(format!("{name}.deployed.onnx")), &file)?;
    }
    let choice = runtime::choose();
    let options = ProofOptions { threads: 2, scored: scored(&model, name), ..ProofOptions::default() };
    let proof = prove(&model, Source::Bytes(&file), &choice, &mut rows(data, &model, inputs, false, samples)?, &options)?;
    print_rows(name, &model, inputs, &proof);
    for sentence in proof.violations.iter().chain(&proof.warnings).chain(&lowered.notes) {
        eprintln!("{name}: {sentence}");
    }
    for r in &proof.reference {
        eprintln!("{name}: reference interpreter, output {}: rms {:.2e} from the simulation", r.output, r.deployment.rms());
    }
    let mut parts = FloatParts::new();
    for part in report.float_parts {
        *parts.entry((part.op_type, part.reason)).or_default() += 1;
    }
    Ok(parts)
}

/// All samples of an input in one array.
fn write_samples(path: &Path, input: &str, rows: Rows) -> Result<(), Box<dyn Error>> {
    let batches = rows.map(|batch| Ok(batch?.inputs.remove(input).ok_or("a batch without the input")?));
    let batches = batches.collect::<Result<Vec<Tensor>, Box<dyn Error>>>()?;
    let all = Tensor::concat(&batches, 0)?;
    Ok(data::npz::write(path, &BTreeMap::from([(input.to_string(), all)]))?)
}

fn print_rows(name: &str, model: &Model, inputs: Inputs, proof: &Proof) {
    let source = match inputs {
        Inputs::Cifar { .. } => "CIFAR-10 test",
        Inputs::ImageNet => "ImageNet sample",
        Inputs::Digits => "spoken digits",
        Inputs::Noise(..) => "seeded noise",
    };
    for a in &proof.literal {
        let (own, off) = (a.compression.rms(), a.deployment.rms());
        let steps = a.largest_steps().map_or("no step".into(), |s| format!("{s:.2}"));
        let classifier = scored(model, name).as_ref() == Some(&a.output);
        let argmax = if classifier { format!("{:.2} %", 100.0 * a.deployment.argmax_agreement()) } else { "-".into() };
        let share = if off == 0.0 { 0.0 } else { off / own };
        let accuracy = proof.figures.as_ref().filter(|_| classifier).map_or("-".into(), |a| {
            let accuracy = |f: &train::Figures| 100.0 * f.values.get("accuracy").copied().unwrap_or_default();
            let [float, simulated, literal, default] = [&a.float, &a.simulated, &a.literal, &a.default].map(accuracy);
            format!("{float:.2} / {simulated:.2} / {literal:.2} / {default:.2}")
        });
        let own_name = format!("output '{}'", a.output);
        let within = if proof.violations.iter().any(|v| v.starts_with(&own_name)) { "no" } else { "yes" };
        println!(
            "| {name} | {source}, {} | {} | {own:.3e} | {off:.3e} | {share:.3} | {steps} | {argmax} | {accuracy} | {within} |",
            proof.samples, a.output,
        );
    }
}

/// The output whose largest element is a decision.
fn scored(model: &Model, name: &str) -> Option<String> {
    let decides = !name.starts_with("silero") && !name.starts_with("ultraface");
    decides.then(|| model.values[model.graph.outputs[0]].name.clone())
}

fn rows(data: &Path, model: &Model, inputs: Inputs, calibrate: bool, samples: usize) -> Result<Rows, Box<dyn Error>> {
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
        Inputs::Digits => {
            let preprocess = Preprocess { audio_length: Some(576 * 4), ..Preprocess::default() };
            let file = data.join(format!("fsdd/{split}-00000-of-00001.parquet"));
            let rows = Some(Arc::new((0..samples.min(300)).collect()));
            let digits = from_data_set(&file, LoaderOptions { batch: 20, preprocess, input: input.clone(), rows, ..Default::default() })?;
            Ok(Box::new(digits.map(move |batch| batch.and_then(|b| speech(b, &input)))))
        }
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

/// The batches, made one at a time: an iterator of its own, so that the source need not outlive it.
fn from_data_set(file: &Path, options: LoaderOptions) -> Result<Rows, Box<dyn Error>> {
    let set = data::open(file, &data::OpenOptions::default())?;
    let loader = data::Loader::new(set, options)?;
    Ok(Box::new(loader.map(|b| b.map(Batch::from).map_err(|e| TrainError::Data(e.to_string())))))
}

/// Four windows of each recording, with a fresh state, as the voice detector wants them.
fn speech(batch: Batch, input: &str) -> Result<Batch, TrainError> {
    let fault = |e: tensor::TensorError| TrainError::Data(e.to_string());
    let sound = batch.inputs.get(input).ok_or_else(|| TrainError::Data("no sound".into()))?;
    let windows = sound.reshape(vec![sound.len() / 576, 576]).map_err(fault)?;
    let state = Tensor::full(0f32, [2, windows.shape()[0], 128]).map_err(fault)?;
    let inputs = BTreeMap::from([(input.to_string(), windows), ("state".into(), state), ("sr".into(), Tensor::scalar(16_000i64))]);
    Ok(Batch { inputs, targets: BTreeMap::new(), ..Batch::default() })
}

/// Noise that wanders along the last axis, so that it is not all edges.
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
