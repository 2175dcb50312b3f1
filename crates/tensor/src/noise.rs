//! Signal to noise: how far a value is from its reference.
use crate::{Result, Tensor, TensorError};

/// Squares of a reference and of another computation's difference from it, summed over any number of elements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SignalToNoise {
    /// Sum of the squares of the reference.
    pub signal: f64,
    /// Sum of the squares of the differences.
    pub noise: f64,
}

impl SignalToNoise {
    /// From two tensors with equally many elements, read as f32.
    ///
    /// # Errors
    /// [`TensorError`] if the numbers of elements differ, or they cannot be read as numbers.
    pub fn of(reference: &Tensor, other: &Tensor) -> Result<Self> {
        let (a, b) = (reference.to_f32_vec()?, other.to_f32_vec()?);
        if a.len() != b.len() {
            return Err(TensorError::shape("signal to noise", format!("{} elements against {}", a.len(), b.len())));
        }
        let mut sum = SignalToNoise::default();
        sum.add_all(&a, &b);
        Ok(sum)
    }

    /// Adds pairs of elements; their differences are rounded to f32.
    pub fn add_all(&mut self, reference: &[f32], other: &[f32]) {
        reference.iter().zip(other).for_each(|(a, b)| self.add(f64::from(*a), f64::from(a - b)));
    }

    /// Adds an element of the reference and the other computation's difference from it.
    pub fn add(&mut self, reference: f64, difference: f64) {
        self.signal += reference * reference;
        self.noise += difference * difference;
    }

    /// The ratio in decibels, 10 log10(signal / noise): infinite where nothing differs, minus infinity where a difference is
    /// infinite, NaN where a NaN was added.
    pub fn db(self) -> f64 {
        match self.noise {
            0.0 => f64::INFINITY,
            f64::INFINITY if !self.signal.is_nan() => f64::NEG_INFINITY,
            noise => 10.0 * (self.signal / noise).log10(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_ratios() {
        let of = |a: &[f32], b: &[f32]| SignalToNoise::of(&Tensor::vector(a.to_vec()), &Tensor::vector(b.to_vec())).unwrap().db();
        assert!((of(&[3.0, 4.0, 0.0, 5.0], &[3.0, 4.5, 0.0, 4.0]) - 10.0 * (50.0f64 / 1.25).log10()).abs() < 1e-9);
        assert_eq!(of(&[1.0, 2.0], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(of(&[0.0], &[1.0]), f64::NEG_INFINITY);
        assert_eq!(of(&[1.0], &[f32::INFINITY]), f64::NEG_INFINITY);
        assert!(of(&[1.0, 2.0], &[f32::NAN, 2.0]).is_nan() && of(&[f32::NAN], &[1.0]).is_nan());
        assert!(SignalToNoise::of(&Tensor::vector(vec![1f32]), &Tensor::vector(vec![1f32, 2.0])).is_err());
    }
}
