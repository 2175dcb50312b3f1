//! Losses over rows of logits, composed of the device's operations; the formulas are those of `loss.rs`.
use crate::{DType, Result, Tensor, record};

fn serves(logits: &Tensor) -> bool {
    logits.on_device() && logits.dtype() == DType::F32
}

/// See [`crate::cross_entropy`]; the labels were checked.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &[i64], smoothing: f32) -> Result<Option<Tensor>> {
    let (true, [n, c]) = (serves(logits), logits.shape()) else { return Ok(None) };
    let (n, c) = (*n, *c);
    let mut target = vec![smoothing / c as f32; n * c];
    labels.iter().enumerate().for_each(|(row, label)| target[row * c + *label as usize] += 1.0 - smoothing);
    let Some(target) = super::to_device(&Tensor::new(target, [n, c])?)? else { return Ok(None) };
    let log_p = logits.detach().log_softmax(1)?;
    let loss = target.mul(&log_p)?.sum_all()?.mul_scalar(-1.0 / n as f64)?;
    Ok(Some(record("cross_entropy", &[logits], loss, move |dy| {
        let slope = log_p.exp()?.sub(&target)?.mul_scalar(1.0 / n as f64)?;
        Ok(vec![Some(slope.mul(&dy)?)])
    })))
}

/// See [`crate::distillation_loss`].
pub(crate) fn distillation_loss(student: &Tensor, teacher: &Tensor, temperature: f32) -> Result<Option<Tensor>> {
    let (true, Some(teacher)) = (serves(student), super::to_device(&teacher.detach())?) else { return Ok(None) };
    let (n, t) = (student.shape()[0] as f64, f64::from(temperature));
    let log_p = teacher.mul_scalar(1.0 / t)?.log_softmax(1)?;
    let log_q = student.detach().mul_scalar(1.0 / t)?.log_softmax(1)?;
    let p = log_p.exp()?;
    let loss = p.mul(&log_p.sub(&log_q)?)?.sum_all()?.mul_scalar(t * t / n)?;
    Ok(Some(record("distillation_loss", &[student], loss, move |dy| {
        let slope = log_q.exp()?.sub(&p)?.mul_scalar(t / n)?;
        Ok(vec![Some(slope.mul(&dy)?)])
    })))
}
