//! Optimizer updates, f32, in place, one pass over memory.
use crate::device::on_device;
use crate::kernels::simd::vectorised;
use crate::parallel::THRESHOLD;
use crate::{Result, Tensor, TensorError};
use rayon::prelude::*;

/// Elements that one task updates: small parameters stay on one thread.
const PIECE: usize = THRESHOLD;

/// Settings of one step of SGD.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdOptions {
    /// Learning rate.
    pub lr: f32,
    /// Momentum, 0..1.
    pub momentum: f32,
    /// Nesterov's form.
    pub nesterov: bool,
    /// Factor of the parameter that is added to its gradient.
    pub weight_decay: f32,
}

/// Settings of one step of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled decay.
    pub weight_decay: f32,
    /// Number of this step, from 1.
    pub step: u64,
}

fn same(name: &'static str, tensors: [&Tensor; 3]) -> Result<()> {
    match tensors.iter().find(|t| t.shape() != tensors[0].shape()) {
        Some(t) => Err(TensorError::shape(name, format!("parameter {:?} with {:?}", tensors[0].shape(), t.shape()))),
        None => Ok(()),
    }
}

/// `v = momentum * v + g + weight_decay * p`, then `p -= lr * v` (or `lr * (g + momentum * v)` in Nesterov's form).
///
/// # Errors
/// [`TensorError::Shape`] if the three differ in shape, [`TensorError::DType`] if one is not f32.
///
/// # Source
/// Sutskever et al. 2013, section 2, in the form of PyTorch's `torch.optim.SGD` without dampening.
pub fn sgd_step(parameter: &mut Tensor, gradient: &Tensor, velocity: &mut Tensor, o: &SgdOptions) -> Result<()> {
    same("sgd_step", [parameter, gradient, velocity])?;
    on_device!(crate::gpu::sgd_step(parameter, gradient, velocity, o));
    let g = gradient.as_slice::<f32>()?;
    let (p, v, o) = (parameter.as_mut_slice::<f32>()?, velocity.as_mut_slice::<f32>()?, *o);
    let pieces = p.par_chunks_mut(PIECE).zip(v.par_chunks_mut(PIECE)).zip(g.par_chunks(PIECE));
    pieces.for_each(|((p, v), g)| {
        vectorised!({
            for ((p, v), g) in p.iter_mut().zip(v).zip(g) {
                let g = g + o.weight_decay * *p;
                *v = o.momentum * *v + g;
                *p -= o.lr * if o.nesterov { g + o.momentum * *v } else { *v };
            }
        });
    });
    Ok(())
}

/// One step of Adam with decoupled weight decay.
///
/// # Errors
/// [`TensorError::Shape`] if the tensors differ in shape, [`TensorError::DType`] if one is not f32.
///
/// # Source
/// Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
pub fn adamw_step(parameter: &mut Tensor, gradient: &Tensor, first: &mut Tensor, second: &mut Tensor, o: &AdamWOptions) -> Result<()> {
    same("adamw_step", [parameter, gradient, first])?;
    same("adamw_step", [parameter, gradient, second])?;
    let corrected = |beta: f32| (1.0 - f64::from(beta).powf(o.step as f64)) as f32;
    let (c1, c2) = (corrected(o.beta1), corrected(o.beta2).sqrt());
    on_device!(crate::gpu::adamw_step(parameter, gradient, [&mut *first, &mut *second], o, [c1, c2]));
    let g = gradient.as_slice::<f32>()?;
    let (p, m, v, o) = (parameter.as_mut_slice::<f32>()?, first.as_mut_slice::<f32>()?, second.as_mut_slice::<f32>()?, *o);
    let moments = m.par_chunks_mut(PIECE).zip(v.par_chunks_mut(PIECE));
    p.par_chunks_mut(PIECE).zip(moments).zip(g.par_chunks(PIECE)).for_each(|((p, (m, v)), g)| {
        vectorised!({
            for ((p, (m, v)), g) in p.iter_mut().zip(m.iter_mut().zip(v)).zip(g) {
                *m = o.beta1 * *m + (1.0 - o.beta1) * g;
                *v = o.beta2 * *v + (1.0 - o.beta2) * g * g;
                *p -= o.lr * o.weight_decay * *p + o.lr * (*m / c1) / (v.sqrt() / c2 + o.eps);
            }
        });
    });
    Ok(())
}

/// The sum of squares over all the tensors together, by which gradients are clipped.
///
/// # Errors
/// [`TensorError::DType`] if one is not f32.
pub fn sum_squares(tensors: &[&Tensor]) -> Result<f64> {
    #[cfg(feature = "gpu")]
    if crate::gpu::active()
        && let Some(sums) = crate::gpu::sum_squares(tensors)?
    {
        return Ok(sums.into_iter().map(f64::from).sum());
    }
    let mut sum = 0f64;
    for t in tensors {
        sum += t.as_slice::<f32>()?.chunks(4096).map(|c| c.iter().map(|v| v * v).sum::<f32>() as f64).sum::<f64>();
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_by_hand() {
        let t = |v: f32| Tensor::vector(vec![v]);
        let (mut p, mut v) = (t(1.0), t(0.5));
        let o = SgdOptions { lr: 0.1, momentum: 0.9, nesterov: false, weight_decay: 0.01 };
        sgd_step(&mut p, &t(2.0), &mut v, &o).unwrap();
        assert_eq!((v.item::<f32>().unwrap(), p.item::<f32>().unwrap()), (0.45 + 2.01, 1.0 - 0.1 * (0.45 + 2.01)));
        let (mut p, mut m, mut s) = (t(1.0), t(0.0), t(0.0));
        let o = AdamWOptions { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 1 };
        adamw_step(&mut p, &t(3.0), &mut m, &mut s, &o).unwrap();
        // The first step of Adam is lr in the direction of the gradient, whatever its size.
        assert!((p.item::<f32>().unwrap() - (1.0 - 0.01 - 0.1)).abs() < 1e-5);
    }

    /// Pieces and threads do not matter: the update of each element depends only on its own numbers.
    #[test]
    fn large_parameters_are_updated_as_small_ones() {
        let n = 2 * PIECE + 13;
        let t = |seed| crate::random::uniform(seed, &[n], 0.1, 1.0).unwrap();
        let one = |t: &Tensor, i: usize| Tensor::vector(vec![t.as_slice::<f32>().unwrap()[i]]);
        let (mut p, g, mut m, mut v) = (t(1), t(2), t(3), t(4));
        let (p0, m0, v0) = (p.clone(), m.clone(), v.clone());
        let sgd = SgdOptions { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01 };
        let adamw = AdamWOptions { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 3 };
        sgd_step(&mut p, &g, &mut m, &sgd).unwrap();
        adamw_step(&mut p, &g, &mut m, &mut v, &adamw).unwrap();
        for i in [0, 7, PIECE - 1, PIECE, 2 * PIECE + 1, n - 1] {
            let (mut pi, mut mi, mut vi) = (one(&p0, i), one(&m0, i), one(&v0, i));
            sgd_step(&mut pi, &one(&g, i), &mut mi, &sgd).unwrap();
            adamw_step(&mut pi, &one(&g, i), &mut mi, &mut vi, &adamw).unwrap();
            for (a, b) in [(&pi, &p), (&mi, &m), (&vi, &v)] {
                let (a, b) = (a.item::<f32>().unwrap(), b.as_slice::<f32>().unwrap()[i]);
                assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "element {i}: {a} against {b}");
            }
        }
    }
}
