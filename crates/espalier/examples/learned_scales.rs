//! Ways to learn what quantizers hold, compared: a small network trained on digits, quantized to few bits and trained for 30 more epochs in each way;
//! prints the accuracy of the deployed files as Markdown, with the mean of three seeds.
//!
//! `cargo run --release -p espalier --example learned_scales [MODEL.onnx DATA]`
mod common;

use espalier::encodings::affine::Affine;
use espalier::quantize::{ActivationSettings, QuantizeSettings, quantize, refresh_biases};
use espalier::technique::{Choice, Settings};
use espalier::train::{AdamW, Batches, CrossEntropy, LearnScales, OscillationDamping, TrainContext, TrainSettings, train};
use espalier::{deploy, ops};

/// `learn_scales` and `penalties`, as in a recipe.
const WAYS: [(&str, Option<f64>); 8] = [
    ("false", None),
    ("true", None),
    ("\"lsq_plus\"", None),
    ("{ \"kind\": \"pact\" }", None),
    ("\"dorefa\"", None),
    ("{ \"kind\": \"pact\", \"tanh_weights\": true }", None),
    ("true", Some(0.01)),
    ("true", Some(0.1)),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut float, data) = common::trained()?;
    ops::fold_batch_norm(&mut float)?;
    println!("float: {:.2} %\n", 100.0 * data.score(&float)?);
    println!("| bits | learn_scales | oscillation_damping | accuracy, % | seeds |");
    println!("|---|---|---:|---:|---|");
    for (bits, (how, damping)) in [2, 3].into_iter().flat_map(|bits| WAYS.map(|way| (bits, way))) {
        let learn_scales: LearnScales = serde_json::from_str(how)?;
        let penalties = damping.map(|factor| OscillationDamping { factor, ..OscillationDamping::default() }.choice());
        let penalties: Vec<Choice<_>> = penalties.transpose()?.into_iter().collect();
        let mut scores = vec![];
        for seed in [1, 2, 3] {
            let mut model = float.clone();
            // The first and the last layer keep 8 bits.
            let ends = r#"[{"position": "first", "weights": {"bits": 8}}, {"position": "last", "weights": {"bits": 8}}]"#;
            let settings = QuantizeSettings {
                weights: Affine { bits, ..Affine::default() }.choice()?,
                activations: ActivationSettings { bits, ..ActivationSettings::default() },
                rules: serde_json::from_str(ends)?,
                ..QuantizeSettings::default()
            };
            let samples = data.clone().seed(seed).train(&model)?;
            quantize(&mut model, &settings, samples.epoch(0).take(4))?;
            let optimizer = AdamW { lr: 0.001, ..AdamW::default() }.choice()?;
            let (learn_scales, penalties) = (learn_scales.clone(), penalties.clone());
            let training = TrainSettings { epochs: 30, seed, optimizer, learn_scales, penalties, ..TrainSettings::default() };
            let loss = CrossEntropy::of(&model, 0.0)?;
            train(&mut model, &samples, &loss, &training, &mut TrainContext::default())?;
            refresh_biases(&mut model, &settings)?;
            scores.push(100.0 * data.score_file(&deploy::format::export(&model)?)?);
        }
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        let each = scores.iter().map(|s| format!("{s:.2}")).collect::<Vec<_>>().join(" ");
        println!("| {bits} | `{how}` | {} | {mean:.2} | {each} |", damping.map_or("-".into(), |f| f.to_string()));
    }
    Ok(())
}
