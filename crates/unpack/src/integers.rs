//! Integers of 1, 2, 4 or 8 bits, as quantized weights have them: most are small, and what stands beside and above tells how small.
use crate::Coder;
use crate::mix::{Mixer, slots};
use crate::repeats::Repeats;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Shape of a span of integers: `[.., channels, inner]` has rows of `channels * inner` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Elements of a row (an output channel).
    pub(crate) row: usize,
    /// Elements of a row that belong to one input channel (the size of a kernel).
    pub(crate) inner: usize,
    /// True if half of the range is zero, not the number zero.
    pub(crate) unsigned: bool,
}

const INPUTS: usize = 6;
/// Classes of magnitude: zero and the bit lengths 1 to 8.
const CLASSES: usize = 9;
const NEAR: usize = CLASSES * CLASSES;
/// Levels of a mean magnitude.
const LEVELS: usize = 24;
/// Positions in a kernel that are told apart.
const POSITIONS: usize = 64;
/// Rows with statistics of their own.
const ROWS: usize = 256;

/// What is learned of integers of one width, over all spans of a block.
pub(crate) struct Integers {
    bits: u32,
    table: Vec<u32>,
    signs: Vec<u32>,
    details: Vec<u32>,
    mixer: Mixer,
    sign_mixer: Mixer,
    detail_mixer: Mixer,
    repeats: Repeats,
}

/// Sizes of the contexts of a class, one after the other, each for 16 nodes of its tree.
const SIZES: [usize; INPUTS] = [POSITIONS, NEAR, NEAR, LEVELS * LEVELS, ROWS, LEVELS * CLASSES];

impl Integers {
    pub(crate) fn new(bits: u32) -> Self {
        Integers {
            bits,
            table: slots(SIZES.iter().sum::<usize>() * 16),
            signs: slots(3 * 2048),
            details: slots(2 * 65536),
            mixer: Mixer::new(16, INPUTS, 1023),
            sign_mixer: Mixer::new(1, 3, 1023),
            detail_mixer: Mixer::new(CLASSES * 8, 2, 1023),
            repeats: Repeats::new(),
        }
    }

    /// Codes a span of a block in place; a decoder writes it. Elements lie in a byte from its lowest bits on.
    pub(crate) fn code<C: Coder>(&mut self, coder: &mut C, block: &mut [u8], span: Range<usize>, shape: Shape) {
        let (start, each) = (span.start, 8 / self.bits as usize);
        let count = span.len() * each;
        // Whether the byte of the present elements repeats an earlier one.
        let mut repeated = None;
        // A damaged archive may say anything.
        let (row, inner) = (shape.row.clamp(1, count.max(1)), shape.inner.clamp(1, count.max(1)));
        // Signed values.
        let mut values: Vec<i16> = vec![0; count];
        // Mean magnitudes, times 64: of the row so far, and of each input channel.
        let mut columns: Vec<u32> = vec![0; row.div_ceil(inner)];
        let mut mean = 0u32;
        // Rows of another tensor say nothing about these.
        self.forget_rows();
        for i in 0..count {
            let column = i % row / inner;
            if i % row == 0 {
                mean = 0;
            }
            let back = |n: usize| if n <= i && n > 0 { values[i - n] } else { 0 };
            let near = [back(1), back(2), back(row), back(if inner > 1 { inner } else { 3 })];
            let classes = near.map(class);
            let position = if inner > 1 { i % row % inner % POSITIONS } else { 0 };
            let contexts = [
                position,
                classes[0] * CLASSES + classes[1],
                classes[2] * CLASSES + classes[3],
                level(mean) * LEVELS + level(columns[column]),
                i / row % ROWS,
                level(columns[column]) * CLASSES + classes[0],
            ];
            if i % each == 0 {
                let at = start + i / each;
                repeated = match self.repeats.expected(block, at).map(|from| block[from]) {
                    Some(byte) => {
                        let comes = block[at] == byte;
                        Some(byte).filter(|_| self.repeats.goes_on(coder, 1, comes))
                    }
                    None => {
                        self.repeats.ends();
                        None
                    }
                };
                if let Some(byte) = repeated {
                    block[at] = byte;
                }
            }
            let data = &mut block[start..];
            // Its highest bit turned, an unsigned number is a signed one about the middle of the range.
            let turn = if shape.unsigned { 1 << (self.bits - 1) } else { 0 };
            let given = get(data, i, self.bits) ^ turn;
            let found = match self.bits {
                _ if repeated.is_some() => given,
                8 => self.wide(coder, given, &contexts, near),
                _ => self.narrow(coder, given, &contexts),
            };
            put(data, i, self.bits, found ^ turn);
            values[i] = self.signed(found);
            let magnitude = u32::from(values[i].unsigned_abs()) * 64;
            mean = follow(mean, magnitude, 3);
            columns[column] = follow(columns[column], magnitude, 2);
        }
    }

