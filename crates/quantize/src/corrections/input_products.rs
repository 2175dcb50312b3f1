//! How the weights of one output are rounded, given the power of the inputs that they are multiplied with.
//!
//! With `d = w - q` for the wanted weights `w` and the rounded ones `q`, and `H` the inputs' power, the error of the result is `d H d^T`.
use train::inverse_factor;

/// The power of a group's inputs, prepared for rounding.
pub(super) struct Inputs {
    /// `H`, `[k, k]`.
    plain: Vec<f64>,
    /// `H` with damping.
    h: Vec<f64>,
    /// Inputs in the order of rounding.
    order: Vec<usize>,
    /// The upper triangular factor of the inverse of `H`, in that order.
    u: Vec<f64>,
}

impl Inputs {
    /// From `H` without and with damping. `None` if the latter has no inverse.
    pub(super) fn new(plain: Vec<f64>, h: Vec<f64>, order: Vec<usize>) -> Option<Inputs> {
        let u = inverse_factor(&permuted(&h, &order))?;
        Some(Inputs { plain, h, order, u })
    }

    /// By how much an error of one in each weight, in the order of rounding, raises the squared error of the result, the weights after it
    /// having made up for it.
    pub(super) fn costs(&self) -> Vec<f64> {
        let k = self.order.len();
        (0..k).map(|j| self.u[j * k + j].powi(-2)).collect()
    }

    /// The weights, rounded one after the other, those left making up for the error: GPTQ. `nearest` gives the representable number next to
    /// a number for the weight at a place, whose error costs as much as its third argument says ([`Inputs::costs`]).
    pub(super) fn compensate(&self, weights: &[f64], live: &[bool], mut nearest: impl FnMut(usize, f64, f64) -> f64) -> Vec<f64> {
        let (k, u) = (self.order.len(), &self.u);
        let mut w: Vec<f64> = self.order.iter().map(|i| weights[*i]).collect();
        let mut out = vec![0f64; k];
        for j in 0..k {
            let q = if live[self.order[j]] { nearest(self.order[j], w[j], u[j * k + j].powi(-2)) } else { 0.0 };
            out[self.order[j]] = q;
            let error = (w[j] - q) / u[j * k + j];
            w[j + 1..].iter_mut().zip(&u[j * k + j + 1..(j + 1) * k]).for_each(|(w, u)| *w -= error * u);
        }
        out
    }

