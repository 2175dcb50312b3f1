//! The archive around the blocks.
//!
//! ```text
//! "ESPK"  version (1 byte)  length of the file  CRC-32 of the file (4 bytes, lowest first)  number of blocks
//! for each block: its decoded length, its coded length, its coded bytes
//! CRC-32 of all before (4 bytes)
//! ```
//! Numbers are written seven bits a byte, the lowest first, the highest bit of a byte set where more follow. Block 0 decodes to the
//! table of spans and the bytes between them.
use crate::{Decoder, Fault, Layout, Span, bytes};
use alloc::vec::Vec;

/// The first bytes of an archive.
pub const MAGIC: [u8; 4] = *b"ESPK";
/// The version that this crate reads and the encoder writes.
pub const VERSION: u8 = 2;
/// A byte of an archive stands for at most so many of the file: its eight bits are so many decisions that cost 8/65536 of being wrong,
/// which is what the surest costs, and one decision may be about eight bytes.
const MOST: u64 = 1 << 19;

/// Most decoded bytes of a block of spans: no archive makes a decoder take more memory for one than a small multiple of this.
pub const LARGEST: usize = 1 << 21;

/// An archive whose structure is read already.
pub struct Archive<'a> {
    length: usize,
    checksum: u32,
    layout: Layout,
    structure: Vec<u8>,
    /// Decoded length and coded bytes of each block of spans.
    blocks: Vec<(usize, &'a [u8])>,
}

impl<'a> Archive<'a> {
    /// Reads the head and decodes block 0.
    ///
    /// # Errors
    /// [`Fault`] for what is no archive, or a damaged one.
    pub fn open(archive: &'a [u8]) -> Result<Self, Fault> {
        let rest = archive.strip_prefix(&MAGIC).ok_or(Fault::NotAnArchive)?;
        let (version, rest) = rest.split_first().ok_or(Fault::Truncated)?;
        if *version != VERSION {
            return Err(Fault::Version(*version));
        }
        let (body, _) = archive.split_at_checked(archive.len().saturating_sub(4)).ok_or(Fault::Truncated)?;
        let (rest, last) = rest.split_at_checked(rest.len().saturating_sub(4)).ok_or(Fault::Truncated)?;
        if four(last)?.0 != self::checksum(body) {
            return Err(Fault::Damaged);
        }
        let (length, rest) = number(rest)?;
        let (checksum, rest) = four(rest)?;
        let (count, mut rest) = number(rest)?;
        let mut blocks = Vec::new();
        for _ in 0..count {
            let (decoded, behind) = number(rest)?;
            let (coded, behind) = number(behind)?;
            let coded = usize::try_from(coded).map_err(|_| Fault::Truncated)?;
            let (own, behind) = behind.split_at_checked(coded).ok_or(Fault::Truncated)?;
            // Block 0 is as long as the file's graph and names are.
            let most = if blocks.is_empty() { (own.len() as u64 + 1) * MOST } else { LARGEST as u64 };
            if decoded > most {
                return Err(Fault::Damaged);
            }
            blocks.push((usize::try_from(decoded).map_err(|_| Fault::TooLarge)?, own));
            rest = behind;
        }
        if !rest.is_empty() || blocks.is_empty() {
            return Err(Fault::Damaged);
        }
        let (decoded, coded) = blocks.remove(0);
        let mut first = zeros(decoded)?;
        let mut decoder = Decoder::new(coded);
        bytes::code(&mut decoder, &mut first);
        let (layout, structure) = Layout::read(&first)?;
        let sums = |f: fn(&Span) -> usize| layout.spans.iter().try_fold(0usize, |sum, span| sum.checked_add(f(span)));
        let (gaps, own) = (sums(|s| s.gap).ok_or(Fault::Damaged)?, sums(|s| s.length).ok_or(Fault::Damaged)?);
        let whole = structure.len().checked_add(own).ok_or(Fault::Damaged)?;
        let length = usize::try_from(length).map_err(|_| Fault::TooLarge)?;
        if decoder.ran_out() || gaps > structure.len() || whole != length || layout.blocks().len() != blocks.len() {
            return Err(Fault::Damaged);
        }
        let structure = structure.to_vec();
        Ok(Archive { length, checksum, layout, structure, blocks })
    }

    /// Bytes of the file.
    pub fn file_length(&self) -> usize {
        self.length
    }

