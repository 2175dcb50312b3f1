//! Which bytes of a file are numbers of which kind.
use crate::floats::Floats;
use crate::integers::{Integers, Shape};
use crate::varints::Varints;
use crate::words::{Form, Words};
use crate::{Coder, Fault, archive, few};
use alloc::vec::Vec;

/// The kind of the numbers of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Integers of 1, 2, 4 or 8 bits.
    Integers {
        /// Bits of each.
        bits: u8,
        /// True if half of the range is zero.
        unsigned: bool,
    },
    /// Words of 2, 4 or 8 bytes.
    Words {
        /// Bytes of each.
        bytes: u8,
        /// True for f32.
        float: bool,
        /// Bit `i`: the `i`-th byte of a word from the lowest is noise.
        plain: u8,
    },
    /// Whole words of which at most 256 are different.
    Few {
        /// Bytes of each.
        bytes: u8,
        /// True for floats.
        float: bool,
    },
    /// f32 of which the lower bits of the mantissa are noise.
    Floats {
        /// True if many have zeros at their lower end.
        tails: bool,
    },
    /// Integers as protobuf packs them, each in as few bytes as it takes.
    Varints,
    /// The same bytes as earlier ones of the block.
    Same {
        /// So many bytes before.
        back: usize,
    },
}

/// A span of numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Bytes of structure before it.
    pub gap: usize,
    /// Its own bytes.
    pub length: usize,
    /// What they are.
    pub kind: Kind,
    /// Numbers of a row: what one output channel has.
    pub row: usize,
    /// Numbers of a row that belong to one input channel.
    pub inner: usize,
    /// True if it begins a block.
    pub begins: bool,
}

/// The spans of a file, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The spans.
    pub spans: Vec<Span>,
}

/// The kinds that have no width.
const OTHER: u8 = 96;

impl Layout {
    /// Codes the spans of one block, which lie one behind the other in `data`; a decoder writes them.
    ///
    /// # Errors
    /// [`Fault::Damaged`] if the spans do not add up to the data.
    pub fn code<C: Coder>(spans: &[Span], coder: &mut C, data: &mut [u8]) -> Result<(), Fault> {
        let mut integers: [Option<Integers>; 4] = [None, None, None, None];
        let mut words: [Option<Words>; 8] = [const { None }; 8];
        let (mut few, mut floats, mut varints) = (None, None, None);
        let mut at = 0;
        for span in spans {
            if span.length > data.len() - at {
                return Err(Fault::Damaged);
            }
            let own = at..at + span.length;
            let begins = at;
            at += span.length;
            match span.kind {
                Kind::Integers { bits, unsigned } => {
                    let known =
                        integers.get_mut(bits.trailing_zeros() as usize).filter(|_| bits.is_power_of_two()).ok_or(Fault::Damaged)?;
                    let shape = Shape { row: span.row, inner: span.inner, unsigned };
                    known.get_or_insert_with(|| Integers::new(u32::from(bits))).code(coder, data, own, shape);
                }
                Kind::Few { bytes, float } => {
                    if ![2, 4, 8].contains(&bytes) || !span.length.is_multiple_of(usize::from(bytes)) {
                        return Err(Fault::Damaged);
                    }
                    let known = few.get_or_insert_with(|| (Words::new(), Integers::new(8)));
                    let form = Form { bytes: usize::from(bytes), float, plain: 0 };
                    let shape = Shape { row: span.row, inner: span.inner, unsigned: true };
                    few::code(coder, &mut data[own], form, shape, (&mut known.0, &mut known.1));
                }
                Kind::Floats { tails } => {
                    floats.get_or_insert_with(Floats::new).code(coder, &mut data[own], (span.row, span.inner), tails);
                }
                Kind::Varints => varints.get_or_insert_with(Varints::new).code(coder, &mut data[own]),
                Kind::Same { back } => {
                    let from = begins.checked_sub(back).filter(|_| back >= span.length).ok_or(Fault::Damaged)?;
                    data.copy_within(from..from + span.length, begins);
                }
                Kind::Words { bytes, float, plain } => {
                    let at = bytes.trailing_zeros() as usize * 2 + usize::from(float);
                    let known = words.get_mut(at).filter(|_| [2, 4, 8].contains(&bytes)).ok_or(Fault::Damaged)?;
                    let form = Form { bytes: usize::from(bytes), float, plain };
                    known.get_or_insert_with(Words::new).code(coder, data, own, form);
                }
            }
        }
        if at == data.len() { Ok(()) } else { Err(Fault::Damaged) }
    }

