//! `bench machine`: the two ceilings of a roofline, as this program can reach them.
use crate::Result;
use serde::Serialize;
use std::fmt;
use std::time::Instant;
use tensor::{SgdOptions, Tensor, TensorError, random, sgd_step};

/// Rows, columns and depth of the product: its three matrices fit into the last level of cache.
const SIZE: usize = 1024;
/// Elements of each array that is streamed: far more than any cache holds.
const STREAMED: usize = 1 << 25;
/// Number of repetitions of each; the best one counts.
const REPETITIONS: usize = 10;

/// The machine's peak throughput.
#[derive(Clone, Debug, Serialize)]
pub struct MachineBench {
    /// The device: `cpu`, or the GPU's name.
    pub device: String,
    /// Number of threads.
    pub threads: usize,
    /// Throughput of a large f32 matrix product, in 10^9 additions and multiplications a second.
    pub gflop_per_s: f64,
    /// Bytes read and written by a pass over arrays larger than any cache, in 10^9 a second.
    pub gbyte_per_s: f64,
}

/// Times a matrix product and an optimizer's update, the kernel with the least arithmetic for its memory traffic: it reads three
/// arrays and writes two.
///
/// # Errors
/// If memory for the arrays cannot be had.
pub fn bench_machine() -> Result<MachineBench> {
    tensor::set_threads(None);
    let a = random::uniform(0, &[SIZE, SIZE], -1.0, 1.0)?;
    let b = random::uniform(1, &[SIZE, SIZE], -1.0, 1.0)?;
    let product = best(|| a.matmul(&b).map(|_| ()))?;
    let mut p = Tensor::full(1f32, [STREAMED])?;
    let (g, mut velocity) = (Tensor::full(1f32, [STREAMED])?, Tensor::full(1f32, [STREAMED])?);
    let options = SgdOptions { lr: 1e-9, momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    let update = best(|| sgd_step(&mut p, &g, &mut velocity, &options))?;
    Ok(MachineBench {
        device: tensor::device::selected(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        gflop_per_s: 2.0 * (SIZE as f64).powi(3) / product / 1e9,
        gbyte_per_s: (5 * STREAMED * size_of::<f32>()) as f64 / update / 1e9,
    })
}

/// Seconds of the fastest repetition.
fn best(mut work: impl FnMut() -> Result<(), TensorError>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let began = Instant::now();
        work()?;
        tensor::device::synchronize()?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(best)
}

impl fmt::Display for MachineBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.device)?;
        writeln!(f, "{:.1} GFLOP/s (f32 matrix product), {:.1} GB/s (update of an optimizer)", self.gflop_per_s, self.gbyte_per_s)
    }
}
