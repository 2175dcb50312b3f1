//! Packs ONNX files losslessly: adaptive binary arithmetic coding of weights by their type and shape, and of the rest as bytes.
//!
//! `espalier-unpack` decodes, and has the models that both sides run; here is what only an encoder needs: where the weights lie, how
//! they are divided into blocks, and which bytes of floats are noise.
mod encoder;

use encoder::Encoder;
use rayon::prelude::*;
use std::collections::HashSet;
use tensor::DType;
use unpack::{Archive, Kind, Layout, Span};

/// Bytes of numbers that share what is learned of them. Smaller blocks run side by side, larger ones learn more.
const BLOCK: usize = 1 << 20;
/// Spans below this are left among the bytes of the structure.
const SMALLEST: usize = 32;

/// Most different words that have a table.
const FEW: usize = 256;

/// Why a file cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It is no ONNX file.
    #[error(transparent)]
    Onnx(#[from] onnx::OnnxError),
    /// The archive does not give the file back: a fault of this program.
    #[error("the archive does not give the file back ({0}); nothing was written")]
    Unfaithful(unpack::Fault),
}

/// Sizes of what was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the file.
    pub file: usize,
    /// Bytes of the archive.
    pub archive: usize,
    /// Bytes of the file that are numbers of tensors.
    pub numbers: usize,
    /// Bytes of the archive for these.
    pub coded_numbers: usize,
}

/// Packs a serialized ONNX model. What comes back from [`unpack()`] is the same, byte by byte; that is checked before this returns.
///
/// # Errors
/// [`PackError::Onnx`] for bytes that are no ONNX model.
pub fn pack(file: &[u8]) -> Result<(Vec<u8>, Sizes), PackError> {
    let layout = layout(file)?;
    let mut structure = layout.write();
    let mut at = 0;
    let mut blocks: Vec<Vec<u8>> = vec![];
    for span in &layout.spans {
        structure.extend_from_slice(&file[at..at + span.gap]);
        at += span.gap;
        if span.begins || blocks.is_empty() {
            blocks.push(vec![]);
        }
        if let Some(block) = blocks.last_mut() {
            block.extend_from_slice(&file[at..at + span.length]);
        }
        at += span.length;
    }
    structure.extend_from_slice(&file[at..]);
    let coded: Vec<(usize, Vec<u8>)> = layout
        .blocks()
        .into_par_iter()
        .zip(blocks)
        .map(|(spans, mut block)| {
            let mut encoder = Encoder::new();
            Layout::code(spans, &mut encoder, &mut block).map_err(PackError::Unfaithful)?;
            Ok((block.len(), encoder.finish()))
        })
        .collect::<Result<_, PackError>>()?;
    let mut encoder = Encoder::new();
    unpack::code_bytes(&mut encoder, &mut structure);
    let first = (structure.len(), encoder.finish());
    let mut archive = unpack::MAGIC.to_vec();
    archive.push(unpack::VERSION);
    unpack::write_number(&mut archive, file.len() as u64);
    archive.extend_from_slice(&unpack::checksum(file).to_le_bytes());
    unpack::write_number(&mut archive, coded.len() as u64 + 1);
    for (decoded, coded) in std::iter::once(&first).chain(&coded) {
        unpack::write_number(&mut archive, *decoded as u64);
        unpack::write_number(&mut archive, coded.len() as u64);
        archive.extend_from_slice(coded);
    }
    let sum = unpack::checksum(&archive);
    archive.extend_from_slice(&sum.to_le_bytes());
    let back = unpack(&archive).map_err(PackError::Unfaithful)?;
    if back != file {
        return Err(PackError::Unfaithful(unpack::Fault::Damaged));
    }
    let numbers = layout.spans.iter().map(|s| s.length).sum();
    let coded_numbers = coded.iter().map(|(_, coded)| coded.len()).sum();
    let sizes = Sizes { file: file.len(), archive: archive.len(), numbers, coded_numbers };
    Ok((archive, sizes))
}

