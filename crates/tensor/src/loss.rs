//! Losses over rows of logits, forward and backward in one pass over each row.
use crate::device::on_device;
use crate::elementary::Elementary;
use crate::kernels::simd::vectorised;
use crate::map::{zip, zip_onto};
use crate::number::with_float;
use crate::parallel::{CHUNK, THRESHOLD};
use crate::recycle::storage;
use crate::{DType, Element, Result, Tensor, TensorError, record};
use num_traits::Float;
use rayon::prelude::*;

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
        let x = logits.as_slice::<T>()?;
        let (total, grad) = by_rows::<T>(n, c, |row, g| {
            let (x, label) = (&x[row * c..(row + 1) * c], label[row] as usize);
            let log_sum = softmax_row(x, g, 1.0);
            let scale = 1.0 / n as T;
            g.iter_mut().for_each(|g| *g = (*g - off) * scale);
            g[label] -= on * scale;
            // Without smoothing, a logit of minus infinity at another class has no effect.
            let of_all = if off > 0.0 { f64::from(off) * sum_f64(x, |x| log_sum - f64::from(x)) } else { 0.0 };
            of_all + if on > 0.0 { f64::from(on) * (log_sum - f64::from(x[label])) } else { 0.0 }
        });
        Ok((Tensor::scalar((total / n as f64) as T), Tensor::new(grad, [n, c])?))
    })?;
    Ok(record("cross_entropy", &[logits], loss, move |dy| Ok(vec![Some(scaled(grad, &dy)?)])))
}

/// Fills the gradient by rows of `c` elements with `f(row, its gradient)`, and adds the losses that `f` returns: in chunks of
/// rows cut by the size alone, which are added in order.
fn by_rows<T: Element + Copy + Default>(n: usize, c: usize, f: impl Fn(usize, &mut [T]) -> f64 + Sync) -> (f64, Vec<T>) {
    let mut grad = storage::<T>(n * c);
    // A row takes several passes and exponentials, so splitting pays earlier than for plain passes.
    let rows = (CHUNK / 4 / c).max(1);
    let chunk =
        |(i, g): (usize, &mut [T])| -> f64 { vectorised!(g.chunks_exact_mut(c).enumerate().map(|(k, g)| f(i * rows + k, g)).sum::<f64>()) };
    let losses: Vec<f64> = match n * c < THRESHOLD / 8 {
        true => grad.chunks_mut(rows * c).enumerate().map(chunk).collect(),
        false => grad.par_chunks_mut(rows * c).enumerate().map(chunk).collect(),
    };
    (losses.iter().sum(), grad)
}

/// The gradient of a loss times what follows it.
fn scaled(grad: Tensor, dy: &Tensor) -> Result<Tensor> {
    with_float!("loss", grad.dtype(), T => match dy.item::<T>()? {
        1.0 => Ok(grad),
        _ => zip_onto("loss", grad, dy, |g: T, d| g * d),
    })
}

