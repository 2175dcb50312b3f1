use super::super::tests::{batch, chain, output, quantized, residual, sqnr, with};
use super::*;
use crate::QuantizeSettings;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tensor::Tensor;
use train::Mode;

fn low(corrections: &str, weights: u32, activations: u32) -> QuantizeSettings {
    let mut settings = with(corrections);
    settings.weights = technique::Choice::with("affine", &serde_json::json!({ "bits": weights })).unwrap();
    settings.activations.bits = activations;
    settings
}

fn labels(model: &Model, units: &[Unit]) -> Vec<String> {
    units.iter().map(|u| u.label(model)).collect()
}

#[test]
fn units_are_layers_with_their_activations_or_blocks() {
    let (model, _) = quantized(residual(), &low("[]", 4, 8));
    let (found, left) = units::layers(&model);
    assert!(left.is_empty() && found.len() == 4);
    let name = |u: &Unit| u.targets.iter().map(|v| model.values[*v].name.clone()).collect::<Vec<_>>().join(" ");
    let layers = units::by_layer(&model, &found);
    assert_eq!(layers.iter().map(|u| u.nodes.clone()).collect::<Vec<_>>(), [vec![0, 1], vec![2, 3], vec![4], vec![7]]);
    assert_eq!(layers.iter().map(name).collect::<Vec<_>>(), ["v1", "v3", "v4", "out"]);
    let blocks = units::by_block(&model, &found);
    assert_eq!(labels(&model, &blocks), ["conv0", "conv2 + conv4", "conv7"]);
    assert_eq!(blocks.iter().map(name).collect::<Vec<_>>(), ["v1", "v6", "out"]);
    assert_eq!(blocks[1].nodes, [2, 3, 4, 5, 6]);
    assert_eq!(blocks[1].inputs(&model), [model.find("v1").unwrap()]);
    // A chain is cut after each layer; nodes between two layers belong to the later one.
    let (model, _) = quantized(chain("Relu"), &low("[]", 4, 8));
    let (found, _) = units::layers(&model);
    let blocks = units::by_block(&model, &found);
    assert_eq!(labels(&model, &blocks), ["conv0", "conv2", "conv4", "gemm6", "gemm8"]);
    let nodes: Vec<usize> = blocks.iter().flat_map(|u| u.nodes.clone()).collect();
    assert_eq!(nodes, (0..model.graph.nodes.len()).collect::<Vec<_>>());
}

#[test]
fn skips_across_a_whole_network_are_taken_layer_by_layer() {
    let mut model = residual();
    // The input bypasses everything.
    let (x, out) = (model.graph.inputs[0], model.graph.outputs[0]);
    let around = model.values.add_named("around");
    model.graph.nodes.push(graph::Node::new("Concat", "around", &[out, x], &[around]).with("axis", graph::AttributeValue::Int(1)));
    model.graph.outputs = vec![around];
    let (model, _) = quantized(model, &low("[]", 4, 8));
    let (found, _) = units::layers(&model);
    let blocks = units::by_block(&model, &found);
    assert_eq!(labels(&model, &blocks), ["conv0 + conv2 + conv4 + conv7"]);
    let alone = found.iter().filter(|(at, _)| **at != 7).map(|(at, l)| (*at, *l)).collect();
    assert_eq!(units::by_layer(&model, &alone).len(), 3);
}

const ADAROUND: &str = r#"[{"kind": "adaround", "samples": 32, "iterations": 150, "batch": 8, "rate": 0.03}]"#;
const BLOCKS: &str =
    r#"[{"kind": "block_reconstruction", "samples": 32, "iterations": 150, "batch": 8, "rate": 0.03, "learn_biases": true}]"#;

#[test]
fn learned_rounding_is_nearer_to_the_float_network_than_rounding_to_nearest() {
    for (model, weights, activations) in [(chain("Relu"), 4, 8), (residual(), 3, 8)] {
        let measure = |corrections: &str| sqnr(&model, &quantized(model.clone(), &low(corrections, weights, activations)).0);
        let nearest = measure("[]");
        for corrections in [ADAROUND, BLOCKS] {
            let learned = measure(corrections);
            assert!(learned > nearest + 1.0, "{corrections}: {nearest:.2} dB to nearest, {learned:.2} dB learned");
        }
    }
}

