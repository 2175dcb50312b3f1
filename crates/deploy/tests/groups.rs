//! Weights with a scale for each group of elements: the file computes the simulation, in ONNX Runtime too, and is read back; so are files of
//! other tools.
use espalier_deploy as deploy;
mod support;

use deploy::runtime::{SessionOptions, Source};
use deploy::{LowerOptions, lift, lower, measure};
use encodings::affine::{Affine, AffineSettings, Blocks};
use encodings::{Along, Granularity};
use graph::{AttributeValue, Extra, Model, Node, Opset, ValueId};
use quantize::{ActivationSettings, QuantizeSettings, quantize};
use std::collections::BTreeMap;
use support::{Builder, dump, noise, onnxruntime};
use technique::Settings;
use tensor::{DType, Tensor};
use train::{Batch, Executor, Mode, Named};

/// Two convolutions (the second one in two groups), a product and a Gemm of each kind.
fn network() -> Model {
    let mut b = Builder::new(17);
    let x = b.input("x", &[None, Some(3), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(6)]);
    let [conv, relu, grouped, mean, flat, product, first] =
        ["conv", "relu", "grouped", "mean", "flat", "product", "first"].map(|n| b.inner(n));
    let [w0, w1] = [b.constant("w0", noise(&[8, 3, 3, 3], 1)), b.constant("w1", noise(&[8, 4, 3, 3], 2))];
    let b0 = b.constant("b0", noise(&[8], 3));
    let [w2, w3, w4] = [b.constant("w2", noise(&[8, 20], 4)), b.constant("w3", noise(&[20, 16], 5)), b.constant("w4", noise(&[6, 16], 6))];
    let [b3, b4] = [b.constant("b3", noise(&[16], 7)), b.constant("b4", noise(&[6], 8))];
    let pads = || AttributeValue::Ints(vec![1, 1, 1, 1]);
    b.push(Node::new("Conv", "conv", &[x, w0, b0], &[conv]).with("pads", pads()));
    b.node("Relu", &[conv], relu);
    b.push(Node::new("Conv", "grouped", &[relu, w1], &[grouped]).with("group", AttributeValue::Int(2)).with("pads", pads()));
    b.node("GlobalAveragePool", &[grouped], mean);
    b.push(Node::new("Flatten", "flatten", &[mean], &[flat]));
    b.push(Node::new("MatMul", "matmul", &[flat, w2], &[product]));
    b.push(Node::new("Gemm", "gemm", &[product, w3, b3], &[first]));
    b.push(Node::new("Gemm", "gemm_t", &[first, w4, b4], &[y]).with("transB", AttributeValue::Int(1)));
    b.model
}

fn input() -> Named {
    BTreeMap::from([("x".to_string(), noise(&[4, 3, 6, 6], 9))])
}

fn run(model: &Model, mode: Mode) -> Named {
    Executor::new(model).unwrap().run(&input(), mode).unwrap()
}

fn settings(bits: u32, size: usize, activations: ActivationSettings) -> QuantizeSettings {
    let weights = Affine { bits, granularity: Some(Granularity::Group(size)), ..Affine::default() }.choice().unwrap();
    QuantizeSettings { weights, activations, ..QuantizeSettings::default() }
}

fn quantized(settings: &QuantizeSettings) -> Model {
    let mut model = network();
    quantize(&mut model, settings, [Ok(Batch { inputs: input(), ..Batch::default() })].into_iter()).unwrap();
    model
}

fn described(m: &Model, name: &str) -> String {
    encodings::describe(m.annotations.encoding(m.find(name).unwrap()).unwrap())
}

/// Outputs of a file in ONNX Runtime, literal and by default.
fn in_runtime(model: &Model, how: &str, check: impl Fn(&[f32], bool)) {
    let Some(runtime) = onnxruntime() else { return };
    let file = onnx::to_bytes(model).unwrap();
    for (options, literal) in [(SessionOptions::literal(1), true), (SessionOptions::default_arithmetic(1), false)] {
        let mut session = runtime.load(Source::Bytes(&file), options).unwrap_or_else(|e| panic!("{how}: {e}\n{}", dump(model)));
        check(&session.run(&input()).unwrap()["y"].to_f32_vec().unwrap(), literal);
    }
}

fn near(a: &[f32], b: &[f32], most: f32) -> bool {
    let top = b.iter().fold(0f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= most * top)
}

