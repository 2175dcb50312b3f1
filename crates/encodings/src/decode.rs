//! How stored data decode. Exporters match on this, never on an encoding's name.
use crate::affine::{AffineSettings, Blocks};
use crate::{Result, codebook};
use graph::Encoding;
use tensor::{DType, Tensor};

/// How stored data become real numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Decode {
    /// `real = (integer - zero_point) * scale`, as DequantizeLinear computes it.
    Affine {
        /// f32: one scale (rank 0), or one for each index along `axis` (rank 1).
        scale: Tensor,
        /// As many zero points, of the type of the stored integers.
        zero_point: Tensor,
        /// The axis of a scale for each index.
        axis: Option<usize>,
        /// Blocks of elements with a scale each, of the shape [`Blocks::scale_shape`]; then there is no axis.
        blocks: Option<Blocks>,
    },
    /// `real = table[c / group][index] * scale[c]` for the channel `c` of an element.
    Table {
        /// f32 `[groups, 2^bits]`.
        table: Tensor,
        /// Bits of an index, 1 to 8.
        bits: u32,
        /// The axis of the channels; `None` where there is one table and no scale.
        axis: Option<usize>,
        /// Channels that share a table.
        group: usize,
        /// Factor on the decoded value, f32 `[channels]`; absent: 1.
        scale: Option<Tensor>,
    },
}

/// A value in its stored form.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Integers or indices, of the value's shape. Indices are uint8, one an element: [`pack`] puts them into the bits they need.
    pub data: Tensor,
    /// How they decode.
    pub decode: Decode,
}

impl Decode {
    /// The encoding that decodes like this, for data read from a file. Affine data take the width of their integers.
    ///
    /// # Errors
    /// A tensor error if the zero point cannot be converted.
    pub fn encoding(&self) -> Result<Encoding> {
        match self {
            Decode::Affine { scale, zero_point, axis, blocks } => {
                let (bits, signed) = match zero_point.dtype() {
                    DType::I2 => (2, true),
                    DType::U2 => (2, false),
                    DType::I4 => (4, true),
                    DType::U4 => (4, false),
                    DType::I8 => (8, true),
                    DType::I16 => (16, true),
                    DType::U16 => (16, false),
                    DType::I32 => (32, true),
                    _ => (8, false),
                };
                let symmetric = signed && zero_point.to_i64_vec()?.iter().all(|z| *z == 0);
                let settings =
                    AffineSettings { bits, signed, symmetric, narrow_range: false, reduce_range: false, axis: *axis, blocks: *blocks };
                Ok(settings.encoding(scale.clone(), zero_point.cast(DType::F32)?))
            }
            Decode::Table { table, bits, axis, group, scale } => codebook::encoding(table, *bits, *axis, *group, scale.as_ref()),
        }
    }
}

/// Numbers below `2^bits` in a row of bits, the lowest first, each byte filled from its lowest bit; zeros fill the last byte.
pub fn pack(numbers: &[u8], bits: u32) -> Vec<u8> {
    let mut out = vec![0u8; (numbers.len() * bits as usize).div_ceil(8)];
    for (i, number) in numbers.iter().enumerate() {
        let at = i * bits as usize;
        let spread = u16::from(*number) << (at % 8);
        out[at / 8] |= spread as u8;
        if let Some(next) = out.get_mut(at / 8 + 1) {
            *next |= (spread >> 8) as u8;
        }
    }
    out
}

/// The first `count` numbers of [`pack`]'s result; `None` if there are fewer.
pub fn unpack(bytes: &[u8], bits: u32, count: usize) -> Option<Vec<u8>> {
    let one = |i: usize| {
        let at = i * bits as usize;
        let (low, high) = (u16::from(*bytes.get(at / 8)?), bytes.get(at / 8 + 1).copied().map_or(0, u16::from));
        Some((((high << 8 | low) >> (at % 8)) & ((1 << bits) - 1)) as u8)
    };
    (bytes.len() * 8 >= count * bits as usize).then(|| (0..count).map(one).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_follow_one_another_from_the_lowest_bit() {
        // 5 = 101, 3 = 011, 6 = 110: 110 011 101 from the highest bit down.
        assert_eq!(pack(&[5, 3, 6], 3), [0b1001_1101, 0b1]);
        assert_eq!(unpack(&[0b1001_1101, 0b1], 3, 3).unwrap(), [5, 3, 6]);
        assert_eq!(unpack(&[0], 3, 3), None);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(numbers in prop::collection::vec(0u8..=255, 0..40), bits in 1u32..=8) {
            let numbers: Vec<u8> = numbers.iter().map(|n| n & ((1u16 << bits) - 1) as u8).collect();
            let packed = pack(&numbers, bits);
            prop_assert_eq!(packed.len(), (numbers.len() * bits as usize).div_ceil(8));
            prop_assert_eq!(unpack(&packed, bits, numbers.len()).unwrap(), numbers);
        }
    }
}