#[test]
fn rounding_is_learned_for_weights_with_a_scale_for_each_group() {
    let model = residual();
    let settings = |corrections: &str| {
        let mut settings = low(corrections, 3, 8);
        settings.weights = technique::Choice::with("affine", &serde_json::json!({ "bits": 3, "granularity": { "group": 4 } })).unwrap();
        settings
    };
    let of = |corrections: &str| quantized(model.clone(), &settings(corrections)).0;
    let (nearest, learned) = (sqnr(&model, &of("[]")), sqnr(&model, &of(ADAROUND)));
    assert!(learned > nearest + 1.0, "{nearest:.2} dB to nearest, {learned:.2} dB learned");
}

#[test]
fn what_is_stored_is_what_was_simulated_and_the_same_seed_gives_the_same_weights() {
    for corrections in [ADAROUND, BLOCKS] {
        let (model, report) = quantized(residual(), &low(corrections, 3, 4));
        assert!(report.corrections[0].notes[0].starts_with("4 layers in "), "{report:?}");
        for (_, layer) in units::layers(&model).0 {
            let (weight, annotation) = (model.values.tensor(layer.weight).unwrap(), model.annotations.get(layer.weight).unwrap());
            assert_eq!(&encodings::simulate(weight, annotation).unwrap(), weight);
        }
        assert_eq!(output(&model, 5, Mode::FLOAT).len(), output(&model, 5, Mode::SIMULATED).len());
        let (again, _) = quantized(residual(), &low(corrections, 3, 4));
        assert_eq!(output(&model, 5, Mode::SIMULATED), output(&again, 5, Mode::SIMULATED));
    }
}

#[test]
fn masked_weights_stay_zero() {
    let mut model = residual();
    let id = model.find("w2").unwrap();
    let shape = model.values.tensor(id).unwrap().shape().to_vec();
    let live: Vec<bool> = (0..shape.iter().product()).map(|i| i % 3 != 0).collect();
    model.annotations.entry(id).mask = Some(Tensor::new(live.clone(), shape).unwrap());
    for corrections in [ADAROUND, BLOCKS] {
        let (model, _) = quantized(model.clone(), &low(corrections, 3, 4));
        let stored = model.values.tensor(id).unwrap().to_f32_vec().unwrap();
        assert!(stored.iter().zip(&live).all(|(v, live)| *live || *v == 0.0));
        assert!(stored.iter().zip(&live).filter(|(v, live)| **live && **v != 0.0).count() > live.len() / 4);
    }
}

#[test]
fn learned_scales_have_as_few_significant_bits_as_they_had() {
    let (plain, _) = quantized(residual(), &low("[]", 3, 4));
    let (learned, _) = quantized(residual(), &low(BLOCKS, 3, 4));
    let mut moved = 0;
    for name in ["v1", "v3", "v4", "v6", "out"] {
        let scale = |m: &Model| m.annotations.encoding(m.find(name).unwrap()).map(|e| e.parameters["scale"].item::<f32>().unwrap());
        let (Some(before), Some(after)) = (scale(&plain), scale(&learned)) else { continue };
        moved += usize::from(before != after);
        assert!(encodings::affine::odd_part(after) <= encodings::affine::odd_part(before).max(7), "{name}: {before} {after}");
    }
    assert!(moved > 0);
}

#[test]
fn it_stops_when_it_is_asked_to() {
    let _guard = train::stop_when(Arc::new(AtomicBool::new(true)));
    let mut model = residual();
    let stopped = crate::quantize(&mut model, &low(ADAROUND, 4, 8), (0..4).map(|i| Ok(batch(&[8, 3, 6, 6], i))));
    assert!(matches!(stopped, Err(QuantizeError::Run(e)) if *e == train::TrainError::Interrupted));
}
