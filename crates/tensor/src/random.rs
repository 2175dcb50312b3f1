//! Pseudo-random numbers by counter: draw `i` of a seed depends only on the seed and `i`, so the number of threads and the order
//! of evaluation do not matter.
use crate::map::map;
use crate::parallel::fill;
use crate::{Result, Tensor, memory};

/// 64 well-mixed bits for draw `counter` of stream `seed` (two rounds of the SplitMix64 finalizer; Steele et al. 2014).
pub fn bits(seed: u64, counter: u64) -> u64 {
    fn mix(mut z: u64) -> u64 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    mix(mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// A seed for a sub-stream: `key` may be a stage, an epoch, a node or a row.
pub fn derive(seed: u64, key: u64) -> u64 {
    bits(seed ^ 0x6a09_e667_f3bc_c908, key)
}

/// A number in `[0, 1)` with 53 random bits.
pub fn unit(seed: u64, counter: u64) -> f64 {
    (bits(seed, counter) >> 11) as f64 / (1u64 << 53) as f64
}

/// A number of the standard normal distribution (Box and Muller 1958).
pub fn gaussian(seed: u64, counter: u64) -> f64 {
    let radius = (-2.0 * (1.0 - unit(seed, 2 * counter)).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(seed, 2 * counter + 1)).cos()
}

fn draw(shape: &[usize], f: impl Fn(u64) -> f64 + Sync) -> Result<Tensor> {
    let mut out = vec![0f64; memory::room::<f64>("random", shape)?];
    fill(&mut out, &|at, piece| piece.iter_mut().enumerate().for_each(|(i, o)| *o = f((at + i) as u64)));
    Tensor::new(out, shape)
}

/// f32 numbers evenly from `lo` (included) to `hi` (excluded, but for rounding).
///
/// # Errors
/// [`TensorError::Shape`](crate::TensorError::Shape) if the element count overflows (so for all below).
pub fn uniform(seed: u64, shape: &[usize], lo: f32, hi: f32) -> Result<Tensor> {
    let (lo, hi) = (lo as f64, hi as f64);
    map(&draw(shape, |i| lo + (hi - lo) * unit(seed, i))?, |v: f64| v as f32)
}

/// f32 numbers of the normal distribution.
///
/// # Errors
/// As [`uniform`].
pub fn normal(seed: u64, shape: &[usize], mean: f32, std: f32) -> Result<Tensor> {
    map(&draw(shape, |i| mean as f64 + std as f64 * gaussian(seed, i))?, |v: f64| v as f32)
}

/// A permutation of `0..n` (Fisher and Yates).
pub fn permutation(seed: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (bits(seed, i as u64) % (i as u64 + 1)) as usize);
    }
    order
}

/// f64 numbers evenly from `lo` to `hi`, for gradient checks. A shape whose elements cannot be counted gives an empty tensor.
pub fn uniform_f64(seed: u64, shape: &[usize], lo: f64, hi: f64) -> Tensor {
    draw(shape, |i| lo + (hi - lo) * unit(seed, i)).unwrap_or_else(|_| Tensor::vector(Vec::<f64>::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let u = uniform(7, &[100_000], -1.0, 3.0).unwrap();
        let u = u.as_slice::<f32>().unwrap();
        let mean = u.iter().sum::<f32>() / u.len() as f32;
        assert!((mean - 1.0).abs() < 0.02 && u.iter().all(|v| (-1.0..=3.0).contains(v)));
        let n = normal(8, &[100_000], 2.0, 0.5).unwrap();
        let n = n.as_slice::<f32>().unwrap();
        let mean = n.iter().sum::<f32>() / n.len() as f32;
        let var = n.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n.len() as f32;
        assert!((mean - 2.0).abs() < 0.01 && (var - 0.25).abs() < 0.01);
    }

    #[test]
    fn a_permutation_has_every_index_once() {
        let mut p = permutation(3, 1000);
        assert_ne!(p, (0..1000).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..1000).collect::<Vec<_>>());
    }
}
