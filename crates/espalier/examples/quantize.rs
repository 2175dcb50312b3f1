//! Quantizes a network to weights of 4 bits and activations of 8, without training, and scores the deployed file.
//!
//! `cargo run --release -p espalier --example quantize [MODEL.onnx DATA]`
mod common;

use espalier::encodings::affine::Affine;
use espalier::quantize::{BiasCorrection, QuantizeSettings, quantize};
use espalier::technique::Settings;
use espalier::train::Batches;
use espalier::{deploy, ops};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut model, data) = common::trained()?;
    let before = data.score(&model)?;
    let weights = Affine { bits: 4, ..Affine::default() }.choice()?;
    let corrections = vec![BiasCorrection::default().choice()?];
    ops::fold_batch_norm(&mut model)?;
    let settings = QuantizeSettings { weights, corrections, ..QuantizeSettings::default() };
    let samples = data.train(&model)?;
    let report = quantize(&mut model, &settings, samples.epoch(0).take(4))?;
    let file = deploy::format::export(&model)?;
    std::fs::write("quantized.onnx", &file.bytes)?;
    println!("{} weights and {} activations on integers", report.constants, report.activations.len());
    println!("score {before:.4} in float, {:.4} of quantized.onnx ({} bytes)", data.score_file(&file)?, file.bytes.len());
    Ok(())
}
