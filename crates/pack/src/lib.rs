//! Packs ONNX files losslessly: adaptive binary arithmetic coding of weights by their type and shape, and of the rest as bytes.
//!
//! `espalier-unpack` decodes, and has the models that both sides run; here is what only an encoder needs: where the weights lie, how
//! they are divided into blocks, and which bytes of floats are noise.
mod encoder;
mod layout;

use encoder::Encoder;
use layout::layout;
use rayon::prelude::*;
use unpack::{Archive, Layout, Span};

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
    let of_structure = || {
        let mut encoder = Encoder::new();
        unpack::code_bytes(&mut encoder, &mut structure);
        (structure.len(), encoder.finish())
    };
    let of_block = |(spans, mut block): (&[Span], Vec<u8>)| {
        let mut encoder = Encoder::new();
        Layout::code(spans, &mut encoder, &mut block).map_err(PackError::Unfaithful)?;
        Ok((block.len(), encoder.finish()))
    };
    let of_blocks = || layout.blocks().into_par_iter().zip(blocks).map(of_block).collect::<Result<Vec<_>, PackError>>();
    let (first, coded) = rayon::join(of_structure, of_blocks);
    let coded = coded?;
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

#[cfg(test)]
mod tests;
