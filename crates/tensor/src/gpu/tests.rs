//! Every kernel against the CPU, on odd shapes; then blocks of networks, forward and all gradients.
//!
//! Tolerances are relative to the largest magnitude of the compared result (at least 1).
use super::{context, open, scoped, take_host_copies, to_device, within};
use crate::memory::live;
use crate::random::uniform;
use crate::{Activation, AdamWOptions, ConvOptions, DType, PadMode, PoolOptions, Result, SgdOptions, Tensor, adamw_step, sgd_step};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sums of up to some thousand products in another order of summation.
const SUMS: f64 = 2e-5;
/// One function of an element: the device's elementary functions are accurate to a few units in the last place.
const ELEMENT: f64 = 3e-6;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The GPU for one test alone; `None`, with the reason on stderr, where there is none. With `ESPALIER_REQUIRE_GPU` set that is
/// a failure.
fn gpu() -> Option<MutexGuard<'static, ()>> {
    match open(None) {
        Ok(_) => Some(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)),
        Err(e) if std::env::var_os("ESPALIER_REQUIRE_GPU").is_none() => {
            eprintln!("skipped: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Copies to the device if this thread computes there.
fn here(t: &Tensor) -> Tensor {
    if super::active() { to_device(t).unwrap().unwrap() } else { t.clone() }
}

/// The value of `f` and its gradients by all inputs, on one of the devices. `resident`: the value and the gradients must be
/// computed there.
fn run(on_gpu: bool, inputs: &[Tensor], resident: bool, f: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Tensor> {
    scoped(on_gpu, || {
        let leaves: Vec<Tensor> = inputs.iter().map(|t| here(t).tracked().unwrap()).collect();
        let y = f(&leaves).unwrap();
        assert!(!on_gpu || !resident || y.on_device(), "was computed by the processor");
        let mut out = vec![y.detach()];
        if y.is_tracked() {
            let dy = here(&uniform(99, y.shape(), 0.5, 1.5).unwrap());
            let mut g = y.backward_from(dy).unwrap();
            out.extend(leaves.iter().filter_map(|l| g.take(l)));
            // Where a function is flat, zeros are written without reading anything.
            let there = |t: &Tensor| t.on_device() || t.to_f64_vec().unwrap().iter().all(|v| *v == 0.0);
            assert!(!on_gpu || !resident || out.iter().all(there), "a gradient was computed by the processor");
        }
        // Read outside of the counting section.
        out.iter().for_each(|t| drop(t.to_f64_vec().unwrap()));
        out
    })
}

fn close(what: &str, got: &[Tensor], expected: &[Tensor], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (which, (a, b)) in got.iter().zip(expected).enumerate() {
        assert_eq!(a.shape(), b.shape(), "{what}, result {which}");
        let (a, b) = (a.to_f64_vec().unwrap(), b.to_f64_vec().unwrap());
        let largest = b.iter().filter(|v| v.is_finite()).fold(1f64, |m, v| m.max(v.abs()));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            let same = a == b || (a.is_nan() && b.is_nan());
            assert!(same || (a - b).abs() <= tolerance * largest, "{what}, result {which}, element {i}: {a} against {b}");
        }
    }
}

/// Value and gradients agree between the devices, and are computed on the device.
fn agree(what: &str, tolerance: f64, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    close(what, &run(true, inputs, true, &f), &run(false, inputs, false, &f), tolerance);
}

fn u(seed: u64, shape: &[usize]) -> Tensor {
    uniform(seed, shape, -1.0, 1.0).unwrap()
}

#[test]
fn functions_of_one_element() {
    let Some(_gpu) = gpu() else { return };
    type F = fn(&Tensor) -> Result<Tensor>;
    let anywhere: &[F] = &[
        Tensor::exp,
        Tensor::tanh,
        Tensor::erf,
        Tensor::neg,
        Tensor::abs,
        Tensor::relu,
        Tensor::sign,
        Tensor::floor,
        Tensor::ceil,
        Tensor::trunc,
        Tensor::round,
        |t| t.clip(Some(-0.4), Some(0.55)),
        Tensor::sigmoid,
        |t| t.leaky_relu(0.1),
        |t| t.elu(1.3),
        |t| t.hard_sigmoid(0.2, 0.5),
        Tensor::hard_swish,
        Tensor::softplus,
        Tensor::softsign,
        |t| t.gelu(false),
        |t| t.gelu(true),
        |t| t.swish(1.5),
        |t| t.pow(&t.scalar_like(2.0)?),
    ];
    let x = uniform(1, &[3, 7, 41], -4.0, 4.0).unwrap();
    for (i, f) in anywhere.iter().enumerate() {
        agree(&format!("function {i}"), ELEMENT, std::slice::from_ref(&x), |t| f(&t[0]));
    }
    let positive: &[F] = &[Tensor::sqrt, Tensor::log, Tensor::reciprocal];
    for (i, f) in positive.iter().enumerate() {
        agree(&format!("positive {i}"), ELEMENT, &[uniform(2, &[5, 67], 0.2, 3.0).unwrap()], |t| f(&t[0]));
    }
    // More elements than workgroups along one axis can cover.
    agree("many", 0.0, &[u(3, &[17_000_003])], |t| t[0].detach().neg());
}

#[test]
fn what_is_not_a_number_stays_so() {
    let Some(_gpu) = gpu() else { return };
    let special = Tensor::vector(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e30, -1e30, 3.0]);
    let f = |t: &[Tensor]| t[0].detach().clip(Some(-1.0), Some(1.0));
    agree("clip", 0.0, std::slice::from_ref(&special), f);
    agree("largest", 0.0, &[special.narrow(0, 1, 6).unwrap()], |t| t[0].detach().max_reduce(&[0], false));
    for (positive, negative) in [(true, true), (true, false), (false, true)] {
        agree("isinf", 0.0, std::slice::from_ref(&special), |t| t[0].detach().isinf(positive, negative));
    }
    agree("isnan", 0.0, std::slice::from_ref(&special), |t| t[0].detach().isnan());
}

#[test]
fn functions_of_two_elements() {
    let Some(_gpu) = gpu() else { return };
    let a = uniform(1, &[2, 3, 45], 0.5, 2.0).unwrap();
    for shape in [vec![2, 3, 45], vec![3, 1], vec![], vec![1, 45], vec![4, 1, 3, 1]] {
        let both = [a.clone(), uniform(2, &shape, 0.6, 1.7).unwrap()];
        agree("add", SUMS, &both, |t| t[0].add(&t[1]));
        agree("sub", SUMS, &both, |t| t[1].sub(&t[0]));
        agree("mul", SUMS, &both, |t| t[0].mul(&t[1]));
        agree("div", SUMS, &both, |t| t[0].div(&t[1]));
        agree("pow", SUMS, &both, |t| t[0].pow(&t[1]));
        agree("max", SUMS, &both, |t| t[0].max(&t[1]));
        agree("min", SUMS, &both, |t| t[1].min(&t[0]));
        for f in [Tensor::less, Tensor::greater, Tensor::less_or_equal, Tensor::greater_or_equal, Tensor::equal] {
            agree("comparison", 0.0, &both, |t| f(&t[0].detach(), &t[1].detach()));
        }
        let mask = both[0].less(&both[1]).unwrap();
        agree("where", SUMS, &both, |t| Tensor::where_(&mask, &t[0], &t[1]));
    }
    let mask = u(5, &[7, 9]).less(&u(6, &[7, 9])).unwrap();
    agree("mask", 0.0, &[u(7, &[7, 9])], |t| t[0].apply_mask(&mask));
    agree("bool to f32", 0.0, &[u(7, &[7, 9])], |t| t[0].detach().less(&t[0].scalar_like(0.1)?)?.cast(DType::F32));
}

#[test]
fn reductions() {
    let Some(_gpu) = gpu() else { return };
    let x = uniform(1, &[3, 5, 7, 11], 0.3, 1.5).unwrap();
    for axes in [vec![0, 2], vec![3], vec![0], vec![0, 1, 2, 3], vec![1, 2], vec![2, 3], vec![]] {
        for keep in [true, false] {
            agree("sum", SUMS, std::slice::from_ref(&x), |t| t[0].sum(&axes, keep));
            agree("mean", SUMS, std::slice::from_ref(&x), |t| t[0].mean(&axes, keep));
            agree("max", SUMS, std::slice::from_ref(&x), |t| t[0].max_reduce(&axes, keep));
            agree("min", SUMS, std::slice::from_ref(&x), |t| t[0].min_reduce(&axes, keep));
        }
    }
    for (shape, axes) in [(vec![70_001], vec![0]), (vec![5003, 7], vec![0]), (vec![3, 1009, 5], vec![1]), (vec![70_000, 65], vec![1])] {
        let x = uniform(2, &shape, 0.0, 1.0).unwrap();
        agree(&format!("sum of {shape:?}"), SUMS, &[x], |t| t[0].detach().sum(&axes, false));
    }
}

#[test]
fn movement() {
    let Some(_gpu) = gpu() else { return };
    let x = [u(1, &[2, 3, 5])];
    agree("transpose", 0.0, &x, |t| t[0].transpose(&[2, 0, 1]));
    agree("slice", 0.0, &x, |t| t[0].slice(&[1, -1], &[3, i64::MIN], &[1, 2], &[1, -2]));
    agree("flip", 0.0, &x, |t| t[0].flip(&[0, 2]));
    agree("pad", 0.0, &x, |t| t[0].pad(&[(1, 0), (-1, 2), (0, 3)], PadMode::Constant, None));
    agree("expand", SUMS, &x, |t| t[0].unsqueeze(&[0, 4])?.expand(&[3, 2, 3, 5, 2]));
    agree("tile", SUMS, &x, |t| t[0].tile(&[2, 1, 3]));
    let two = [u(1, &[2, 3, 5]), u(2, &[2, 4, 5])];
    agree("concat", 0.0, &two, |t| Tensor::concat(t, 1));
    agree("concat", 0.0, &x, |t| Tensor::concat(&[t[0].clone(), t[0].clone()], 2));
}

#[test]
fn matrix_products() {
    let Some(_gpu) = gpu() else { return };
    let shapes: [(&[usize], &[usize]); 9] = [
        (&[3, 4], &[4, 2]),
        (&[67, 129], &[129, 71]),
        (&[2, 30, 41], &[41, 7]),
        (&[2, 3, 24, 17], &[2, 3, 17, 33]),
        (&[2, 1, 13, 40], &[3, 40, 22]),
        (&[4], &[4]),
        (&[1, 2000], &[2000, 3]),
        (&[20, 3001], &[3001, 9]),
        (&[17, 5], &[5, 300]),
    ];
    for (a, b) in shapes {
        agree(&format!("{a:?} by {b:?}"), SUMS, &[u(1, a), u(2, b)], |t| t[0].matmul(&t[1]));
    }
    for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
        let a = if ta { [37, 21] } else { [21, 37] };
        let b = if tb { [19, 37] } else { [37, 19] };
        let inputs = [u(3, &a), u(4, &b), u(5, &[19])];
        agree("gemm", SUMS, &inputs, |t| Tensor::gemm(&t[0], &t[1], Some(&t[2]), 0.5, 2.0, ta, tb));
    }
}