#[test]
fn each_group_along_the_sums_has_a_scale_and_the_file_computes_the_simulation() {
    for (bits, size) in [(4, 16), (4, 5), (8, 32), (3, 7), (2, 4), (16, 16)] {
        for activations in [ActivationSettings::float(), ActivationSettings::default()] {
            let float = activations.stored().is_none();
            let m = quantized(&settings(bits, size, activations));
            for (weight, scales) in [
                ("w0", vec![8, 27usize.div_ceil(size)]),
                ("w1", vec![8, 36usize.div_ceil(size)]),
                ("w2", vec![8usize.div_ceil(size), 20]),
                ("w3", vec![20usize.div_ceil(size), 16]),
                ("w4", vec![6, 16usize.div_ceil(size)]),
            ] {
                let encoding = m.annotations.encoding(m.find(weight).unwrap()).unwrap();
                assert_eq!(encoding.parameters["scale"].shape(), scales, "{weight} {size}");
            }
            assert_eq!(described(&m, "w3"), format!("int{bits} per group of {}", size.min(20)));
            let simulated = run(&m, Mode::SIMULATED);
            for decode_once in [false, true] {
                let how = format!("{bits} bits, {size}, decode_once {decode_once}, float {float}");
                let lowered = lower(&m, &LowerOptions { decode_once, ..LowerOptions::default() }).unwrap().model;
                assert_eq!(run(&lowered, Mode::FLOAT), simulated, "{how}");
                let operators: Vec<&str> = lowered.graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
                // Only the product's weight in 2 bits is cast in front of quantized data.
                let cast = (decode_once && float) || bits == 2;
                assert_eq!(operators.contains(&"Cast"), cast, "{how}: {operators:?}");
                let wanted = simulated["y"].to_f32_vec().unwrap();
                // With float data ONNX Runtime's product of 4-bit blocks rounds the data to 8 bits; steps of the data by an ulp.
                in_runtime(&lowered, &how, |y, literal| {
                    let most = if literal && float { 1e-5 } else { 0.02 };
                    assert!(near(y, &wanted, most), "{how} {literal}: {y:?} {wanted:?}\n{}", dump(&lowered));
                });
                let mut lifted = onnx::from_bytes(&onnx::to_bytes(&lowered).unwrap(), None).unwrap();
                lift(&mut lifted).unwrap();
                for name in ["w0", "w1", "w2", "w3", "w4"] {
                    let of = |m: &Model| m.find(name).and_then(|id| m.annotations.encoding(id)).map(encodings::decode);
                    let (again, first) = (of(&lifted), of(&m));
                    let same = match (&again, &first) {
                        // A group is no longer than what there is.
                        (Some(Ok(a)), Some(Ok(b))) => like(a) == like(b),
                        _ => false,
                    };
                    assert!(same, "{how} {name}: {again:?} {first:?}\n{}", dump(&lifted));
                }
                assert_eq!(run(&lifted, Mode::SIMULATED), simulated, "{how}");
                let counted = measure::parameters(&lowered).unwrap();
                assert_eq!(counted.weights.len(), 5, "{how}: {counted:?}");
                let w3 = counted.weights.iter().find(|w| w.name.contains("w3")).unwrap();
                let scales = 20usize.div_ceil(size) * 16;
                let stored = (320 * AffineSettings::weight(bits, None).dtype().bits()).div_ceil(8);
                let each = if cast && float { 2 } else { 4 };
                assert_eq!(w3.bytes, (stored + each * scales) as u64, "{how}: {w3:?}");
            }
        }
    }
}

/// Scales, zero points and how far groups reach at most.
fn like(decode: &encodings::Decode) -> (Vec<f32>, Vec<i64>, Option<usize>) {
    match decode {
        encodings::Decode::Affine { scale, zero_point, blocks, .. } => {
            (scale.to_f32_vec().unwrap(), zero_point.to_i64_vec().unwrap(), blocks.map(|b| b.along.axis))
        }
        encodings::Decode::Table { .. } => (vec![], vec![], None),
    }
}

#[test]
fn masked_weights_stay_zero_in_groups() {
    let mut model = network();
    let id = model.find("w1").unwrap();
    let live: Vec<bool> = (0..288).map(|i| i % 4 == 1).collect();
    model.annotations.entry(id).mask = Some(Tensor::new(live, [8, 4, 3, 3]).unwrap());
    quantize(&mut model, &settings(4, 8, ActivationSettings::float()), [Ok(Batch { inputs: input(), ..Batch::default() })].into_iter())
        .unwrap();
    let lowered = lower(&model, &LowerOptions::default()).unwrap().model;
    assert_eq!(run(&lowered, Mode::FLOAT), run(&model, Mode::SIMULATED));
    let weights = measure::parameters(&lowered).unwrap().weights;
    let w1 = weights.iter().find(|w| w.name.contains("w1")).unwrap();
    assert!(w1.zeros >= 216 && w1.elements == 288, "{w1:?}");
}

