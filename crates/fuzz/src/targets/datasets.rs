//! Data sets and arrays.
use super::{Target, read, with_ending};
use crate::case::Case;
use crate::mutate;
use crate::random::Random;
use data::{Loader, LoaderOptions, OpenOptions};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::sync::Arc;
use tensor::{DType, Tensor};

pub(super) const NPZ: Target = Target { name: "npz", what: "NumPy archives", seeds: npz, mutate: bytes, run: arrays };
pub(super) const NPY: Target = Target { name: "npy", what: "NumPy arrays", seeds: npy, mutate: bytes, run: array };
pub(super) const IMAGES: Target =
    Target { name: "images", what: "PNG and JPEG files in class folders", seeds: images, mutate: image, run: data_set };
pub(super) const SOUNDS: Target =
    Target { name: "sounds", what: "WAV files in class folders", seeds: sounds, mutate: bytes, run: data_set };
pub(super) const IDX: Target = Target { name: "idx", what: "IDX files, plain and gzipped", seeds: idx, mutate: packed, run: data_set };
pub(super) const CIFAR: Target = Target { name: "cifar", what: "CIFAR's binary files", seeds: cifar, mutate: packed, run: data_set };
pub(super) const PARQUET: Target = Target { name: "parquet", what: "Parquet files", seeds: parquet, mutate: bytes, run: data_set };

fn bytes(r: &mut Random, (_, file): &mut (String, Vec<u8>), other: &[u8]) {
    mutate::bytes(r, file, other);
}

/// Changes the content of a gzip file as often as the file itself.
fn packed(r: &mut Random, (name, file): &mut (String, Vec<u8>), other: &[u8]) {
    let mut inside = vec![];
    if name.ends_with(".gz") && r.chance(60) && GzDecoder::new(file.as_slice()).read_to_end(&mut inside).is_ok() {
        mutate::bytes(r, &mut inside, other);
        *file = gzip(&inside);
    } else {
        mutate::bytes(r, file, other);
    }
}

/// A PNG's checksums are repaired most of the time: its decoder stops at a wrong one.
fn image(r: &mut Random, (_, file): &mut (String, Vec<u8>), other: &[u8]) {
    mutate::bytes(r, file, other);
    if !file.starts_with(b"\x89PNG") || r.chance(15) {
        return;
    }
    let mut at = 8;
    while let Some(length) = file.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize) {
        let (from, to) = (at + 4, (at + 8).saturating_add(length));
        if to.saturating_add(4) > file.len() {
            break;
        }
        let mut crc = flate2::Crc::new();
        crc.update(&file[from..to]);
        file[to..to + 4].copy_from_slice(&crc.sum().to_be_bytes());
        at = to + 4;
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}

fn tensors() -> Vec<(String, Tensor)> {
    let pixels: Vec<u8> = (0..4 * 9).map(|i| (i * 7) as u8).collect();
    let floats: Vec<f32> = (0..12).map(|i| i as f32 / 3.0).collect();
    let made = [
        ("x", Tensor::new(pixels, [4, 3, 3])),
        ("f", Tensor::new(floats, [4, 3])),
        ("y", Tensor::new(vec![0i64, 1, 0, 1], [4])),
        ("s", Tensor::new(vec!["a".to_string(), "bc".into()], [2])),
        ("c", Tensor::zeros(DType::C64, &[2])),
        ("h", Tensor::zeros(DType::F16, &[0, 3])),
        ("b", Tensor::new(vec![true, false], [2])),
    ];
    made.into_iter().filter_map(|(n, t)| Some((n.to_string(), t.ok()?))).collect()
}

fn npz() -> Result<Vec<Case>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("a.npz");
    let all = tensors();
    let pairs: BTreeMap<_, _> = all.iter().filter(|(n, _)| n == "x" || n == "y").cloned().collect();
    let written = data::npz::write(&path, &pairs);
    let mut cases = vec![Case::one("a data set", "a.npz", written.map_err(|e| e.to_string()).and_then(|()| read(&path))?)];
    for (name, path) in with_ending("tests/fixtures", ".npz")? {
        let bytes = read(&path)?;
        if bytes.len() < 4096 {
            cases.push(Case::one(name, "a.npz", bytes));
        }
    }
    Ok(cases)
}

