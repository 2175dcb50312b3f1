//! Prints the rate of the passes that are bound by memory, forward and backward: `cargo run --release --example pass_rate`.
//! GB/s counts what a pass must read and write at least: its float operands and results, each once.
use espalier_tensor::{AdamWOptions, PoolOptions, Result, SgdOptions, Tensor};
use espalier_tensor::{adamw_step, cross_entropy, distillation_loss, mse_loss, random, sgd_step};
use std::time::Instant;

/// Rounds timed for each figure; the best counts.
const ROUNDS: usize = 15;

fn numbers(seed: u64, shape: &[usize]) -> Result<Tensor> {
    random::uniform(seed, shape, -1.0, 1.0)
}

/// Times `f` on these inputs, and the backward pass of its result by all of them.
fn pass(name: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    let (mut forward, mut backward) = (f64::INFINITY, f64::INFINITY);
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::tracked).collect::<Result<_>>()?;
    let mut result = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let y = f(&leaves)?;
        forward = forward.min(start.elapsed().as_secs_f64());
        result = y.len();
        // There is no other reference, as for a gradient in the middle of a network.
        let dy = numbers(9, y.shape())?;
        let start = Instant::now();
        let gradients = y.backward_from(dy)?;
        backward = backward.min(start.elapsed().as_secs_f64());
        drop(gradients);
    }
    let operands: usize = inputs.iter().map(Tensor::len).sum();
    let (there, back) = (4 * (operands + result), 4 * (2 * operands + result));
    print_row(name, &[(forward, there), (backward, back)]);
    Ok(())
}

fn print_row(name: &str, figures: &[(f64, usize)]) {
    let columns: String = figures.iter().map(|(s, bytes)| format!("{:>10.3} {:>7.1}", s * 1e3, *bytes as f64 / s / 1e9)).collect();
    println!("{name:<34}{columns}");
}

fn window(size: usize, stride: usize, pad: usize) -> PoolOptions {
    PoolOptions {
        kernel: vec![size; 2],
        strides: vec![stride; 2],
        pads: vec![(pad, pad); 2],
        dilations: vec![1; 2],
        ceil_mode: false,
        count_include_pad: false,
    }
}

fn main() -> Result<()> {
    println!("{:<34}{:>10} {:>7}{:>10} {:>7}   (best of {ROUNDS})", "", "forward ms", "GB/s", "backw. ms", "GB/s");
    let tokens = numbers(1, &[16, 128, 256])?;
    let wide = numbers(2, &[16, 128, 1024])?;
    let (row, wide_row) = (numbers(3, &[256])?, numbers(3, &[1024])?);
    pass("layer norm 256", &[tokens.clone(), row.clone(), row.clone()], |t| Ok(t[0].layer_norm(Some(&t[1]), Some(&t[2]), 2, 1e-5)?.0))?;
    pass("rms norm 256", &[tokens.clone(), row.clone()], |t| t[0].rms_norm(Some(&t[1]), 2, 1e-5))?;
    pass("softmax 128", &[numbers(4, &[16, 4, 128, 128])?], |t| t[0].softmax(3))?;
    let heads = numbers(5, &[16, 128, 4, 64])?;
    pass("transpose 0213", std::slice::from_ref(&heads), |t| t[0].transpose(&[0, 2, 1, 3]))?;
    pass("transpose 0231", std::slice::from_ref(&heads), |t| t[0].transpose(&[0, 2, 3, 1]))?;
    pass("transpose last of 1024", &[numbers(5, &[1024, 1024])?], |t| t[0].transpose_last())?;
    pass("bias 256", &[tokens.clone(), row], |t| t[0].add(&t[1]))?;
    pass("bias 1024", &[wide.clone(), wide_row], |t| t[0].add(&t[1]))?;
    pass("residual add", &[tokens.clone(), tokens.clone()], |t| t[0].add(&t[1]))?;
    pass("two uses of one value", std::slice::from_ref(&wide), |t| t[0].add(&t[0]))?;
    pass("gelu", std::slice::from_ref(&wide), |t| t[0].gelu(false))?;
    pass("scale", std::slice::from_ref(&tokens), |t| t[0].mul_scalar(0.125))?;
    let image = numbers(6, &[64, 16, 32, 32])?;
    pass("relu", std::slice::from_ref(&image), |t| t[0].relu())?;
    let (scale, zero) = (Tensor::scalar(0.01f32), Tensor::scalar(3f32));
    pass("fake quantize", &[image.clone(), scale.clone()], |t| t[0].fake_quantize(&t[1], &zero, None, -128.0, 127.0))?;
    pass("relu, fake quantize", &[image.clone(), scale], |t| t[0].relu()?.fake_quantize(&t[1], &zero, None, -128.0, 127.0))?;
    let weight = numbers(7, &[512, 512, 3, 3])?;
    let (scales, zeros) = (Tensor::full(0.01f32, [512])?, Tensor::full(0f32, [512])?);
    pass("fake quantize, per channel", &[weight, scales], |t| t[0].fake_quantize(&t[1], &zeros, Some(0), -128.0, 127.0))?;
    for (name, o) in [("2x2", window(2, 2, 0)), ("3x3 stride 2", window(3, 2, 1)), ("3x3 stride 1", window(3, 1, 1))] {
        pass(&format!("max pool {name}"), std::slice::from_ref(&image), |t| Ok(t[0].max_pool(&o)?.0))?;
        pass(&format!("average pool {name}"), std::slice::from_ref(&image), |t| t[0].average_pool(&o))?;
    }
    pass("global average 32x32", std::slice::from_ref(&image), |t| t[0].mean(&[2, 3], true))?;
    pass("global average 8x8", &[numbers(8, &[64, 64, 8, 8])?], |t| t[0].mean(&[2, 3], true))?;
    let logits = numbers(8, &[256, 1000])?;
    let labels = Tensor::vector((0..256i64).collect());
    pass("cross-entropy 1000", std::slice::from_ref(&logits), |t| cross_entropy(&t[0], &labels, 0.1))?;
    let teacher = numbers(9, &[256, 1000])?;
    pass("distillation loss 1000", &[logits], |t| distillation_loss(&t[0], &teacher, 4.0))?;
    let target = numbers(9, &[16, 128, 256])?;
    pass("squared error", &[tokens], |t| mse_loss(&t[0], &target))?;
    updates()
}

fn updates() -> Result<()> {
    let n = 1 << 22;
    let (mut p, g, mut m, mut v) = (numbers(1, &[n])?, numbers(2, &[n])?, numbers(3, &[n])?, random::uniform(4, &[n], 0.0, 1.0)?);
    let (mut sgd, mut adamw) = (f64::INFINITY, f64::INFINITY);
    for step in 1..=ROUNDS as u64 {
        let start = Instant::now();
        sgd_step(&mut p, &g, &mut m, &SgdOptions { lr: 1e-3, momentum: 0.9, nesterov: false, weight_decay: 1e-4 })?;
        sgd = sgd.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let o = AdamWOptions { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step };
        adamw_step(&mut p, &g, &mut m, &mut v, &o)?;
        adamw = adamw.min(start.elapsed().as_secs_f64());
    }
    print_row("SGD update, 4 M", &[(sgd, 20 * n)]);
    print_row("AdamW update, 4 M", &[(adamw, 28 * n)]);
    Ok(())
}
