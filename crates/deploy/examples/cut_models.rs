//! Channels removed from the nine shared models, without training: groups, what goes, and that the smaller graph computes what the graph
//! with zeros in place of the removed channels computes, in the interpreter and in ONNX Runtime; prints Markdown.
//!
//! `cargo run --release -p espalier-deploy --example cut_models -- DATA [SHARE] [NAME]`: DATA is the folder with `models/`, SHARE (default
//! 0.3) the share of the MACs that goes, NAME a part of a model's name. With a file in place of DATA, only the time to find the groups, to
//! choose and to cut is taken, in seconds, the best of ten (`benches/peers/channel_groups.py`).
mod shared_models;

use deploy::measure::Difference;
use deploy::runtime::{self, SessionOptions, Source};
use espalier_deploy as deploy;
use graph::Model;
use prune::ImportanceContext;
use prune::channels::{ChannelScope, ChannelSettings, Remove, choose, cut, groups, zeroed};
use shared_models::{Inputs, MODELS, prepared, rows, scored};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;
use train::{Executor, Mode, Named};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().ok_or("usage: cut_models DATA [SHARE] [NAME]")?);
    let share: f64 = arguments.next().map_or(Ok(0.3), |s| s.parse())?;
    let only = arguments.next().unwrap_or_default();
    if data.extension().is_some_and(|e| e == "onnx") {
        return timed(&data, share);
    }
    println!(
        "| model | groups, channels | layers that keep all | MACs, parameters removed, % | largest difference to zeros (rms of the outputs) | the \
         same in ONNX Runtime | time to find and cut, ms | samples decided as before, untrained |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, inputs) in MODELS.into_iter().filter(|(name, _)| name.contains(&only)) {
        if let Err(e) = one(&data, (name, inputs), share) {
            println!("| {name} | failed: {e} |");
        }
    }
    Ok(())
}

/// Prints the least time that one file takes, with what was removed.
fn timed(file: &Path, share: f64) -> Result<(), Box<dyn Error>> {
    let mut model = onnx::load(file)?;
    train::fold_constants(&mut model)?;
    let settings =
        ChannelSettings { scope: ChannelScope::Layer, ..ChannelSettings::new(Remove { channels: Some(share), ..Remove::default() }) };
    let mut best = [f64::INFINITY; 3];
    for _ in 0..10 {
        let mut smaller = model.clone();
        let began = Instant::now();
        let found = groups(&model, &BTreeMap::new())?;
        let grouped = began.elapsed();
        let chosen = choose(&ImportanceContext::new(&model), &found, &settings)?;
        let picked = began.elapsed();
        cut(&mut smaller, &found, &chosen.removed)?;
        let times = [grouped, picked - grouped, began.elapsed() - picked];
        best.iter_mut().zip(times).for_each(|(best, time)| *best = best.min(time.as_secs_f64()));
    }
    println!("groups {:.6} choose {:.6} cut {:.6}", best[0], best[1], best[2]);
    Ok(())
}

fn one(data: &Path, (name, inputs): (&str, Inputs), share: f64) -> Result<(), Box<dyn Error>> {
    let model = prepared(data, name)?;
    let sample = rows(data, &model, inputs, false, 10)?.next().ok_or("no sample")??.inputs;
    let shapes: BTreeMap<String, Vec<usize>> = sample.iter().map(|(n, t)| (n.clone(), t.shape().to_vec())).collect();
    let began = Instant::now();
    let found = groups(&model, &shapes)?;
    let finding = began.elapsed();
    let remove = Remove { macs: Some(share), ..Remove::default() };
    let chosen = choose(&ImportanceContext::new(&model), &found, &ChannelSettings::new(remove))?;
    let mut smaller = model.clone();
    let began = Instant::now();
    cut(&mut smaller, &found, &chosen.removed)?;
    let milliseconds = (finding + began.elapsed()).as_secs_f64() * 1e3;
    smaller.verify()?;
    ops::infer_types(&smaller)?;
    let zeros = Executor::owned(zeroed(&model, &chosen.removed)?)?.run(&sample, Mode::FLOAT)?;
    let here = difference(&zeros, &Executor::new(&smaller)?.run(&sample, Mode::FLOAT)?)?;
    let there = difference(&zeros, &in_runtime(&smaller, &sample)?)?;
    let part = |(before, after): (u64, u64)| (before - after) as f64 / before.max(1) as f64 * 100.0;
    let decided = match scored(&model, name) {
        Some(output) => {
            let whole = Executor::new(&model)?.run(&sample, Mode::FLOAT)?;
            let mut decisions = Difference::default();
            decisions.add(&whole[&output], &zeros[&output])?;
            format!("{:.0} % of {}", decisions.argmax_agreement() * 100.0, decisions.samples())
        }
        None => "-".into(),
    };
    println!(
        "| {name} | {}, {} | {} | {:.1}, {:.1} | {:.1e} ({:.2e}) | {:.1e} | {milliseconds:.1} | {decided} |",
        found.groups.len(),
        found.channels(),
        found.held.len(),
        part(chosen.macs),
        part(chosen.parameters),
        here.largest(),
        here.reference_rms(),
        there.largest()
    );
    let reasons: BTreeSet<&str> = found.held.iter().map(|h| h.reason.as_str()).collect();
    reasons.iter().for_each(|r| eprintln!("{name}: {r}"));
    Ok(())
}

/// The outputs of ONNX Runtime for a model.
fn in_runtime(model: &Model, sample: &Named) -> Result<Named, Box<dyn Error>> {
    let file = onnx::to_bytes(model)?;
    let mut session = runtime::choose().runtime.load(Source::Bytes(&file), SessionOptions::default_arithmetic(2))?;
    Ok(session.run(sample)?)
}

fn difference(wanted: &Named, got: &Named) -> Result<Difference, Box<dyn Error>> {
    let mut difference = Difference::default();
    for (name, wanted) in wanted {
        difference.add(wanted, got.get(name).ok_or("an output is missing")?)?;
    }
    Ok(difference)
}
