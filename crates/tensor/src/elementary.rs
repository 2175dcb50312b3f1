//! The exponential and the error function of f32 as short branchless polynomials, so that loops over them vectorise; f64
//! goes through the mathematical library.

/// Elementary functions that are slow one element at a time.
pub(crate) trait Elementary {
    /// `e^x`.
    fn exponential(self) -> Self;
    /// Gauss error function.
    fn gauss_error(self) -> Self;
}

impl Elementary for f64 {
    #[inline(always)]
    fn exponential(self) -> f64 {
        self.exp()
    }
    #[inline(always)]
    fn gauss_error(self) -> f64 {
        libm::erf(self)
    }
}

impl Elementary for f32 {
    /// Within 2 units of the last place; results below 2.5e-38 become zero.
    ///
    /// # Source
    /// Cephes `expf` (Moshier 1992): `x = n ln 2 + r`, a polynomial of degree 7 in r, scaled by 2^n through the exponent bits.
    #[inline(always)]
    fn exponential(self) -> f32 {
        // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
        const ROUND: f32 = 12_582_912.0;
        // ln 2 in two parts, the first with few enough bits that its product with n is exact.
        const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
        let x = self.clamp(-88.0, 89.0);
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = x - n * LN2[0] - n * LN2[1];
        let p = [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1].into_iter().fold(1.987_569_2e-4, |p, c| p * r + c);
        let p = p * r * r + r + 1.0;
        // 2^(n - 1), doubled afterwards: 2^128 alone is beyond the exponent.
        let scale = f32::from_bits(shifted.to_bits().wrapping_add(126) << 23);
        let y = p * scale * 2.0;
        if self < -86.6 { 0.0 } else { y }
    }

    /// Within 4e-7 of the exact value.
    ///
    /// # Source
    /// The rational approximation `x P(x^2) / Q(x^2)` on -4..4 of Eigen and XLA; from 3.8 on, where it is less exact than
    /// 1 itself, 1.
    #[inline(always)]
    fn gauss_error(self) -> f32 {
        const P: [f32; 6] = [2.770_681_4e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2];
        const Q: [f32; 4] = [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2];
        let x = self.clamp(-4.0, 4.0);
        let s = x * x;
        let p = P.into_iter().fold(-2.726_142_3e-10, |p, c| p * s + c);
        let q = Q.into_iter().fold(-1.456_607_2e-5, |q, c| q * s + c);
        if x.abs() > 3.8 { 1f32.copysign(x) } else { x * p / q }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_to_the_mathematical_library() {
        for i in -90_000..=89_000 {
            let x = i as f32 / 1000.0;
            let (got, want) = (x.exponential(), f64::from(x).exp());
            let error = (f64::from(got) - want).abs();
            assert!(error <= 2.5e-7 * want || want < 2.5e-38 || (got.is_infinite() && want > 3.4e38), "e^{x}: {got} against {want}");
            let x = x / 16.0;
            let (got, want) = (x.gauss_error(), libm::erf(f64::from(x)));
            assert!((f64::from(got) - want).abs() < 4e-7, "erf {x}: {got} against {want}");
        }
        assert!(f32::NAN.exponential().is_nan() && f32::NAN.gauss_error().is_nan());
        assert_eq!((f32::NEG_INFINITY.exponential(), f32::INFINITY.exponential()), (0.0, f32::INFINITY));
    }
}