#[test]
fn convolutions() {
    let Some(_gpu) = gpu() else { return };
    // Shape, weight, stride, padding, dilation, groups.
    let cases: [(&[usize], &[usize], usize, usize, usize, usize); 16] = [
        (&[3, 16, 15, 13], &[16, 16, 3, 3], 1, 1, 1, 1),
        (&[2, 5, 8, 8], &[17, 5, 3, 3], 1, 1, 1, 1),
        (&[2, 16, 16, 24], &[33, 16, 1, 1], 2, 0, 1, 1),
        (&[1, 140, 7, 7], &[40, 140, 3, 3], 1, 1, 1, 1),
        (&[2, 6, 15, 13], &[12, 3, 5, 3], 2, 2, 1, 2),
        (&[2, 8, 11, 12], &[16, 1, 3, 3], 2, 1, 2, 8),
        (&[2, 4, 18, 17], &[4, 1, 3, 3], 1, 1, 1, 4),
        (&[9, 21, 20, 19], &[21, 1, 5, 5], 1, 2, 1, 21),
        (&[2, 18, 10, 9], &[36, 1, 3, 2], 2, 0, 1, 18),
        (&[1, 5, 4, 4], &[5, 1, 1, 1], 1, 2, 1, 5),
        (&[1, 64, 4, 12], &[32, 64, 1, 1], 1, 0, 1, 1),
        (&[2, 3, 9, 9], &[4, 3, 2, 2], 3, 0, 1, 1),
        (&[8, 3, 33, 31], &[70, 3, 7, 7], 2, 3, 1, 1),
        (&[2, 4, 37], &[6, 4, 5], 2, 1, 2, 1),
        (&[2, 4, 5, 6, 7], &[8, 2, 3, 2, 3], 1, 1, 1, 2),
        (&[2, 12, 9, 9], &[24, 4, 3, 3], 1, 1, 1, 3),
    ];
    for (x, w, stride, pad, dilation, groups) in cases {
        let axes = x.len() - 2;
        let options = ConvOptions { strides: vec![stride; axes], pads: vec![(pad, pad); axes], dilations: vec![dilation; axes], groups };
        let inputs = [u(1, x), u(2, w), u(3, &w[..1])];
        agree(&format!("{x:?} by {w:?}"), SUMS, &inputs, |t| t[0].conv(&t[1], Some(&t[2]), &options));
    }
    let options = ConvOptions { strides: vec![2, 3], pads: vec![(1, 0), (0, 1)], ..ConvOptions::plain(2) };
    agree("transposed", SUMS, &[u(1, &[2, 3, 5, 4]), u(2, &[3, 2, 3, 3])], |t| t[0].conv_transpose(&t[1], None, &options, &[1, 0]));
}

