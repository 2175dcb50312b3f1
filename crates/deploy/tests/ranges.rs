//! Ranges of grids, and their effect on the graph, from quantizing to the lowered file.
use espalier_deploy as deploy;
mod support;

use deploy::runtime::{SessionOptions, Source};
use deploy::{LowerOptions, lower};
use encodings::affine::odd_part;
use graph::{AttributeValue, Model, Node};
use quantize::{CalibrationReport, QuantizeSettings, quantize};
use std::collections::BTreeMap;
use support::{Builder, noise, onnxruntime};
use tensor::{SignalToNoise, Tensor};
use train::{Batch, Executor, Mode, Named};

fn quantized(model: &Model, inputs: &Named, settings: &QuantizeSettings) -> (Model, CalibrationReport) {
    let mut m = model.clone();
    let batch = Batch { inputs: inputs.clone(), ..Batch::default() };
    let report = quantize(&mut m, settings, std::iter::once(Ok(batch))).unwrap();
    (m, report)
}

fn run(model: &Model, inputs: &Named, mode: Mode) -> Vec<f32> {
    Executor::new(model).unwrap().run(inputs, mode).unwrap()["y"].to_f32_vec().unwrap()
}

/// Signal to noise in dB, of each of so many interleaved columns; the worst.
fn worst(signal: &[f32], other: &[f32], columns: usize) -> f64 {
    let of = |c: usize| {
        let mut sum = SignalToNoise::default();
        let pairs = signal.iter().zip(other).skip(c).step_by(columns);
        pairs.for_each(|(x, y)| sum.add(f64::from(*x), f64::from(*x) - f64::from(*y)));
        sum.db()
    };
    (0..columns).map(of).fold(f64::INFINITY, f64::min)
}

/// The lowered file: it computes the simulation to the bit in the interpreter, and in ONNX Runtime if that is installed.
fn deployed(model: &Model, inputs: &Named, simulated: &[f32]) -> Model {
    let lowered = lower(model, &LowerOptions::default()).unwrap().model;
    assert_eq!(run(&lowered, inputs, Mode::FLOAT), simulated);
    if let Some(runtime) = onnxruntime() {
        let file = onnx::to_bytes(&lowered).unwrap();
        let mut session = runtime.load(Source::Bytes(&file), SessionOptions::literal(1)).unwrap();
        let y = session.run(inputs).unwrap()["y"].to_f32_vec().unwrap();
        let largest = simulated.iter().fold(0f32, |a, v| a.max(v.abs()));
        let off = y.iter().zip(simulated).fold(0f32, |a, (x, y)| a.max((x - y).abs()));
        assert!(off <= 1e-5 * largest, "{off} of {largest}");
    }
    lowered
}

fn count(model: &Model, op_type: &str) -> usize {
    model.graph.nodes.iter().filter(|n| n.op_type == op_type).count()
}

fn one(name: &str, tensor: Tensor) -> Named {
    BTreeMap::from([(name.to_string(), tensor)])
}

/// Two convolutions, a Clip to 0..6 behind the first and a Relu behind the second.
fn clipping(amplitude: f32) -> (Model, Named) {
    let mut b = Builder::new(17);
    let x = b.input("x", &[None, Some(3), Some(8), Some(8)]);
    let y = b.output("y", &[None, Some(5), Some(4), Some(4)]);
    let [c, k, d] = ["c", "k", "d"].map(|n| b.inner(n));
    let w = b.constant("w", noise(&[4, 3, 3, 3], 1).mul_scalar(f64::from(amplitude)).unwrap());
    let bias = b.constant("b", noise(&[4], 2));
    let v = b.constant("v", noise(&[5, 4, 3, 3], 3));
    let (low, high) = (b.constant("low", Tensor::scalar(0f32)), b.constant("high", Tensor::scalar(6f32)));
    b.node("Conv", &[x, w, bias], c);
    b.node("Clip", &[c, low, high], k);
    b.node("Conv", &[k, v], d);
    b.node("Relu", &[d], y);
    (b.model, one("x", noise(&[3, 3, 8, 8], 4)))
}

