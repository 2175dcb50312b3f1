use super::*;
use proptest::prelude::*;
use std::path::Path;
use tensor::DType;
use unpack::{Kind, Span};

/// A file with tensors of every type that has a model, of values as networks have them.
fn file() -> Vec<u8> {
    let mut model = graph_of(&[
        ("int8", DType::I8, vec![16, 8, 3, 3]),
        ("uint8", DType::U8, vec![8, 40]),
        ("int4", DType::I4, vec![8, 9]),
        ("uint4", DType::U4, vec![6, 10]),
        ("int2", DType::I2, vec![8, 16]),
        ("uint2", DType::U2, vec![10, 16]),
        ("float", DType::F32, vec![30, 40]),
        ("wide", DType::F64, vec![20]),
        ("half", DType::F16, vec![4, 30]),
        ("bias", DType::I32, vec![40]),
        ("shape", DType::I64, vec![5]),
        ("again", DType::I8, vec![16, 8, 3, 3]),
        ("few", DType::F32, vec![3]),
    ]);
    let constants = model.graph.constants.clone();
    model.graph.outputs = constants;
    onnx::to_bytes(&model).unwrap()
}

fn graph_of(tensors: &[(&str, DType, Vec<usize>)]) -> graph::Model {
    let mut model = graph::Model::new(25);
    for (name, dtype, shape) in tensors {
        let mut state = 9u32;
        let count: usize = shape.iter().product();
        let most = if dtype.bits() < 8 { 1 << (dtype.bits() - 1) } else { 40 };
        let values: Vec<f32> = (0..count)
            .map(|_| {
                let mut draw = || {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 8) as f32 / (1 << 24) as f32 - 0.5
                };
                let bell = draw() + draw() + draw();
                if *dtype == DType::F32 { bell } else { (bell * most as f32 * 0.6).trunc().abs() }
            })
            .collect();
        let tensor = tensor::Tensor::new(values, shape.clone()).unwrap().cast(*dtype).unwrap();
        let id = model.values.add_constant(*name, tensor);
        model.graph.constants.push(id);
    }
    model
}

#[test]
fn a_file_comes_back_as_it_was() {
    let file = file();
    let (archive, sizes) = pack(&file).unwrap();
    assert_eq!(unpack(&archive).unwrap(), file);
    assert_eq!(unpack::unpack(&archive).unwrap(), file);
    assert_eq!((sizes.file, sizes.archive), (file.len(), archive.len()));
    assert!(archive.len() < file.len() * 9 / 10, "{sizes:?}");
    // The small tensor stays in the structure.
    let layout = layout(&file).unwrap();
    let kinds: Vec<Kind> = layout.spans.iter().map(|s| s.kind).collect();
    assert_eq!(kinds[0], Kind::Integers { bits: 8, unsigned: false });
    assert!(kinds.contains(&Kind::Integers { bits: 2, unsigned: true }));
    assert!(!layout.spans.iter().any(|s| s.length == 12));
    // What is there a second time costs nearly nothing.
    let numbers = |tensors: &[(&str, DType, Vec<usize>)]| {
        let model = graph_of(tensors);
        pack(&onnx::to_bytes(&model).unwrap()).unwrap().1.coded_numbers
    };
    let int8 = |name| (name, DType::I8, vec![16, 8, 3, 3]);
    let (once, twice) = (numbers(&[int8("a")]), numbers(&[int8("a"), int8("b")]));
    assert!(twice < once + 40, "{once} and {twice} bytes");
}

#[test]
fn real_models_come_back_and_are_smaller_than_general_compressors_make_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/models");
    // Bytes of `xz -9`.
    for (name, xz) in [("mlperf_ic_resnet8", 288_916), ("mlperf_kws_dscnn", 36_440)] {
        let Ok(file) = std::fs::read(folder.join(format!("{name}.onnx"))) else {
            println!("skipped: {name}.onnx is not there");
            continue;
        };
        let (archive, _) = pack(&file).unwrap();
        assert_eq!(unpack(&archive).unwrap(), file);
        assert!(archive.len() < xz, "{name}: {} bytes, xz -9 makes {xz}", archive.len());
    }
}