    /// Number of blocks of spans. They can be decoded in any order, at the same time.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Decodes a block of spans.
    ///
    /// # Errors
    /// [`Fault::Damaged`]; [`Fault::TooLarge`] if there is no memory for it.
    pub fn block(&self, index: usize) -> Result<Vec<u8>, Fault> {
        let (decoded, coded) = *self.blocks.get(index).ok_or(Fault::Damaged)?;
        let spans = *self.layout.blocks().get(index).ok_or(Fault::Damaged)?;
        let mut data = zeros(decoded)?;
        let mut decoder = Decoder::new(coded);
        Layout::code(spans, &mut decoder, &mut data)?;
        if decoder.ran_out() { Err(Fault::Damaged) } else { Ok(data) }
    }

    /// Puts structure and decoded blocks together, handing out the file piece by piece.
    ///
    /// # Errors
    /// [`Fault::Damaged`] if the checksum of what was handed out is not the file's: it must not be used then.
    pub fn assemble(&self, blocks: &[Vec<u8>], out: &mut dyn FnMut(&[u8])) -> Result<(), Fault> {
        let mut sum = Checksum::new();
        let mut piece = |bytes: &[u8]| {
            sum.add(bytes);
            out(bytes);
        };
        let mut structure = self.structure.as_slice();
        for (spans, block) in self.layout.blocks().into_iter().zip(blocks) {
            let mut data = block.as_slice();
            for span in spans {
                let (gap, behind) = structure.split_at_checked(span.gap).ok_or(Fault::Damaged)?;
                let (own, after) = data.split_at_checked(span.length).ok_or(Fault::Damaged)?;
                (structure, data) = (behind, after);
                piece(gap);
                piece(own);
            }
        }
        piece(structure);
        if sum.finish() == self.checksum { Ok(()) } else { Err(Fault::Damaged) }
    }
}

/// The file that an archive holds.
///
/// # Errors
/// [`Fault`] for what is no archive, or a damaged one.
pub fn unpack(archive: &[u8]) -> Result<Vec<u8>, Fault> {
    let archive = Archive::open(archive)?;
    let blocks = (0..archive.blocks()).map(|i| archive.block(i)).collect::<Result<Vec<_>, _>>()?;
    let mut file = Vec::new();
    file.try_reserve_exact(archive.file_length()).map_err(|_| Fault::TooLarge)?;
    archive.assemble(&blocks, &mut |bytes| file.extend_from_slice(bytes))?;
    Ok(file)
}

fn zeros(length: usize) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    out.try_reserve_exact(length).map_err(|_| Fault::TooLarge)?;
    out.resize(length, 0);
    Ok(out)
}

/// Reads a checksum; returns the bytes behind it too.
fn four(bytes: &[u8]) -> Result<(u32, &[u8]), Fault> {
    let (four, rest) = bytes.split_at_checked(4).ok_or(Fault::Truncated)?;
    Ok((four.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)), rest))
}

/// Appends a number, seven bits a byte.
pub fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a number of up to 64 bits; returns the bytes behind it too.
pub(crate) fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Fault> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        // The tenth byte has the highest bit alone.
        if i == 9 && *byte > 1 {
            return Err(Fault::Damaged);
        }
        value |= u64::from(byte & 127) << (7 * i);
        if byte & 128 == 0 {
            return Ok((value, &bytes[i + 1..]));
        }
    }
    Err(if bytes.len() < 10 { Fault::Truncated } else { Fault::Damaged })
}

/// CRC-32 (IEEE 802.3) of bytes.
pub fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = Checksum::new();
    sum.add(bytes);
    sum.finish()
}

struct Checksum {
    value: u32,
}

/// What a byte does to the sum that so many bytes follow.
const TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let (mut c, mut bit) = (i as u32, 0);
        while bit < 8 {
            c = if c & 1 == 1 { 0xEDB8_8320 ^ c >> 1 } else { c >> 1 };
            bit += 1;
        }
        tables[0][i] = c;
        i += 1;
    }
    let mut i = 0;
    while i < 256 {
        let mut k = 1;
        while k < 8 {
            let before = tables[k - 1][i];
            tables[k][i] = tables[0][(before & 255) as usize] ^ before >> 8;
            k += 1;
        }
        i += 1;
    }
    tables
};

impl Checksum {
    fn new() -> Self {
        Checksum { value: u32::MAX }
    }

    fn add(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let [a, b, c, d] = self.value.to_le_bytes();
            let turned = [eight[0] ^ a, eight[1] ^ b, eight[2] ^ c, eight[3] ^ d, eight[4], eight[5], eight[6], eight[7]];
            self.value = turned.iter().zip(TABLES.iter().rev()).fold(0, |sum, (byte, table)| sum ^ table[usize::from(*byte)]);
        }
        self.value = rest.iter().fold(self.value, |c, b| TABLES[0][usize::from(c as u8 ^ b)] ^ c >> 8);
    }

    fn finish(self) -> u32 {
        !self.value
    }
}