#[test]
fn a_clip_that_the_grid_covers_is_dropped() {
    // Values beyond 6, and values that stay below it.
    for amplitude in [4.0, 0.4] {
        for exact in [true, false] {
            let (model, inputs) = clipping(amplitude);
            let (m, _) = quantized(&model, &inputs, &QuantizeSettings { exact, ..QuantizeSettings::default() });
            let grid = &m.annotations.encoding(m.find("k").unwrap()).unwrap().parameters;
            let (scale, zero) = (grid["scale"].item::<f32>().unwrap(), grid["zero_point"].item::<f32>().unwrap());
            // The last step is the bound, or below it if no value gets that far.
            assert!(zero == 0.0 && 254.5 * scale <= 6.0, "{scale} {zero}");
            let simulated = run(&m, &inputs, Mode::SIMULATED);
            assert!(worst(&run(&model, &inputs, Mode::FLOAT), &simulated, 1) > 30.0);
            let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
            assert_eq!((count(&lowered, "Clip"), count(&lowered, "Relu"), count(&lowered, "Conv")), (0, 0, 2));
            assert_eq!(run(&lowered, &inputs, Mode::FLOAT), simulated);
        }
    }
}

/// A grid that extends beyond the bounds needs the Clip.
#[test]
fn a_clip_that_the_grid_does_not_cover_stays() {
    let (model, inputs) = clipping(4.0);
    let (mut m, _) = quantized(&model, &inputs, &QuantizeSettings::default());
    let k = m.find("k").unwrap();
    if let Some(encoding) = &mut m.annotations.entry(k).encoding {
        encoding.parameters.insert("scale".into(), Tensor::scalar(7f32 / 256.0));
    }
    let simulated = run(&m, &inputs, Mode::SIMULATED);
    let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
    assert_eq!((count(&lowered, "Clip"), count(&lowered, "Relu")), (1, 0));
    assert_eq!(run(&lowered, &inputs, Mode::FLOAT), simulated);
}

#[test]
fn what_is_padded_with_lies_on_the_grid() {
    let constants = [(0.0, "Conv"), (0.3, "Conv"), (5.0, "Conv"), (-2.0, "Conv"), (f32::NEG_INFINITY, "MaxPool"), (f32::MIN, "MaxPool")];
    let cases = constants.map(|(constant, reader)| ("constant", constant, reader));
    for (mode, constant, reader) in cases.into_iter().chain([("reflect", 0.0, "Conv"), ("edge", 0.0, "Conv")]) {
        let mut b = Builder::new(17);
        let x = b.input("x", &[None, Some(3), Some(4), Some(4)]);
        let y = b.output("y", &[None, Some(2)]);
        let [c, s, p, z, f] = ["c", "s", "p", "z", "f"].map(|n| b.inner(n));
        let w = b.constant("w", noise(&[4, 3, 1, 1], 1));
        let pads = b.constant("pads", Tensor::vector(vec![0i64, 0, 1, 1, 0, 0, 1, 1]));
        let value = b.constant("value", Tensor::scalar(constant));
        b.node("Conv", &[x, w], c);
        b.node("Sigmoid", &[c], s);
        b.push(Node::new("Pad", "pad", &[s, pads, value], &[p]).with("mode", AttributeValue::String(mode.into())));
        if reader == "Conv" {
            let v = b.constant("v", noise(&[4, 4, 3, 3], 2));
            b.node("Conv", &[p, v], z);
        } else {
            let pool = Node::new("MaxPool", "pool", &[p], &[z]).with("kernel_shape", AttributeValue::Ints(vec![3, 3]));
            b.push(pool.with("strides", AttributeValue::Ints(vec![1, 1])));
        }
        b.node("Flatten", &[z], f);
        let head = b.constant("head", noise(&[64, 2], 3));
        b.node("Gemm", &[f, head], y);
        let inputs = one("x", noise(&[16, 3, 4, 4], 4));
        let (m, _) = quantized(&b.model, &inputs, &QuantizeSettings::default());
        let simulated = run(&m, &inputs, Mode::SIMULATED);
        let db = worst(&run(&b.model, &inputs, Mode::FLOAT), &simulated, 1);
        // A grid from -2 to 1 is three times as coarse as one from 0 to 1, one to 5 five times.
        assert!(db > 25.0, "{mode} {constant} {reader}: {db} dB");
        deployed(&m, &inputs, &simulated);
    }
}

