//! Searches widths of weights and sparsities for the network that stores the fewest bits and loses at most a point of its score. Each
//! candidate is deployed, and its file scored.
//!
//! `cargo run --release -p espalier --example search [MODEL.onnx DATA]`
mod common;

use espalier::deploy::format::{Artifact, export};
use espalier::deploy::measure::parameters;
use espalier::encodings::affine::Affine;
use espalier::graph::Model;
use espalier::prune::{PruneSettings, prune};
use espalier::quantize::{QuantizeSettings, quantize};
use espalier::technique::Settings;
use espalier::train::Batches;
use espalier::{DataSet, ops};

/// The network with weights of so many bits and so many zeros, as a file.
fn compressed(model: &Model, data: &DataSet, bits: u32, sparsity: f64) -> Result<Artifact, Box<dyn std::error::Error>> {
    let mut model = model.clone();
    prune(&mut model, &PruneSettings::new(sparsity))?;
    let samples = data.train(&model)?;
    let weights = Affine { bits, ..Affine::default() }.choice()?;
    quantize(&mut model, &QuantizeSettings { weights, ..QuantizeSettings::default() }, samples.epoch(0).take(4))?;
    Ok(export(&model)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut model, data) = common::trained()?;
    ops::fold_batch_norm(&mut model)?;
    let wanted = data.score(&model)? - 0.01;
    let mut best: Option<(u64, u32, f64, Artifact)> = None;
    for (bits, sparsity) in [8, 5, 4, 3].into_iter().flat_map(|bits| [0.0, 0.2, 0.4, 0.6].map(|sparsity| (bits, sparsity))) {
        let file = compressed(&model, &data, bits, sparsity)?;
        let (score, stored) = (data.score_file(&file)?, u64::from(bits) * parameters(&file.lowered.model)?.nonzero);
        println!("{bits} bits, sparsity {sparsity}: score {score:.4}, {stored} bits in weights that are not zero");
        if score >= wanted && best.as_ref().is_none_or(|(least, ..)| stored < *least) {
            best = Some((stored, bits, sparsity, file));
        }
    }
    let (_, bits, sparsity, file) = best.ok_or("no candidate loses so little")?;
    std::fs::write("found.onnx", &file.bytes)?;
    println!("found.onnx: {bits} bits, sparsity {sparsity}");
    Ok(())
}
