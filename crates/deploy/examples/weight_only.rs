//! Weights alone in few bits: sizes and signal to noise of the deployed files of recurrent and embedding networks; prints Markdown.
//!
//! `cargo run --release -p espalier-deploy --example weight_only -- DATA [NAME] [FOLDER] [WEIGHTS]`: DATA is the folder with `models/`, NAME a part of
//! the name of a network. By default it is the voice detector, on four windows in a row of each of 300 spoken digits, its state fed
//! back, and networks that are made here, of seeded noise in place of trained weights. With FOLDER the files are written there; NAME
//! `windows` writes the windows alone, for `recipes/silero-vad-*.toml`. WEIGHTS is a part of a row's second column, such as `group`. The latency is that of the first batch, on one thread.
#[allow(dead_code, reason = "other examples use more of it")]
mod shared_models;
mod weight_only_nets;

use deploy::measure::{Difference, LatencyOptions, latencies};
use deploy::runtime::{self, SessionOptions, Source};
use deploy::{LowerOptions, lower};
use encodings::affine::Affine;
use encodings::codebook::Codebook;
use encodings::{Encodings, Granularity};
use espalier_deploy as deploy;
use graph::Model;
use quantize::{ActivationSettings, AdaRound, Corrections, QuantizeSettings};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use technique::{Choice, Settings};
use tensor::Tensor;
use train::{Batch, Executor, Mode, TrainError};

/// Windows of a recording.
const WINDOWS: usize = 4;

/// How weights are stored, and the corrections that help them.
type Variant = (Choice<Encodings>, Vec<Choice<Corrections>>);

fn variants() -> Result<Vec<Variant>, technique::Fault> {
    let affine = |bits| Affine { bits, ..Affine::default() }.choice();
    let codebook = |bits| Codebook { bits, ..Codebook::default() }.choice();
    let rounded = || Ok::<_, technique::Fault>(vec![AdaRound::default().choice()?]);
    let mut all: Vec<Variant> = vec![];
    for bits in [8, 4] {
        all.extend([(affine(bits)?, vec![]), (affine(bits)?, rounded()?)]);
    }
    for size in [64, 32] {
        let group: Choice<Encodings> = Affine { bits: 4, granularity: Some(Granularity::Group(size)), ..Affine::default() }.choice()?;
        all.extend([(group.clone(), vec![]), (group, rounded()?)]);
    }
    for bits in [4, 3, 2] {
        all.push((codebook(bits)?, vec![]));
    }
    all.extend([(affine(2)?, vec![]), (affine(2)?, rounded()?)]);
    Ok(all)
}

type Rows<'a> = Box<dyn Iterator<Item = Result<Batch, TrainError>> + 'a>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().ok_or("usage: weight_only DATA [NAME] [FOLDER] [WEIGHTS]")?);
    let only = arguments.next();
    let folder = arguments.next().filter(|f| !f.is_empty()).map(PathBuf::from);
    let ways = arguments.next().unwrap_or_default();
    let wanted = |name: &str, by_default: bool| only.as_ref().map_or(by_default, |only| name.contains(only));
    println!("| network | weights | file, bytes | of float | SQNR of the outputs, dB | rms file - simulation | latency p50, ms (float) |");
    println!("|---|---|---:|---:|---|---:|---:|");
    for (name, inputs) in shared_models::MODELS.into_iter().filter(|(name, _)| wanted(name, name.starts_with("silero"))) {
        let file = std::fs::read(data.join(format!("models/{name}.onnx")))?;
        let model = onnx::from_bytes(&file, None)?;
        let collected = |rows: shared_models::Rows| rows.map(|b| Ok(b?)).collect::<Result<Vec<Batch>, Box<dyn Error>>>();
        let calibration = match name.starts_with("silero") {
            true => collected(calibration_windows(&data, &model)?)?,
            false => collected(shared_models::rows(&data, &model, inputs, true, 256)?)?,
        };
        let rows = collected(shared_models::rows(&data, &model, inputs, false, 300)?)?;
        let rows = rows.into_iter().map(sequence).collect::<Result<Vec<_>, _>>()?;
        network(name, &file, &calibration, &rows, (folder.as_deref(), &ways))?;
    }
    if let (Some(folder), true) = (&folder, wanted("windows", false)) {
        write_windows(&data, &folder.join("windows"))?;
    }
    for (name, model, rows) in weight_only_nets::all()?.into_iter().filter(|(name, ..)| wanted(name, true)) {
        let (calibration, rows) = rows.split_at(rows.len() / 2);
        let rows: Vec<Vec<Batch>> = rows.iter().map(|batch| vec![batch.clone()]).collect();
        network(name, &onnx::to_bytes(&model)?, calibration, &rows, (folder.as_deref(), &ways))?;
    }
    Ok(())
}

