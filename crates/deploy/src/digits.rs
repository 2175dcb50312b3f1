//! Digits of a small base in bytes: how weights of two to four levels are stored ([`crate::lower`]).
use encodings::{Decode, Stored};

/// How indices of few levels are stored together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    /// Levels: 2, 3 or 4.
    pub(crate) base: u8,
    /// The levels are -1 and 1, or -1, 0 and 1: no table is needed.
    pub(crate) unit: bool,
}

/// How data that decode from a table of at most four levels are stored; `None` for larger tables. The fourth level of two bits is left
/// out where no element has it and it repeats the third.
pub(crate) fn kind_of(stored: &Stored) -> Option<Kind> {
    let Decode::Table { table, bits, .. } = &stored.decode else { return None };
    let data = stored.data.as_slice::<u8>().ok().filter(|d| !d.is_empty() && *bits <= 2)?;
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
    /// Digits that a byte holds.
    pub(crate) fn digits(self) -> usize {
        match self.base {
            2 => 8,
            3 => 5,
            _ => 4,
        }
    }

    /// What a byte is divided by for each of its digits.
    pub(crate) fn powers(self) -> Vec<i32> {
        (0..self.digits() as u32).map(|i| i32::from(self.base).pow(i)).collect()
    }

    /// Bits of an index into a table of these levels.
    pub(crate) fn bits(self) -> u32 {
        if self.base == 2 { 1 } else { 2 }
    }

    /// Digits in bytes; zeros fill the last one.
    pub(crate) fn pack(self, digits: &[u8]) -> Vec<u8> {
        digits.chunks(self.digits()).map(|d| d.iter().rev().fold(0, |byte, digit| byte * self.base + digit)).collect()
    }

    /// Digits `from..from + count` of packed bytes; `None` if there are fewer.
    pub(crate) fn unpack(self, bytes: &[u8], from: usize, count: usize) -> Option<Vec<u8>> {
        let powers = self.powers();
        let end = from.checked_add(count).filter(|end| *end <= bytes.len() * powers.len())?;
        let digit = |i: usize| (i32::from(bytes[i / powers.len()]) / powers[i % powers.len()] % i32::from(self.base)) as u8;
        Some((from..end).map(digit).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_back_from_any_place() {
        for base in [2u8, 3, 4] {
            let kind = Kind { base, unit: false };
            let digits: Vec<u8> = (0..37u32).map(|i| (i * i % u32::from(base)) as u8).collect();
            let bytes = kind.pack(&digits);
            assert_eq!(bytes.len(), 37usize.div_ceil(kind.digits()));
            for (from, count) in [(0, 37), (3, 20), (36, 1), (37, 0)] {
                assert_eq!(kind.unpack(&bytes, from, count).unwrap(), digits[from..from + count], "{base} {from}");
            }
            assert_eq!(kind.unpack(&bytes, 30, 20), None);
        }
        // 2 + 1 * 3 + 0 * 9 + 2 * 27 = 59.
        assert_eq!(Kind { base: 3, unit: true }.pack(&[2, 1, 0, 2]), [59]);
    }
}