    /// Coordinate descent: each weight in turn goes to the number with the least error given all others, up to `sweeps` times over all.
    pub(super) fn descend(&self, weights: &[f64], live: &[bool], q: &mut [f64], sweeps: usize, nearest: impl Fn(usize, f64) -> f64) {
        let k = self.order.len();
        if sweeps == 0 {
            return;
        }
        let d: Vec<f64> = weights.iter().zip(q.iter()).map(|(w, q)| w - q).collect();
        let mut slope = times(&self.h, &d);
        for _ in 0..sweeps {
            let mut changed = false;
            for i in self.order.iter().copied().filter(|i| live[*i]) {
                let own = self.h[i * k + i];
                let better = nearest(i, q[i] + slope[i] / own);
                let step = better - q[i];
                // The change of the error, which rounding must not make positive.
                if step != 0.0 && step * (step * own - 2.0 * slope[i]) < 0.0 {
                    q[i] = better;
                    slope.iter_mut().zip(&self.h[i * k..(i + 1) * k]).for_each(|(g, h)| *g -= step * h);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
    }

    /// `d H d^T` of the difference of two lists of weights.
    pub(super) fn error(&self, a: &[f64], b: &[f64]) -> f64 {
        let d: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        times(&self.plain, &d).iter().zip(&d).map(|(g, d)| g * d).sum()
    }

    /// The weights `q` of least error `|w X - q X~|^2` where `H = X~ X~^T` and `cross` is `X X~^T`, both damped: `w cross H^-1`.
    pub(super) fn wanted(&self, weights: &[f64], cross: &[f64]) -> Vec<f64> {
        let k = self.order.len();
        // w cross, in the order of U.
        let mut row = vec![0f64; k];
        for (w, c) in weights.iter().zip(cross.chunks(k)) {
            row.iter_mut().zip(c).for_each(|(r, c)| *r += w * c);
        }
        let row: Vec<f64> = self.order.iter().map(|i| row[*i]).collect();
        // H^-1 = U^T U: the row times U^T, times U.
        let middle: Vec<f64> = (0..k).map(|i| self.u[i * k + i..(i + 1) * k].iter().zip(&row[i..]).map(|(u, r)| u * r).sum()).collect();
        let mut sorted = vec![0f64; k];
        for (i, m) in middle.iter().enumerate() {
            sorted[i..].iter_mut().zip(&self.u[i * k + i..(i + 1) * k]).for_each(|(s, u)| *s += m * u);
        }
        let mut out = vec![0f64; k];
        self.order.iter().zip(sorted).for_each(|(i, v)| out[*i] = v);
        out
    }
}

fn times(h: &[f64], d: &[f64]) -> Vec<f64> {
    h.chunks(d.len().max(1)).map(|row| row.iter().zip(d).map(|(h, d)| h * d).sum()).collect()
}

/// A symmetric matrix with its rows and columns in an order.
fn permuted(h: &[f64], order: &[usize]) -> Vec<f64> {
    let k = order.len();
    order.iter().flat_map(|i| order.iter().map(move |j| h[i * k + j])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::random::unit;

    /// `X Y^T` of seeded numbers, and a little on the diagonal.
    fn power(x: &[f64], y: &[f64], k: usize) -> Vec<f64> {
        let n = x.len() / k;
        let dot = |i: usize, j: usize| (0..n).map(|s| x[i * n + s] * y[j * n + s]).sum::<f64>();
        (0..k * k).map(|at| dot(at / k, at % k) + if at / k == at % k { 1e-6 } else { 0.0 }).collect()
    }

    fn numbers(seed: u64, count: usize) -> Vec<f64> {
        (0..count).map(|i| 2.0 * unit(seed, i as u64) - 1.0).collect()
    }

    /// Brute force over all roundings of four weights: descent ends where no single weight can do better, and never above what it began with.
    #[test]
    fn descent_ends_where_no_single_weight_does_better() {
        let (k, mut hits) = (4, 0);
        for seed in 0..40 {
            let x = numbers(seed, 6 * k);
            let inputs = Inputs::new(power(&x, &x, k), power(&x, &x, k), (0..k).collect()).unwrap();
            let w = numbers(seed + 100, k);
            let nearest = |_: usize, v: f64| (v / 0.5).round().clamp(-2.0, 2.0) * 0.5;
            let first = inputs.compensate(&w, &[true; 4], |at, v, _| nearest(at, v));
            let mut q = first.clone();
            inputs.descend(&w, &[true; 4], &mut q, 50, nearest);
            let error = |q: &[f64]| inputs.error(&w, q);
            assert!(error(&q) <= error(&first) + 1e-12);
            let grid: Vec<f64> = (-2..=2).map(|i| 0.5 * f64::from(i)).collect();
            for i in 0..k {
                for level in &grid {
                    let mut other = q.clone();
                    other[i] = *level;
                    assert!(error(&other) >= error(&q) - 1e-12, "{seed}: {q:?} {other:?}");
                }
            }
            let all = (0..grid.len().pow(4)).map(|n| (0..4).map(|i| grid[n / grid.len().pow(i) % grid.len()]).collect::<Vec<f64>>());
            let best = all.map(|q| error(&q)).fold(f64::INFINITY, f64::min);
            hits += usize::from(error(&q) <= best + 1e-9);
        }
        assert!(hits >= 20, "{hits} of 40 are the best rounding there is");
    }

    /// With the same inputs the wanted weights are the weights; with others those of least squares.
    #[test]
    fn the_wanted_weights_have_the_least_squared_error() {
        let (k, order) = (3, vec![2, 0, 1]);
        let (x, y) = (numbers(1, 8 * k), numbers(2, 8 * k));
        let mixed: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x + 0.2 * y).collect();
        let w = numbers(3, k);
        let inputs = Inputs::new(power(&mixed, &mixed, k), power(&mixed, &mixed, k), order).unwrap();
        let same = inputs.wanted(&w, &power(&mixed, &mixed, k));
        assert!(same.iter().zip(&w).all(|(a, b)| (a - b).abs() < 1e-9), "{same:?} {w:?}");
        let wanted = inputs.wanted(&w, &power(&x, &mixed, k));
        let squared = |q: &[f64]| {
            let at = |list: &[f64], v: &[f64], s: usize| (0..k).map(|i| v[i] * list[i * 8 + s]).sum::<f64>();
            (0..8).map(|s| (at(&x, &w, s) - at(&mixed, q, s)).powi(2)).sum::<f64>()
        };
        for i in 0..k {
            for step in [-1e-3, 1e-3] {
                let mut other = wanted.clone();
                other[i] += step;
                assert!(squared(&other) > squared(&wanted));
            }
        }
    }

    #[test]
    fn weights_that_are_masked_stay_zero() {
        let x = numbers(5, 12);
        let inputs = Inputs::new(power(&x, &x, 3), power(&x, &x, 3), vec![0, 1, 2]).unwrap();
        let live = [true, false, true];
        let mut q = inputs.compensate(&[0.3, 0.0, -0.4], &live, |_, v, _| v.round());
        inputs.descend(&[0.3, 0.0, -0.4], &live, &mut q, 3, |_, v| v.round());
        assert_eq!(q[1], 0.0);
    }
}
