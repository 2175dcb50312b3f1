//! Digits of one base packed in bytes: how [`crate::lower`] stores indices into tables, except those of 4, 7 and 8 bits.
use encodings::{Decode, Stored, pack};

/// How indices of few levels are stored together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    /// Levels: 2, 3, 4, 8, 32 or 64.
    pub(crate) base: u8,
    /// The levels are -1 and 1, or -1, 0 and 1: no table is needed.
    pub(crate) unit: bool,
}

/// How data that decode from a table are stored; `None` for indices of 4 and 8 bits, which have element types of their own, and
/// of 7 bits, whose words take 56 bits: ONNX Runtime was seen to decode these wrongly. Of two bits the fourth level is left out
/// if no element uses it and it repeats the third.
pub(crate) fn kind_of(stored: &Stored) -> Option<Kind> {
    let Decode::Table { table, bits, .. } = &stored.decode else { return None };
    let data = stored.data.as_slice::<u8>().ok().filter(|_| matches!(*bits, 1..=3 | 5 | 6))?;
    let table = table.to_f32_vec().ok()?;
    let three = *bits == 2 && data.iter().all(|i| *i < 3) && table.chunks(4).all(|t| t.len() == 4 && t[3] == t[2]);
    let base = if three { 3 } else { 1 << bits };
    let unit = match base {
        2 => table == [-1.0, 1.0],
        3 => table == [-1.0, 0.0, 1.0, 1.0],
        _ => false,
    };
    Some(Kind { base, unit })
}

impl Kind {
    /// Bits of an index into a table of these levels.
    pub(crate) fn bits(self) -> u32 {
        u32::from(self.base).next_power_of_two().ilog2()
    }

    /// Bytes of a word: the fewest that hold a whole number of digits without a remainder (base 3 has one).
    pub(crate) fn word(self) -> usize {
        match self.base {
            ..=4 => 1,
            8 | 64 => 3,
            _ => 5,
        }
    }

    /// Digits of a word.
    pub(crate) fn digits(self) -> usize {
        if self.base == 3 { 5 } else { 8 * self.word() / self.bits() as usize }
    }

    /// The divisors that take each digit out of a word.
    pub(crate) fn powers(self) -> Vec<i64> {
        (0..self.digits() as u32).map(|i| i64::from(self.base).pow(i)).collect()
    }

    /// The factors that make a word of its bytes, the lowest byte first.
    pub(crate) fn places(self) -> Vec<i64> {
        (0..self.word() as u32).map(|i| 256i64.pow(i)).collect()
    }

    /// Bytes for so many digits: whole words.
    pub(crate) fn bytes(self, count: usize) -> usize {
        count.div_ceil(self.digits()) * self.word()
    }

    /// Digits in words; zeros fill the last one.
    pub(crate) fn pack(self, digits: &[u8]) -> Vec<u8> {
        let mut out = match self.base {
            3 => digits.chunks(5).map(|d| d.iter().rev().fold(0, |byte, digit| byte * 3 + digit)).collect(),
            _ => pack(digits, self.bits()),
        };
        out.resize(self.bytes(digits.len()), 0);
        out
    }

    /// Digits `from..from + count` of packed words; `None` if there are fewer.
    pub(crate) fn unpack(self, bytes: &[u8], from: usize, count: usize) -> Option<Vec<u8>> {
        let (powers, places) = (self.powers(), self.places());
        let end = from.checked_add(count).filter(|end| *end <= bytes.len() / places.len() * powers.len())?;
        let word = |at: usize| bytes[at * places.len()..].iter().zip(&places).map(|(b, p)| i64::from(*b) * p).sum::<i64>();
        let digit = |i: usize| (word(i / powers.len()) / powers[i % powers.len()] % i64::from(self.base)) as u8;
        Some((from..end).map(digit).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_back_from_any_place() {
        for base in [2u8, 3, 4, 8, 32, 64] {
            let kind = Kind { base, unit: false };
            let digits: Vec<u8> = (0..37u32).map(|i| (i * i % u32::from(base)) as u8).collect();
            let bytes = kind.pack(&digits);
            assert_eq!(bytes.len(), 37usize.div_ceil(kind.digits()) * kind.word());
            assert!(8 * kind.word() <= kind.digits() * kind.bits() as usize);
            for (from, count) in [(0, 37), (3, 20), (36, 1), (37, 0)] {
                assert_eq!(kind.unpack(&bytes, from, count).unwrap(), digits[from..from + count], "{base} {from}");
            }
            assert_eq!(kind.unpack(&bytes, 30, 40), None);
        }
        // 2 + 1 * 3 + 0 * 9 + 2 * 27 = 59.
        assert_eq!(Kind { base: 3, unit: true }.pack(&[2, 1, 0, 2]), [59]);
    }
}