    /// The table as bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        archive::write_number(&mut out, self.spans.len() as u64);
        for span in &self.spans {
            let kind = match span.kind {
                Kind::Integers { bits, unsigned } => u8::from(unsigned) << 4 | bits,
                Kind::Words { bytes, float, .. } => 32 | u8::from(float) << 4 | bytes,
                Kind::Few { bytes, float } => 64 | u8::from(float) << 4 | bytes,
                Kind::Floats { tails: false } => OTHER,
                Kind::Varints => OTHER | 1,
                Kind::Same { .. } => OTHER | 2,
                Kind::Floats { tails: true } => OTHER | 3,
            };
            out.push(kind | u8::from(span.begins) << 7);
            match span.kind {
                Kind::Words { plain, .. } => out.push(plain),
                Kind::Same { back } => archive::write_number(&mut out, back as u64),
                _ => {}
            }
            for number in [span.gap, span.length, span.row, span.inner] {
                archive::write_number(&mut out, number as u64);
            }
        }
        out
    }

    /// Reads [`Layout::write`]'s table from the beginning of bytes; returns the bytes behind it too.
    ///
    /// # Errors
    /// [`Fault::Damaged`] for a table that no encoder writes.
    pub fn read(bytes: &[u8]) -> Result<(Layout, &[u8]), Fault> {
        let (count, mut rest) = archive::number(bytes)?;
        let mut spans = Vec::new();
        for _ in 0..count {
            let (first, behind) = rest.split_first().ok_or(Fault::Damaged)?;
            rest = behind;
            let (small, flag) = (first & 15, first >> 4 & 1 == 1);
            let kind = if first & OTHER == OTHER {
                match first & !(OTHER | 128) {
                    at @ (0 | 3) => Kind::Floats { tails: at == 3 },
                    1 => Kind::Varints,
                    2 => {
                        let (back, behind) = archive::number(rest)?;
                        rest = behind;
                        Kind::Same { back: usize::try_from(back).map_err(|_| Fault::Damaged)? }
                    }
                    _ => return Err(Fault::Damaged),
                }
            } else if first & 64 != 0 {
                Kind::Few { bytes: small, float: flag }
            } else if first & 32 != 0 {
                let (plain, behind) = rest.split_first().ok_or(Fault::Damaged)?;
                rest = behind;
                Kind::Words { bytes: small, float: flag, plain: *plain }
            } else {
                Kind::Integers { bits: small, unsigned: flag }
            };
            let mut numbers = [0usize; 4];
            for number in &mut numbers {
                let (value, behind) = archive::number(rest)?;
                *number = usize::try_from(value).map_err(|_| Fault::Damaged)?;
                rest = behind;
            }
            let [gap, length, row, inner] = numbers;
            spans.push(Span { gap, length, kind, row, inner, begins: first >> 7 == 1 });
        }
        Ok((Layout { spans }, rest))
    }

    /// The spans of each block.
    pub fn blocks(&self) -> Vec<&[Span]> {
        let starts = self.spans.iter().enumerate().filter(|(i, s)| *i == 0 || s.begins).map(|(i, _)| i);
        let starts: Vec<usize> = starts.chain([self.spans.len()]).collect();
        starts.windows(2).map(|w| &self.spans[w[0]..w[1]]).collect()
    }
}