#[test]
fn every_damaged_byte_is_found_and_none_panics() {
    let (archive, _) = pack(&file()).unwrap();
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(unpack::unpack(&damaged).is_err(), "byte {at}");
        assert!(unpack::unpack(&archive[..at]).is_err(), "{at} bytes");
    }
    let mut longer = archive.clone();
    longer.push(0);
    assert!(unpack::unpack(&longer).is_err());
    assert_eq!(unpack::unpack(b"PK\x03\x04"), Err(unpack::Fault::NotAnArchive));
    let mut other = archive.clone();
    for (version, told) in [(9, "use a newer espalier"), (1, "unpack it with the espalier that wrote it")] {
        other[4] = version;
        let fault = unpack::unpack(&other).unwrap_err();
        assert_eq!(fault, unpack::Fault::Version(version));
        assert!(fault.to_string().contains(told), "{fault}");
    }
    // Also where the checksum of the archive was made to fit: what comes out is the file, or an error.
    for at in (5..archive.len() - 4).step_by(archive.len() / 40) {
        let mut damaged = archive[..archive.len() - 4].to_vec();
        damaged[at] ^= 4;
        let sum = unpack::checksum(&damaged);
        damaged.extend_from_slice(&sum.to_le_bytes());
        assert!(unpack::unpack(&damaged).is_err() || unpack::unpack(&damaged).unwrap() == file(), "byte {at}");
    }
}

#[test]
fn numbers_that_are_all_the_same_or_repeat_take_next_to_nothing() {
    let mut model = graph::Model::new(25);
    let zeros = tensor::Tensor::full(0f32, [1 << 22]).unwrap();
    let rows = tensor::Tensor::new((0..1 << 19).map(|i| f64::from(i % 100) / 7.0).collect::<Vec<f64>>(), [1 << 19]).unwrap();
    for (name, tensor) in [("zeros", zeros.cast(DType::I8).unwrap()), ("rows", rows)] {
        let id = model.values.add_constant(name, tensor);
        model.graph.constants.push(id);
    }
    let file = onnx::to_bytes(&model).unwrap();
    let (archive, sizes) = pack(&file).unwrap();
    // Each of ten blocks learns it anew.
    assert!(archive.len() < 3000, "{sizes:?}");
}

/// A serialized model with one initializer: its type, sizes, and numbers in a field of their own.
fn with_field(dtype: u8, sizes: &[u64], field: u8, numbers: &[u8]) -> Vec<u8> {
    let message = |field: u8, content: &[u8]| {
        let mut out = vec![field << 3 | 2];
        unpack::write_number(&mut out, content.len() as u64);
        [out, content.to_vec()].concat()
    };
    let mut packed = vec![];
    sizes.iter().for_each(|s| unpack::write_number(&mut packed, *s));
    let tensor = [message(1, &packed), vec![2 << 3, dtype], message(8, b"w"), message(field, numbers)].concat();
    message(7, &message(5, &tensor))
}

#[test]
fn numbers_in_typed_fields_are_numbers() {
    let floats: Vec<u8> = (0..4000).flat_map(|i| ((tensor::random::unit(3, i) - 0.5) as f32).to_le_bytes()).collect();
    let mut integers = vec![];
    for i in 0..3000i64 {
        unpack::write_number(&mut integers, (i * i % 400 - 200) as u64);
    }
    let longest = [0u64, 1, 127, 128, 1 << 62, 1 << 63, u64::MAX].repeat(6);
    let mut wide = vec![];
    longest.iter().for_each(|n| unpack::write_number(&mut wide, *n));
    for (dtype, sizes, field, numbers, kind, most) in [
        (1, [40, 100], 4, &floats, Kind::Floats { tails: false }, floats.len() * 9 / 10),
        (11, [40, 50], 10, &floats, Kind::Words { bytes: 8, float: false, plain: 0 }, floats.len() * 11 / 10),
        (6, [30, 100], 5, &integers, Kind::Varints, 3000 * 9 / 8 + 200),
        (7, [30, 100], 7, &integers, Kind::Varints, 3000 * 9 / 8 + 200),
        (13, [6, 7], 11, &wide, Kind::Varints, wide.len() * 2),
    ] {
        let file = with_field(dtype, &sizes, field, numbers);
        let found = layout(&file).unwrap().spans;
        assert_eq!(found.len(), 1, "field {field}");
        let same = std::mem::discriminant(&found[0].kind) == std::mem::discriminant(&kind);
        assert!(same && found[0].length == numbers.len() && found[0].row == sizes[1] as usize, "field {field}: {found:?}");
        let (archive, _) = pack(&file).unwrap();
        assert_eq!(unpack(&archive).unwrap(), file, "field {field}");
        assert!(archive.len() < most, "field {field}: {} bytes of {}", archive.len(), numbers.len());
    }
    // One byte more than it takes: no such numbers, but bytes like any others.
    let file = with_field(7, &[40], 7, &[128u8, 0].repeat(40));
    assert!(layout(&file).unwrap().spans.is_empty());
    assert_eq!(unpack(&pack(&file).unwrap().0).unwrap(), file);
}