/// The channels of a batched product are its last axis; columns of very different size show it.
#[test]
fn a_batched_weight_has_a_scale_for_each_column() {
    let mut b = Builder::new(17);
    let x = b.input("x", &[None, Some(2), Some(5), Some(6)]);
    let y = b.output("y", &[None, Some(2), Some(5), Some(3)]);
    let sizes = Tensor::vector(vec![1f32, 0.01, 10.0]);
    let w = b.constant("w", noise(&[2, 6, 3], 1).mul(&sizes).unwrap());
    b.node("MatMul", &[x, w], y);
    let inputs = one("x", noise(&[8, 2, 5, 6], 2));
    let (m, _) = quantized(&b.model, &inputs, &QuantizeSettings::default());
    let weight = m.annotations.encoding(m.find("w").unwrap()).unwrap();
    assert_eq!(weight.parameters["scale"].shape(), [3]);
    // The result has one grid for all columns; the product itself is compared.
    let mut product = m.clone();
    let y = product.find("y").unwrap();
    product.annotations.entry(y).encoding = None;
    let db = worst(&run(&b.model, &inputs, Mode::FLOAT), &run(&product, &inputs, Mode::SIMULATED), 3);
    assert!(db > 35.0, "{db} dB");
    deployed(&m, &inputs, &run(&m, &inputs, Mode::SIMULATED));
}

/// Scores of queries and keys with a mask above the diagonal: a constant, or made from an input of zeros and ones.
fn attention(mask: Option<f32>, made: Option<f32>) -> (Model, Named) {
    let (steps, width) = (6usize, 16usize);
    let mut b = Builder::new(17);
    let x = b.input("x", &[None, Some(steps), Some(width)]);
    let mut inputs = one("x", noise(&[32, steps, width], 9));
    let [q, k, v, t, s, a, p, o, f] = ["q", "k", "v", "t", "s", "a", "p", "o", "f"].map(|n| b.inner(n));
    for (i, out) in [q, k, v].into_iter().enumerate() {
        let w = b.constant(&format!("w{i}"), noise(&[width, width], i as u32 + 1));
        b.node("MatMul", &[x, w], out);
    }
    b.push(Node::new("Transpose", "turn", &[k], &[t]).with("perm", AttributeValue::Ints(vec![0, 2, 1])));
    b.node("MatMul", &[q, t], s);
    let above = |masked: f32| (0..steps * steps).map(|i| if i % steps > i / steps { masked } else { 0.0 }).collect::<Vec<f32>>();
    let term = match (mask, made) {
        (Some(masked), _) => b.constant("mask", Tensor::new(above(masked), [steps, steps]).unwrap()),
        (None, masked) => {
            let seen = b.input("seen", &[Some(steps), Some(steps)]);
            let ones: Vec<f32> = above(1.0).iter().map(|v| 1.0 - v).collect();
            inputs.insert("seen".into(), Tensor::new(ones, [steps, steps]).unwrap());
            let (one, low) = (b.constant("one", Tensor::scalar(1f32)), b.constant("low", Tensor::scalar(masked.unwrap_or(-1e4))));
            let [hidden, mask] = ["hidden", "mask"].map(|n| b.inner(n));
            b.node("Sub", &[one, seen], hidden);
            b.node("Mul", &[hidden, low], mask);
            mask
        }
    };
    b.node("Add", &[s, term], a);
    b.push(Node::new("Softmax", "softmax", &[a], &[p]).with("axis", AttributeValue::Int(-1)));
    b.node("MatMul", &[p, v], o);
    b.node("Flatten", &[o], f);
    let y = b.output("y", &[None, Some(5)]);
    let head = b.constant("head", noise(&[steps * width, 5], 5));
    b.node("Gemm", &[f, head], y);
    (b.model, inputs)
}

