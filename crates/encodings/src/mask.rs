//! Masks: which elements of a weight are kept.
use crate::Result;
use tensor::{DType, Tensor, TensorError};

/// The value with zeros where the mask is false; no gradient reaches those elements.
pub(crate) fn apply(value: &Tensor, mask: &Tensor) -> Result<Tensor> {
    if mask.dtype() != DType::Bool || mask.shape() != value.shape() {
        let what = format!("a mask is bool of the value's shape {:?}, this is {} {:?}", value.shape(), mask.dtype(), mask.shape());
        return Err(TensorError::shape("mask", what).into());
    }
    // Selection instead of multiplication: -x * 0 would be -0, and NaN * 0 NaN.
    let zero = Tensor::scalar(0f32).cast(value.dtype())?;
    Ok(Tensor::where_(mask, value, &zero)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_elements_are_plus_zero_and_get_no_gradient() {
        let x = Tensor::vector(vec![-1f64, 2.0, f64::NAN]).tracked().unwrap();
        let mask = Tensor::vector(vec![false, true, false]);
        let y = apply(&x, &mask).unwrap();
        assert_eq!(y.detach(), Tensor::vector(vec![0f64, 2.0, 0.0]));
        let g = y.backward_from(Tensor::vector(vec![1f64; 3])).unwrap();
        assert_eq!(g.get(&x).unwrap(), &Tensor::vector(vec![0f64, 1.0, 0.0]));
        assert!(apply(&x, &Tensor::vector(vec![true])).is_err());
    }
}