fn npy() -> Result<Vec<Case>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("a.npy");
    let written = tensors().into_iter().filter(|(_, t)| data::npy::write(&path, t).is_ok());
    let mut cases = vec![];
    for (name, _) in written.collect::<Vec<_>>() {
        let tensor = tensors().into_iter().find(|(n, _)| *n == name).map(|(_, t)| t).ok_or("lost")?;
        data::npy::write(&path, &tensor).map_err(|e| e.to_string())?;
        cases.push(Case::one(name, "a.npy", read(&path)?));
    }
    Ok(cases)
}

fn png(color: png::ColorType, depth: png::BitDepth, palette: bool) -> Result<Vec<u8>, String> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, 5, 4);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if palette {
        encoder.set_palette(vec![1, 2, 3, 250, 251, 252, 7, 8, 9, 0, 0, 0]);
        encoder.set_trns(vec![0, 128]);
    }
    let row = (5 * color.samples() * depth as usize).div_ceil(8);
    // Two bits a pixel: 0x1b is the four entries of the palette.
    let pixels: Vec<u8> = (0..4 * row).map(|i| if palette { 0x1b } else { (i * 37) as u8 }).collect();
    let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
    writer.write_image_data(&pixels).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    Ok(bytes)
}

fn images() -> Result<Vec<Case>, String> {
    use png::{BitDepth, ColorType};
    let mut cases = vec![];
    for (i, (color, depth, palette)) in [
        (ColorType::Rgb, BitDepth::Eight, false),
        (ColorType::Rgba, BitDepth::Sixteen, false),
        (ColorType::Grayscale, BitDepth::One, false),
        (ColorType::GrayscaleAlpha, BitDepth::Eight, false),
        (ColorType::Indexed, BitDepth::Two, true),
    ]
    .into_iter()
    .enumerate()
    {
        cases.push(Case::one(format!("png {i}"), "a/x.png", png(color, depth, palette)?));
    }
    for (name, path) in with_ending("crates/fuzz/seeds", ".jpg")? {
        cases.push(Case::one(name, "a/x.jpg", read(&path)?));
    }
    Ok(cases)
}

fn sounds() -> Result<Vec<Case>, String> {
    let wav = |bits_per_sample, sample_format, channels| {
        let mut bytes = Cursor::new(vec![]);
        let spec = hound::WavSpec { channels, sample_rate: 8000, bits_per_sample, sample_format };
        let mut writer = hound::WavWriter::new(&mut bytes, spec)?;
        for i in 0..32i16 {
            match sample_format {
                hound::SampleFormat::Float => writer.write_sample(f32::from(i) / 32.0)?,
                hound::SampleFormat::Int => writer.write_sample(i)?,
            }
        }
        writer.finalize()?;
        Ok::<_, hound::Error>(bytes.into_inner())
    };
    let kinds = [
        (8, hound::SampleFormat::Int, 1),
        (16, hound::SampleFormat::Int, 2),
        (24, hound::SampleFormat::Int, 1),
        (32, hound::SampleFormat::Float, 1),
    ];
    kinds.into_iter().map(|(b, f, c)| Ok(Case::one(format!("{b} bits"), "a/x.wav", wav(b, f, c).map_err(|e| e.to_string())?))).collect()
}

fn idx() -> Result<Vec<Case>, String> {
    let images = [&[0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 2][..], &[9; 24]].concat();
    let labels = vec![0, 0, 8, 1, 0, 0, 0, 4, 0, 1, 1, 0];
    let names = |end: &str| [format!("train-images-idx3-ubyte{end}"), format!("train-labels-idx1-ubyte{end}")];
    let [i, l] = names("");
    let [iz, lz] = names(".gz");
    let plain = Case { of: "plain".into(), files: vec![(i, images.clone()), (l, labels.clone())] };
    let zipped = Case { of: "gzipped".into(), files: vec![(iz, gzip(&images)), (lz, gzip(&labels))] };
    Ok(vec![plain, zipped])
}

