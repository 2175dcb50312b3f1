//! Should a weight that was trained with its quantizer be fitted again afterwards? Scores the deployed files with the scales that the
//! training had, and with scales fitted again to the final weights.
//!
//! `cargo run --release -p espalier --example refit [MODEL.onnx DATA]`
mod common;

use espalier::encodings::affine::{Affine, AffineSettings};
use espalier::graph::{Model, ValueId};
use espalier::quantize::{QuantizeSettings, quantize, refresh_biases};
use espalier::technique::Settings;
use espalier::train::{AdamW, Batches, CrossEntropy, TrainContext, TrainSettings, train};
use espalier::{deploy, encodings, ops};

/// Fits every weight's encoding to its present elements, then the biases.
fn refit(model: &mut Model, settings: &QuantizeSettings) -> espalier::Result<()> {
    let encoded: Vec<ValueId> = model.annotations.iter().map(|(id, _)| id).collect();
    for id in encoded {
        let (Some(weight), Some(encoding)) = (model.values.tensor(id), model.annotations.encoding(id)) else { continue };
        if AffineSettings::of(encoding).is_ok_and(|s| s.is_bias()) {
            continue;
        }
        let fitted = encodings::refit(weight, model.annotations.mask(id), encoding).map_err(|e| espalier::Error::Input(e.to_string()))?;
        model.annotations.entry(id).encoding = Some(fitted);
    }
    refresh_biases(model, settings)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut float, data) = common::trained()?;
    ops::fold_batch_norm(&mut float)?;
    println!("float {:.4}", data.score(&float)?);
    for (bits, seed) in [3, 4, 8].into_iter().flat_map(|bits| [1, 2, 3].map(|seed| (bits, seed))) {
        let mut model = float.clone();
        let settings = QuantizeSettings { weights: Affine { bits, ..Affine::default() }.choice()?, ..QuantizeSettings::default() };
        let samples = data.clone().seed(seed).train(&model)?;
        quantize(&mut model, &settings, samples.epoch(0).take(4))?;
        let optimizer = AdamW { lr: 0.001, ..AdamW::default() }.choice()?;
        let training = TrainSettings { epochs: 8, seed, optimizer, ..TrainSettings::default() };
        let loss = CrossEntropy::of(&model, 0.0)?;
        train(&mut model, &samples, &loss, &training, &mut TrainContext::default())?;
        let trained = data.score_file(&deploy::format::export(&model)?)?;
        refit(&mut model, &settings)?;
        let refitted = data.score_file(&deploy::format::export(&model)?)?;
        println!("{bits} bits, seed {seed}: trained {trained:.4}, fitted again {refitted:.4}");
    }
    Ok(())
}