    fn forget_rows(&mut self) {
        let before: usize = SIZES[..4].iter().sum::<usize>() * 16;
        self.table[before..before + ROWS * 16].iter_mut().for_each(|slot| *slot = 1 << 31);
    }

    /// Stored bits as a signed number.
    fn signed(&self, stored: u8) -> i16 {
        let shift = 8 - self.bits;
        i16::from((stored << shift) as i8 >> shift)
    }

    fn slots_of(contexts: &[usize; INPUTS], node: usize) -> [usize; INPUTS] {
        let (mut out, mut before) = ([0; INPUTS], 0);
        for ((o, context), size) in out.iter_mut().zip(contexts).zip(SIZES) {
            *o = (before + context) * 16 + node;
            before += size;
        }
        out
    }

    /// Up to four bits as they are, the highest first.
    fn narrow<C: Coder>(&mut self, coder: &mut C, given: u8, contexts: &[usize; INPUTS]) -> u8 {
        let mut node = 1usize;
        for bit in (0..self.bits).rev() {
            let at = Self::slots_of(contexts, node);
            let found = self.mixer.code(coder, &mut self.table, &at, node, given >> bit & 1 == 1);
            node = node << 1 | usize::from(found);
        }
        (node - (1 << self.bits)) as u8
    }

    /// Eight bits: the class of the magnitude, the sign, and the bits below the highest.
    fn wide<C: Coder>(&mut self, coder: &mut C, given: u8, contexts: &[usize; INPUTS], near: [i16; 4]) -> u8 {
        let value = i16::from(given as i8);
        let wanted = class(value);
        let mut node = 1usize;
        for bit in (0..4).rev() {
            let at = Self::slots_of(contexts, node);
            let found = self.mixer.code(coder, &mut self.table, &at, node, wanted >> bit & 1 == 1);
            node = node << 1 | usize::from(found);
        }
        let class = (node - 16).min(CLASSES - 1);
        if class == 0 {
            return 0;
        }
        let side = |v: i16| (v.signum() + 1) as usize;
        let of = |a: usize, b: usize, third: usize| third * 2048 + (side(near[a]) * 3 + side(near[b])) * 16 + class;
        let at = [of(0, 1, 0), of(2, 3, 1), 2 * 2048 + contexts[0] * 9 + side(near[0]) * 3 + side(near[2])];
        let negative = self.sign_mixer.code(coder, &mut self.signs, &at, 0, value < 0);
        let mut magnitude = 1u16;
        for below in (0..class - 1).rev() {
            let bit = value.unsigned_abs() >> below & 1 == 1;
            let depth = class - 2 - below;
            let found = if depth < 3 {
                let prefix = magnitude as usize & 15;
                let at = [class * 128 + depth * 16 + prefix, 65536 + ((contexts[3] & 1023) * 64 + class * 4 + depth) % 65536];
                self.detail_mixer.code(coder, &mut self.details, &at, class * 8 + depth, bit)
            } else {
                coder.raw(u32::from(bit), 1) == 1
            };
            magnitude = magnitude << 1 | u16::from(found);
        }
        let value = if negative { -(magnitude as i16) } else { magnitude as i16 };
        value as u8
    }
}

/// Zero, or the bit length of the magnitude.
fn class(value: i16) -> usize {
    (16 - value.unsigned_abs().leading_zeros()) as usize
}

/// A mean magnitude times 64 in steps of about 1.4.
fn level(mean: u32) -> usize {
    if mean < 16 {
        return 0;
    }
    let length = 32 - mean.leading_zeros();
    let half = mean >> (length - 2) & 1;
    ((length - 5) * 2 + half + 1).min(LEVELS as u32 - 1) as usize
}

fn follow(mean: u32, value: u32, speed: u32) -> u32 {
    if mean == 0 { value } else { (mean as i64 + ((i64::from(value) - i64::from(mean)) >> speed)) as u32 }
}

fn get(data: &[u8], i: usize, bits: u32) -> u8 {
    let each = 8 / bits as usize;
    data[i / each] >> (i % each * bits as usize) & (0xFFu16 >> (8 - bits)) as u8
}

fn put(data: &mut [u8], i: usize, bits: u32, value: u8) {
    let each = 8 / bits as usize;
    let (shift, mask) = (i % each * bits as usize, (0xFFu16 >> (8 - bits)) as u8);
    data[i / each] = data[i / each] & !(mask << shift) | value << shift;
}