#[test]
fn masked_positions_do_not_count() {
    let masks = [-1e4, f32::MIN, f32::NEG_INFINITY];
    let all = masks.map(|m| (Some(m), None)).into_iter().chain([(None, Some(-1e4)), (None, Some(f32::MIN))]);
    let (plain, inputs) = attention(Some(0.0), None);
    let (m, report) = quantized(&plain, &inputs, &QuantizeSettings::default());
    assert_eq!(report.float_parts, []);
    let without = worst(&run(&plain, &inputs, Mode::FLOAT), &run(&m, &inputs, Mode::SIMULATED), 1);
    for (mask, made) in all {
        let (model, inputs) = attention(mask, made);
        let (m, report) = quantized(&model, &inputs, &QuantizeSettings::default());
        let simulated = run(&m, &inputs, Mode::SIMULATED);
        let db = worst(&run(&model, &inputs, Mode::FLOAT), &simulated, 1);
        assert!(db > without - 3.0, "{mask:?} {made:?}: {db} dB, without a mask {without}");
        let float: Vec<&str> = report.float_parts.iter().map(|p| p.op_type.as_str()).collect();
        assert!(float.contains(&"Add") && float.contains(&"Softmax"), "{float:?}");
        assert!(report.float_parts.iter().all(|p| p.op_type == "Sub" || p.reason.contains("mask")), "{:?}", report.float_parts);
        assert_eq!(report.warnings, [] as [&str; 0]);
        // A runtime has its own Softmax.
        let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
        assert_eq!(run(&lowered, &inputs, Mode::FLOAT), simulated);
    }
    // The same with a subtraction.
    let (mut model, inputs) = attention(Some(-1e4), None);
    let mask = model.find("mask").unwrap();
    let negated = model.values.tensor(mask).unwrap().mul_scalar(-1.0).unwrap();
    model.values.set_tensor(mask, negated);
    model.graph.nodes.iter_mut().filter(|n| n.inputs.contains(&Some(mask))).for_each(|n| n.op_type = "Sub".into());
    let (m, _) = quantized(&model, &inputs, &QuantizeSettings::default());
    let db = worst(&run(&model, &inputs, Mode::FLOAT), &run(&m, &inputs, Mode::SIMULATED), 1);
    assert!(db > without - 3.0, "subtracted: {db} dB, without a mask {without}");
    // A learned bias of ordinary size is no mask.
    let (model, inputs) = attention(Some(-10.0), None);
    assert_eq!(quantized(&model, &inputs, &QuantizeSettings::default()).1.float_parts, []);
}

/// HardSwish as exporters write it: the dividend is rounded once, on the quotient's grid, and no node in the file divides.
#[test]
fn a_division_by_a_number_only_changes_the_scale() {
    let mut b = Builder::new(17);
    let [x, z] = ["x", "z"].map(|n| b.input(n, &[None, Some(4)]));
    let y = b.output("y", &[None, Some(3)]);
    let [product, quotient] = ["product", "quotient"].map(|n| b.inner(n));
    let (six, w) = (b.constant("six", Tensor::scalar(6f32)), b.constant("w", noise(&[4, 3], 1)));
    b.node("Mul", &[x, z], product);
    b.node("Div", &[product, six], quotient);
    b.node("MatMul", &[quotient, w], y);
    let inputs = BTreeMap::from([("x".to_string(), noise(&[64, 4], 2)), ("z".to_string(), noise(&[64, 4], 3))]);
    let float = run(&b.model, &inputs, Mode::FLOAT);
    for exact in [true, false] {
        let settings = QuantizeSettings { exact, ..QuantizeSettings::default() };
        let (m, report) = quantized(&b.model, &inputs, &settings);
        assert_eq!(report.float_parts, []);
        let simulated = run(&m, &inputs, Mode::SIMULATED);
        assert!(worst(&float, &simulated, 1) > 35.0);
        let lowered = lower(&m, &LowerOptions::default()).unwrap();
        assert!(lowered.model.graph.nodes.iter().all(|n| n.op_type != "Div"));
        assert_eq!(lowered.float_parts, []);
        let file = run(&lowered.model, &inputs, Mode::FLOAT);
        match exact {
            true => assert_eq!(file, simulated),
            false => assert!(worst(&simulated, &file, 1) > 60.0),
        }
        // If the grids differ, by training or by hand, the division stays.
        let mut apart = m.clone();
        let encoding = apart.annotations.entry(apart.find("product").unwrap()).encoding.as_mut().unwrap();
        let scale = encoding.parameters["scale"].mul_scalar(1.5).unwrap();
        encoding.parameters.insert("scale".into(), scale);
        let kept = lower(&apart, &LowerOptions::default()).unwrap().model;
        assert_eq!(kept.graph.nodes.iter().filter(|n| n.op_type == "Div").count(), 1);
        assert_eq!(run(&kept, &inputs, Mode::FLOAT), run(&apart, &inputs, Mode::SIMULATED));
    }
}

