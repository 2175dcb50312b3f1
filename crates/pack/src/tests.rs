use super::*;
use proptest::prelude::*;
use std::path::Path;

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
    let mut newer = archive.clone();
    newer[4] = 9;
    assert_eq!(unpack::unpack(&newer), Err(unpack::Fault::Version(9)));
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
    assert!(archive.len() < 2000, "{sizes:?}");
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
        (kind, row, inner) in (0usize..11, 0usize..50, 0usize..12),
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
        ][kind];
        if let Kind::Few { bytes, .. } = kind {
            data.truncate(data.len() / usize::from(bytes) * usize::from(bytes));
            // At most 81 different words.
            data.chunks_exact_mut(usize::from(bytes)).for_each(|w| w.iter_mut().enumerate().for_each(|(i, b)| *b %= [9, 9, 1, 1][i]));
        }
        let span = Span { gap: 0, length: data.len(), kind, row, inner, begins: false };
        let mut encoder = Encoder::new();
        Layout::code(&[span, span], &mut encoder, &mut [data.clone(), data.clone()].concat()).unwrap();
        let coded = encoder.finish();
        let mut back = vec![0; data.len() * 2];
        Layout::code(&[span, span], &mut unpack::Decoder::new(&coded), &mut back).unwrap();
        prop_assert_eq!(&back[..data.len()], &data[..]);
        prop_assert_eq!(&back[data.len()..], &data[..]);
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
