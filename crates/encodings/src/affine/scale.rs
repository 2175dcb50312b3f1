//! Scales of few significant bits.
//!
//! A product of two quantized numbers is an integer times the product of their scales. Where both scales are `m * 2^e` with
//! a small odd `m`, the product is an integer of few bits times a power of two, and the sums of a layer are exact in f32 as
//! long as they stay below 2^24 of those units: any order of summation, in the simulation or in any runtime, gives the same
//! bits. Without that, sums that differ in the last place are now and then rounded to neighbouring steps, and the difference
//! grows from layer to layer until it is as large as the quantization error itself. How large `m` may be follows from how
//! large the sums get; `quantize` reckons it for each layer.

/// Most scales to try.
const TRIED: usize = 48;

/// How precise a scale may be: `m * 2^e`, the odd `m` at most a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precision(u32);

impl Precision {
    /// Any f32 scale.
    pub const FULL: Precision = Precision(1 << f32::MANTISSA_DIGITS);

    /// For a weight whose layer is not known: 4 significant bits.
    pub const WEIGHT: Precision = Precision(15);

    /// For an activation whose readers are not known: 3 significant bits.
    pub const ACTIVATION: Precision = Precision(7);

    /// Odd factors up to a limit, of which 1 is always allowed. More than 31 is not taken: 5 bits leave a scale within 3 %
    /// of any wanted one, and the error hardly changes within that.
    pub fn up_to(limit: f64) -> Precision {
        Precision(if limit.is_nan() { 1 } else { limit.clamp(1.0, 31.0) as u32 })
    }

    /// The precision of existing scales: full where it is none of [`Precision::up_to`].
    pub fn of(scales: &[f32]) -> Precision {
        let precision = Precision(scales.iter().map(|s| odd_part(*s)).max().unwrap_or(1));
        if precision > Precision::up_to(f64::INFINITY) { Precision::FULL } else { precision }
    }

    /// The smallest allowed number that is not below a positive normal one; that one where there is none.
    pub fn up(self, scale: f32) -> f32 {
        self.around(scale).1
    }

    /// The largest allowed number that is not above a positive normal one.
    pub fn down(self, scale: f32) -> f32 {
        self.around(scale).0
    }

    fn around(self, scale: f32) -> (f32, f32) {
        if self == Precision::FULL || !scale.is_normal() {
            return (scale, scale);
        }
        // Between two powers of two the allowed numbers are whole multiples of a step, up to the limit all of them and
        // beyond it the even ones.
        let top = 1u32 << self.0.ilog2();
        // f64: the step may be no normal f32.
        let step = f64::from(power_of_two_below(scale)) / f64::from(top);
        let exact = f64::from(scale) / step;
        let allowed = |m: u32| m <= self.0 || m.is_multiple_of(2);
        let (mut low, mut high) = (exact.floor() as u32, exact.ceil() as u32);
        low -= u32::from(!allowed(low));
        high += u32::from(!allowed(high));
        let up = (f64::from(high) * step) as f32;
        ((f64::from(low) * step) as f32, if up.is_finite() { up } else { scale })
    }

    /// The allowed numbers from one bound to another, both positive and normal, and the two around `wanted`; ascending. Where
    /// there are many, evenly spaced ones of them.
    pub fn between(self, from: f32, to: f32, wanted: f32) -> Vec<f32> {
        let mut all = vec![self.down(wanted), self.up(wanted)];
        if self == Precision::FULL {
            let ratio = f64::from(to) / f64::from(from);
            all.extend((0..TRIED).map(|i| (f64::from(from) * ratio.powf(i as f64 / (TRIED - 1) as f64)) as f32));
        } else {
            let mut next = self.up(from);
            while next <= to && all.len() < TRIED {
                all.push(next);
                next = self.up(next * (1.0 + f32::EPSILON));
            }
        }
        all.retain(|s| s.is_normal());
        all.sort_by(f32::total_cmp);
        all.dedup();
        all
    }
}

fn power_of_two_below(scale: f32) -> f32 {
    f32::from_bits(scale.to_bits() & 0xff80_0000)
}

/// The odd factor `m` of a positive normal number `m * 2^e`: as a number of so many units of [`unit()`].
pub fn odd_part(scale: f32) -> u32 {
    let mantissa = (scale.to_bits() & 0x007f_ffff) | 0x0080_0000;
    mantissa >> mantissa.trailing_zeros()
}

/// The largest power of two that divides a positive normal number.
pub fn unit(scale: f32) -> f64 {
    f64::from(scale) / f64::from(odd_part(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_small_odd_numbers_times_powers_of_two() {
        // By hand: 1, 1.25 (5/4), 1.5 (3/2), 1.75 (7/4) within an octave for a limit of 7; with 5, 7/4 is left out.
        assert_eq!(Precision::up_to(7.0).between(1.0, 2.0, 1.3), [1.0, 1.25, 1.5, 1.75, 2.0]);
        assert_eq!(Precision::up_to(5.0).between(1.0, 2.0, 1.3), [1.0, 1.25, 1.5, 2.0]);
        assert_eq!(Precision::up_to(0.2).between(1.0, 4.0, 1.3), [1.0, 2.0, 4.0]);
        assert_eq!((Precision::up_to(7.0).down(0.9), Precision::up_to(7.0).up(0.9)), (0.875, 1.0));
        assert_eq!((Precision::up_to(5.0).down(0.9), Precision::up_to(5.0).up(0.9)), (0.75, 1.0));
        assert_eq!((Precision::FULL.down(0.9), Precision::FULL.up(0.9)), (0.9, 0.9));
        assert_eq!((odd_part(1.75 / 128.0), odd_part(64.0), odd_part(0.1)), (7, 1, 13_421_773));
        assert_eq!(unit(1.75 / 128.0), 0.25 / 128.0);
        assert_eq!(Precision::of(&[1.0, 1.75, 0.75]), Precision::up_to(7.0));
        // Scales near one of 24 bits are tried all over the range, not in the first few of its last places.
        assert_eq!(Precision::of(&[0.5, 0.1]), Precision::FULL);
        assert!(Precision::up_to(7.0).up(f32::MAX).is_finite());
    }
}