#[test]
fn normalizations() {
    let Some(_gpu) = gpu() else { return };
    let c = |seed| uniform(seed, &[5], 0.5, 1.5).unwrap();
    for shape in [[3usize, 5, 7], [2, 5, 301]] {
        let x = uniform(1, &shape, 4.0, 6.0).unwrap();
        for activation in [Activation::None, Activation::Relu, Activation::Clip { min: -0.5, max: 0.7 }] {
            let train = |t: &[Tensor]| t[0].batch_norm_train(&t[1], &t[2], 1e-3, t.get(3), activation).map(|r| r.0);
            agree("training", 1e-4, &[x.clone(), c(2), c(3)], train);
            agree("training with residual", 1e-4, &[x.clone(), c(2), c(3), u(4, &shape)], train);
            let (mean, var) = (uniform(5, &[5], 4.0, 6.0).unwrap(), uniform(6, &[5], 0.2, 1.0).unwrap());
            let given = |t: &[Tensor]| t[0].batch_norm(&t[1], &t[2], &mean, &var, 1e-3, t.get(3), activation);
            agree("given statistics", 1e-4, &[x.clone(), c(2), c(3), u(4, &shape)], given);
        }
        for which in 0..2 {
            let statistics = |t: &[Tensor]| {
                let (_, mean, var) = t[0].detach().batch_norm_train(&t[1].detach(), &t[2].detach(), 1e-3, None, Activation::None)?;
                Ok([mean, var][which].clone())
            };
            agree("statistics", ELEMENT, &[x.clone(), c(2), c(3)], statistics);
        }
    }
    let x = [u(1, &[3, 7, 33]), uniform(2, &[33], 0.5, 1.5).unwrap(), u(3, &[33])];
    agree("layer", 1e-4, &x, |t| Ok(t[0].layer_norm(Some(&t[1]), Some(&t[2]), 2, 1e-5)?.0));
    agree("rms", 1e-4, &x[..2], |t| t[0].rms_norm(Some(&t[1]), 2, 1e-5));
    for axis in [2, 1] {
        agree("softmax", ELEMENT, &x[..1], |t| t[0].mul_scalar(5.0)?.softmax(axis));
        agree("log_softmax", 1e-5, &x[..1], |t| t[0].mul_scalar(5.0)?.log_softmax(axis));
    }
    agree("softmax of a long row", ELEMENT, &[u(4, &[2, 1021])], |t| t[0].softmax(1));
}