/// A product whose weight is decoded by a node of another tool.
fn foreign(make: impl Fn(&mut Builder, ValueId, ValueId)) -> Model {
    let mut b = Builder::new(21);
    b.model.opsets.push(Opset { domain: "com.microsoft".into(), version: 1, extra: Extra::default() });
    let x = b.input("x", &[None, Some(3), Some(6), Some(6)]);
    let y = b.output("y", &[None, Some(5)]);
    let flat = b.inner("flat");
    b.push(Node::new("Flatten", "flatten", &[x], &[flat]));
    make(&mut b, flat, y);
    b.model
}

fn lifted(model: &Model, bits: u32, signed: bool) {
    let before = run(model, Mode::FLOAT);
    let mut lifted = model.clone();
    assert_eq!(lift(&mut lifted).unwrap(), 1, "{}", dump(&lifted));
    let product = lifted.graph.nodes.iter().find(|n| n.op_type == "MatMul").unwrap_or_else(|| panic!("{}", dump(&lifted)));
    let encoding = lifted.annotations.encoding(product.input(1).unwrap()).unwrap();
    let settings = AffineSettings::of(encoding).unwrap();
    assert_eq!((settings.bits, settings.signed), (bits, signed));
    assert_eq!(settings.blocks, Some(Blocks { along: Along { axis: 0, flat: false }, size: 32 }));
    let close = |a: &Named| near(&a["y"].to_f32_vec().unwrap(), &before["y"].to_f32_vec().unwrap(), 1e-6);
    assert!(close(&run(&lifted, Mode::SIMULATED)) && close(&run(&lifted, Mode::FLOAT)));
    let lowered = lower(&lifted, &LowerOptions::default()).unwrap().model;
    assert!(close(&run(&lowered, Mode::FLOAT)));
    in_runtime(&lowered, "lifted", |y, _| assert!(near(y, &before["y"].to_f32_vec().unwrap(), 0.02)));
}

#[test]
fn a_product_behind_dequantize_linear_with_blocks_is_read() {
    for zero_points in [false, true] {
        let model = foreign(|b, flat, y| {
            let dtype = if zero_points { DType::U4 } else { DType::I4 };
            let low = if zero_points { 0 } else { -8 };
            let integers = Tensor::new((0..540).map(|i| low + (i * 7) % 16).collect::<Vec<i64>>(), [108, 5]).unwrap().cast(dtype).unwrap();
            let scale = noise(&[4, 5], 3).abs().unwrap().add_scalar(0.1).unwrap();
            let w = b.constant("q", integers);
            let mut inputs = vec![w, b.constant("s", scale)];
            if zero_points {
                let zeros = Tensor::new((0..20).map(|i| i % 16).collect::<Vec<i64>>(), [4, 5]).unwrap().cast(dtype).unwrap();
                inputs.push(b.constant("z", zeros));
            }
            let decoded = b.inner("decoded");
            let node = Node::new("DequantizeLinear", "dq", &inputs, &[decoded]);
            b.push(node.with("axis", AttributeValue::Int(0)).with("block_size", AttributeValue::Int(32)));
            b.node("MatMul", &[flat, decoded], y);
        });
        lifted(&model, 4, !zero_points);
    }
}

#[test]
fn a_product_in_few_bits_of_onnx_runtime_is_read() {
    for (bits, zero_points, bias) in [(4, false, false), (4, true, true), (8, false, true), (8, true, false)] {
        let model = foreign(|b, flat, y| {
            let bytes = 32 * bits / 8;
            let packed: Vec<u8> = (0..5 * 4 * bytes).map(|i| (i * 37 % 251) as u8).collect();
            let w = b.constant("packed", Tensor::new(packed, [5, 4, bytes]).unwrap());
            let s = b.constant("s", noise(&[20], 3).abs().unwrap().add_scalar(0.1).unwrap());
            let mut node = Node::new("MatMulNBits", "product", &[flat, w, s], &[y]);
            node.domain = "com.microsoft".into();
            if zero_points {
                let zeros: Vec<u8> = (0..5 * 4 * bits / 8).map(|i| (i * 53 % 256) as u8).collect();
                node.inputs.push(Some(b.constant("z", Tensor::vector(zeros))));
            }
            if bias {
                node.inputs.resize(5, None);
                node.inputs.push(Some(b.constant("bias", noise(&[5], 4))));
            }
            let all = [("K", 108), ("N", 5), ("bits", bits as i64), ("block_size", 32)];
            b.push(all.into_iter().fold(node, |n, (name, v)| n.with(name, AttributeValue::Int(v))));
        });
        lifted(&model, bits as u32, !zero_points);
    }
}

