//! Where the numbers of a file lie, how they are divided into blocks, and which model codes them.
use crate::PackError;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
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
/// Tensors of the same length to which one is compared.
const COMPARED: usize = 8;
/// Numbers from which on their entropy tells that, not how many are different.
const MANY: usize = 1024;

/// Numbers of a tensor that are coded as one span.
#[derive(Clone, Copy)]
struct Piece {
    at: usize,
    length: usize,
    form: Form,
    varints: bool,
    row: usize,
    inner: usize,
}

/// The spans of a file and how each is coded.
pub(crate) fn layout(file: &[u8]) -> Result<Layout, PackError> {
    let pieces = pieces(file)?;
    let mut kinds: Vec<Kind> = pieces.par_iter().map(|p| kind(p, &file[p.at..p.at + p.length])).collect();
    find_copies(file, &pieces, &mut kinds);
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

/// Floats that repeat much of earlier ones of their length are coded as words, and these too, since only words are looked up.
fn find_copies(file: &[u8], pieces: &[Piece], kinds: &mut [Kind]) {
    let mut by_length: HashMap<usize, Vec<usize>> = HashMap::new();
    for (i, piece) in pieces.iter().enumerate().filter(|(i, _)| matches!(kinds[*i], Kind::Floats { .. })) {
        by_length.entry(piece.length).or_default().push(i);
    }
    let mut words = vec![];
    for list in by_length.into_values() {
        for (n, i) in list.iter().enumerate() {
            for j in &list[n.saturating_sub(COMPARED)..n] {
                let (a, b) = (&pieces[*i], &pieces[*j]);
                // Blocks know nothing of each other.
                if a.at - b.at < BLOCK && alike(&file[a.at..a.at + a.length], &file[b.at..b.at + b.length]) {
                    words.extend([*i, *j]);
                }
            }
        }
    }
    words.into_iter().for_each(|i| kinds[i] = Kind::Words { bytes: 4, float: true, plain: 0 });
}

/// True if more than a tenth of some 256 floats are the same in both, at the same places, and no zeros, though not all of all.
fn alike(a: &[u8], b: &[u8]) -> bool {
    let ((a, _), (b, _)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let step = a.len().div_ceil(256).max(1);
    let pairs = a.iter().step_by(step).zip(b.iter().step_by(step));
    let same = pairs.clone().filter(|(a, b)| a == b && **a != [0; 4]).count();
    same * 10 > pairs.len() && a != b
}

/// The numbers of all tensors, large ones divided.
fn pieces(file: &[u8]) -> Result<Vec<Piece>, PackError> {
    let (mut pieces, mut end) = (vec![], 0);
    for found in onnx::spans(file)? {
        let onnx::Span { at, length, dtype, sizes, varints } = found;
        let Some(form) = form(dtype).filter(|_| length >= SMALLEST && at >= end) else { continue };
        if varints && !unpack::are_varints(&file[at..at + length]) {
            continue;
        }
        end = at + length;
        // Leading axes of size 1 are no rows.
        let sizes: Vec<usize> = sizes.iter().map(|s| usize::try_from(*s).unwrap_or(1)).skip_while(|s| *s == 1).collect();
        let size = |from: usize| sizes.iter().skip(from).fold(1usize, |n, s| n.saturating_mul(*s)).max(1);
        let row = if sizes.len() > 1 { size(1) } else { length };
        let whole = Piece { at, length, form, varints, row, inner: size(2) };
        let bits = dtype.bits();
        let most = if bits <= 8 { unpack::LARGEST } else { BLOCK };
        if length <= most {
            pieces.push(whole);
            continue;
        }
        if varints {
            pieces.extend(between_numbers(file, at..at + length).into_iter().map(|part| Piece {
                at: part.start,
                length: part.len(),
                ..whole
            }));
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

/// Parts of numbers that protobuf packs one by one, none of which is divided.
fn between_numbers(file: &[u8], whole: Range<usize>) -> Vec<Range<usize>> {
    let mut parts = vec![];
    let mut from = whole.start;
    while whole.end - from > BLOCK {
        // A number is ten bytes at most, and its last one has no highest bit.
        let to = (from + 1..=from + BLOCK).rev().find(|to| file[to - 1] & 128 == 0).unwrap_or(from + BLOCK);
        parts.push(from..to);
        from = to;
    }
    parts.push(from..whole.end);
    parts
}

/// What the numbers of a type are to a model.
#[derive(Clone, Copy)]
enum Form {
    Integers { bits: u8, unsigned: bool },
    Words { bytes: u8, float: bool },
}

/// The form of a type's numbers; `None` where they have no model.
fn form(dtype: DType) -> Option<Form> {
    let integers = |bits, unsigned| Some(Form::Integers { bits, unsigned });
    let words = |bytes, float| Some(Form::Words { bytes, float });
    match dtype {
        DType::I8 => integers(8, false),
        DType::U8 => integers(8, true),
        DType::I4 => integers(4, false),
        DType::U4 => integers(4, true),
        DType::I2 => integers(2, false),
        DType::U2 => integers(2, true),
        DType::F32 => words(4, true),
        DType::I32 | DType::U32 => words(4, false),
        DType::F64 | DType::I64 | DType::U64 => words(8, false),
        DType::F16 | DType::BF16 | DType::I16 | DType::U16 => words(2, false),
        _ => None,
    }
}

fn kind(piece: &Piece, data: &[u8]) -> Kind {
    match piece.form {
        _ if piece.varints => Kind::Varints,
        Form::Integers { bits, unsigned } => Kind::Integers { bits, unsigned },
        Form::Words { bytes: 4, float } => words::<4>(data, float),
        Form::Words { bytes: 8, float } => words::<8>(data, float),
        Form::Words { float, .. } => words::<2>(data, float),
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
    if float && other.len() >= TOLD && !repeat(&other) && noise(1, 256) && noise(2, 32) {
        if noise(0, 256) {
            return Kind::Floats { tails: false };
        }
        if other.len() >= MANY && only_tails(&other) {
            return Kind::Floats { tails: true };
        }
    }
    let all: Vec<&[u8; BYTES]> = words.iter().collect();
    // Numbers that come again are known by their upper bytes. The sign of a float lies in its second byte from the top once it is coded.
    let places = if repeat(&all) || all.len() < MANY { 0 } else { BYTES.saturating_sub(if float { 2 } else { 0 }) };
    let plain = (0..places).filter(|i| even(&all, 256, 0.02, |w| w[*i])).fold(0, |plain, i| plain | 1 << i);
    Kind::Words { bytes, float, plain }
}

/// True if zeros at the lower end are all that can be told of the lowest byte of words.
fn only_tails<const BYTES: usize>(words: &[&[u8; BYTES]]) -> bool {
    let (mut counts, mut zeros) = ([0u32; 256], [0u32; 9]);
    for word in words {
        counts[usize::from(word[0])] += 1;
        zeros[word[0].trailing_zeros() as usize] += 1;
    }
    let n = words.len() as f64;
    let above: f64 = zeros.iter().take(8).enumerate().map(|(zeros, c)| f64::from(*c) * (7 - zeros) as f64).sum();
    entropy(&zeros) + above / n < entropy(&counts) + SPARED
}

/// Bits of a symbol of these counts.
fn entropy(counts: &[u32]) -> f64 {
    let n = f64::from(counts.iter().sum::<u32>());
    counts.iter().filter(|c| **c > 0).map(|c| f64::from(*c) / n * (n / f64::from(*c)).log2()).sum()
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
    // A sample of n values of k shows less, by about (k - 1) / (2 n ln 2).
    entropy(&counts) > k.log2() - (k - 1.0) / (2.0 * n * std::f64::consts::LN_2) - saved
}
