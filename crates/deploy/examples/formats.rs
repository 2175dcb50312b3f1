//! The nine shared models, quantized for a target and written in each format; prints Markdown.
//!
//! `cargo run --release -p espalier-deploy --example formats -- DATA [SAMPLES] [NAME] [TARGET] [ROUNDS]`: DATA is the folder with
//! `models/`, SAMPLES (default 500) how many are compared, NAME a part of a model's name ("" for all), TARGET (default onnxruntime) as
//! in a recipe, ROUNDS (default 200) how often the files run in turn for their times.
mod shared_models;

use deploy::format::{ExportOptions, Formats};
use deploy::measure::{Difference, LatencyOptions, latencies};
use deploy::runtime::{Session, SessionOptions};
use deploy::{LowerOptions, Placement, ProofOptions, prove};
use espalier_deploy as deploy;
use quantize::QuantizeSettings;
use shared_models::{Inputs, MODELS, prepared, rows, scored};
use std::error::Error;
use std::path::PathBuf;
use technique::{Choice, Family};
use tensor::Tensor;
use train::Named;

struct Arguments {
    data: PathBuf,
    samples: usize,
    only: String,
    target: target::Choice,
    rounds: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut given = std::env::args().skip(1);
    let data = PathBuf::from(given.next().ok_or("usage: formats DATA [SAMPLES] [NAME] [TARGET] [ROUNDS]")?);
    let samples = given.next().map_or(Ok(500), |s| s.parse())?;
    let only = given.next().unwrap_or_default();
    let target = given.next().map_or_else(|| Ok(target::Choice::default()), |t| target::Choice::named(&t))?;
    let rounds = given.next().map_or(Ok(200), |s| s.parse())?;
    let arguments = Arguments { data, samples, only, target, rounds };
    println!(
        "| model | format | bytes | nodes on integers / in float | output | SQNR against float, dB | file - simulation: rms as a share of \
         quantization's | largest, steps | same decision | accuracy float / simulated / literal / default, % | within limits | file - qdq: \
         largest | same decision | median ms (best) |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (name, inputs) in MODELS.into_iter().filter(|(name, _)| name.contains(&arguments.only)) {
        if let Err(e) = one(&arguments, name, inputs) {
            println!("| {name} | refused: {e} |");
        }
    }
    Ok(())
}

