//! Losses over rows of logits, forward and backward in one pass over each row.
use crate::device::on_device;
use crate::number::with_float;
use crate::{DType, Result, Tensor, TensorError, record};

fn rows(op: &'static str, t: &Tensor) -> Result<(usize, usize)> {
    match t.shape() {
        [n, c] if *n > 0 && *c > 0 => Ok((*n, *c)),
        other => Err(TensorError::shape(op, format!("logits are [n, classes] with at least one of each, these are {other:?}"))),
    }
}

/// Mean cross-entropy of `softmax(logits)` against class labels, with label smoothing: the target is
/// `1 - smoothing + smoothing / classes` at the label and `smoothing / classes` elsewhere.
///
/// # Shapes
/// - `logits`: `[n, classes]`; `labels`: int64 `[n]`; result: a scalar of the logits' type
///
/// # Errors
/// [`TensorError::Value`] naming the row of a label outside `0..classes`; [`TensorError::Shape`] where they do not fit.
///
/// # Source
/// Szegedy et al. 2016, arXiv:1512.00567, section 7.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, smoothing: f32) -> Result<Tensor> {
    let (n, c) = rows("cross_entropy", logits)?;
    if logits.is_half() {
        return cross_entropy(&logits.cast(DType::F32)?, labels, smoothing);
    }
    let label = labels.as_slice::<i64>()?;
    if labels.shape() != [n] {
        return Err(TensorError::shape("cross_entropy", format!("{n} rows of logits, labels of shape {:?}", labels.shape())));
    }
    if let Some((row, bad)) = label.iter().enumerate().find(|(_, l)| !(0..c as i64).contains(*l)) {
        return Err(TensorError::value("cross_entropy", format!("row {row} of the batch has label {bad}, there are {c} classes")));
    }
    on_device!(crate::gpu::cross_entropy(logits, label, smoothing));
    let (loss, grad) = with_float!("cross_entropy", logits.dtype(), T => {
        let (off, on) = (smoothing as T / c as T, 1.0 - smoothing as T);
        let mut grad = vec![T::default(); n * c];
        let mut total = 0f64;
        for ((x, g), label) in logits.as_slice::<T>()?.chunks(c).zip(grad.chunks_mut(c)).zip(label) {
            let log_sum = softmax_row(x, g);
            let mut loss = 0f64;
            for (i, (x, g)) in x.iter().zip(g).enumerate() {
                let target = off + if i as i64 == *label { on } else { 0.0 };
                if target > 0.0 { loss += f64::from(target) * (log_sum - f64::from(*x)); }
                *g = (*g - target) / n as T;
            }
            total += loss;
        }
        Ok((Tensor::scalar((total / n as f64) as T), Tensor::new(grad, [n, c])?))
    })?;
    Ok(record("cross_entropy", &[logits], loss, move |dy| Ok(vec![Some(grad.mul(&dy)?)])))
}

/// Writes the softmax of a row and returns the logarithm of its sum of exponentials.
fn softmax_row<T: num_traits::Float + Into<f64>>(x: &[T], out: &mut [T]) -> f64 {
    let largest = x.iter().copied().fold(T::neg_infinity(), T::max);
    let mut sum = T::zero();
    for (o, v) in out.iter_mut().zip(x) {
        *o = (*v - largest).exp();
        sum = sum + *o;
    }
    out.iter_mut().for_each(|o| *o = *o / sum);
    let sum: f64 = sum.into();
    let largest: f64 = largest.into();
    sum.ln() + largest
}

