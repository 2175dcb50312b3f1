//! Weights alone in few bits: sizes and signal to noise of the deployed files of recurrent and embedding networks; prints Markdown.
//!
//! `cargo run --release -p espalier-deploy --example weight_only -- DATA [NAME] [FOLDER]`: DATA is the folder with `models/`, NAME a part of
//! the name of a network (default: the voice detector, on windows of spoken digits, and the networks that are made here, of seeded
//! noise in place of trained weights). With FOLDER the files are written there. The latency is that of the first batch, on one thread.
#[allow(dead_code, reason = "other examples use more of it")]
mod shared_models;
mod weight_only_nets;

use deploy::measure::{Difference, LatencyOptions, latencies};
use deploy::runtime::{self, SessionOptions, Source};
use deploy::{LowerOptions, lower};
use encodings::Encodings;
use encodings::affine::Affine;
use encodings::codebook::Codebook;
use espalier_deploy as deploy;
use quantize::{ActivationSettings, QuantizeSettings};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use technique::{Choice, Settings};
use train::{Batch, Executor, Mode, TrainError};

/// How weights are stored.
fn choices() -> Result<Vec<Choice<Encodings>>, technique::Fault> {
    let affine = |bits| Affine { bits, ..Affine::default() }.choice();
    let codebook = |bits| Codebook { bits, ..Codebook::default() }.choice();
    [affine(8), affine(4), codebook(4), codebook(3), affine(2), codebook(2)].into_iter().collect()
}

type Rows<'a> = Box<dyn Iterator<Item = Result<Batch, TrainError>> + 'a>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().ok_or("usage: weight_only DATA [NAME] [FOLDER]")?);
    let only = arguments.next();
    let folder = arguments.next().map(PathBuf::from);
    let wanted = |name: &str, by_default: bool| only.as_ref().map_or(by_default, |only| name.contains(only));
    println!("| network | weights | file, bytes | of float | SQNR of the outputs, dB | rms file - simulation | latency p50, ms (float) |");
    println!("|---|---|---:|---:|---|---:|---:|");
    for (name, inputs) in shared_models::MODELS.into_iter().filter(|(name, _)| wanted(name, name.starts_with("silero"))) {
        let file = std::fs::read(data.join(format!("models/{name}.onnx")))?;
        let rows = shared_models::rows(&data, &onnx::from_bytes(&file, None)?, inputs, false, 300)?.collect::<Result<Vec<_>, _>>()?;
        network(name, &file, &rows, folder.as_deref())?;
    }
    for (name, model, rows) in weight_only_nets::all()?.into_iter().filter(|(name, ..)| wanted(name, true)) {
        network(name, &onnx::to_bytes(&model)?, &rows, folder.as_deref())?;
    }
    Ok(())
}

fn network(name: &str, file: &[u8], rows: &[Batch], folder: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let runtime = runtime::choose().runtime;
    let mut float = runtime.load(Source::Bytes(file), SessionOptions::default_arithmetic(1))?;
    for weights in choices()? {
        let mut model = onnx::from_bytes(file, None)?;
        train::prepare(&mut model)?;
        ops::fold_batch_norm(&mut model)?;
        let settings =
            QuantizeSettings { weights, activations: ActivationSettings::float(), weight_only: true, ..QuantizeSettings::default() };
        quantize::quantize(&mut model, &settings, Box::new(rows.iter().take(1).cloned().map(Ok)) as Rows)?;
        let deployed = onnx::to_bytes(&lower(&model, &LowerOptions::default())?.model)?;
        if let Some(folder) = folder {
            std::fs::write(folder.join(format!("{name}-{}.onnx", settings.weights.to_string().replace(' ', "_"))), &deployed)?;
        }
        let simulation = Executor::new(&model)?;
        let mut session = runtime.load(Source::Bytes(&deployed), SessionOptions::default_arithmetic(1))?;
        let (mut noise, mut apart): (BTreeMap<String, Difference>, Difference) = Default::default();
        for batch in rows {
            let simulated = simulation.run(&batch.inputs, Mode::SIMULATED)?;
            let (wanted, found) = (float.run(&batch.inputs)?, session.run(&batch.inputs)?);
            for (output, value) in &found {
                noise.entry(output.clone()).or_default().add(&wanted[output], value)?;
                apart.add(&simulated[output], value)?;
            }
        }
        let noise: Vec<String> = noise.iter().map(|(output, d)| format!("{output} {:.1}", d.sqnr_db())).collect();
        let few = &rows[0].inputs;
        let times = latencies(&mut [(float.as_mut(), few), (session.as_mut(), few)], LatencyOptions::default())?;
        println!(
            "| {name} | {} | {} | {:.4} | {} | {:.1e} | {:.3} ({:.3}) |",
            settings.weights,
            deployed.len(),
            deployed.len() as f64 / file.len() as f64,
            noise.join(", "),
            apart.rms(),
            times[1].p50_ms,
            times[0].p50_ms,
        );
    }
    Ok(())
}