#[test]
fn large_tensors_are_divided_and_equal_ones_stored_once() {
    let weights = |seed| (0..700_000).map(|i| (tensor::random::unit(seed, i) - 0.5) as f32).collect::<Vec<f32>>();
    let mut model = graph::Model::new(25);
    let (large, small) = (weights(1), weights(2)[..2000].to_vec());
    for (name, values, shape) in [("large", large, [700, 1000]), ("one", small.clone(), [20, 100]), ("two", small, [20, 100])] {
        let id = model.values.add_constant(name, tensor::Tensor::new(values, shape).unwrap());
        model.graph.constants.push(id);
    }
    let file = onnx::to_bytes(&model).unwrap();
    let layout = layout(&file).unwrap();
    // Three parts of whole rows of 4000 bytes.
    let lengths: Vec<usize> = layout.spans.iter().map(|s| s.length).collect();
    assert_eq!(lengths, [234 * 4000, 234 * 4000, 232 * 4000, 8000, 8000]);
    assert!(layout.spans[..4].iter().all(|s| s.kind == Kind::Floats { tails: false }), "{layout:?}");
    assert_eq!(layout.spans[4].kind, Kind::Same { back: 8000 });
    assert_eq!(layout.blocks().iter().map(|b| b.len()).collect::<Vec<_>>(), [1, 1, 3]);
    assert_eq!(unpack(&pack(&file).unwrap().0).unwrap(), file);
}

#[test]
fn floats_that_another_tensor_has_nearly_all_cost_little_the_second_time() {
    let weights: Vec<f32> = (0..4000).map(|i| (tensor::random::unit(1, i) - 0.5) as f32).collect();
    let other: Vec<f32> = weights.iter().enumerate().map(|(i, w)| if i % 50 == 7 { w * 1.1 } else { *w }).collect();
    let packed = |tensors: &[&Vec<f32>]| {
        let mut model = graph::Model::new(25);
        for (i, values) in tensors.iter().enumerate() {
            let id = model.values.add_constant(format!("w{i}"), tensor::Tensor::new((*values).clone(), [40, 100]).unwrap());
            model.graph.constants.push(id);
        }
        let file = onnx::to_bytes(&model).unwrap();
        let (archive, _) = pack(&file).unwrap();
        assert_eq!(unpack(&archive).unwrap(), file);
        (archive.len(), layout(&file).unwrap().spans.iter().map(|s| s.kind).collect::<Vec<_>>())
    };
    let ((one, alone), (two, both)) = (packed(&[&weights]), packed(&[&weights, &other]));
    assert_eq!(alone, [Kind::Floats { tails: false }]);
    assert_eq!(both, [Kind::Words { bytes: 4, float: true, plain: 0 }; 2]);
    assert!(two < one * 5 / 4, "{one} and {two} bytes");
    // Zeros in the same places are no copies.
    let pruned =
        |seed| -> Vec<f32> { (0..4000).map(|i| if i % 2 == 0 { 0.0 } else { (tensor::random::unit(seed, i) - 0.5) as f32 }).collect() };
    assert_eq!(packed(&[&pruned(1), &pruned(2)]).1, [Kind::Floats { tails: false }; 2]);
}

