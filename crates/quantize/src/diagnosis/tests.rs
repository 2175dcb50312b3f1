use super::*;
use crate::{Corrections, QuantizeSettings, quantize};
use encodings::affine::{Grid, quantize_to_int};
use graph::{AttributeValue, Dim, Node, ValueType};
use proptest::prelude::*;
use technique::Choice;
use tensor::{DType, random};
use train::{Classification, Named};

/// Two convolutions with Relus (the second without a bias, with a residual connection around it) and a matrix product. `outlier` is a
/// factor on the first channel of the second convolution's weight.
fn network(outlier: f32) -> Model {
    let mut model = Model::new(17);
    let x = model.values.add_named("input");
    let shape = [Dim::Symbol("n".into()), Dim::Known(3), Dim::Known(6), Dim::Known(6)];
    model.values[x].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(shape.into()) };
    model.graph.inputs.push(x);
    let mut seed = 0;
    let mut constant = |model: &mut Model, name: &str, shape: &[usize], factor: f32| {
        seed += 1;
        let mut w = random::normal(seed, shape, 0.0, 0.3).unwrap().into_vec::<f32>().unwrap();
        let first = w.len() / shape[0];
        w[..first].iter_mut().for_each(|v| *v *= factor);
        let id = model.values.add_constant(name, Tensor::new(w, shape).unwrap());
        model.graph.constants.push(id);
        id
    };
    let push = |model: &mut Model, op: &str, name: &str, inputs: &[ValueId]| {
        let out = model.values.add_named(format!("{name}.out"));
        let node = Node::new(op, name, inputs, &[out]);
        let padded = node.clone().with("pads", AttributeValue::Ints(vec![1; 4]));
        model.graph.nodes.push(if op == "Conv" { padded } else { node });
        out
    };
    let (w, b) = (constant(&mut model, "a.w", &[8, 3, 3, 3], 1.0), constant(&mut model, "a.b", &[8], 1.0));
    let a = push(&mut model, "Conv", "a", &[x, w, b]);
    let a = push(&mut model, "Relu", "a.relu", &[a]);
    let w = constant(&mut model, "b.w", &[8, 8, 3, 3], outlier);
    let y = push(&mut model, "Conv", "b", &[a, w]);
    let y = push(&mut model, "Add", "sum", &[y, a]);
    let y = push(&mut model, "Relu", "sum.relu", &[y]);
    let y = push(&mut model, "Flatten", "flat", &[y]);
    let (w, b) = (constant(&mut model, "c.w", &[8 * 36, 4], 1.0), constant(&mut model, "c.b", &[4], 1.0));
    let y = push(&mut model, "Gemm", "c", &[y, w, b]);
    model.graph.outputs.push(y);
    model.verify().unwrap();
    model
}

fn batches() -> Vec<Result<Batch, TrainError>> {
    let batch = |seed| {
        let inputs: Named = [("input".to_string(), random::normal(seed, &[8, 3, 6, 6], 0.0, 1.0).unwrap())].into();
        let labels = Tensor::vector((0..8i64).map(|i| i % 4).collect());
        Ok(Batch { inputs, targets: [("label".to_string(), labels)].into(), ..Batch::default() })
    };
    (10..13).map(batch).collect()
}

fn settings(weights: &str) -> QuantizeSettings {
    QuantizeSettings { weights: serde_json::from_str(weights).unwrap(), ..QuantizeSettings::default() }
}

/// The network, quantized, and changed by `fault`; and the diagnosis.
fn diagnosed(float: &Model, settings: &QuantizeSettings, fault: &dyn Fn(&mut Model)) -> (Model, Diagnosis) {
    let mut model = float.clone();
    quantize(&mut model, settings, batches().into_iter()).unwrap();
    fault(&mut model);
    let first = batches().remove(0).unwrap();
    let reference = reference(&model, float, &first).unwrap().unwrap();
    let task = Classification::default();
    let found = diagnose(&reference, &model, &settings.target, Some(&task), batches().into_iter(), &mut |_, _| {}).unwrap();
    (model, found)
}

