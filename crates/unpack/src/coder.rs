//! Binary arithmetic coding: a bit costs `-log2` of the probability that it was given.
//!
//! The interval is halved at 32 bits without carries, and leading bytes are shifted out as soon as both ends agree on them, as in
//! Mahoney's lpaq (2007).
use crate::archive::number;

/// What a model codes its bits with: an encoder, or a decoder that finds them.
pub trait Coder {
    /// Codes a bit, which a decoder ignores; returns the bit. `one` is the probability of true in 1/65536, from 1 to 65535.
    fn bit(&mut self, one: u32, bit: bool) -> bool;

    /// Stores the lowest `count` bits of a number, at most 32, which nothing predicts, beside what is coded; a decoder ignores the number.
    /// Returns the bits.
    fn raw(&mut self, value: u32, count: u32) -> u32;
}

/// Where an interval is divided between true (below) and false.
#[inline]
pub fn middle(low: u32, high: u32, one: u32) -> u32 {
    low + ((u64::from(high - low) * u64::from(one)) >> 16) as u32
}

/// Finds bits in the bytes of a block: how many bytes of stored bits there are, these, and the coded ones. Behind the end of either it
/// reads zeros: whoever decodes knows how many bits there are.
pub struct Decoder<'a> {
    coded: &'a [u8],
    at: usize,
    low: u32,
    high: u32,
    code: u32,
    stored: &'a [u8],
    stored_at: usize,
    /// Stored bits that were read and not yet asked for, from the lowest on.
    waiting: u64,
    held: u32,
}

impl<'a> Decoder<'a> {
    /// A decoder at the beginning of a block.
    pub fn new(block: &'a [u8]) -> Self {
        let split = number(block).ok().and_then(|(stored, rest)| rest.split_at_checked(usize::try_from(stored).ok()?));
        let (stored, coded) = split.unwrap_or_default();
        // A block that lies about its parts has run out already.
        let stored_at = if split.is_some() { 0 } else { usize::MAX / 2 };
        let mut decoder = Decoder { coded, at: 0, low: 0, high: u32::MAX, code: 0, stored, stored_at, waiting: 0, held: 0 };
        for _ in 0..4 {
            decoder.shift();
        }
        decoder
    }

    fn shift(&mut self) {
        let next = self.coded.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        self.code = self.code << 8 | u32::from(next);
    }

    /// True if it has read far behind the end of the bytes, which no encoder makes it do.
    pub fn ran_out(&self) -> bool {
        self.at > self.coded.len() + 8 || self.stored_at > self.stored.len()
    }
}

impl Coder for Decoder<'_> {
    fn bit(&mut self, one: u32, _: bool) -> bool {
        let middle = middle(self.low, self.high, one);
        let bit = self.code <= middle;
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 255;
            self.shift();
        }
        bit
    }

    #[inline]
    fn raw(&mut self, _: u32, count: u32) -> u32 {
        if self.held < count {
            let next = match self.stored.get(self.stored_at..).and_then(|s| s.first_chunk::<4>()) {
                Some(four) => u32::from_le_bytes(*four),
                None => (0..4).fold(0, |n, i| n | u32::from(self.stored.get(self.stored_at + i).copied().unwrap_or(0)) << (8 * i)),
            };
            // The last bytes may be fewer than four.
            let missing = (count - self.held).div_ceil(8) as usize;
            let left = self.stored.len().saturating_sub(self.stored_at);
            self.stored_at += if left >= 4 { 4 } else { left.max(missing) };
            self.waiting |= u64::from(next) << self.held;
            self.held += 32;
        }
        let found = self.waiting & ((1 << count) - 1);
        self.waiting >>= count;
        self.held -= count;
        found as u32
    }
}