fn cifar() -> Result<Vec<Case>, String> {
    let row = |label: &[u8]| [label, &[7; 3072]].concat();
    let ten = [row(&[0]), row(&[9])].concat();
    let hundred = [row(&[0, 1]), row(&[19, 99])].concat();
    Ok(vec![
        Case::one("10 classes", "data_batch_1.bin", ten.clone()),
        Case::one("100 classes", "train.bin", hundred),
        Case::one("gzipped", "test_batch.bin.gz", gzip(&ten)),
    ])
}

fn parquet() -> Result<Vec<Case>, String> {
    use ::parquet::basic::Compression;
    use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    let schema = "message schema { optional group image { optional binary bytes; } optional int64 label; }";
    let schema = Arc::new(::parquet::schema::parser::parse_message_type(schema).map_err(|e| e.to_string())?);
    let picture = png(png::ColorType::Rgb, png::BitDepth::Eight, false)?;
    let file = |compression: Compression| -> Result<Vec<u8>, ::parquet::errors::ParquetError> {
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut out = vec![];
        let mut writer = SerializedFileWriter::new(&mut out, schema.clone(), properties)?;
        for _ in 0..2 {
            let mut group = writer.next_row_group()?;
            if let Some(mut column) = group.next_column()? {
                let rows = vec![ByteArray::from(picture.clone()); 3];
                column.typed::<ByteArrayType>().write_batch(&rows, Some(&[2, 2, 2]), None)?;
                column.close()?;
            }
            if let Some(mut column) = group.next_column()? {
                column.typed::<Int64Type>().write_batch(&[0, 1, 0], Some(&[1, 1, 1]), None)?;
                column.close()?;
            }
            group.close()?;
        }
        writer.close()?;
        Ok(out)
    };
    let kinds = [("plain", Compression::UNCOMPRESSED), ("snappy", Compression::SNAPPY), ("zstd", Compression::ZSTD(Default::default()))];
    kinds.into_iter().map(|(name, c)| Ok(Case::one(name, "train.parquet", file(c).map_err(|e| e.to_string())?))).collect()
}

fn arrays(case: &Case, folder: &Path) -> Result<(), String> {
    let path = case.write(folder).map_err(|e| e.to_string())?;
    if let Ok(read) = data::npz::read(&path) {
        let to = folder.join("again.npz");
        if data::npz::write(&to, &read).is_ok() {
            data::npz::read(&to).map_err(|e| format!("arrays that were read and written are not read: {e}"))?;
        }
    }
    data_set(case, folder)
}

fn array(case: &Case, folder: &Path) -> Result<(), String> {
    let path = case.write(folder).map_err(|e| e.to_string())?;
    let Ok(tensor) = data::npy::read(&path) else { return Ok(()) };
    let to = folder.join("again.npy");
    if data::npy::write(&to, &tensor).is_ok() {
        let again = data::npy::read(&to).map_err(|e| format!("an array that was read and written is not read: {e}"))?;
        if (again.dtype(), again.shape()) != (tensor.dtype(), tensor.shape()) {
            return Err("an array comes back as another".into());
        }
    }
    Ok(())
}

/// Opens the case's folder as a data set and reads a few rows of it, as training would.
fn data_set(case: &Case, folder: &Path) -> Result<(), String> {
    case.write(folder).map_err(|e| e.to_string())?;
    for cache_bytes in [0, 1 << 20] {
        let Ok(set) = data::open(folder, &OpenOptions { cache_bytes, ..OpenOptions::default() }) else { continue };
        set.labels().ok();
        let options = LoaderOptions { batch: 2, workers: 0, ..LoaderOptions::default() };
        let Ok(loader) = Loader::new(set, options) else { continue };
        loader.take(4).take_while(Result::is_ok).for_each(drop);
    }
    Ok(())
}