/// The same integers, so the same bits, where the division is as exact as the processor's; else a value at the border of two
/// steps may fall on the other, which the second bound allows for one in a thousand.
#[test]
fn fake_quantization() {
    let Some(_gpu) = gpu() else { return };
    for (shape, axis, n) in [(vec![3usize, 4, 37], Some(1), 4), (vec![1000, 7], None, 1), (vec![5, 3], Some(0), 5)] {
        let x = u(1, &shape);
        let (scale, zero) = (uniform(2, &[n], 0.004, 0.02).unwrap(), Tensor::full(3f32, [n]).unwrap());
        let inputs = [x, scale, zero];
        for activation in [Activation::None, Activation::Relu, Activation::Clip { min: -0.3, max: 0.4 }] {
            let f = |t: &[Tensor]| t[0].fake_quantize_activated(activation, &t[1], &t[2], axis, -63.0, 63.0);
            let (a, b) = (run(true, &inputs, true, &f), run(false, &inputs, false, &f));
            let (p, q) = (a[0].to_f64_vec().unwrap(), b[0].to_f64_vec().unwrap());
            let off = p.iter().zip(&q).filter(|(a, b)| (*a - *b).abs() > 1e-6).count();
            assert!(off * 1000 <= p.len(), "{activation:?}: {off} of {} elements are on another step", p.len());
            close("gradient by x", &a[1..2], &b[1..2], 0.0);
            close("gradients by scale and zero point", &a[2..], &b[2..], 1e-4);
        }
    }
}

