//! Prunes a network to 80 % zeros step by step during training, by the effect of each weight on the loss.
//!
//! `cargo run --release -p espalier --example prune [MODEL.onnx DATA]`
mod common;

use espalier::deploy;
use espalier::prune::{Cubic, GradualPruning, PruneSettings, Taylor};
use espalier::technique::Settings;
use espalier::train::{CrossEntropy, TrainContext, TrainSettings, train};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut model, data) = common::trained()?;
    let before = data.score(&model)?;
    let criterion = Taylor { batches: 8 }.choice()?;
    let sparsity_schedule = Cubic { end: 0.6, every: 5, ..Cubic::default() }.choice()?;
    let mut pruning = GradualPruning::new(&PruneSettings { criterion, sparsity_schedule, ..PruneSettings::new(0.8) })?;
    let loss = CrossEntropy::of(&model, 0.0)?;
    let settings = TrainSettings { epochs: 5, ..TrainSettings::default() };
    let mut context = TrainContext { participants: vec![&mut pruning], ..TrainContext::default() };
    let samples = data.train(&model)?;
    train(&mut model, &samples, &loss, &settings, &mut context)?;
    let file = deploy::format::export(&model)?;
    std::fs::write("pruned.onnx", &file.bytes)?;
    println!("sparsity {:.4}", pruning.report().map_or(0.0, |report| report.sparsity));
    println!("score {before:.4} dense, {:.4} of pruned.onnx", data.score_file(&file)?);
    Ok(())
}
