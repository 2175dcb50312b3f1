//! Prints the rate of the matrix product, and of its two gradients, in GFLOP/s: `cargo run --release --example product_rate`.
use espalier_tensor::{Result, Tensor, random};
use std::time::Instant;

/// Batch, rows, depth, columns.
const CASES: &[[usize; 4]] = &[
    [1, 1024, 1024, 1024],
    [1, 2048, 256, 768],
    [1, 2048, 256, 256],
    [1, 2048, 256, 1024],
    [1, 2048, 1024, 256],
    [64, 128, 64, 128],
    [64, 128, 128, 64],
    [1, 64, 64, 10],
];

/// Rounds timed for each figure; the best counts.
const ROUNDS: usize = 25;

fn main() -> Result<()> {
    println!("{:<24} {:>9} {:>9} {:>9}   GFLOP/s (best of {ROUNDS})", "batch x rows x depth x columns", "forward", "by left", "by right");
    for &[n, m, k, o] in CASES {
        let (a, b) = (random::uniform(1, &[n, m, k], -1.0, 1.0)?, random::uniform(2, &[n, k, o], -1.0, 1.0)?);
        let dy = random::uniform(3, &[n, m, o], -1.0, 1.0)?;
        let mut best = [f64::INFINITY; 3];
        for _ in 0..ROUNDS {
            let start = Instant::now();
            a.matmul(&b)?;
            best[0] = best[0].min(start.elapsed().as_secs_f64());
            // With only one operand tracked, the backward pass computes only its gradient.
            for (best, (a, b)) in best[1..].iter_mut().zip([(a.tracked()?, b.clone()), (a.clone(), b.tracked()?)]) {
                let y: Tensor = a.matmul(&b)?;
                let start = Instant::now();
                y.backward_from(dy.clone())?;
                *best = best.min(start.elapsed().as_secs_f64());
            }
        }
        let rates = best.map(|s| format!("{:>9.1}", 2.0 * (n * m * k * o) as f64 / s / 1e9)).join(" ");
        println!("{:<30} {rates}", format!("{n} x {m} x {k} x {o}"));
    }
    Ok(())
}
