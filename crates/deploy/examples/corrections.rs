//! Corrections after training, measured: W8A8 with one scale per tensor, lowered and run in ONNX Runtime; prints Markdown.
//!
//! `cargo run --release -p espalier-deploy --example corrections -- DATA [NAME] [PER_CHANNEL] [SETTINGS] [SPLIT]`: DATA is the folder with
//! `models/`, NAME a part of a model's name ("" for all), PER_CHANNEL `true` for a scale per channel. With SETTINGS, the keys of a quantize
//! stage as TOML (`weights`, `activations`, `rules`, `corrections`, ...), they are what is measured, and PER_CHANNEL does not count.
//! `transformer_block` is a block of a transformer of seeded noise with planted outliers, on noise: three channels of its normalizations are
//! 30 times as large as the others, their weights a 5.5th.
//! The float column is the network after its corrections, without grids. EfficientNet-Lite0 is calibrated on rows 0 to 199 of the ImageNet
//! sample and scored on the other 300; with SPLIT calibrated on rows 0 to SPLIT - 1 and scored on those from SPLIT to 199, to choose settings
//! by. UltraFace: seeded noise.
#[path = "../../quantize/src/corrections/transformer.rs"]
mod transformer;

use data::{LoaderOptions, Preprocess};
use deploy::runtime::{self, Source};
use deploy::{LowerOptions, ProofOptions, lower, prove};
use encodings::Granularity;
use encodings::affine::Affine;
use espalier_deploy as deploy;
use graph::Model;
use quantize::QuantizeSettings;
use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use technique::Choice;
use tensor::{SignalToNoise, Tensor, random};
use train::{Batch, TrainError};

type Rows = Box<dyn Iterator<Item = Result<Batch, TrainError>>>;

const MODELS: [&str; 3] = ["efficientnet_lite0", "ultraface_rfb320", BLOCK];

/// The network that is made here.
const BLOCK: &str = "transformer_block";

/// Corrections to try, as in a recipe.
const CORRECTIONS: [&str; 9] = [
    "",
    "\"equalize\"",
    "{ kind = \"equalize\", residual = true }",
    "{ kind = \"equalize\", replace_clips = true }",
    "{ kind = \"equalize\", replace_clips = true, residual = true }",
    "\"bias_correction\"",
    "{ kind = \"bias_correction\", form = \"analytic\" }",
    "\"equalize\", \"bias_correction\"",
    "{ kind = \"equalize\", replace_clips = true }, \"bias_correction\"",
];

/// Corrections to try on the transformer block.
const OF_BLOCK: [&str; 6] = [
    "",
    "{ kind = \"smooth_quant\", alpha = 0.25 }",
    "\"smooth_quant\"",
    "{ kind = \"smooth_quant\", alpha = 0.75 }",
    "{ kind = \"smooth_quant\", insert_mul = true }",
    "\"smooth_quant\", \"bias_correction\"",
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().ok_or("usage: corrections DATA [NAME] [PER_CHANNEL] [SETTINGS] [SPLIT]")?);
    let only = arguments.next().unwrap_or_default();
    let granularity = if arguments.next().is_some_and(|a| a == "true") { Granularity::Channel } else { Granularity::Tensor };
    let given = arguments.next().filter(|s| !s.is_empty());
    let parts = match arguments.next() {
        Some(split) => [0..split.parse()?, split.parse()?..200],
        None => [0..200, 200..500],
    };
    println!("| model | corrections = [...] | SQNR of the file, dB, by output | top-1 float / simulated / file, % | s |");
    println!("|---|---|---|---|---:|");
    for name in MODELS.into_iter().filter(|name| name.contains(&only)) {
        if let Some(given) = &given {
            let settings: QuantizeSettings = toml::from_str(given)?;
            let corrections: Vec<String> = settings.corrections.iter().map(|c| c.to_string()).collect();
            one((&data, &parts), name, &corrections.join(", "), settings)?;
            continue;
        }
        for corrections in if name == BLOCK { &OF_BLOCK[..] } else { &CORRECTIONS } {
            let mut settings: QuantizeSettings = toml::from_str(&format!("corrections = [{corrections}]"))?;
            settings.weights = Choice::with("affine", &Affine { granularity: Some(granularity), ..Affine::default() })?;
            one((&data, &parts), name, corrections, settings)?;
        }
    }
    Ok(())
}

/// The folder of the data, and the rows of the ImageNet sample for calibration and for scoring.
type Inputs<'a> = (&'a Path, &'a [Range<usize>; 2]);