fn of<'d>(found: &'d Diagnosis, node: &str) -> &'d LayerDiagnosis {
    found.layers.iter().find(|l| l.node == node).unwrap()
}

fn all(c: &Causes) -> [f64; 5] {
    [c.data_clipped, c.data_rounded, c.weights_clipped, c.weights_rounded, c.shift]
}

/// The cause with the largest share.
fn main_cause(c: &Causes) -> usize {
    (0..5).max_by(|a, b| all(c)[*a].total_cmp(&all(c)[*b])).unwrap()
}

const DATA_CLIPPED: usize = 0;
const WEIGHTS_ROUNDED: usize = 3;
const SHIFT: usize = 4;

fn id(model: &Model, name: &str) -> ValueId {
    model.find(name).unwrap()
}

/// Multiplies the scale of a value's grid.
fn rescale(model: &mut Model, name: &str, factor: f64) {
    let id = id(model, name);
    let scale = model.annotations.entry(id).encoding.as_mut().unwrap().parameters.get_mut("scale").unwrap();
    *scale = scale.mul_scalar(factor).unwrap();
}

#[test]
fn rows_are_the_nodes_that_read_few_bits_and_the_causes_add_up() {
    let (_, found) = diagnosed(&network(1.0), &settings(r#"{"bits":4}"#), &|_| {});
    let names: Vec<&str> = found.layers.iter().map(|l| l.node.as_str()).collect();
    assert_eq!((names, found.samples), (vec!["a", "b", "sum", "c"], 24));
    for layer in &found.layers {
        let sum: f64 = all(&layer.causes).iter().sum();
        assert!((sum - 1.0).abs() < 1e-6, "{layer:?}");
        assert!(layer.own.noise > 0.0 && layer.alone.noise > 0.0 && layer.alone.loss.is_some(), "{layer:?}");
        // What came before makes it worse, or is of no account.
        assert!(layer.path.noise > 0.5 * layer.own.noise, "{layer:?}");
    }
    // In front of the first layer there is nothing, and the Add has no weights.
    let (first, sum) = (of(&found, "a"), of(&found, "sum"));
    assert!((first.path.noise / first.own.noise - 1.0).abs() < 1e-4, "{first:?}");
    assert_eq!((sum.weights.len(), sum.causes.weights_rounded, sum.causes.shift), (0, 0.0, 0.0));
    assert_eq!((first.weight_bits, first.data_bits, first.weights.as_slice()), (Some(4), Some(8), &["int4 per channel".to_string()][..]));
    // Four bits of weights are coarser than eight of data.
    assert_eq!(main_cause(&first.causes), WEIGHTS_ROUNDED);
    assert!(found.quantized.noise > found.float.noise && found.float.noise == 0.0);
    // The result that nobody reads has a grid, which belongs to the last layer.
    let all: f64 = found.layers.iter().map(|l| l.alone.noise).sum();
    assert!(found.quantized.noise < 3.0 * all && found.quantized.noise > all / 3.0, "{} {all}", found.quantized.noise);
}

#[test]
fn a_network_on_its_own_float_weights_has_no_error_of_rounded_weights() {
    let (model, _) = diagnosed(&network(1.0), &settings(r#"{"bits":4}"#), &|_| {});
    let on_grid = {
        let mut model = model.clone();
        for (id, annotation) in model.clone().annotations.iter() {
            if let Some(t) = model.values.tensor(id) {
                let t = encodings::simulate(t, annotation).unwrap();
                model.values.set_tensor(id, t);
            }
        }
        model
    };
    let float = without_encodings(&on_grid);
    let found = diagnose(&float, &on_grid, &target::Choice::default(), None, batches().into_iter(), &mut |_, _| {}).unwrap();
    for layer in &found.layers {
        assert!(layer.causes.weights_rounded.abs() < 1e-6 && layer.causes.weights_clipped == 0.0, "{layer:?}");
        assert!(layer.alone.loss.is_none());
    }
}

#[test]
fn an_outlier_channel_shows_as_rounding_of_weights_that_a_scale_for_each_channel_mends() {
    let by_tensor = settings(r#"{"bits":8,"granularity":"tensor"}"#);
    let (_, found) = diagnosed(&network(60.0), &by_tensor, &|_| {});
    let layer = of(&found, "b");
    let (_, plain) = diagnosed(&network(1.0), &by_tensor, &|_| {});
    let before = of(&plain, "b");
    assert!(layer.causes.weights_rounded > before.causes.weights_rounded, "{layer:?} {before:?}");
    assert!(layer.by_channel.unwrap() < 0.3 && before.by_channel.unwrap() > 0.4, "{layer:?} {before:?}");
    assert_eq!(of(&found, "sum").by_channel, None);
    let (_, by_channel) = diagnosed(&network(60.0), &settings(r#"{"bits":8}"#), &|_| {});
    assert_eq!(of(&by_channel, "b").by_channel, None);
}

#[test]
fn a_range_cut_short_shows_as_clipping_of_data_and_one_too_wide_as_rounding() {
    let (_, short) = diagnosed(&network(1.0), &settings(r#"{"bits":8}"#), &|model| rescale(model, "a.relu.out", 0.25));
    for node in ["b", "sum"] {
        let layer = of(&short, node);
        assert_eq!(main_cause(&layer.causes), DATA_CLIPPED, "{layer:?}");
        let range = layer.range.unwrap();
        assert!(range.factor > 1.0 && range.leaves < 0.5, "{range:?}");
    }
    assert!(of(&short, "a").causes.data_clipped.abs() < 0.5);
    let (_, wide) = diagnosed(&network(1.0), &settings(r#"{"bits":8}"#), &|model| rescale(model, "a.relu.out", 8.0));
    let layer = of(&wide, "b");
    assert!(layer.causes.data_rounded > 0.9, "{layer:?}");
    assert!(layer.range.unwrap().factor < 0.5, "{layer:?}");
}

/// The squared difference of the first layer's results that 16-bit sums make.
fn taken_from_first(model: &Model) -> f64 {
    let at = |name: &str| model.annotations.encoding(id(model, name)).unwrap();
    let (data, weights) = (Grid::of(at("input")).unwrap(), Grid::of(at("a.w")).unwrap());
    let mut integers = Model::new(17);
    let mut add = |name: &str, tensor: Option<Tensor>| match tensor {
        Some(t) => integers.values.add_constant(name, t),
        None => integers.values.add_named(name),
    };
    let w = quantize_to_int(model.values.tensor(id(model, "a.w")).unwrap(), at("a.w")).unwrap();
    let (x, w, zero, y) = (add("x", None), add("w", Some(w)), add("zero", Some(data.zero_point().unwrap())), add("y", None));
    integers.graph.constants.extend([w, zero]);
    (integers.graph.inputs, integers.graph.outputs) = (vec![x], vec![y]);
    let node = Node::new("ConvInteger", "a", &[x, w, zero], &[y]).with("pads", AttributeValue::Ints(vec![1; 4]));
    integers.graph.nodes.push(node);
    let (step, steps) = (data.scale().item::<f32>().unwrap(), weights.scale().to_f64_vec().unwrap());
    let mut sum = 0.0;
    for batch in batches() {
        let x = quantize_to_int(&batch.unwrap().inputs["input"], at("input")).unwrap();
        let inputs: Named = [("x".to_string(), x)].into();
        let run = |sums| Executor::new(&integers).unwrap().summing(sums).run(&inputs, Mode::FLOAT).unwrap()["y"].to_f64_vec().unwrap();
        let (exact, pairs) = (run(ops::Sums::Exact), run(ops::Sums::Pairs));
        for (i, (a, b)) in exact.iter().zip(&pairs).enumerate() {
            sum += ((a - b) * f64::from(step) * steps[i / 36 % 8]).powi(2);
        }
    }
    sum
}

#[test]
fn what_saturating_sums_take_is_told_where_they_saturate() {
    // Pairs of weights near the end of their grid meet data near the end of theirs.
    let float = network(1.0);
    let (model, found) = diagnosed(&float, &settings(r#"{"bits":8}"#), &|_| {});
    let first = of(&found, "a");
    assert!(first.saturated.unwrap() > 0.1 && of(&found, "sum").saturated.is_none(), "{found:?}");
    // The same from the convolution on integers, with sums of either kind.
    let taken = taken_from_first(&model);
    assert!((taken / first.own.noise / first.saturated.unwrap() - 1.0).abs() < 1e-6, "{taken} {first:?}");
    let (_, seven) = diagnosed(&float, &settings(r#"{"bits":8,"reduce_range":true}"#), &|_| {});
    let (_, four) = diagnosed(&float, &settings(r#"{"bits":4}"#), &|_| {});
    assert!(seven.layers.iter().chain(&four.layers).all(|l| l.saturated.is_none()), "{seven:?}");
    let safe = QuantizeSettings { processor_safe: true, ..settings(r#"{"bits":8}"#) };
    let (_, safe) = diagnosed(&float, &safe, &|_| {});
    assert!(safe.layers.iter().all(|l| l.saturated.is_none()), "{safe:?}");
}

#[test]
fn a_shifted_mean_shows_as_a_shift_that_bias_correction_takes_away() {
    let shifted = |model: &mut Model| {
        let id = id(model, "a.b");
        let more = model.values.tensor(id).unwrap().add_scalar(0.05).unwrap();
        model.values.set_tensor(id, more);
    };
    let (_, found) = diagnosed(&network(1.0), &settings(r#"{"bits":8}"#), &shifted);
    let layer = of(&found, "a");
    assert!(main_cause(&layer.causes) == SHIFT && layer.causes.shift > 0.9, "{layer:?}");
    // Coarse weights shift means, too, and the correction, which adds a bias where there is none, takes most of it away.
    let plain = settings(r#"{"bits":3,"granularity":"tensor"}"#);
    let corrections = vec![Choice::<Corrections>::known("bias_correction")];
    let corrected = QuantizeSettings { corrections, ..plain.clone() };
    let (before, after) = (diagnosed(&network(1.0), &plain, &|_| {}).1, diagnosed(&network(1.0), &corrected, &|_| {}).1);
    let (before, after) = (of(&before, "b"), of(&after, "b"));
    assert!(after.causes.shift < 0.5 * before.causes.shift, "{before:?} {after:?}");
}

#[test]
fn the_float_network_is_found_by_names_or_refused() {
    let float = network(1.0);
    let mut equalized = float.clone();
    let with = QuantizeSettings { corrections: vec![Choice::known("equalize")], ..QuantizeSettings::default() };
    quantize(&mut equalized, &with, batches().into_iter()).unwrap();
    let first = batches().remove(0).unwrap();
    let mut other = float.clone();
    let id = id(&other, "b.w");
    let twice = other.values.tensor(id).unwrap().mul_scalar(2.0).unwrap();
    other.values.set_tensor(id, twice);
    // The same graph, so its constants are taken over.
    let taken = reference(&equalized, &other, &first).unwrap().unwrap();
    assert_eq!(taken.values.tensor(super::tests::id(&taken, "b.w")), other.values.tensor(id));
    assert!(taken.annotations.is_empty());
    // Another graph: a node less.
    let mut shorter = float.clone();
    let relu = shorter.graph.nodes.iter().position(|n| n.name == "sum.relu").unwrap();
    shorter.graph.nodes[relu].op_type = "Sigmoid".into();
    assert_eq!(reference(&equalized, &shorter, &first).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn shares_add_up_for_any_width(weights in 2u32..8, data in 2u32..8, by_channel: bool) {
        let granularity = if by_channel { "channel" } else { "tensor" };
        let mut settings = settings(&format!(r#"{{"bits":{weights},"granularity":"{granularity}"}}"#));
        settings.activations = serde_json::from_str(&format!(r#"{{"bits":{data}}}"#)).unwrap();
        let (_, found) = diagnosed(&network(1.0), &settings, &|_| {});
        for layer in &found.layers {
            prop_assert!((all(&layer.causes).iter().sum::<f64>() - 1.0).abs() < 1e-6, "{:?}", layer);
        }
    }
}
