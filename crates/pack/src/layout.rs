//! Where the numbers of a file lie, how they are divided into blocks, and which model codes them.
use crate::PackError;
use rayon::prelude::*;
use std::collections::HashMap;
use tensor::DType;
use unpack::{Kind, Layout, Span};

/// Bytes of numbers that share what is learned of them. Smaller blocks run side by side, larger ones learn more.
pub(crate) const BLOCK: usize = 1 << 20;
/// Spans below this are left among the bytes of the structure.
const SMALLEST: usize = 32;
/// Most different words that have a table.
const FEW: usize = 256;
/// Fewest floats of which it can be said that they look like noise.
const TOLD: usize = 64;
/// Bits of each part of a float that looks like noise that a model could save.
const SPARED: f64 = 0.12;
/// Numbers from which on their entropy tells that, not how many are different.
const MANY: usize = 1024;

/// Numbers of a tensor that are coded as one span.
struct Piece {
    at: usize,
    length: usize,
    dtype: DType,
    varints: bool,
    row: usize,
    inner: usize,
}

/// The spans of a file and how each is coded.
pub(crate) fn layout(file: &[u8]) -> Result<Layout, PackError> {
    let pieces = pieces(file)?;
    let kinds: Vec<Kind> = pieces.par_iter().map(|p| kind(p, &file[p.at..p.at + p.length])).collect();
    let (mut spans, mut end, mut in_block) = (vec![], 0, 0);
    // Where the block has which bytes.
    let mut earlier: HashMap<(u32, usize), (usize, usize)> = HashMap::new();
    for (piece, kind) in pieces.into_iter().zip(kinds) {
        let Piece { at, length, row, inner, .. } = piece;
        let begins = in_block > 0 && in_block + length > BLOCK;
        if begins {
            in_block = 0;
            earlier.clear();
        }
        let own = &file[at..at + length];
        let (first, place) = *earlier.entry((unpack::checksum(own), length)).or_insert((at, in_block));
        let same = first < at && &file[first..first + length] == own;
        let kind = if same { Kind::Same { back: in_block - place } } else { kind };
        in_block += length;
        spans.push(Span { gap: at - end, length, kind, row, inner, begins });
        end = at + length;
    }
    Ok(Layout { spans })
}

/// The numbers of all tensors, large ones divided.
fn pieces(file: &[u8]) -> Result<Vec<Piece>, PackError> {
    let (mut pieces, mut end) = (vec![], 0);
    for found in onnx::spans(file)? {
        let onnx::Span { at, length, dtype, sizes, varints } = found;
        if length < SMALLEST || at < end || !KINDS.contains(&dtype) || (varints && !unpack::are_varints(&file[at..at + length])) {
            continue;
        }
        end = at + length;
        // Leading axes of size 1 are no rows.
        let sizes: Vec<usize> = sizes.iter().map(|s| usize::try_from(*s).unwrap_or(1)).skip_while(|s| *s == 1).collect();
        let size = |from: usize| sizes.iter().skip(from).fold(1usize, |n, s| n.saturating_mul(*s)).max(1);
        let row = if sizes.len() > 1 { size(1) } else { length };
        let whole = Piece { at, length, dtype, varints, row, inner: size(2) };
        let bits = dtype.bits();
        let most = if bits <= 8 { 2 * BLOCK } else { BLOCK };
        if varints || length <= most {
            pieces.push(whole);
            continue;
        }
        // Whole rows where they fit, else whole numbers.
        let of_row = row.saturating_mul(bits);
        let unit = if of_row.is_multiple_of(8) && of_row / 8 <= most { of_row / 8 } else { bits.div_ceil(8) };
        let units = length / unit;
        let each = units.div_ceil(units.div_ceil(most / unit).max(1)).max(1) * unit;
        pieces.extend((0..length).step_by(each).map(|from| Piece { at: at + from, length: each.min(length - from), ..whole }));
    }
    Ok(pieces)
}