/// The file that an archive holds; its blocks are decoded side by side.
///
/// # Errors
/// [`unpack::Fault`] for what is no archive, or a damaged one.
pub fn unpack(archive: &[u8]) -> Result<Vec<u8>, unpack::Fault> {
    let archive = Archive::open(archive)?;
    let blocks = (0..archive.blocks()).into_par_iter().map(|i| archive.block(i)).collect::<Result<Vec<_>, _>>()?;
    let mut file = Vec::new();
    file.try_reserve_exact(archive.file_length()).map_err(|_| unpack::Fault::TooLarge)?;
    archive.assemble(&blocks, &mut |bytes| file.extend_from_slice(bytes))?;
    Ok(file)
}

/// The spans of a file and how each is coded.
fn layout(file: &[u8]) -> Result<Layout, PackError> {
    let (mut spans, mut end, mut in_block) = (vec![], 0, 0);
    for found in onnx::spans(file)? {
        let Some(kind) = kind(found.dtype, &file[found.at..found.at + found.length]) else { continue };
        if found.length < SMALLEST || found.at < end {
            continue;
        }
        let size =
            |from: usize| found.sizes.iter().skip(from).fold(1usize, |n, s| n.saturating_mul(usize::try_from(*s).unwrap_or(1))).max(1);
        let begins = in_block > 0 && in_block + found.length > BLOCK;
        in_block = if begins { found.length } else { in_block + found.length };
        let row = if found.sizes.len() > 1 { size(1) } else { found.length };
        spans.push(Span { gap: found.at - end, length: found.length, kind, row, inner: size(2), begins });
        end = found.at + found.length;
    }
    Ok(Layout { spans })
}

fn kind(dtype: DType, data: &[u8]) -> Option<Kind> {
    let words = |bytes: u8, float: bool| {
        let (count, different) = (data.len() / usize::from(bytes), different(data, bytes));
        Some(match different <= FEW && different * 4 <= count && data.len().is_multiple_of(usize::from(bytes)) {
            true => Kind::Few { bytes, float },
            // Numbers that come again are known by their upper bytes.
            false if different < count - count / 10 => Kind::Words { bytes, float, plain: 0 },
            false => Kind::Words { bytes, float, plain: noise(data, bytes, float) },
        })
    };
    match dtype {
        DType::I8 => Some(Kind::Integers { bits: 8, unsigned: false }),
        DType::U8 => Some(Kind::Integers { bits: 8, unsigned: true }),
        DType::I4 => Some(Kind::Integers { bits: 4, unsigned: false }),
        DType::U4 => Some(Kind::Integers { bits: 4, unsigned: true }),
        DType::I2 => Some(Kind::Integers { bits: 2, unsigned: false }),
        DType::U2 => Some(Kind::Integers { bits: 2, unsigned: true }),
        DType::F32 => words(4, true),
        DType::I32 | DType::U32 => words(4, false),
        DType::F16 | DType::BF16 | DType::I16 | DType::U16 => words(2, false),
        DType::F64 | DType::I64 | DType::U64 => words(8, false),
        _ => None,
    }
}

fn different(data: &[u8], bytes: u8) -> usize {
    data.chunks_exact(usize::from(bytes)).collect::<HashSet<&[u8]>>().len()
}

/// The bytes of a word, from the lowest on, whose values are spread so evenly that no model predicts them.
fn noise(data: &[u8], bytes: u8, float: bool) -> u8 {
    let words = data.len() / usize::from(bytes);
    let mut plain = 0;
    // The sign of a float lies in its second byte from the top once it is coded.
    for place in 0..usize::from(bytes).saturating_sub(if float { 2 } else { 0 }) {
        let mut counts = [0u32; 256];
        data.chunks_exact(usize::from(bytes)).for_each(|word| counts[usize::from(word[place])] += 1);
        let entropy: f64 = counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) * (words as f64 / f64::from(*c)).log2()).sum();
        // A sample of n values of 256 shows less than 8 bits, by about 255 / (2 n ln 2).
        let expected = 8.0 - 255.0 / (2.0 * words as f64 * std::f64::consts::LN_2);
        if words >= 1024 && entropy / words as f64 > expected - 0.02 {
            plain |= 1 << place;
        }
    }
    plain
}

#[cfg(test)]
mod tests;