/// Interleaved sums of `f` over a row.
#[inline(always)]
fn sum_f64<T: Copy>(x: &[T], f: impl Fn(T) -> f64) -> f64 {
    let mut sums = [0f64; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    whole.iter().for_each(|x| sums.iter_mut().zip(x).for_each(|(s, x)| *s += f(*x)));
    sums.iter_mut().zip(rest).for_each(|(s, x)| *s += f(*x));
    sums.iter().sum()
}

const LANES: usize = 16;

/// Writes the softmax of a row times `scale` and returns the logarithm of its sum of exponentials.
#[inline(always)]
fn softmax_row<T: Float + Elementary + Into<f64>>(x: &[T], out: &mut [T], scale: T) -> f64 {
    let mut lanes = [T::neg_infinity(); LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    whole.iter().for_each(|x| lanes.iter_mut().zip(x).for_each(|(m, x)| *m = if *x > *m { *x } else { *m }));
    let largest = lanes.iter().chain(rest).copied().fold(T::neg_infinity(), T::max) * scale;
    out.iter_mut().zip(x).for_each(|(o, x)| *o = (*x * scale - largest).exponential());
    let mut sums = [T::zero(); LANES];
    let (whole, rest) = out.as_chunks::<LANES>();
    whole.iter().for_each(|o| sums.iter_mut().zip(o).for_each(|(s, o)| *s = *s + *o));
    let sum = sums.iter().chain(rest).fold(T::zero(), |s, o| s + *o);
    let inverse = sum.recip();
    out.iter_mut().for_each(|o| *o = *o * inverse);
    let (sum, largest): (f64, f64) = (sum.into(), largest.into());
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
        let (t, inverse) = (temperature as T, 1.0 / temperature as T);
        let (s, k) = (student.as_slice::<T>()?, teacher.as_slice::<T>()?);
        let (total, grad) = by_rows::<T>(n, c, |row, g| {
            let (s, k) = (&s[row * c..(row + 1) * c], &k[row * c..(row + 1) * c]);
            let mut p = vec![T::default(); c];
            let log_p = softmax_row(k, &mut p, inverse);
            let log_q = softmax_row(s, g, inverse);
            let mut sums = [0f64; LANES];
            for ((p, (s, k)), lane) in p.iter().zip(s.iter().zip(k)).zip((0..LANES).cycle()) {
                // log p - log q; terms where the teacher's probability is zero are zero.
                let ratio = f64::from(*k - *s) * f64::from(inverse) - (log_p - log_q);
                sums[lane] += if *p > 0.0 { f64::from(*p) * ratio } else { 0.0 };
            }
            let scale = t / n as T;
            g.iter_mut().zip(&p).for_each(|(q, p)| *q = scale * (*q - *p));
            sums.iter().sum()
        });
        let factor = f64::from(temperature) * f64::from(temperature);
        Ok((Tensor::scalar((total * factor / n as f64) as T), Tensor::new(grad, [n, c])?))
    })?;
    Ok(record("distillation_loss", &[student], loss, move |dy| Ok(vec![Some(scaled(grad, &dy)?)])))
}

/// Mean of the squared differences.
///
/// # Errors
/// [`TensorError::Shape`] if the shapes differ.
pub fn mse_loss(prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    if prediction.shape() != target.shape() {
        return Err(TensorError::shape("mse_loss", format!("prediction {:?}, target {:?}", prediction.shape(), target.shape())));
    }
    let on_device = prediction.on_device() || target.on_device();
    if on_device || prediction.is_half() || prediction.dtype() != target.dtype() || prediction.is_empty() {
        let d = prediction.sub(target)?;
        return d.mul(&d)?.mean_all();
    }
    let count = prediction.len() as f64;
    let loss = with_float!("mse_loss", prediction.dtype(), T => {
        let (p, t) = (prediction.as_slice::<T>()?, target.as_slice::<T>()?);
        let sums: Vec<f64> = p.par_chunks(CHUNK).zip(t.par_chunks(CHUNK)).map(|(p, t)| vectorised!(squares(p, t))).collect();
        Ok(Tensor::scalar((sums.iter().sum::<f64>() / count) as T))
    })?;
    let (p, t, both) = (prediction.detach(), target.detach(), [prediction.is_tracked(), target.is_tracked()]);
    Ok(record("mse_loss", &[prediction, target], loss, move |dy| {
        let dp = with_float!("mse_loss", p.dtype(), T => {
            let scale = (2.0 / count) as T * dy.item::<T>()?;
            zip::<T, T, T>("mse_loss", &p, &t, |p, t| (p - t) * scale)
        })?;
        let dt = if both[1] { Some(dp.neg()?) } else { None };
        Ok(vec![both[0].then_some(dp), dt])
    }))
}