/// ONNX Runtime's own quantizer writes negative scales, and zero for blocks of zeros: such a product stays what it is, and runs.
#[test]
fn blocks_that_no_encoding_holds_stay_as_they_are() {
    for odd in [-0.2f32, 0.0] {
        let mut scales = noise(&[20], 3).abs().unwrap().add_scalar(0.1).unwrap().to_f32_vec().unwrap();
        scales[7] = odd;
        let products = foreign(|b, flat, y| {
            let packed: Vec<u8> = (0..5 * 4 * 16).map(|i| (i * 37 % 251) as u8).collect();
            let w = b.constant("packed", Tensor::new(packed, [5, 4, 16]).unwrap());
            let s = b.constant("s", Tensor::vector(scales.clone()));
            let mut node = Node::new("MatMulNBits", "product", &[flat, w, s], &[y]);
            node.domain = "com.microsoft".into();
            let all = [("K", 108), ("N", 5), ("bits", 4), ("block_size", 32)];
            b.push(all.into_iter().fold(node, |n, (name, v)| n.with(name, AttributeValue::Int(v))));
        });
        let decoded = foreign(|b, flat, y| {
            let integers =
                Tensor::new((0..540).map(|i| (i * 7) % 16 - 8).collect::<Vec<i64>>(), [108, 5]).unwrap().cast(DType::I4).unwrap();
            let [w, s] = [b.constant("q", integers), b.constant("s", Tensor::new(scales.clone(), [4, 5]).unwrap())];
            let weight = b.inner("decoded");
            let node = Node::new("DequantizeLinear", "dq", &[w, s], &[weight]);
            b.push(node.with("axis", AttributeValue::Int(0)).with("block_size", AttributeValue::Int(32)));
            b.node("MatMul", &[flat, weight], y);
        });
        for (model, kept) in [(products, "MatMulNBits"), (decoded, "DequantizeLinear")] {
            let before = run(&model, Mode::FLOAT);
            let mut lifted = model;
            lift(&mut lifted).unwrap();
            assert!(lifted.graph.nodes.iter().any(|n| n.op_type == kept), "{kept} with {odd}");
            assert_eq!(run(&lifted, Mode::FLOAT), before, "{kept} with {odd}");
        }
    }
}

/// Sixteen bits of data: the layers compute in float between quantizers, so what differs is the last place of a sum, and with it now and then
/// a step of 2^-16.
#[test]
fn sixteen_bits_are_stored_and_run() {
    for (weights, data) in [(8, 16), (16, 16), (12, 10), (16, 8)] {
        let how = format!("W{weights}A{data}");
        let settings = QuantizeSettings {
            weights: Affine { bits: weights, ..Affine::default() }.choice().unwrap(),
            activations: ActivationSettings { bits: data, ..ActivationSettings::default() },
            ..QuantizeSettings::default()
        };
        let m = quantized(&settings);
        let (float, simulated) = (run(&m, Mode::FLOAT), run(&m, Mode::SIMULATED));
        let [float, wanted] = [float, simulated].map(|y| y["y"].to_f32_vec().unwrap());
        let narrow = weights.min(data);
        assert!(near(&wanted, &float, 24.0 * 2f32.powi(-(narrow as i32))), "{how}: {wanted:?} {float:?}");
        assert!(m.annotations.encoding(m.find("b0").unwrap()).is_none(), "{how}");
        let lowered = lower(&m, &LowerOptions::default()).unwrap().model;
        assert_eq!(lowered.onnx_opset(), 21, "{how}");
        // A few steps of the coarser grid on the way: see above.
        let most = 8.0 * 2f32.powi(-(data as i32));
        assert!(near(&run(&lowered, Mode::FLOAT)["y"].to_f32_vec().unwrap(), &wanted, most), "{how}");
        in_runtime(&lowered, &how, |y, literal| {
            // By default products with an 8-bit weight round wider data to 8 bits.
            let most = if !literal && weights <= 8 && data > 8 { 0.03 } else { most };
            assert!(near(y, &wanted, most), "{how} {literal}: {y:?} {wanted:?}\n{}", dump(&lowered));
        });
        let mut lifted = onnx::from_bytes(&onnx::to_bytes(&lowered).unwrap(), None).unwrap();
        lift(&mut lifted).unwrap();
        assert!(near(&run(&lifted, Mode::SIMULATED)["y"].to_f32_vec().unwrap(), &wanted, most), "{how}");
    }
}