#[test]
fn losses() {
    let Some(_gpu) = gpu() else { return };
    let (x, teacher) = (u(1, &[5, 13]).mul_scalar(3.0).unwrap(), u(2, &[5, 13]).mul_scalar(3.0).unwrap());
    let labels = Tensor::vector(vec![0i64, 4, 12, 2, 2]);
    for smoothing in [0.0, 0.2] {
        agree("cross-entropy", 1e-5, std::slice::from_ref(&x), |t| crate::cross_entropy(&t[0], &labels, smoothing));
    }
    for temperature in [1.0, 4.0] {
        agree("distillation", 1e-5, std::slice::from_ref(&x), |t| crate::distillation_loss(&t[0], &teacher, temperature));
    }
    agree("squared error", 1e-5, &[x, teacher], |t| crate::mse_loss(&t[0], &t[1]));
    scoped(true, || {
        let bad = crate::cross_entropy(&here(&u(1, &[1, 3])), &Tensor::vector(vec![3i64]), 0.0);
        assert!(bad.unwrap_err().to_string().contains("label 3"));
    });
}

#[test]
fn optimizers() {
    let Some(_gpu) = gpu() else { return };
    let step = |on_gpu: bool| {
        scoped(on_gpu, || {
            let g = here(&u(1, &[301]));
            let (mut p, mut v) = (u(2, &[301]), u(3, &[301]));
            let (mut q, mut m, mut s) = (p.clone(), v.clone(), v.mul(&v).unwrap());
            for step in 1..4 {
                for nesterov in [true, false] {
                    let o = SgdOptions { lr: 0.1, momentum: 0.9, nesterov, weight_decay: 0.01 };
                    sgd_step(&mut p, &g, &mut v, &o).unwrap();
                }
                let o = AdamWOptions { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step };
                adamw_step(&mut q, &g, &mut m, &mut s, &o).unwrap();
            }
            assert_eq!(p.on_device() && q.on_device(), on_gpu);
            let squares = crate::sum_squares(&[&g, &g.narrow(0, 0, 7).unwrap()]).unwrap();
            [p, v, q, m, s, Tensor::scalar(squares)].map(|t| t.cast(DType::F64).unwrap())
        })
    };
    close("optimizers", &step(true), &step(false), ELEMENT);
}

/// Convolution, batch norm with activation, a second one with the residual, mean over pixels: a residual block with its head.
#[test]
fn a_residual_block() {
    let Some(_gpu) = gpu() else { return };
    let c = |seed| uniform(seed, &[12], 0.5, 1.5).unwrap();
    let same = ConvOptions { pads: vec![(1, 1); 2], ..ConvOptions::plain(2) };
    let w = |seed, o: usize, i: usize| u(seed, &[o, i, 3, 3]).mul_scalar((3.0 / (9 * i) as f64).sqrt()).unwrap();
    let inputs = [u(1, &[4, 3, 13, 11]), w(2, 12, 3), c(3), c(4), w(5, 12, 12), c(6), c(7), u(8, &[12, 10]), u(9, &[10])];
    let labels = Tensor::vector(vec![0i64, 9, 4, 4]);
    agree("residual block", 1e-4, &inputs, |t| {
        let x = t[0].conv(&t[1], None, &same)?.batch_norm_train(&t[2], &t[3], 1e-5, None, Activation::Relu)?.0;
        let y = x.conv(&t[4], None, &same)?.batch_norm_train(&t[5], &t[6], 1e-5, Some(&x), Activation::Relu)?.0;
        let logits = Tensor::gemm(&y.mean(&[2, 3], false)?, &t[7], Some(&t[8]), 1.0, 1.0, false, false)?;
        crate::cross_entropy(&logits, &labels, 0.1)
    });
}