/// A mask that cannot be distinguished from scores is reported with a remedy.
#[test]
fn what_may_be_a_mask_is_named() {
    let mut b = Builder::new(17);
    let x = b.input("x", &[None, Some(4)]);
    let y = b.output("y", &[None, Some(4)]);
    let s = b.inner("s");
    let w = b.constant("w", noise(&[4, 4], 1));
    b.node("MatMul", &[x, w], s);
    b.push(Node::new("Softmax", "softmax", &[s], &[y]).with("axis", AttributeValue::Int(-1)));
    let mut x = noise(&[8, 4], 2).into_vec::<f32>().unwrap();
    x[3] = -1e5;
    let inputs = one("x", Tensor::new(x, [8, 4]).unwrap());
    let (_, report) = quantized(&b.model, &inputs, &QuantizeSettings::default());
    assert!(report.warnings.iter().any(|w| w.contains("'x'") && w.contains("skip") && w.contains("MatMul_0")), "{:?}", report.warnings);
}

/// A constant that an integer node and a float node share: the float node's `1 - 1` stays 0.
#[test]
fn a_shared_constant_is_coarsened_for_integers_alone() {
    let mut b = Builder::new(17);
    let x = b.input("x", &[None, Some(4)]);
    let seen = b.input("seen", &[None, Some(4)]);
    let y = b.output("y", &[None, Some(4)]);
    let z = b.output("z", &[None, Some(4)]);
    let a = b.inner("a");
    let shared = b.constant("shared", Tensor::vector(vec![1f32, 0.77, 0.123, 1.0]));
    let w = b.constant("w", noise(&[4, 4], 1));
    b.node("Add", &[x, shared], a);
    b.node("MatMul", &[a, w], z);
    b.node("Sub", &[shared, seen], y);
    let seen = Tensor::new([1f32, 0.77, 0.123, 0.5].repeat(8), [8, 4]).unwrap();
    let inputs = BTreeMap::from([("x".to_string(), noise(&[8, 4], 2)), ("seen".to_string(), seen)]);
    let (m, _) = quantized(&b.model, &inputs, &QuantizeSettings::default());
    assert_eq!(run(&m, &inputs, Mode::SIMULATED)[..4], [0.0, 0.0, 0.0, 0.5]);
    let grid = m.graph.nodes.iter().find(|n| n.op_type == "Add").and_then(|n| n.input(1)).unwrap();
    assert!(m.annotations.encoding(grid).is_some() && m.annotations.encoding(m.find("shared").unwrap()).is_none());
}

/// Precision of scales follows from the length of the sums; without exactness it is full.
#[test]
fn longer_sums_have_shorter_scales() {
    let layer = |products: usize, exact: bool| {
        let mut b = Builder::new(17);
        let x = b.input("x", &[None, Some(products)]);
        let y = b.output("y", &[None, Some(8)]);
        let w = b.constant("w", noise(&[products, 8], 1));
        b.node("MatMul", &[x, w], y);
        let inputs = one("x", noise(&[16, products], 2));
        let (m, report) = quantized(&b.model, &inputs, &QuantizeSettings { exact, ..QuantizeSettings::default() });
        let simulated = run(&m, &inputs, Mode::SIMULATED);
        let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
        assert_eq!(run(&lowered, &inputs, Mode::FLOAT), simulated);
        assert_eq!(report.warnings, [] as [&str; 0]);
        let largest = |name: &str| {
            let scales = m.annotations.encoding(m.find(name).unwrap()).unwrap().parameters["scale"].to_f32_vec().unwrap();
            scales.into_iter().map(odd_part).max().unwrap()
        };
        (largest("x"), largest("w"))
    };
    let ((x, w), (long_x, long_w)) = (layer(9, true), layer(8192, true));
    assert!(x <= 31 && w <= 31 && long_x * long_w < 64 && x * w > long_x * long_w, "{x} {w}, {long_x} {long_w}");
    assert!(layer(9, false).1 > 31);
}
