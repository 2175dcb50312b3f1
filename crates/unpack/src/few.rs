//! Words of which few are different, as float weights that were integers once: a table of the words, and each as its place in it.
use crate::Coder;
use crate::integers::{Integers, Shape};
use crate::words::{Form, Words};
use alloc::vec;
use alloc::vec::Vec;

/// Most different words.
pub(crate) const MOST: usize = 256;

/// Codes a span in place; a decoder writes it. `data` is whole words.
pub(crate) fn code<C: Coder>(coder: &mut C, data: &mut [u8], form: Form, shape: Shape, (words, places): (&mut Words, &mut Integers)) {
    let count = data.len() / form.bytes;
    let mut table: Vec<u64> = data.chunks_exact(form.bytes).map(|w| ordered(word(w), form)).collect();
    table.sort_unstable();
    table.dedup();
    let last = table.len().clamp(1, MOST) - 1;
    let length = 1 + coder.raw(last as u32, 8) as usize;
    table.resize(length, 0);
    let mut stored: Vec<u8> = table.iter().flat_map(|w| w.to_le_bytes().into_iter().take(form.bytes)).collect();
    let whole = 0..stored.len();
    words.code(coder, &mut stored, whole, Form { float: false, ..form });
    let place = |w: &[u8]| table.binary_search(&ordered(word(w), form)).unwrap_or(0) as u8;
    let mut chosen: Vec<u8> = match table.len() <= MOST {
        true => data.chunks_exact(form.bytes).map(place).collect(),
        false => vec![0; count],
    };
    places.code(coder, &mut chosen, 0..count, shape);
    for (w, place) in data.chunks_exact_mut(form.bytes).zip(chosen) {
        let at = usize::from(place).min(length - 1) * form.bytes;
        let found = back(word(&stored[at..at + form.bytes]), form).to_le_bytes();
        w.copy_from_slice(&found[..form.bytes]);
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b))
}

/// A number that is larger for a larger word: floats have their sign in the highest bit.
fn ordered(word: u64, form: Form) -> u64 {
    let sign = 1u64 << (8 * form.bytes - 1);
    match form.float && word & sign != 0 {
        true => !word & (sign | (sign - 1)),
        false => word ^ sign,
    }
}

/// The reverse of [`ordered`].
fn back(ordered: u64, form: Form) -> u64 {
    let sign = 1u64 << (8 * form.bytes - 1);
    match form.float && ordered & sign == 0 {
        true => !ordered & (sign | (sign - 1)),
        false => ordered ^ sign,
    }
}