#[test]
fn floats_of_one_absolute_step_have_their_zeros_told() {
    let mut model = graph::Model::new(25);
    // Beside 1, a float has steps of 2^-24.
    let weights: Vec<f32> = (0..8000).map(|i| (tensor::random::unit(1, i) as f32 - 0.5) * 0.25 + 1.0 - 1.0).collect();
    let id = model.values.add_constant("w", tensor::Tensor::new(weights, [80, 100]).unwrap());
    model.graph.constants.push(id);
    let file = onnx::to_bytes(&model).unwrap();
    assert_eq!(layout(&file).unwrap().spans[0].kind, Kind::Floats { tails: true });
    let (archive, sizes) = pack(&file).unwrap();
    assert_eq!(unpack(&archive).unwrap(), file);
    // So many steps as 22 bits have.
    assert!(sizes.coded_numbers < 8000 * 23 / 8, "{sizes:?}");
}

#[test]
fn many_integers_of_protobuf_are_divided_between_two() {
    let mut numbers = vec![];
    (0..900_000u64).for_each(|i| unpack::write_number(&mut numbers, i * i % 90_001));
    let file = with_field(7, &[900, 1000], 7, &numbers);
    let spans = layout(&file).unwrap().spans;
    assert!(spans.len() == 3 && spans.iter().all(|s| s.kind == Kind::Varints && s.length <= crate::layout::BLOCK), "{spans:?}");
    assert_eq!(spans.iter().map(|s| s.length).sum::<usize>(), numbers.len());
    assert_eq!(unpack(&pack(&file).unwrap().0).unwrap(), file);
}

#[test]
fn a_block_that_says_that_it_is_huge_is_not_believed() {
    let (archive, _) = pack(&file()).unwrap();
    let mut hostile = archive[..5].to_vec();
    // Length and checksum of the file, and two blocks: an empty one, and one of 4 bytes that says that it decodes to 2 MB and a byte.
    for number in [1 << 21, 0, 0, 0, 0, 2, 0, 0, unpack::LARGEST as u64 + 1, 4, 0, 0, 0, 0] {
        unpack::write_number(&mut hostile, number);
    }
    let sum = unpack::checksum(&hostile);
    hostile.extend_from_slice(&sum.to_le_bytes());
    assert_eq!(unpack::unpack(&hostile), Err(unpack::Fault::Damaged));
}

#[test]
fn the_checksum_is_the_usual_one() {
    assert_eq!(unpack::checksum(b"123456789"), 0xCBF4_3926);
    assert_eq!(unpack::checksum(b"The quick brown fox jumps over the lazy dog"), 0x414F_A339);
}

#[test]
fn sizes_that_lie_are_not_believed() {
    let mut file = onnx::to_bytes(&graph_of(&[("int8", DType::I8, vec![16, 8, 3, 3])])).unwrap();
    let mut layout = layout(&file).unwrap();
    layout.spans[0].row = usize::MAX;
    layout.spans[0].inner = 1;
    let span = layout.spans[0];
    let own = span.gap..span.gap + span.length;
    let mut encoder = Encoder::new();
    Layout::code(&[span], &mut encoder, &mut file[own.clone()]).unwrap();
    let mut back = vec![0; span.length];
    Layout::code(&[span], &mut unpack::Decoder::new(&encoder.finish()), &mut back).unwrap();
    assert_eq!(back, file[own]);
}

