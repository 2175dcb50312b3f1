//! The counterpart of [`unpack::Decoder`].
use unpack::{Coder, middle};

/// Writes bits.
pub(crate) struct Encoder {
    out: Vec<u8>,
    low: u32,
    high: u32,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Encoder { out: vec![], low: 0, high: u32::MAX }
    }

    /// The coded bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        // The shortest number in the interval; the decoder reads zeros behind it.
        for bytes in 1..=4 {
            let kept = self.low.checked_add((1u32 << (32 - 8 * bytes)) - 1).map(|v| v >> (32 - 8 * bytes) << (32 - 8 * bytes));
            if let Some(value) = kept.filter(|v| (self.low..=self.high).contains(v)) {
                self.out.extend_from_slice(&value.to_be_bytes()[..bytes]);
                break;
            }
        }
        self.out
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
}