/// Layer norm, heads of attention, residual, feed-forward with GELU.
#[test]
fn an_attention_block() {
    let Some(_gpu) = gpu() else { return };
    let (n, s, d, heads) = (2usize, 19usize, 24usize, 3usize);
    let w = |seed, i: usize, o: usize| u(seed, &[i, o]).mul_scalar((1.0 / i as f64).sqrt()).unwrap();
    let one = |seed| uniform(seed, &[d], 0.5, 1.5).unwrap();
    let inputs = [u(1, &[n, s, d]), one(2), u(3, &[d]), w(4, d, 3 * d), w(5, d, d), w(6, d, 4 * d), u(7, &[4 * d]), w(8, 4 * d, d)];
    agree("attention block", 1e-4, &inputs, |t| {
        let x = t[0].layer_norm(Some(&t[1]), Some(&t[2]), 2, 1e-5)?.0.matmul(&t[3])?;
        let split = |i: usize| x.narrow(2, i * d, d)?.reshape([n, s, heads, d / heads])?.transpose(&[0, 2, 1, 3]);
        let (q, k, v) = (split(0)?, split(1)?, split(2)?);
        let scores = q.matmul(&k.transpose_last()?)?.mul_scalar(1.0 / ((d / heads) as f64).sqrt())?.softmax(3)?;
        let y = scores.matmul(&v)?.transpose(&[0, 2, 1, 3])?.reshape([n, s, d])?.matmul(&t[4])?.add(&t[0])?;
        y.add(&y.matmul(&t[5])?.add(&t[6])?.gelu(false)?.matmul(&t[7])?)
    });
}

/// Operations without a kernel give the CPU's values, and are counted under their section.
#[test]
fn what_the_device_lacks_goes_through_the_processor_and_is_counted() {
    let Some(_gpu) = gpu() else { return };
    let o = PoolOptions {
        kernel: vec![3, 2],
        strides: vec![2, 2],
        pads: vec![(1, 1), (0, 0)],
        dilations: vec![1, 1],
        ceil_mode: false,
        count_include_pad: false,
    };
    let x = [u(1, &[2, 3, 9, 8])];
    let f = |t: &[Tensor]| within("pooling under test".into(), || Ok(t[0].cumsum(2, false, false)?.max_pool(&o)?.0));
    close("pool", &run(true, &x, false, &f), &run(false, &x, false, &f), 0.0);
    let copies = take_host_copies();
    let counted = copies.iter().find(|c| c.0 == "pooling under test");
    assert_eq!(counted.map(|c| (c.1, c.2)), Some((1, 2 * 3 * 9 * 8 * 4)), "{copies:?}");
}

/// A vector that was copied to the device and then written to is copied again; a tensor of the device that is written to moves to
/// the CPU; other references keep their elements.
#[test]
fn tensors_stay_values() {
    let Some(_gpu) = gpu() else { return };
    scoped(true, || {
        let one = here(&Tensor::full(1f32, [4]).unwrap());
        let mut host = Tensor::vector(vec![1f32, 2.0, 3.0, 4.0]);
        assert_eq!(one.add(&host).unwrap().to_f32_vec().unwrap(), [2.0, 3.0, 4.0, 5.0]);
        host.as_mut_slice::<f32>().unwrap()[0] = 7.0;
        let sum = one.add(&host).unwrap();
        assert_eq!(sum.to_f32_vec().unwrap(), [8.0, 3.0, 4.0, 5.0]);
        let mut other = sum.clone();
        other.as_mut_slice::<f32>().unwrap()[1] = 0.0;
        assert!(!other.on_device() && sum.on_device());
        assert_eq!(sum.to_f32_vec().unwrap(), [8.0, 3.0, 4.0, 5.0]);
        assert_eq!(other.add(&one).unwrap().into_vec::<f32>().unwrap(), [9.0, 1.0, 5.0, 6.0]);
    });
}

