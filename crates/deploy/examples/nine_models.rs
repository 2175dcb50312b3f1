//! The nine shared models in few bits: quantize, lower, run in ONNX Runtime, compare with the simulation; prints Markdown.
//!
//! `cargo run --release -p espalier-deploy --example nine_models -- DATA [SAMPLES] [NAME] [FOLDER] [WAY]`: DATA is the folder with
//! `models/`, SAMPLES (default 500) how many are compared, NAME a part of a model's name ("" for all). With FOLDER ("" for none) the
//! deployed files and the samples of calibration and comparison are written there, for `benches/peers/static_quality.py`. WAY is
//! `w8a8` (default), `w4a8`, `w4a8-bias`, `w4a8-gptq`, `w4a8-gptq-bias`, `w4a8-adaround` or `codebook` (4 bits; weights alone, recurrent ones too).
mod shared_models;

use deploy::measure::Difference;
use deploy::runtime::{self, SessionOptions, Source};
use deploy::{LowerOptions, Proof, ProofOptions, lower, prove};
use encodings::affine::Affine;
use encodings::codebook::Codebook;
use espalier_deploy as deploy;
use graph::Model;
use quantize::{ActivationSettings, AdaRound, BiasCorrection, Gptq, QuantizeSettings};
use shared_models::{Inputs, MODELS, Rows, prepared, rows, scored};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;
use technique::Settings;
use tensor::Tensor;
use train::{Executor, Mode};

/// How many nodes of an operator stay float for a reason.
type FloatParts = BTreeMap<(String, String), usize>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().ok_or("usage: nine_models DATA [SAMPLES] [NAME] [FOLDER]")?);
    let samples: usize = arguments.next().map_or(Ok(500), |s| s.parse())?;
    let only = arguments.next().unwrap_or_default();
    let folder = arguments.next().filter(|f| !f.is_empty()).map(PathBuf::from);
    let settings = way(&arguments.next().unwrap_or("w8a8".into()))?;
    println!(
        "| model | data, samples | output | rms of quantization | SQNR, dB | rms file - simulation | share | largest, steps | argmax | top-1 float / \
         simulated / literal / default, % | within limits | file, bytes (of float) |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut float_parts = vec![];
    for (name, inputs) in MODELS.into_iter().filter(|(name, _)| name.contains(&only)) {
        match one(&data, (name, inputs), samples, &settings, folder.as_deref()) {
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

/// The settings of a way to quantize.
fn way(name: &str) -> Result<QuantizeSettings, Box<dyn Error>> {
    let four = |corrections| {
        let weights = Affine { bits: 4, ..Affine::default() }.choice()?;
        Ok(QuantizeSettings { weights, corrections, ..QuantizeSettings::default() })
    };
    match name {
        "w8a8" => Ok(QuantizeSettings::default()),
        "w4a8" => four(vec![]),
        "w4a8-bias" => four(vec![BiasCorrection::default().choice()?]),
        "w4a8-gptq" => four(vec![Gptq::default().choice()?]),
        "w4a8-gptq-bias" => four(vec![Gptq::default().choice()?, BiasCorrection::default().choice()?]),
        "w4a8-adaround" => four(vec![AdaRound::default().choice()?]),
        "codebook" => {
            let weights = Codebook { bits: 4, ..Codebook::default() }.choice()?;
            let (activations, weight_only) = (ActivationSettings::float(), true);
            Ok(QuantizeSettings { weights, activations, weight_only, ..QuantizeSettings::default() })
        }
        other => Err(format!("'{other}' is none of w8a8, w4a8, w4a8-bias, w4a8-gptq, w4a8-gptq-bias, w4a8-adaround, codebook").into()),
    }
}

fn one(
    data: &Path,
    (name, inputs): (&str, Inputs),
    samples: usize,
    settings: &QuantizeSettings,
    folder: Option<&Path>,
) -> Result<FloatParts, Box<dyn Error>> {
    let mut model = prepared(data, name)?;
    let float_bytes = std::fs::metadata(data.join(format!("models/{name}.onnx")))?.len();
    let float = Executor::owned(model.clone())?;
    let calibration = rows(data, &model, inputs, true, 256)?;
    let began = Instant::now();
    let report = quantize::quantize(&mut model, settings, calibration)?;
    eprintln!("{name}: quantized in {:.0} s", began.elapsed().as_secs_f64());
    report.warnings.iter().for_each(|warning| eprintln!("{name}: {warning}"));
    report.corrections.iter().for_each(|c| c.notes.iter().for_each(|note| eprintln!("{name}: {}: {note}", c.kind)));
    let lowered = lower(&model, &LowerOptions { decode_once: settings.weight_only, ..LowerOptions::default() })?;
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
    // Against the untouched network: corrections may have changed the one that the proof compares with.
    let mut noise: BTreeMap<String, Difference> = BTreeMap::new();
    let mut session = choice.runtime.load(Source::Bytes(&file), SessionOptions::literal(2))?;
    for batch in rows(data, &model, inputs, false, samples)? {
        let batch = batch?;
        let wanted = float.run(&batch.inputs, Mode::FLOAT)?;
        for (output, found) in session.run(&batch.inputs)? {
            noise.entry(output.clone()).or_default().add(&wanted[&output], &found)?;
        }
    }
    let bytes = format!("{} ({:.3})", file.len(), file.len() as f64 / float_bytes as f64);
    print_rows(name, &model, inputs, &proof, (&noise, settings.corrections.is_empty(), &bytes));
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

fn print_rows(
    name: &str,
    model: &Model,
    inputs: Inputs,
    proof: &Proof,
    (noise, untouched, bytes): (&BTreeMap<String, Difference>, bool, &str),
) {
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
            let float = if untouched { format!("{float:.2}") } else { "-".into() };
            format!("{float} / {simulated:.2} / {literal:.2} / {default:.2}")
        });
        let own_name = format!("output '{}'", a.output);
        let within = if proof.violations.iter().any(|v| v.starts_with(&own_name)) { "no" } else { "yes" };
        println!(
            "| {name} | {source}, {} | {} | {own:.3e} | {:.1} | {off:.3e} | {share:.3} | {steps} | {argmax} | {accuracy} | {within} | {bytes} |",
            proof.samples,
            a.output,
            noise.get(&a.output).map_or(f64::NAN, Difference::sqnr_db),
        );
    }
}
