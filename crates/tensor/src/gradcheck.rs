//! Checks gradients against central differences. For tests: slow, in f64.
use crate::{DType, Result, Tensor, TensorError, random};

/// Step of the differences; the error of a central difference is of the order of its square.
const STEP: f64 = 1e-5;
/// Largest difference allowed, relative to the larger of 1 and the gradient.
const TOLERANCE: f64 = 2e-6;

/// Compares the gradients of `f` by each f64 input with central differences. `f` may return any shape: its elements are weighted
/// with fixed pseudo-random numbers and summed. Inputs that are not f64 are passed through unchecked.
///
/// # Errors
/// A sentence that names the input and element that differ, or the error of `f`.
pub fn check(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<(), String> {
    compare(inputs, f).map_err(|e| e.to_string())
}

fn compare(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    let tracked: Vec<Tensor> =
        inputs.iter().map(|t| if t.dtype() == DType::F64 { t.tracked() } else { Ok(t.clone()) }).collect::<Result<_>>()?;
    let out = f(&tracked)?;
    let weights = random::uniform_f64(0x5eed, out.shape(), 0.5, 1.5);
    let weigh = |y: &Tensor| -> Result<f64> {
        let y = y.as_slice::<f64>()?;
        Ok(y.iter().zip(weights.as_slice::<f64>()?).map(|(a, b)| a * b).sum())
    };
    let gradients = out.backward_from(weights.clone())?;
    for (i, input) in inputs.iter().enumerate().filter(|(_, t)| t.dtype() == DType::F64) {
        let zeros = vec![0f64; input.len()];
        let analytic = match gradients.get(&tracked[i]) {
            Some(g) if g.shape() != input.shape() => {
                let what = format!("input {i} has shape {:?}, its gradient {:?}", input.shape(), g.shape());
                return Err(TensorError::shape("gradcheck", what));
            }
            Some(g) => g.as_slice::<f64>()?,
            None => &zeros,
        };
        for (e, got) in analytic.iter().enumerate() {
            let at = |delta: f64| -> Result<f64> {
                let mut moved = inputs.to_vec();
                moved[i].as_mut_slice::<f64>()?[e] += delta;
                weigh(&f(&moved)?)
            };
            let expected = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            if (got - expected).abs() > TOLERANCE * expected.abs().max(1.0) || got.is_nan() {
                let what = format!("input {i}, element {e}: gradient {got}, central difference {expected}");
                return Err(TensorError::value("gradcheck", what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_gradient_is_found() {
        let x = random::uniform_f64(1, &[3], 1.0, 2.0);
        let wrong = |t: &[Tensor]| Ok(crate::record("wrong", &[&t[0]], t[0].exp()?.detach(), |dy| Ok(vec![Some(dy)])));
        assert!(check(&[x], wrong).unwrap_err().contains("element 0"));
    }
}
