//! Weights alone in few bits: sizes and signal to noise of the deployed files of recurrent and embedding networks; prints Markdown.
//!
//! `cargo run -p espalier-deploy --example weight_only -- DATA [FOLDER]`: DATA is the folder with `models/`; with FOLDER the files are
//! written there. The shared voice detector runs on windows of spoken digits. The other networks are made here, of seeded noise in place
//! of trained weights.
mod shared_models;
mod weight_only_nets;

use deploy::measure::{Difference, LatencyOptions, latencies};
use deploy::runtime::{self, SessionOptions, Source};
use deploy::{LowerOptions, lower};
use encodings::Encodings;
use encodings::affine::Affine;
use encodings::codebook::Codebook;
use espalier_deploy as deploy;
use graph::Model;
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
    let data = PathBuf::from(arguments.next().ok_or("usage: weight_only DATA [FOLDER]")?);
    let folder = arguments.next().map(PathBuf::from);
    println!("| network | weights | file, bytes | of float | SQNR of the outputs, dB | rms file - simulation | latency p50, ms (float) |");
    println!("|---|---|---:|---:|---|---:|---:|");
    let silero = std::fs::read(data.join("models/silero_vad_16k_op15.onnx"))?;
    let digits = |model: &Model| shared_models::rows(&data, model, shared_models::Inputs::Digits, false, 300);
    let rows = digits(&onnx::from_bytes(&silero, None)?)?.collect::<Result<Vec<_>, _>>()?;
    network("silero_vad_16k_op15", &silero, &rows, folder.as_deref())?;
    for (name, model, rows) in weight_only_nets::all()? {
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