/// Operations that work in place on the CPU if there is no other reference: on the device, and with only one of the operands
/// there.
#[test]
fn what_writes_in_place_on_the_processor() {
    let Some(_gpu) = gpu() else { return };
    let own = |t: &Tensor| t.add_scalar(0.0);
    let both = [u(1, &[3, 70, 91]), u(2, &[70, 1])];
    agree("sum", SUMS, &both, |t| own(&t[0])?.add_owned(own(&t[1])?));
    agree("sum onto the other", SUMS, &both, |t| own(&t[1])?.add_owned(own(&t[0])?));
    agree("clip", ELEMENT, &both[..1], |t| own(&t[0])?.clip_owned(Some(-0.4), Some(0.55)));
    agree("relu of a sum with itself", SUMS, &both[..1], |t| own(&t[0])?.add_owned(own(&t[0])?)?.clip_owned(Some(0.0), None));
    for fresh_first in [true, false] {
        let f = |t: &[Tensor]| {
            let fresh = u(3, &[3, 70, 91]);
            if fresh_first { fresh.add_owned(own(&t[0])?) } else { own(&t[0])?.add_owned(fresh) }
        };
        agree("sum with what is on the processor", SUMS, &both[..1], f);
    }
    // Gradients computed on the CPU meet kept values of the device, and the other way round.
    let o = PoolOptions {
        kernel: vec![2, 2],
        strides: vec![2, 2],
        pads: vec![(0, 0); 2],
        dilations: vec![1, 1],
        ceil_mode: false,
        count_include_pad: false,
    };
    let image = [u(4, &[2, 3, 8, 10]), u(5, &[2, 3, 8, 10])];
    let mixed = |t: &[Tensor]| t[0].mul(&t[1])?.tanh()?.max_pool(&o)?.0.average_pool(&o)?.softmax(3)?.mul(&u(6, &[2, 3, 2, 2]));
    close("mixed", &run(true, &image, false, &mixed), &run(false, &image, false, &mixed), 1e-5);
}

/// Memory on the device does not count as CPU memory until it is read there; a CPU tensor copied to the device counts until it is
/// dropped.
#[test]
fn memory_of_the_processor_is_counted() {
    let Some(_gpu) = gpu() else { return };
    scoped(true, || {
        let begin = live();
        let host = Tensor::full(1f32, [1000]).unwrap();
        let there = here(&host).add(&host).unwrap();
        assert_eq!(live() - begin, 4000, "the elements on the processor alone");
        let other = there.reshape([10, 100]).unwrap();
        assert_eq!(there.as_slice::<f32>().unwrap()[999], 2.0);
        assert_eq!(live() - begin, 8000, "a copy on the processor");
        let mut written = other.clone();
        written.as_mut_slice::<f32>().unwrap()[0] = 3.0;
        assert_eq!(live() - begin, 12_000);
        drop((there, other));
        assert_eq!(live() - begin, 8000);
        let mut host = host;
        host.as_mut_slice::<f32>().unwrap()[0] = 5.0;
        assert_eq!(live() - begin, 8000, "what the device knows of is written in place");
        drop(host);
        assert_eq!(live() - begin, 4000);
        let mut settled = written.neg().unwrap();
        assert!(!settled.on_device());
        settled = here(&settled).neg().unwrap();
        settled.as_mut_slice::<f32>().unwrap()[0] = 1.0;
        drop((written, settled));
        assert_eq!(live() - begin, 0);
    });
}

/// A chain that drops its intermediate results reuses their memory while earlier commands still wait, and is submitted in
/// few pieces.
#[test]
fn a_long_chain_reuses_memory_in_order() {
    let Some(_gpu) = gpu() else { return };
    scoped(true, || {
        let before = context::Context::get().unwrap().submissions();
        let start = u(1, &[1000]);
        let mut x = here(&start);
        for i in 0..500 {
            x = if i % 2 == 0 { x.add_scalar(1.0).unwrap() } else { x.neg().unwrap() };
        }
        let expected = (0..500).fold(start.to_f32_vec().unwrap(), |v, i| v.iter().map(|x| if i % 2 == 0 { x + 1.0 } else { -x }).collect());
        assert_eq!(x.to_f32_vec().unwrap(), expected);
        let submitted = context::Context::get().unwrap().submissions() - before;
        assert!((8..12).contains(&submitted), "{submitted} submissions of 500 kernels");
    });
}