fn one(data: Inputs, name: &str, corrections: &str, settings: QuantizeSettings) -> Result<(), Box<dyn Error>> {
    let mut model = match name {
        BLOCK => transformer::block(30.0)?,
        _ => onnx::load(&data.0.join(format!("models/{name}.onnx")))?,
    };
    train::fold_constants(&mut model)?;
    ops::fold_batch_norm(&mut model)?;
    let float = model.clone();
    let begun = std::time::Instant::now();
    let calibration = rows(data, &model, name, true)?;
    let report = quantize::quantize(&mut model, &settings, calibration)?;
    let seconds = begun.elapsed().as_secs_f64();
    for note in report.corrections.iter().flat_map(|c| &c.notes) {
        eprintln!("{name}, {corrections}: {note}");
    }
    let file = onnx::to_bytes(&lower(&model, &LowerOptions::default())?.model)?;
    let choice = runtime::choose();
    let classes = name.starts_with("efficientnet").then(|| model.values[model.graph.outputs[0]].name.clone());
    let options = ProofOptions { threads: 2, scored: classes, ..ProofOptions::default() };
    let proof = prove(&model, Source::Bytes(&file), &choice, &mut rows(data, &model, name, false)?, &options)?;
    let ratios = ratios(data, &float, &file, name)?;
    let accuracy = proof.figures.as_ref().map_or("-".into(), |a| {
        let accuracy = |f: &train::Figures| 100.0 * f.values.get("accuracy").copied().unwrap_or_default();
        let [float, simulated, literal] = [&a.float, &a.simulated, &a.literal].map(accuracy);
        format!("{float:.2} / {simulated:.2} / {literal:.2}")
    });
    println!("| {name} | `{corrections}` | {ratios} | {accuracy} | {seconds:.0} |");
    Ok(())
}

/// Signal to noise ratio of the file's outputs against those of the float network before any correction.
fn ratios(data: Inputs, float: &Model, file: &[u8], name: &str) -> Result<String, Box<dyn Error>> {
    let executor = train::Executor::new(float)?;
    let mut session = runtime::choose().runtime.load(Source::Bytes(file), runtime::SessionOptions::literal(2))?;
    let mut sums: BTreeMap<String, SignalToNoise> = BTreeMap::new();
    for batch in rows(data, float, name, false)? {
        let inputs = batch?.inputs;
        let got = session.run(&inputs)?;
        for (output, right) in executor.run(&inputs, train::Mode::FLOAT)? {
            let got = got.get(&output).ok_or("an output is missing")?.to_f32_vec()?;
            sums.entry(output).or_default().add_all(&right.to_f32_vec()?, &got);
        }
    }
    let one = |(output, sum): (&String, &SignalToNoise)| format!("{output} {:.2}", sum.db());
    Ok(sums.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn rows((data, parts): Inputs, model: &Model, name: &str, calibrate: bool) -> Result<Rows, Box<dyn Error>> {
    let input = model.values[model.free_inputs()[0]].name.clone();
    if name.starts_with("efficientnet") {
        let preprocess = Preprocess { scale: 1.0, mean: vec![127.0], std: vec![128.0], ..Preprocess::default() };
        let picked = parts[usize::from(!calibrate)].clone();
        let set = data::open(&data.join("imagenet_sample/validation-00000-of-00001.parquet"), &data::OpenOptions::default())?;
        let options = LoaderOptions { batch: 20, preprocess, input, rows: Some(Arc::new(picked.collect())), ..Default::default() };
        let loader = data::Loader::new(set, options)?;
        return Ok(Box::new(loader.map(|b| b.map(Batch::from).map_err(|e| TrainError::Data(e.to_string())))));
    }
    let block = name == BLOCK;
    let (count, seed) = if calibrate { (64, 1) } else { (40, 1000) };
    Ok(Box::new((0..count).map(move |i| {
        let noise = if block { random::normal(seed + i, &[8, 12, transformer::CHANNELS], 0.0, 1.0) } else { noise(seed + i) };
        let noise = noise.map_err(|e| TrainError::Data(e.to_string()))?;
        Ok(Batch { inputs: BTreeMap::from([(input.clone(), noise)]), ..Batch::default() })
    })))
}

/// An image of seeded noise, smooth like a photograph: coarse noise enlarged, with finer noise on it.
fn noise(seed: u64) -> tensor::Result<Tensor> {
    let coarse = random::uniform(seed, &[1, 3, 15, 1, 20, 1], -0.8, 0.8)?.expand(&[1, 3, 15, 16, 20, 16])?;
    let fine = random::uniform(seed ^ 0x5EED, &[1, 3, 240, 320], -0.2, 0.2)?;
    coarse.reshape([1, 3, 240, 320])?.add(&fine)
}
