//! Words of 2, 4 or 8 bytes: float weights, biases, scales, integers of shapes. The highest byte comes first; each is predicted by those
//! above it and by the word before.
use crate::Coder;
use crate::mix::{Mixer, slots};
use crate::repeats::Repeats;
use alloc::vec::Vec;
use core::ops::Range;

/// The form of a span of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Bytes of a word.
    pub(crate) bytes: usize,
    /// True for f32: the sign is moved behind the exponent, so that the exponent is a byte of its own.
    pub(crate) float: bool,
    /// Bit `i`: the `i`-th byte from the lowest looks like noise and is coded as it is.
    pub(crate) plain: u8,
}

const INPUTS: usize = 5;

/// What is learned of words of one form, over all spans of a block.
pub(crate) struct Words {
    table: Vec<u32>,
    mixer: Mixer,
    repeats: Repeats,
}

/// Slots of a context that is hashed.
const HASHED: usize = 1 << 18;

impl Words {
    pub(crate) fn new() -> Self {
        Words { table: slots(8 * 256 + 2 * 8 * 65536 + 2 * HASHED), mixer: Mixer::new(8 * 8, INPUTS, 1023), repeats: Repeats::new() }
    }

    /// Codes a span of a block in place; a decoder writes it. Bytes behind the last whole word are coded as they are.
    pub(crate) fn code<C: Coder>(&mut self, coder: &mut C, block: &mut [u8], span: Range<usize>, form: Form) {
        let mut before = [0u8; 8];
        let whole = span.len() / form.bytes * form.bytes;
        for at in (span.start..span.start + whole).step_by(form.bytes) {
            let word = at..at + form.bytes;
            let expected = self.repeats.expected(block, at).filter(|from| from + form.bytes <= at);
            if let Some(from) = expected {
                let comes = block[from..from + form.bytes] == block[word.clone()];
                if self.repeats.goes_on(coder, form.bytes, comes) {
                    block.copy_within(from..from + form.bytes, at);
                    before = read(&block[word], form);
                    continue;
                }
            } else {
                self.repeats.ends();
            }
            let mut bytes = read(&block[word.clone()], form);
            let mut above = 0u32;
            for place in (0..form.bytes).rev() {
                bytes[place] = match form.plain >> place & 1 == 1 {
                    true => coder.raw(u32::from(bytes[place]), 8) as u8,
                    false => self.byte(coder, bytes[place], place, above, before[place]),
                };
                above = above << 8 | u32::from(bytes[place]);
            }
            before = bytes;
            turn(&mut bytes, form, false);
            block[word].copy_from_slice(&bytes[..form.bytes]);
        }
        block[span.start + whole..span.end].iter_mut().for_each(|byte| *byte = coder.raw(u32::from(*byte), 8) as u8);
    }

    /// A byte; `above` are those above it in its word.
    fn byte<C: Coder>(&mut self, coder: &mut C, given: u8, place: usize, above: u32, before: u8) -> u8 {
        let (next, before) = ((above & 255) as usize, usize::from(before));
        let (second, third) = (8 * 256, 8 * 256 + 8 * 65536);
        let bases = [place * 256, second + (place * 256 + next) * 256, third + (place * 256 + before) * 256];
        let hashed = third + 8 * 65536;
        let both = hash(next as u32 | (before as u32) << 8 | (place as u32) << 16);
        let whole = hash(above ^ (place as u32) << 29);
        let mut node = 1usize;
        for bit in (0..8).rev() {
            let of = |h: u32| (hash(h.wrapping_add(node as u32)) as usize) % HASHED;
            let at = [bases[0] + node, bases[1] + node, bases[2] + node, hashed + of(both), hashed + HASHED + of(whole)];
            let set = place * 8 + bit;
            let found = self.mixer.code(coder, &mut self.table, &at, set, given >> bit & 1 == 1);
            node = node << 1 | usize::from(found);
        }
        node as u8
    }
}

fn hash(value: u32) -> u32 {
    let value = value.wrapping_mul(0x9E37_79B1);
    (value ^ value >> 15).wrapping_mul(0x85EB_CA77)
}

/// A word's bytes from the lowest on, turned.
fn read(word: &[u8], form: Form) -> [u8; 8] {
    let mut bytes = [0u8; 8];
    bytes[..form.bytes].copy_from_slice(word);
    turn(&mut bytes, form, true);
    bytes
}

/// `seeeeeee emmmmmmm` becomes `eeeeeeee smmmmmmm`, and back.
fn turn(bytes: &mut [u8; 8], form: Form, forth: bool) {
    if form.float && form.bytes == 4 {
        let (high, low) = (bytes[3], bytes[2]);
        (bytes[3], bytes[2]) = match forth {
            true => (high << 1 | low >> 7, high & 128 | low & 127),
            false => (low & 128 | high >> 1, high << 7 | low & 127),
        };
    }
}
