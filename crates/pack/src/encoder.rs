//! The counterpart of [`unpack::Decoder`].
use unpack::{Coder, middle};

/// Writes bits.
pub(crate) struct Encoder {
    out: Vec<u8>,
    stored: Vec<u8>,
    /// Bits to store that are no whole bytes yet, from the lowest on.
    waiting: u64,
    held: u32,
    low: u32,
    high: u32,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Encoder { out: vec![], stored: vec![], waiting: 0, held: 0, low: 0, high: u32::MAX }
    }

    /// The bytes of the block.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        // The shortest number in the interval; the decoder reads zeros behind it.
        for bytes in 1..=4 {
            let kept = self.low.checked_add((1u32 << (32 - 8 * bytes)) - 1).map(|v| v >> (32 - 8 * bytes) << (32 - 8 * bytes));
            if let Some(value) = kept.filter(|v| (self.low..=self.high).contains(v)) {
                self.out.extend_from_slice(&value.to_be_bytes()[..bytes]);
                break;
            }
        }
        let bytes = self.waiting.to_le_bytes();
        self.stored.extend_from_slice(&bytes[..self.held.div_ceil(8) as usize]);
        let mut block = vec![];
        unpack::write_number(&mut block, self.stored.len() as u64);
        block.extend_from_slice(&self.stored);
        block.extend_from_slice(&self.out);
        block
    }
}

impl Coder for Encoder {
    fn bit(&mut self, one: u32, bit: bool) -> bool {
        let middle = middle(self.low, self.high, one);
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = self.high << 8 | 255;
        }
        bit
    }

    #[inline]
    fn raw(&mut self, value: u32, count: u32) -> u32 {
        let value = u64::from(value) & ((1 << count) - 1);
        self.waiting |= value << self.held;
        self.held += count;
        if self.held >= 32 {
            self.stored.extend_from_slice(&(self.waiting as u32).to_le_bytes());
            self.waiting >>= 32;
            self.held -= 32;
        }
        value as u32
    }
}