/// The sum of squared differences, in interleaved sums.
#[inline(always)]
fn squares<T: Float + Into<f64>>(p: &[T], t: &[T]) -> f64 {
    let mut total = 0f64;
    for (p, t) in p.chunks(64 * LANES).zip(t.chunks(64 * LANES)) {
        let mut sums = [T::zero(); LANES];
        let ((p, p_rest), (t, t_rest)) = (p.as_chunks::<LANES>(), t.as_chunks::<LANES>());
        let add = |s: &mut T, p: &T, t: &T| *s = *s + (*p - *t) * (*p - *t);
        for (p, t) in p.iter().zip(t) {
            sums.iter_mut().zip(p.iter().zip(t)).for_each(|(s, (p, t))| add(s, p, t));
        }
        sums.iter_mut().zip(p_rest.iter().zip(t_rest)).for_each(|(s, (p, t))| add(s, p, t));
        total += sums.iter().map(|s| -> f64 { (*s).into() }).sum::<f64>();
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::{uniform, uniform_f64};
    use proptest::prelude::*;

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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(80))]
        /// f32 rows of odd lengths, in one chunk and in many, against the losses' definitions in f64.
        #[test]
        fn losses_agree_with_their_definitions(n in 1usize..60, c in 1usize..400, smoothed: bool, temperature in 1f32..6.0, seed: u64) {
            let x = uniform(seed, &[n, c], -4.0, 4.0).unwrap();
            let teacher = uniform(seed ^ 1, &[n, c], -4.0, 4.0).unwrap();
            let labels = Tensor::vector((0..n).map(|i| (i * 7 % c) as i64).collect());
            let smoothing = if smoothed { 0.1f32 } else { 0.0 };
            let rows = |t: &Tensor| t.to_f64_vec().unwrap();
            // [log softmax, softmax] of a row.
            let softmax = |row: &[f64], t: f64| {
                let largest = row.iter().fold(f64::MIN, |a, b| a.max(*b)) / t;
                let log_sum = row.iter().map(|v| (v / t - largest).exp()).sum::<f64>().ln() + largest;
                row.iter().map(|v| [v / t - log_sum, (v / t - log_sum).exp()]).collect::<Vec<_>>()
            };
            let (mut entropy, mut divergence, mut by_entropy, mut by_divergence) = (0f64, 0f64, vec![], vec![]);
            let t = f64::from(temperature);
            for (i, (x, k)) in rows(&x).chunks(c).zip(rows(&teacher).chunks(c)).enumerate() {
                for (j, [log_q, q]) in softmax(x, 1.0).into_iter().enumerate() {
                    let target = f64::from(smoothing) / c as f64 + if j == i * 7 % c { 1.0 - f64::from(smoothing) } else { 0.0 };
                    entropy -= target * log_q / n as f64;
                    by_entropy.push(3.0 * (q - target) / n as f64);
                }
                for ([log_q, q], [log_p, p]) in softmax(x, t).into_iter().zip(softmax(k, t)) {
                    divergence += t * t * p * (log_p - log_q) / n as f64;
                    by_divergence.push(3.0 * t * (q - p) / n as f64);
                }
            }
            let leaf = x.tracked().unwrap();
            for (loss, value, by_x) in [
                (cross_entropy(&leaf, &labels, smoothing).unwrap(), entropy, by_entropy),
                (distillation_loss(&leaf, &teacher, temperature).unwrap(), divergence, by_divergence),
            ] {
                prop_assert!((f64::from(loss.item::<f32>().unwrap()) - value).abs() < 1e-5 * value.abs().max(1.0), "{:?} against {}", loss, value);
                let got = loss.mul_scalar(3.0).unwrap().backward().unwrap().take(&leaf).unwrap();
                for (a, b) in rows(&got).iter().zip(by_x) { prop_assert!((a - b).abs() < 1e-5 * t, "{} against {}", a, b); }
            }
        }

        #[test]
        fn squared_errors_agree_with_their_definition(n in 1usize..70_000, seed: u64) {
            let (p, t) = (uniform(seed, &[n], -1.0, 1.0).unwrap(), uniform(seed ^ 1, &[n], -1.0, 1.0).unwrap());
            let leaf = p.tracked().unwrap();
            let loss = mse_loss(&leaf, &t).unwrap();
            let d: Vec<f64> = p.to_f64_vec().unwrap().iter().zip(t.to_f64_vec().unwrap()).map(|(p, t)| p - t).collect();
            let value = d.iter().map(|d| d * d).sum::<f64>() / n as f64;
            prop_assert!((f64::from(loss.item::<f32>().unwrap()) - value).abs() < 1e-6 * value);
            let got = loss.backward().unwrap().take(&leaf).unwrap();
            for (a, d) in got.to_f64_vec().unwrap().iter().zip(d) { prop_assert!((a * n as f64 - 2.0 * d).abs() < 1e-5); }
        }
    }

    #[test]
    fn a_row_of_minus_infinity_beside_the_label_counts_nothing() {
        let x = Tensor::new(vec![f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY], [1, 3]).unwrap().tracked().unwrap();
        let loss = cross_entropy(&x, &Tensor::vector(vec![1i64]), 0.0).unwrap();
        assert_eq!(loss.item::<f32>().unwrap(), 0.0);
        assert_eq!(loss.backward().unwrap().take(&x).unwrap().as_slice::<f32>().unwrap(), [0.0; 3]);
    }
}
