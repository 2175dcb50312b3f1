//! Floats of trained weights: exponents are told by those of their row and their column, and what lies below the highest bits of a
//! mantissa is noise, which is stored as it is. A few nanoseconds a bit: contexts are not mixed. Sums that were rounded to one absolute step have
//! zeros at their lower end, the more the smaller they are: where there are such, their number is told by the exponent.
use crate::Coder;
use crate::mix::{Chance, chances};
use alloc::vec;
use alloc::vec::Vec;

/// Levels of the mean exponent of row and column.
const LEVELS: usize = 64;
/// Exponents below the greatest that have a symbol of their own; then the number zero, and all others.
const NEAR: u32 = 30;
const ZERO: u32 = NEAR;
const FAR: u32 = NEAR + 1;
const SYMBOLS: usize = 32;
/// Bits of the mantissa that are coded.
const CODED: u32 = 2;
const STORED: u32 = 23 - CODED;
/// A column of which nothing is known.
const UNSEEN: u16 = u16::MAX;

/// What is learned of floats, over all spans of a block.
pub(crate) struct Floats {
    symbols: Vec<Chance>,
    mantissas: Vec<Chance>,
    far: Vec<Chance>,
    /// Whether a bit from the lowest on is the first that is set.
    tails: Vec<Chance>,
}

impl Floats {
    pub(crate) fn new() -> Self {
        let mantissas = chances(SYMBOLS << CODED);
        Floats { symbols: chances(LEVELS * SYMBOLS), mantissas, far: chances(256), tails: chances(SYMBOLS * SYMBOLS) }
    }

    /// Codes a span in place; a decoder writes it. A row has `row` floats, of which `inner` belong to a column; `tails`: zeros at the lower end
    /// are coded. Bytes behind the last whole float are stored.
    pub(crate) fn code<C: Coder>(&mut self, coder: &mut C, span: &mut [u8], (row, inner): (usize, usize), tails: bool) {
        let count = span.len() / 4;
        let (row, inner) = (row.clamp(1, count.max(1)), inner.clamp(1, count.max(1)));
        let exponent = |word: &[u8; 4]| u32::from_le_bytes(*word) >> 23 & 255;
        let (words, rest) = span.as_chunks_mut::<4>();
        let greatest = coder.raw(words.iter().map(exponent).max().unwrap_or(0), 8);
        // Means of the distance from the greatest exponent, times 16.
        let mut columns = vec![UNSEEN; row.div_ceil(inner)];
        let mut mean = 4 << 4;
        for line in words.chunks_mut(row) {
            for (own, column) in line.chunks_mut(inner).zip(&mut columns) {
                let mut known = if *column == UNSEEN { mean } else { u32::from(*column) };
                for word in own {
                    let found = self.word(coder, u32::from_le_bytes(*word), greatest, ((mean + known) >> 4) as usize, tails);
                    *word = found.to_le_bytes();
                    let far = greatest.saturating_sub(found >> 23 & 255).min(NEAR) << 4;
                    mean = follow(mean, far, 4);
                    known = follow(known, far, 2);
                }
                *column = known as u16;
            }
        }
        rest.iter_mut().for_each(|byte| *byte = coder.raw(u32::from(*byte), 8) as u8);
    }

    #[inline]
    fn word<C: Coder>(&mut self, coder: &mut C, given: u32, greatest: u32, level: usize, tails: bool) -> u32 {
        let exponent = given >> 23 & 255;
        let wanted = match greatest.wrapping_sub(exponent) {
            _ if given == 0 => ZERO,
            near @ 0..NEAR => near,
            _ => FAR,
        };
        let context = level.min(LEVELS - 1) * SYMBOLS;
        let symbol = tree(coder, &mut self.symbols[context..context + SYMBOLS], 5, wanted);
        if symbol == ZERO {
            return 0;
        }
        let exponent = match symbol {
            FAR => tree(coder, &mut self.far, 8, exponent),
            // Only a damaged block goes below zero.
            near => greatest.wrapping_sub(near) & 255,
        };
        let context = (symbol as usize) << CODED;
        let high = tree(coder, &mut self.mantissas[context..context + (1 << CODED)], CODED, given >> STORED & ((1 << CODED) - 1));
        let (known, tail) = if tails { self.tail(coder, symbol, given) } else { (0, 0) };
        let left = STORED - known;
        // The sign stands above them.
        let stored = coder.raw(given >> 31 << left | (given & ((1 << STORED) - 1)) >> known, left + 1);
        let low = (stored & ((1 << left) - 1)) << known | tail;
        stored >> left << 31 | exponent << 23 | high << STORED | low
    }

    /// The zeros at the lower end of a mantissa and the one above them: how many bits that is, and these bits.
    #[inline]
    fn tail<C: Coder>(&mut self, coder: &mut C, symbol: u32, given: u32) -> (u32, u32) {
        let chances = &mut self.tails[symbol as usize * SYMBOLS..][..SYMBOLS];
        let first = (0..STORED).find(|bit| chances[*bit as usize].code(coder, given >> bit & 1 == 1));
        first.map_or((STORED, 0), |bit| (bit + 1, 1 << bit))
    }
}

/// A number of `bits` bits, the highest first.
#[inline]
pub(crate) fn tree<C: Coder>(coder: &mut C, chances: &mut [Chance], bits: u32, given: u32) -> u32 {
    let mut node = 1usize;
    for bit in (0..bits).rev() {
        let found = chances[node].code(coder, given >> bit & 1 == 1);
        node = node << 1 | usize::from(found);
    }
    node as u32 - (1 << bits)
}

#[inline]
fn follow(mean: u32, value: u32, speed: u32) -> u32 {
    (mean as i32 + ((value as i32 - mean as i32) >> speed)) as u32
}
