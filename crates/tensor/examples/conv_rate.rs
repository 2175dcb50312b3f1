//! Prints the rate of the convolution kernels, forward and backward, in GFLOP/s: `cargo run --release --example conv_rate`,
//! with a part of a case's name behind it for those cases alone.
use espalier_tensor::{ConvOptions, Result, Tensor, random};
use std::time::Instant;

/// Name, batch, input channels, output channels, input size, kernel, stride, groups.
type Case = (&'static str, usize, usize, usize, usize, usize, usize, usize);

const CASES: &[Case] = &[
    ("ResNet-20 stem", 64, 3, 16, 32, 3, 1, 1),
    ("ResNet-20 stage 1", 64, 16, 16, 32, 3, 1, 1),
    ("ResNet-20 to stage 2", 64, 16, 32, 32, 3, 2, 1),
    ("ResNet-20 stage 2", 64, 32, 32, 16, 3, 1, 1),
    ("ResNet-20 to stage 3", 64, 32, 64, 16, 3, 2, 1),
    ("ResNet-20 stage 3", 64, 64, 64, 8, 3, 1, 1),
    ("ResNet-20 shortcut", 64, 16, 32, 32, 1, 2, 1),
    ("LeNet-5 second", 64, 20, 50, 12, 5, 1, 1),
    ("5x5", 64, 32, 32, 16, 5, 1, 1),
    ("ResNet-18 stage 1", 4, 64, 64, 56, 3, 1, 1),
    ("ResNet-18 stage 2", 4, 128, 128, 28, 3, 1, 1),
    ("ResNet-18 stage 3", 4, 256, 256, 14, 3, 1, 1),
    ("VGG first", 2, 64, 64, 224, 3, 1, 1),
    ("ImageNet stem", 4, 3, 64, 224, 7, 2, 1),
    ("ImageNet last stage", 4, 512, 512, 7, 3, 1, 1),
    ("1x1, 64 to 128", 64, 64, 128, 16, 1, 1, 1),
    ("1x1, 512 to 512", 4, 512, 512, 14, 1, 1, 1),
    ("depthwise 3x3", 64, 64, 64, 32, 3, 1, 64),
    ("depthwise 3x3 stride 2", 64, 64, 64, 32, 3, 2, 64),
    ("grouped 3x3, 4 groups", 64, 64, 64, 16, 3, 1, 4),
    ("MobileNet dw 48", 64, 16, 16, 48, 3, 1, 16),
    ("MobileNet dw 48 stride 2", 64, 32, 32, 48, 3, 2, 32),
    ("MobileNet dw 12", 64, 128, 128, 12, 3, 1, 128),
    ("MobileNet dw 6", 64, 256, 256, 6, 3, 1, 256),
    ("MobileNet dw 3", 64, 512, 512, 3, 3, 1, 512),
    ("MobileNet pw 48", 64, 16, 32, 48, 1, 1, 1),
    ("MobileNet pw 12", 64, 128, 128, 12, 1, 1, 1),
    ("MobileNet pw 6", 64, 256, 256, 6, 1, 1, 1),
    ("MobileNet pw 3", 64, 512, 512, 3, 1, 1, 1),
];

/// Rounds timed for each figure; the best counts.
const ROUNDS: usize = 25;

fn best_seconds(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!("{:<24} {:>9} {:>9} {:>9}   GFLOP/s, then ms (best of {ROUNDS})", "", "forward", "by data", "by weight");
    for &(name, n, c, o, size, kernel, stride, groups) in CASES.iter().filter(|c| c.0.contains(&wanted)) {
        let options = ConvOptions { strides: vec![stride; 2], pads: vec![(kernel / 2, kernel / 2); 2], groups, ..ConvOptions::plain(2) };
        let x = random::uniform(1, &[n, c, size, size], -1.0, 1.0)?;
        let w = random::uniform(2, &[o, c / groups, kernel, kernel], -1.0, 1.0)?;
        let y = x.conv(&w, None, &options)?;
        let dy = random::uniform(3, y.shape(), -1.0, 1.0)?;
        let flop = 2.0 * (y.len() * (c / groups) * kernel * kernel) as f64;
        let forward = best_seconds(|| x.conv(&w, None, &options).map(drop))?;
        // With only one operand tracked, the backward pass computes only its gradient.
        let backward = |x: &Tensor, w: &Tensor| -> Result<f64> {
            let mut best = f64::INFINITY;
            for _ in 0..ROUNDS {
                let y = x.conv(w, None, &options)?;
                let start = Instant::now();
                y.backward_from(dy.clone())?;
                best = best.min(start.elapsed().as_secs_f64());
            }
            Ok(best)
        };
        let (data, weight) = (backward(&x.tracked()?, &w)?, backward(&x, &w.tracked()?)?);
        let rate = |seconds: f64| flop / seconds / 1e9;
        let ms = [forward, data, weight].map(|s| format!("{:>8.2}", s * 1e3)).concat();
        println!("{name:<24} {:>9.1} {:>9.1} {:>9.1}  {ms}", rate(forward), rate(data), rate(weight));
    }
    Ok(())
}