/// Types whose numbers have a model.
const KINDS: [DType; 16] = [
    DType::I8,
    DType::U8,
    DType::I4,
    DType::U4,
    DType::I2,
    DType::U2,
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::F64,
    DType::I16,
    DType::U16,
    DType::I32,
    DType::U32,
    DType::I64,
    DType::U64,
];

fn kind(piece: &Piece, data: &[u8]) -> Kind {
    let integers = |bits, unsigned| Kind::Integers { bits, unsigned };
    match piece.dtype {
        _ if piece.varints => Kind::Varints,
        DType::I8 => integers(8, false),
        DType::U8 => integers(8, true),
        DType::I4 => integers(4, false),
        DType::U4 => integers(4, true),
        DType::I2 => integers(2, false),
        DType::U2 => integers(2, true),
        DType::F32 => words::<4>(data, true),
        DType::I32 | DType::U32 => words::<4>(data, false),
        DType::F64 | DType::I64 | DType::U64 => words::<8>(data, false),
        _ => words::<2>(data, false),
    }
}

fn words<const BYTES: usize>(data: &[u8], float: bool) -> Kind {
    let (words, rest) = data.as_chunks::<BYTES>();
    let bytes = BYTES as u8;
    if rest.is_empty() && are_few(words) {
        return Kind::Few { bytes, float };
    }
    let other: Vec<&[u8; BYTES]> = words.iter().filter(|w| **w != [0; BYTES]).collect();
    // What a slower model would save of these, a percent at most, is not worth its time.
    let noise = |i: usize, values| even(&other, values, SPARED, |w| w[i] & (values - 1) as u8);
    if float && other.len() >= TOLD && !repeat(&other) && noise(0, 256) && noise(1, 256) && noise(2, 32) {
        return Kind::Floats;
    }
    let all: Vec<&[u8; BYTES]> = words.iter().collect();
    // Numbers that come again are known by their upper bytes. The sign of a float lies in its second byte from the top once it is coded.
    let places = if repeat(&all) || all.len() < MANY { 0 } else { BYTES.saturating_sub(if float { 2 } else { 0 }) };
    let plain = (0..places).filter(|i| even(&all, 256, 0.02, |w| w[*i])).fold(0, |plain, i| plain | 1 << i);
    Kind::Words { bytes, float, plain }
}

/// True if few words are different, in all and for each of them.
fn are_few<const BYTES: usize>(words: &[[u8; BYTES]]) -> bool {
    let mut seen = std::collections::HashSet::new();
    words.iter().all(|word| seen.contains(word) || (seen.len() < FEW.min(words.len() / 4) && seen.insert(*word)))
}

/// True if more than about a tenth of the words occurred before.
fn repeat<const BYTES: usize>(words: &[&[u8; BYTES]]) -> bool {
    // A bit for each of the values of a hash: of so many, one in 32 of the words falls on one that another has set.
    let bits = (16 * words.len()).next_power_of_two().max(64);
    let mut seen = vec![0u64; bits / 64];
    let mut again = 0;
    for word in words {
        let value = word.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        let hash = (value.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as usize % bits;
        again += seen[hash / 64] >> (hash % 64) & 1;
        seen[hash / 64] |= 1 << (hash % 64);
    }
    again as usize > words.len() / 10 + words.len() / 32
}

/// True if a part of the words, of so many values, is spread so evenly that a model saves no more than `saved` bits of it.
fn even<const BYTES: usize>(words: &[&[u8; BYTES]], values: usize, saved: f64, part: impl Fn(&[u8; BYTES]) -> u8) -> bool {
    let mut counts = [0u32; 256];
    words.iter().for_each(|word| counts[usize::from(part(word))] += 1);
    let (n, k) = (words.len() as f64, values as f64);
    if words.len() < MANY {
        let seen = counts.iter().filter(|c| **c > 0).count() as f64;
        return seen > 0.85 * k * (1.0 - (-n / k).exp());
    }
    let entropy: f64 = counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) * (n / f64::from(*c)).log2()).sum();
    // A sample of n values of k shows less, by about (k - 1) / (2 n ln 2).
    entropy / n > k.log2() - (k - 1.0) / (2.0 * n * std::f64::consts::LN_2) - saved
}
