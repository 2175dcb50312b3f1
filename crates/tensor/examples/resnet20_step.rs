//! Times one training step of ResNet-20 (CIFAR shapes, batch 64) written in tensor operations:
//! `cargo run --release --example resnet20_step`.
use espalier_tensor::{Activation, ConvOptions, Result, SgdOptions, Tensor, cross_entropy, random, sgd_step};
use std::time::Instant;

const BATCH: usize = 64;
const ROUNDS: usize = 15;

/// Parameters in the order in which the forward pass asks for them; the first pass makes them.
#[derive(Default)]
struct Parameters {
    values: Vec<Tensor>,
    tracked: Vec<Tensor>,
}

impl Parameters {
    fn next(&mut self, make: impl FnOnce(u64) -> Result<Tensor>) -> Result<Tensor> {
        let i = self.tracked.len();
        if i == self.values.len() {
            self.values.push(make(i as u64)?);
        }
        self.tracked.push(self.values[i].tracked()?);
        Ok(self.tracked[i].clone())
    }
}

fn unit(
    p: &mut Parameters,
    x: &Tensor,
    o: usize,
    kernel: usize,
    stride: usize,
    residual: Option<&Tensor>,
    act: Activation,
) -> Result<Tensor> {
    let c = x.shape()[1];
    let bound = (3.0 / (c * kernel * kernel) as f32).sqrt();
    let w = p.next(|seed| random::uniform(seed, &[o, c, kernel, kernel], -bound, bound))?;
    let (scale, bias) = (p.next(|_| Tensor::full(1f32, [o]))?, p.next(|_| Tensor::full(0f32, [o]))?);
    let pad = kernel / 2;
    let options = ConvOptions { strides: vec![stride; 2], pads: vec![(pad, pad); 2], ..ConvOptions::plain(2) };
    Ok(x.conv(&w, None, &options)?.batch_norm_train(&scale, &bias, 1e-5, residual, act)?.0)
}

fn logits(p: &mut Parameters, x: &Tensor) -> Result<Tensor> {
    let mut x = unit(p, x, 16, 3, 1, None, Activation::Relu)?;
    for (stage, width) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..3 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let y = unit(p, &x, width, 3, stride, None, Activation::Relu)?;
            let shortcut = if stride == 2 { unit(p, &x, width, 1, 2, None, Activation::None)? } else { x.clone() };
            x = unit(p, &y, width, 3, 1, Some(&shortcut), Activation::Relu)?;
        }
    }
    let pooled = x.mean(&[2, 3], false)?;
    let w = p.next(|seed| random::uniform(seed, &[64, 10], -0.2, 0.2))?;
    pooled.matmul(&w)
}

fn main() -> Result<()> {
    let x = random::uniform(7, &[BATCH, 3, 32, 32], -1.0, 1.0)?;
    let labels = Tensor::vector((0..BATCH as i64).map(|i| i % 10).collect());
    let options = SgdOptions { lr: 0.05, momentum: 0.9, nesterov: false, weight_decay: 1e-4 };
    let (mut values, mut velocity): (Vec<Tensor>, Vec<Tensor>) = (vec![], vec![]);
    let (mut best, mut first) = ([f64::INFINITY; 3], None);
    let mut last = 0.0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut p = Parameters { values: std::mem::take(&mut values), tracked: vec![] };
        let loss = cross_entropy(&logits(&mut p, &x)?, &labels, 0.0)?;
        let forward = start.elapsed().as_secs_f64();
        let mut gradients = loss.backward()?;
        let backward = start.elapsed().as_secs_f64() - forward;
        let Parameters { values: mut updated, tracked } = p;
        if velocity.is_empty() {
            velocity = updated.iter().map(|v| Tensor::full(0f32, v.shape())).collect::<Result<_>>()?;
        }
        for ((value, leaf), velocity) in updated.iter_mut().zip(&tracked).zip(&mut velocity) {
            if let Some(g) = gradients.take(leaf) {
                sgd_step(value, &g, velocity, &options)?;
            }
        }
        values = updated;
        last = loss.item::<f32>()?;
        first.get_or_insert(last);
        let times = [start.elapsed().as_secs_f64(), forward, backward];
        best.iter_mut().zip(times).for_each(|(b, t)| *b = b.min(t));
    }
    let [step, forward, backward] = best.map(|s| s * 1e3);
    println!("best of {ROUNDS}: step {step:.1} ms (forward {forward:.1}, backward {backward:.1})");
    println!("loss from {:.3} to {last:.3}", first.unwrap_or(last));
    Ok(())
}