/// The four windows of each recording one after the other, for a network with a state; other batches as they are.
fn sequence(batch: Batch) -> Result<Vec<Batch>, tensor::TensorError> {
    let (Some(windows), Some(state)) = (batch.inputs.get("input"), batch.inputs.get("state")) else { return Ok(vec![batch]) };
    let recordings = windows.shape()[0] / WINDOWS;
    let one = |i: usize| {
        let at = Tensor::vector((0..recordings).map(|r| (r * WINDOWS + i) as i64).collect::<Vec<i64>>());
        let mut inputs = batch.inputs.clone();
        inputs.insert("input".into(), windows.gather(&at, 0)?);
        inputs.insert("state".into(), state.narrow(1, 0, recordings)?);
        Ok(Batch { inputs, ..Batch::default() })
    };
    (0..WINDOWS).map(one).collect()
}

/// Windows of 100 training recordings, of all digits and speakers.
fn calibration_windows(data: &Path, model: &Model) -> Result<shared_models::Rows, Box<dyn Error>> {
    shared_models::digits(data, model, "train", (0..2700).step_by(27).collect())
}

/// The windows of spoken digits, as the recipes for the voice detector read them.
fn write_windows(data: &Path, folder: &Path) -> Result<(), Box<dyn Error>> {
    let model = onnx::load(&data.join("models/silero_vad_16k_op15.onnx"))?;
    std::fs::create_dir_all(folder)?;
    let test = shared_models::rows(data, &model, shared_models::Inputs::Digits, false, 300)?;
    for (split, rows) in [("train", calibration_windows(data, &model)?), ("test", test)] {
        let windows = rows.map(|batch| batch?.inputs.remove("input").ok_or("a batch without sound".into()));
        let windows = Tensor::concat(&windows.collect::<Result<Vec<Tensor>, Box<dyn Error>>>()?, 0)?;
        data::npz::write(&folder.join(format!("{split}.npz")), &BTreeMap::from([("input".to_string(), windows)]))?;
    }
    Ok(())
}

fn network(
    name: &str,
    file: &[u8],
    calibration: &[Batch],
    rows: &[Vec<Batch>],
    (folder, ways): (Option<&Path>, &str),
) -> Result<(), Box<dyn Error>> {
    let runtime = runtime::choose().runtime;
    let mut float = runtime.load(Source::Bytes(file), SessionOptions::default_arithmetic(1))?;
    for (weights, corrections) in variants()? {
        let mut model = onnx::from_bytes(file, None)?;
        train::prepare(&mut model)?;
        ops::fold_batch_norm(&mut model)?;
        let how = format!("{weights}{}", if corrections.is_empty() { "" } else { ", adaround" });
        if !how.contains(ways) {
            continue;
        }
        let activations = ActivationSettings::float();
        let settings = QuantizeSettings { weights, activations, weight_only: true, corrections, ..QuantizeSettings::default() };
        quantize::quantize(&mut model, &settings, Box::new(calibration.iter().cloned().map(Ok)) as Rows)?;
        let deployed = onnx::to_bytes(&lower(&model, &LowerOptions { decode_once: true, ..LowerOptions::default() })?.model)?;
        if let Some(folder) = folder {
            std::fs::write(folder.join(format!("{name}-{}.onnx", how.replace([' ', ',', '='], ""))), &deployed)?;
        }
        let simulation = Executor::new(&model)?;
        let mut session = runtime.load(Source::Bytes(&deployed), SessionOptions::default_arithmetic(1))?;
        let (mut noise, mut apart): (BTreeMap<String, Difference>, Difference) = Default::default();
        for sequence in rows {
            // Each network goes on from its own state.
            let mut states: [Option<Tensor>; 3] = Default::default();
            for batch in sequence {
                let [a, b, c] = states.each_ref().map(|state| {
                    let mut inputs = batch.inputs.clone();
                    inputs.extend(state.clone().map(|state| ("state".to_string(), state)));
                    inputs
                });
                let (wanted, found, simulated) = (float.run(&a)?, session.run(&b)?, simulation.run(&c, Mode::SIMULATED)?);
                for (output, value) in &found {
                    noise.entry(output.clone()).or_default().add(&wanted[output], value)?;
                    apart.add(&simulated[output], value)?;
                }
                states = [&wanted, &found, &simulated].map(|outputs| outputs.get("stateN").cloned());
            }
        }
        let noise: Vec<String> = noise.iter().map(|(output, d)| format!("{output} {:.1}", d.sqnr_db())).collect();
        let few = &rows[0][0].inputs;
        let times = latencies(&mut [(float.as_mut(), few), (session.as_mut(), few)], LatencyOptions::default())?;
        println!(
            "| {name} | {how} | {} | {:.4} | {} | {:.1e} | {:.3} ({:.3}) |",
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