#[test]
fn what_is_no_model_is_refused() {
    for bytes in [&b""[..], b"hello", &[0x3a, 0x05, 1]] {
        assert!(matches!(pack(bytes), Err(PackError::Onnx(_))), "{bytes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_numbers_of_any_shape_come_back(
        data in prop::collection::vec(any::<u8>(), 0..700),
        repeat in 1usize..4,
        small in any::<bool>(),
        (kind, row, inner) in (0usize..14, 0usize..50, 0usize..12),
    ) {
        let mut data: Vec<u8> = std::iter::repeat_n(data, repeat).flatten().collect();
        if small {
            data.iter_mut().for_each(|b| *b &= 0x83);
        }
        let kind = [
            Kind::Integers { bits: 1, unsigned: true },
            Kind::Integers { bits: 2, unsigned: false },
            Kind::Integers { bits: 4, unsigned: true },
            Kind::Integers { bits: 8, unsigned: false },
            Kind::Integers { bits: 8, unsigned: true },
            Kind::Words { bytes: 4, float: true, plain: 1 },
            Kind::Words { bytes: 4, float: false, plain: 0 },
            Kind::Words { bytes: 2, float: false, plain: 2 },
            Kind::Words { bytes: 8, float: false, plain: 0 },
            Kind::Few { bytes: 4, float: true },
            Kind::Few { bytes: 2, float: false },
            Kind::Floats { tails: false },
            Kind::Floats { tails: true },
            Kind::Varints,
        ][kind];
        if kind == Kind::Varints {
            let numbers: Vec<u64> = data.chunks(9).map(|c| c[1..].iter().fold(0, |n, b| n << 8 | u64::from(*b)) >> (c[0] % 64)).collect();
            data.clear();
            numbers.iter().for_each(|n| unpack::write_number(&mut data, *n));
        }
        if let Kind::Few { bytes, .. } = kind {
            data.truncate(data.len() / usize::from(bytes) * usize::from(bytes));
            // At most 81 different words.
            data.chunks_exact_mut(usize::from(bytes)).for_each(|w| w.iter_mut().enumerate().for_each(|(i, b)| *b %= [9, 9, 1, 1][i]));
        }
        let span = Span { gap: 0, length: data.len(), kind, row, inner, begins: false };
        let same = Span { kind: Kind::Same { back: data.len() }, ..span };
        let spans = [span, span, same];
        let mut encoder = Encoder::new();
        Layout::code(&spans, &mut encoder, &mut data.repeat(3)).unwrap();
        let coded = encoder.finish();
        let mut back = vec![0; data.len() * 3];
        let mut decoder = unpack::Decoder::new(&coded);
        Layout::code(&spans, &mut decoder, &mut back).unwrap();
        prop_assert_eq!(&back, &data.repeat(3));
        prop_assert!(!decoder.ran_out());
        // A damaged block, and one that says something else, gives anything but a panic.
        let mut damaged = coded.clone();
        damaged.truncate(coded.len() - coded.len() / 3);
        if let Some(byte) = damaged.get_mut(row) {
            *byte ^= 1 << (inner % 8);
        }
        let far = Span { kind: Kind::Same { back: row }, ..span };
        let _ = Layout::code(&[span, span, far], &mut unpack::Decoder::new(&damaged), &mut back);
    }

    #[test]
    fn any_tensors_come_back(
        tensors in prop::collection::vec((0usize..13, prop::collection::vec(0usize..40, 0..4), 0usize..4, any::<u64>()), 0..6),
    ) {
        const DTYPES: [DType; 13] = [
            DType::F32, DType::F32, DType::I8, DType::U8, DType::I4, DType::U4, DType::I2, DType::U2, DType::F16, DType::F64, DType::I32, DType::I64, DType::Bool,
        ];
        let mut model = graph::Model::new(25);
        for (i, (dtype, shape, values, seed)) in tensors.iter().enumerate() {
            let count: usize = shape.iter().product();
            let draw = |i: usize| tensor::random::unit(*seed, i as u64) as f32 - 0.5;
            // Noise, few different ones, many zeros, and what another tensor may have too.
            let values: Vec<f32> = (0..count).map(|i| match values {
                0 => draw(i),
                1 => (draw(i) * 6.0).round(),
                2 => if i % 5 == 0 { draw(i) } else { 0.0 },
                _ => i as f32 % 7.0,
            }).collect();
            let id = model.values.add_constant(format!("w{i}"), tensor::Tensor::new(values, shape.clone()).unwrap().cast(DTYPES[*dtype]).unwrap());
            model.graph.constants.push(id);
        }
        let file = onnx::to_bytes(&model).unwrap();
        let layout = layout(&file).unwrap();
        let table = layout.write();
        prop_assert_eq!(Layout::read(&table).unwrap(), (layout, &[][..]));
        let (archive, _) = pack(&file).unwrap();
        prop_assert_eq!(unpack(&archive).unwrap(), file);
    }

    #[test]
    fn random_archives_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), file in 0usize..1_000_000) {
        let mut archive = unpack::MAGIC.to_vec();
        archive.push(unpack::VERSION);
        unpack::write_number(&mut archive, file as u64);
        archive.extend_from_slice(&bytes);
        let sum = unpack::checksum(&archive);
        archive.extend_from_slice(&sum.to_le_bytes());
        prop_assert!(unpack::unpack(&archive).is_err());
    }
}
