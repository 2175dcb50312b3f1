//! 8- and 4-bit floats: decoding by a table of all codes, encoding by a search in it.
use crate::DType;
use crate::cast::{CastOptions, PowerRounding};

/// A float format of at most 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct SmallFloat {
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    kind: NonFinite,
}

/// Which codes are not finite numbers.
#[derive(Clone, Copy, PartialEq)]
enum NonFinite {
    /// Infinities and NaN at the top exponent, as in IEEE 754.
    Ieee,
    /// No infinity; all ones is NaN.
    Finite,
    /// No infinity and no negative zero, whose code is NaN.
    FiniteUnsignedZero,
    /// Every code is a number.
    All,
    /// An exponent alone, without sign: float8e8m0.
    Power,
}

impl SmallFloat {
    pub(crate) fn of(dtype: DType) -> Option<Self> {
        let format = |exponent_bits, mantissa_bits, bias, kind| Some(SmallFloat { exponent_bits, mantissa_bits, bias, kind });
        match dtype {
            DType::F8E4M3FN => format(4, 3, 7, NonFinite::Finite),
            DType::F8E4M3FNUZ => format(4, 3, 8, NonFinite::FiniteUnsignedZero),
            DType::F8E5M2 => format(5, 2, 15, NonFinite::Ieee),
            DType::F8E5M2FNUZ => format(5, 2, 16, NonFinite::FiniteUnsignedZero),
            DType::F8E8M0 => format(8, 0, 127, NonFinite::Power),
            DType::F4E2M1 => format(2, 1, 1, NonFinite::All),
            _ => None,
        }
    }

    fn sign_bit(self) -> u8 {
        1 << (self.exponent_bits + self.mantissa_bits)
    }

    fn decode(self, code: u8) -> f32 {
        if self.kind == NonFinite::Power {
            return if code == 255 { f32::NAN } else { 2f64.powi(code as i32 - self.bias) as f32 };
        }
        let magnitude = code & (self.sign_bit() - 1);
        let negative = code & self.sign_bit() != 0;
        let mantissa = magnitude & ((1 << self.mantissa_bits) - 1);
        let exponent = magnitude >> self.mantissa_bits;
        let top = (1u8 << self.exponent_bits) - 1;
        let special = match self.kind {
            NonFinite::Ieee if exponent == top => Some(if mantissa == 0 { f32::INFINITY } else { f32::NAN }),
            NonFinite::Finite if magnitude == self.sign_bit() - 1 => Some(f32::NAN),
            NonFinite::FiniteUnsignedZero if code == self.sign_bit() => Some(f32::NAN),
            _ => None,
        };
        let fraction = mantissa as f32 / (1u32 << self.mantissa_bits) as f32;
        let value = special.unwrap_or(match exponent {
            0 => fraction * 2f32.powi(1 - self.bias),
            e => (1.0 + fraction) * 2f32.powi(e as i32 - self.bias),
        });
        if negative { -value } else { value }
    }

    /// The value of each code.
    pub(crate) fn table(self) -> [f32; 256] {
        std::array::from_fn(|code| self.decode(code as u8))
    }

    /// The code nearest to a value; ties go to the even code.
    pub(crate) fn encode(self, table: &[f32; 256], v: f32, options: CastOptions) -> u8 {
        if self.kind == NonFinite::Power {
            return encode_power(v, options);
        }
        let sign = if v.is_sign_negative() { self.sign_bit() } else { 0 };
        let largest = (0..self.sign_bit()).rev().find(|c| table[*c as usize].is_finite()).unwrap_or(0);
        if v.is_nan() {
            return match self.kind {
                NonFinite::FiniteUnsignedZero => self.sign_bit(),
                NonFinite::All => largest,
                NonFinite::Ieee => sign | ((((1 << self.exponent_bits) - 1) << self.mantissa_bits) | (1 << (self.mantissa_bits - 1))),
                _ => sign | (self.sign_bit() - 1),
            };
        }
        let magnitude = v.abs();
        // Positive codes are in the order of their values.
        let above = table[..=largest as usize].partition_point(|c| *c < magnitude) as u8;
        let code = if above == 0 {
            0
        } else if above > largest {
            // Half a step beyond the largest value is where rounding would leave the format.
            let half_step = (table[largest as usize] - table[largest as usize - 1]) / 2.0;
            let overflows =
                magnitude > table[largest as usize] + half_step || (magnitude == table[largest as usize] + half_step && largest & 1 == 1);
            if !overflows || options.saturate || self.kind == NonFinite::All {
                largest
            } else {
                return match self.kind {
                    NonFinite::Ieee => sign | (largest + 1),
                    NonFinite::FiniteUnsignedZero => self.sign_bit(),
                    _ => sign | (self.sign_bit() - 1),
                };
            }
        } else {
            let below = above - 1;
            let (down, up) = (magnitude - table[below as usize], table[above as usize] - magnitude);
            if down < up || (down == up && below & 1 == 0) { below } else { above }
        };
        if code == 0 && self.kind == NonFinite::FiniteUnsignedZero { 0 } else { sign | code }
    }
}

fn encode_power(v: f32, options: CastOptions) -> u8 {
    let bits = v.to_bits() & 0x7fff_ffff;
    let (exponent, mantissa) = ((bits >> 23) as u8, bits & 0x7f_ffff);
    if v.is_nan() {
        return 255;
    }
    if v.is_infinite() {
        return if options.saturate { 254 } else { 255 };
    }
    // Code 0 is 2^-127, which f32 holds as a subnormal number with half the mantissa range.
    let (exact, middle) = if exponent == 0 { (0x40_0000, 0x60_0000) } else { (0, 0x40_0000) };
    let up = match options.power_rounding {
        PowerRounding::Up => mantissa > exact,
        PowerRounding::Down => false,
        PowerRounding::Nearest => mantissa >= middle,
    };
    match (up, exponent) {
        (false, e) => e,
        (true, 254) => {
            if options.saturate {
                254
            } else {
                255
            }
        }
        (true, e) => e + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    const ALL: [DType; 6] = [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ, DType::F8E8M0, DType::F4E2M1];

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for dtype in ALL {
            let format = SmallFloat::of(dtype).unwrap();
            let table = format.table();
            for code in 0..1u32 << dtype.bits() {
                let v = table[code as usize];
                if v.is_finite() {
                    assert_eq!(format.encode(&table, v, CastOptions::default()), code as u8, "{dtype} {code} {v}");
                }
            }
        }
    }

    #[test]
    fn limits_and_overflow_follow_onnx() {
        let cast = |v: f32, d, saturate| {
            let o = CastOptions { saturate, ..CastOptions::default() };
            Tensor::scalar(v).cast_with(d, o).unwrap().to_f32_vec().unwrap()[0]
        };
        assert_eq!(cast(1e6, DType::F8E4M3FN, true), 448.0);
        assert!(cast(1e6, DType::F8E4M3FN, false).is_nan());
        assert_eq!(cast(-1e6, DType::F8E5M2, true), -57344.0);
        assert_eq!(cast(-1e6, DType::F8E5M2, false), f32::NEG_INFINITY);
        assert_eq!(cast(1e6, DType::F8E4M3FNUZ, true), 240.0);
        assert_eq!(cast(1.0625, DType::F8E4M3FN, true), 1.0);
        assert_eq!(cast(2.5, DType::F4E2M1, true), 2.0);
        assert_eq!(cast(3.0, DType::F8E8M0, true), 4.0);
    }
}
