//! Binary arithmetic coding: a bit costs `-log2` of the probability that it was given.
//!
//! The interval is halved at 32 bits without carries, and leading bytes are shifted out as soon as both ends agree on them, as in
//! Mahoney's lpaq (2007).

/// What a model codes its bits with: an encoder, or a decoder that finds them.
pub trait Coder {
    /// Codes a bit, which a decoder ignores; returns the bit. `one` is the probability of true in 1/65536, from 1 to 65535.
    fn bit(&mut self, one: u32, bit: bool) -> bool;
}

/// Where an interval is divided between true (below) and false.
pub fn middle(low: u32, high: u32, one: u32) -> u32 {
    low + ((u64::from(high - low) * u64::from(one)) >> 16) as u32
}

/// Finds bits in coded bytes. Behind their end it reads zeros: whoever decodes knows how many bits there are.
pub struct Decoder<'a> {
    coded: &'a [u8],
    at: usize,
    low: u32,
    high: u32,
    code: u32,
}

impl<'a> Decoder<'a> {
    /// A decoder at the beginning of coded bytes.
    pub fn new(coded: &'a [u8]) -> Self {
        let mut decoder = Decoder { coded, at: 0, low: 0, high: u32::MAX, code: 0 };
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
        self.at > self.coded.len() + 8
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
}