fn one(a: &Arguments, name: &str, inputs: Inputs) -> Result<(), Box<dyn Error>> {
    let (data, choice) = (a.data.as_path(), deploy::runtime::of_target(&**a.target.member())?);
    let runtime = choice.runtime.as_ref();
    let mut model = prepared(data, name)?;
    let settings = QuantizeSettings { target: a.target.clone(), ..QuantizeSettings::default() };
    let calibration = rows(data, &model, inputs, true, 256)?;
    quantize::quantize(&mut model, &settings, calibration)?;
    let names: Vec<&str> = Formats::members().iter().map(|entry| entry.manual.name).collect();
    let lower = LowerOptions { target: a.target.clone(), ..LowerOptions::default() };
    let options = ExportOptions { lower, ..ExportOptions::default() };
    let exported = names.iter().map(|format| Ok(Choice::<Formats>::named(format)?.export(&model, &options)?));
    let artifacts = exported.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    if let Some(folder) = std::env::var_os("FORMATS_FOLDER").map(PathBuf::from) {
        for (format, artifact) in names.iter().zip(&artifacts) {
            std::fs::write(folder.join(format!("{name}.{format}.onnx")), &artifact.bytes)?;
        }
    }
    let load = |source| runtime.load(source, SessionOptions::default_arithmetic(1));
    let mut sessions = artifacts.iter().map(|artifact| load(artifact.source())).collect::<Result<Vec<_>, _>>()?;

    // The files beside the first of them, output by output.
    let outputs: Vec<String> = model.graph.outputs.iter().map(|v| model.values[*v].name.clone()).collect();
    let mut apart = vec![vec![Difference::default(); outputs.len()]; artifacts.len()];
    let mut sample = None;
    for batch in rows(data, &model, inputs, false, a.samples)? {
        let batch = batch?;
        let given = sessions.iter_mut().map(|s| s.run(&batch.inputs)).collect::<Result<Vec<_>, _>>()?;
        for (file, sums) in given.iter().zip(&mut apart) {
            for (output, sum) in outputs.iter().zip(sums) {
                sum.add(&given[0][output], &file[output])?;
            }
        }
        sample.get_or_insert(batch.inputs);
    }
    let whole: Named = sample.ok_or("no samples")?;
    let first = |t: &Tensor| if t.rank() > 1 { t.narrow(0, 0, 1) } else { Ok(t.clone()) };
    let sample = whole.iter().map(|(name, t)| Ok((name.clone(), first(t)?))).collect::<Result<Named, tensor::TensorError>>()?;
    let mut in_turn: Vec<(&mut dyn Session, &Named)> = vec![];
    for session in &mut sessions {
        in_turn.push((session.as_mut(), &sample));
    }
    let times = latencies(&mut in_turn, LatencyOptions { runs: a.rounds, ..LatencyOptions::default() })?;

    for (i, artifact) in artifacts.iter().enumerate() {
        let by_reference = Choice::<Formats>::named(names[i])?.rounds_itself();
        let proof_options = ProofOptions { scored: scored(&model, name), reference_batches: 4, by_reference, ..ProofOptions::default() };
        let samples = &mut rows(data, &model, inputs, false, a.samples)?;
        let proof = prove(&model, artifact.source(), &choice, samples, &proof_options)?;
        let placement = runtime.optimized(artifact.source())?.map(|optimized| Placement::of(&optimized, &artifact.lowered));
        let count = placement.as_ref().map(|p| p.total()).unwrap_or_default();
        for (r, a) in proof.reference.iter().zip(&proof.literal) {
            let (share, steps) = (r.deployment.rms() / a.compression.rms().max(f64::MIN_POSITIVE), r.largest_steps().unwrap_or_default());
            eprintln!("{name}, {}: reference interpreter, {}: share {share:.3}, largest {steps:.2} steps", names[i], r.output);
        }
        for ((agreement, apart), output) in proof.literal.iter().zip(&apart[i]).zip(&outputs) {
            let classifier = scored(&model, name).as_ref() == Some(output);
            let decisions = |share: f64| if classifier { format!("{:.2} %", 100.0 * share) } else { "-".to_string() };
            let accuracy = proof.figures.as_ref().filter(|_| classifier).map_or("-".to_string(), |f| {
                let of = |f: &train::Figures| 100.0 * f.values.get("accuracy").copied().unwrap_or_default();
                format!("{:.2} / {:.2} / {:.2} / {:.2}", of(&f.float), of(&f.simulated), of(&f.literal), of(&f.default))
            });
            let steps = agreement.largest_steps().map_or("-".into(), |s| format!("{s:.2}"));
            println!(
                "| {name} | {} | {} | {} / {} | {output} | {:.1} | {:.3} | {steps} | {} | {accuracy} | {} | {:.2e} | {} | {:.3} ({:.3}) |",
                names[i],
                artifact.bytes.len(),
                count.integer,
                count.float,
                agreement.whole.sqnr_db(),
                agreement.deployment.rms() / agreement.compression.rms().max(f64::MIN_POSITIVE),
                decisions(agreement.deployment.argmax_agreement()),
                if proof.holds() { "yes" } else { "no" },
                apart.largest(),
                decisions(apart.argmax_agreement()),
                times[i].p50_ms,
                times[i].best_ms,
            );
        }
        for sentence in proof.violations.iter().chain(&proof.warnings).chain(&artifact.lowered.notes) {
            eprintln!("{name}, {}: {sentence}", names[i]);
        }
        for part in placement.iter().flat_map(|p| &p.float_parts) {
            eprintln!("{name}, {}: in float: {} '{}': {}", names[i], part.op_type, part.node, part.reason);
        }
    }
    Ok(())
}