/// `temperature^2 * KL(softmax(teacher / temperature) || softmax(student / temperature))`, the mean over rows; gradient
/// to the student alone.
///
/// # Shapes
/// - `student`, `teacher`: `[n, classes]` of one type; result: a scalar
///
/// # Errors
/// [`TensorError::Shape`] where they differ; [`TensorError::Value`] for a temperature that is not positive.
///
/// # Source
/// Hinton et al. 2015, arXiv:1503.02531, section 2; the factor keeps the gradient's size over temperatures.
pub fn distillation_loss(student: &Tensor, teacher: &Tensor, temperature: f32) -> Result<Tensor> {
    let (n, c) = rows("distillation_loss", student)?;
    if student.shape() != teacher.shape() || student.dtype() != teacher.dtype() {
        return Err(TensorError::shape("distillation_loss", format!("student {student:?}, teacher {teacher:?}")));
    }
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(TensorError::value("distillation_loss", format!("temperature is {temperature}, a positive number is needed")));
    }
    on_device!(crate::gpu::distillation_loss(student, teacher, temperature));
    let (loss, grad) = with_float!("distillation_loss", student.dtype(), T => {
        let t = temperature as T;
        let mut grad = vec![T::default(); n * c];
        let (mut scaled, mut p, mut q) = (vec![T::default(); c], vec![T::default(); c], vec![T::default(); c]);
        let mut total = 0f64;
        for ((s, k), g) in student.as_slice::<T>()?.chunks(c).zip(teacher.as_slice::<T>()?.chunks(c)).zip(grad.chunks_mut(c)) {
            scaled.iter_mut().zip(k).for_each(|(o, v)| *o = *v / t);
            let log_p = softmax_row(&scaled, &mut p);
            let teacher_scaled = scaled.clone();
            scaled.iter_mut().zip(s).for_each(|(o, v)| *o = *v / t);
            let log_q = softmax_row(&scaled, &mut q);
            for i in 0..c {
                let (lp, lq) = (f64::from(teacher_scaled[i]) - log_p, f64::from(scaled[i]) - log_q);
                if p[i] > 0.0 { total += f64::from(p[i]) * (lp - lq); }
                g[i] = t * (q[i] - p[i]) / n as T;
            }
        }
        let factor = f64::from(temperature) * f64::from(temperature);
        Ok((Tensor::scalar((total * factor / n as f64) as T), Tensor::new(grad, [n, c])?))
    })?;
    Ok(record("distillation_loss", &[student], loss, move |dy| Ok(vec![Some(grad.mul(&dy)?)])))
}

/// Mean of the squared differences.
///
/// # Errors
/// [`TensorError::Shape`] if the shapes differ.
pub fn mse_loss(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    if prediction.shape() != target.shape() {
        return Err(TensorError::shape("mse_loss", format!("prediction {:?}, target {:?}", prediction.shape(), target.shape())));
    }
    let d = prediction.sub(target)?;
    d.mul(&d)?.mean_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::uniform_f64;

    #[test]
    fn gradients_of_losses() {
        let x = uniform_f64(1, &[4, 5], -2.0, 2.0);
        let labels = Tensor::vector(vec![0i64, 4, 2, 2]);
        for smoothing in [0.0, 0.2] {
            check(std::slice::from_ref(&x), |t| cross_entropy(&t[0], &labels, smoothing)).unwrap();
        }
        let teacher = uniform_f64(2, &[4, 5], -2.0, 2.0);
        for temperature in [1.0, 4.0] {
            check(std::slice::from_ref(&x), |t| distillation_loss(&t[0], &teacher, temperature)).unwrap();
        }
        check(&[x, teacher], |t| mse_loss(&t[0], &t[1])).unwrap();
    }

    #[test]
    fn known_values_and_bad_labels() {
        let x = Tensor::full(0f32, [2, 4]).unwrap();
        let loss = cross_entropy(&x, &Tensor::vector(vec![1i64, 3]), 0.1).unwrap().item::<f32>().unwrap();
        assert!((loss - 4f32.ln()).abs() < 1e-6);
        assert_eq!(distillation_loss(&x, &x, 3.0).unwrap().item::<f32>().unwrap(), 0.0);
        let bad = cross_entropy(&x, &Tensor::vector(vec![1i64, 4]), 0.0).unwrap_err().to_string();
        assert!(bad.contains("row 1") && bad.contains("label 4"), "{bad}");
    }
}
