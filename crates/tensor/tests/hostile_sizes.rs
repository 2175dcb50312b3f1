//! Windows, groups and shapes of every magnitude, empty ones included: refused by name, or the right values. Nothing here may
//! panic, read outside of a buffer or ask for more memory than the limit.
use espalier_tensor as tensor;
use proptest::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tensor::{ConvOptions, DType, PadMode, PoolOptions, Reduction, Tensor, TensorError, random::uniform};

/// `HOSTILE_CASES` asks for other numbers of cases: few under a sanitizer, many by hand.
fn cases() -> u32 {
    std::env::var("HOSTILE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(3000)
}

/// Mostly small sizes, else magnitudes whose products exceed 31, 32, 63 and 64 bits.
fn extreme() -> impl Strategy<Value = usize> {
    prop_oneof![
        12 => 0usize..5,
        1 => (0u32..64).prop_map(|b| 1usize << b),
        1 => (1u32..64).prop_map(|b| (1usize << b) - 1),
        1 => (1usize..8, 0usize..3).prop_map(|(d, more)| (usize::MAX / d).wrapping_add(more)),
        1 => Just(i64::MAX as usize),
        1 => any::<usize>(),
    ]
}

fn sizes<const N: usize>() -> impl Strategy<Value = [usize; N]> {
    proptest::collection::vec(extreme(), N).prop_map(|v| std::array::from_fn(|i| v[i]))
}

/// The limit keeps a wrong size from using up the machine's memory. One test at a time sets it.
fn limited() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    tensor::memory::set_limit(Some(64 << 20));
    one
}

fn f64s(t: &Tensor) -> Vec<f64> {
    t.to_f64_vec().unwrap()
}

/// Where a window of an axis reads, in 128 bits.
fn place(out: usize, stride: usize, k: usize, dilation: usize, before: usize, size: usize) -> Option<usize> {
    let at = out as u128 * stride as u128 + k as u128 * dilation as u128;
    usize::try_from(at.checked_sub(before as u128)?).ok().filter(|i| *i < size)
}

/// Calls `f(output index, input index, weight index)` for each product of a 2-D convolution. `x` is `[n, c, ..]`, `y` `[n, o, ..]`.
fn products(x: &[usize], w: &[usize], y: &[usize], o: &ConvOptions, mut f: impl FnMut(usize, usize, usize)) {
    let (ci, co) = (w[1], w[0] / o.groups);
    for n in 0..x[0] {
        for oc in 0..w[0] {
            for ic in 0..ci {
                for (p, q) in (0..y[2]).flat_map(|p| (0..y[3]).map(move |q| (p, q))) {
                    for (a, b) in (0..w[2]).flat_map(|a| (0..w[3]).map(move |b| (a, b))) {
                        let at = |axis: usize, out: usize, k: usize| {
                            place(out, o.strides[axis], k, o.dilations[axis], o.pads[axis].0, x[axis + 2])
                        };
                        if let (Some(h), Some(v)) = (at(0, p, a), at(1, q, b)) {
                            let channel = oc / co.max(1) * ci + ic;
                            f(
                                ((n * w[0] + oc) * y[2] + p) * y[3] + q,
                                ((n * x[1] + channel) * x[2] + h) * x[3] + v,
                                ((oc * ci + ic) * w[2] + a) * w[3] + b,
                            );
                        }
                    }
                }
            }
        }
    }
}

fn close(what: &str, got: &Tensor, expected: &[f64]) {
    let got = f64s(got);
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{what}: element {i} is {a}, not {b}");
    }
}

/// The error of an operation that was refused; an empty sum of products is none.
fn refused(e: &TensorError) {
    let named = matches!(e, TensorError::Shape { .. } | TensorError::Unsupported { .. } | TensorError::Memory { .. });
    assert!(named, "{e:?}");
}

fn window(values: [usize; 8]) -> (Vec<usize>, Vec<(usize, usize)>, Vec<usize>) {
    let [sh, sw, a, b, c, d, dh, dw] = values;
    (vec![sh, sw], vec![(a, b), (c, d)], vec![dh, dw])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn convolutions(
        n in 0usize..3, groups in prop_oneof![4 => 0usize..18, 1 => extreme()], cg in 0usize..3, og in 0usize..3, image in proptest::array::uniform2(0usize..5),
        kernel in proptest::array::uniform2(0usize..4), moves in sizes::<8>(), transposed: bool, more in sizes::<2>(), wide: bool, seed: u64,
    ) {
        let _one = limited();
        let (strides, pads, dilations) = window(moves);
        let (few, o) = (groups.min(18), ConvOptions { strides, pads, dilations, groups });
        let (inputs, outputs) = (cg * few, og * few);
        let w = [if transposed { inputs } else { outputs }, if transposed { og } else { cg }, kernel[0], kernel[1]];
        let dtype = if wide { DType::F64 } else { DType::F32 };
        let draw = |seed, shape: &[usize]| uniform(seed, shape, -1.0, 1.0).unwrap().cast(dtype).unwrap().tracked().unwrap();
        let (x, weight) = (draw(seed, &[n, inputs, image[0], image[1]]), draw(seed ^ 1, &w));
        let run = || if transposed { x.conv_transpose(&weight, None, &o, &more) } else { x.conv(&weight, None, &o) };
        let y = match run() {
            Ok(y) => y,
            Err(e) => { refused(&e); return Ok(()) }
        };
        // The naive loops go over every output pixel.
        if y.len() > 20_000 { return Ok(()) }
        let (xs, ws) = (f64s(&x), f64s(&weight));
        let dy = uniform(seed ^ 2, y.shape(), -1.0, 1.0).unwrap().cast(dtype).unwrap();
        let ds = f64s(&dy);
        let [mut ey, mut ex, mut ew] = [vec![0f64; y.len()], vec![0f64; x.len()], vec![0f64; weight.len()]];
        if transposed {
            // The convolution whose input is our output.
            products(y.shape(), &w, x.shape(), &o, |small, large, k| {
                ey[large] += xs[small] * ws[k];
                ex[small] += ds[large] * ws[k];
                ew[k] += ds[large] * xs[small];
            });
        } else {
            products(x.shape(), &w, y.shape(), &o, |small, large, k| {
                ey[small] += xs[large] * ws[k];
                ex[large] += ds[small] * ws[k];
                ew[k] += ds[small] * xs[large];
            });
        }
        close("values", &y, &ey);
        let mut gradients = match y.backward_from(dy) {
            Ok(g) => g,
            Err(e) => { refused(&e); return Ok(()) }
        };
        close("gradient by the input", &gradients.take(&x).unwrap(), &ex);
        close("gradient by the weight", &gradients.take(&weight).unwrap(), &ew);
    }

    #[test]
    fn pools(
        n in 0usize..3, c in 0usize..3, image in proptest::array::uniform2(0usize..6), kernel in sizes::<2>(), moves in sizes::<8>(),
        ceil_mode: bool, count_include_pad: bool, wide: bool, seed: u64,
    ) {
        let _one = limited();
        let (strides, pads, dilations) = window(moves);
        let o = PoolOptions { kernel: kernel.to_vec(), strides, pads, dilations, ceil_mode, count_include_pad };
        let x = uniform(seed, &[n, c, image[0], image[1]], 0.5, 1.5).unwrap();
        let x = if wide { x.cast(DType::F64).unwrap() } else { x }.tracked().unwrap();
        let [max, average, norm] = [x.max_pool(&o).map(|(y, _)| y), x.average_pool(&o), x.lp_pool(&o, 2)];
        for y in [&max, &average, &norm] {
            match y {
                Ok(y) => prop_assert!(y.backward().is_ok() || y.len() != 1),
                Err(e) => refused(e),
            }
        }
        let Ok(max) = max else { return Ok(()) };
        if max.len() > 20_000 { return Ok(()) }
        let (xs, got) = (f64s(&x), f64s(&max));
        let sees = |axis: usize, out: usize, i: usize| {
            let at = i as u128 + o.pads[axis].0 as u128;
            let from = out as u128 * o.strides[axis] as u128;
            at >= from && (at - from).is_multiple_of(o.dilations[axis] as u128) && (at - from) / (o.dilations[axis] as u128) < kernel[axis] as u128
        };
        for (i, v) in got.iter().enumerate() {
            let (plane, rest) = (i / (max.shape()[2] * max.shape()[3]), i % (max.shape()[2] * max.shape()[3]));
            let (p, q) = (rest / max.shape()[3], rest % max.shape()[3]);
            let mut best = f64::NEG_INFINITY;
            for (h, v) in (0..image[0]).flat_map(|h| (0..image[1]).map(move |v| (h, v))) {
                if sees(0, p, h) && sees(1, q, v) { best = best.max(xs[(plane * image[0] + h) * image[1] + v]); }
            }
            prop_assert_eq!(*v, best);
        }
    }

    #[test]
    fn what_moves_and_repeats(dims in proptest::array::uniform2(0usize..4), by in sizes::<4>(), mode in 0usize..4, seed: u64) {
        let _one = limited();
        let x = uniform(seed, &dims, -1.0, 1.0).unwrap();
        let signed = by.map(|v| v as i64);
        let modes = [PadMode::Constant, PadMode::Reflect, PadMode::Edge, PadMode::Wrap];
        let results = [
            x.pad(&[(signed[0], signed[1]), (signed[2], signed[3])], modes[mode], None),
            x.tile(&by[..2]),
            x.expand(&by[..3]),
            x.slice(&signed[..1], &signed[1..2], &[1], &signed[2..3]),
            x.one_hot(by[0], (by[1] % 3).min(2), &Tensor::scalar(0f32), &Tensor::scalar(1f32)),
            Tensor::full(0u8, by.to_vec()),
            Tensor::zeros(DType::F64, &by),
            uniform(seed, &by[..2], 0.0, 1.0),
            x.reshape(by.to_vec()),
            x.trilu(signed[0], by[1] % 2 == 0),
            x.narrow(by[0] % 3, by[1], by[2]),
        ];
        for r in results.iter().filter_map(|r| r.as_ref().err()) {
            prop_assert!(!r.to_string().is_empty());
        }
        // Shapes whose axes multiply to more than can be counted are invalid, empty or not.
        for r in results.into_iter().flatten() {
            let all = r.shape().iter().filter(|d| **d > 0).try_fold(1usize, |n, d| n.checked_mul(*d));
            prop_assert!(all.is_some(), "{:?}", r.shape());
        }
    }

    #[test]
    fn what_is_picked_by_index(dims in proptest::array::uniform2(prop_oneof![3 => 0usize..4, 1 => extreme()]), lead in sizes::<2>(), depth in 0usize..4, index in sizes::<4>(), axis in 0usize..3) {
        let _one = limited();
        let few = Tensor::vector(index.map(|v| v as i64).to_vec());
        let (one, small) = (few.reshape([1, 4])?, Tensor::zeros(DType::F32, &[1, 4])?);
        // Only empty tensors of extreme shapes fit in memory.
        let Ok(x) = Tensor::zeros(DType::F32, &dims) else { return Ok(()) };
        let Ok(many) = Tensor::zeros(DType::I64, &[lead[0], lead[1], depth]) else { return Ok(()) };
        let _ = (x.gather(&few, axis), x.gather(&many, axis), x.gather_nd(&many, depth % 2), x.gather_elements(&one, axis));
        let _ = (x.scatter_nd(&many, &x, Reduction::Add), x.scatter_elements(&one, &small, axis, Reduction::Max));
        let _ = (x.transpose(&[1, 0]), Tensor::concat(&[x.clone(), x.clone()], axis.min(1)), x.nonzero(), x.unique(Some(axis), true).is_ok());
    }
}

/// Padded planes, phases and outputs whose sizes pass 2^64 and come out small: once read and written outside of buffers.
#[test]
fn what_stands_between_input_and_output_asks_for_room_too() {
    let _one = limited();
    let column = Tensor::zeros(DType::F32, &[1 << 13, 1]).unwrap();
    let picks = Tensor::zeros(DType::I64, &[1 << 10]).unwrap();
    // 32 MiB of results, by 64 MiB of positions.
    refused(&column.gather(&picks, 1).unwrap_err());
    // 48 MiB of results, by 96 MiB of f32.
    let bytes = Tensor::zeros(DType::U8, &[24 << 20]).unwrap();
    refused(&bytes.cast(DType::F16).unwrap_err());
    refused(&bytes.to_f32_vec().unwrap_err());
}

#[test]
fn sizes_that_wrap_are_refused() {
    let _one = limited();
    let ones = |shape: &[usize]| Tensor::full(1f32, shape.to_vec()).unwrap();
    let wrap = |b: usize| ((1u128 << 64).div_ceil(b as u128)) as usize;
    for b in [3, 5, 17, 1 << 20] {
        let (s, t) = (wrap(b) - 1, b - 1);
        let o = ConvOptions { strides: vec![s, t], pads: vec![(0, s), (0, t)], dilations: vec![1, 1], groups: 16 };
        let e = ones(&[1, 16, 1, 1]).conv(&ones(&[16, 1, 1, 1]), None, &o).unwrap_err();
        assert!(e.to_string().contains("none may exceed"), "{e}");
    }
    let d = ((1u128 << 64) - 4) as usize / 3;
    let o = ConvOptions { strides: vec![1, 1], pads: vec![(0, 0), (d, 0)], dilations: vec![d, 1], groups: 1 };
    assert!(ones(&[1, 1, 1, 3]).conv(&ones(&[8, 1, 2, 1]), None, &o).is_err());
    for groups in [1, 16] {
        let o = ConvOptions { strides: vec![(1u128 << 64).div_ceil(3) as usize, 1], groups, ..ConvOptions::plain(2) };
        assert!(ones(&[1, 16, 4, 1]).conv_transpose(&ones(&[16, 16 / groups, 1, 1]), None, &o, &[0, 0]).is_err());
    }
}

/// A stride, a padding and a dilation far larger than the image are valid if the sizes fit.
#[test]
fn far_steps_see_what_lies_there() {
    let _one = limited();
    let x = Tensor::new((1..=16).map(|v| v as f32).collect(), [1, 16, 1, 1]).unwrap();
    let w = Tensor::full(2f32, [16, 1, 1, 1]).unwrap();
    let far = 1 << 12;
    let o = ConvOptions { strides: vec![far, far], pads: vec![(0, far), (0, far)], dilations: vec![1, 1], groups: 16 };
    let y = x.conv(&w, None, &o).unwrap();
    assert_eq!(y.shape(), [1, 16, 2, 2]);
    let expected: Vec<f32> = (1..=16).flat_map(|v| [2.0 * v as f32, 0.0, 0.0, 0.0]).collect();
    assert_eq!(y.as_slice::<f32>().unwrap(), expected);
    let o = PoolOptions {
        kernel: vec![1 << 28, 1],
        strides: vec![1 << 28, 1],
        pads: vec![(0, (1 << 28) - 1), (0, 0)],
        dilations: vec![1, 1],
        ceil_mode: false,
        count_include_pad: false,
    };
    let y = Tensor::new(vec![3f32], [1, 1, 1, 1]).unwrap().max_pool_values(&o).unwrap();
    assert_eq!(y, Tensor::new(vec![3f32], [1, 1, 1, 1]).unwrap());
    let e = Tensor::full(1f32, [1, 1, 1, 1]).unwrap().max_pool(&PoolOptions { pads: vec![(0, 1 << 28), (0, 1 << 10)], ..o });
    assert!(e.is_err(), "a padded plane of 2^38 elements");
}

#[test]
fn an_axis_of_padding_alone_is_seen_by_planar_kernels_too() {
    let o = ConvOptions { strides: vec![3, 1, 1], pads: vec![(1, 1), (0, 0), (0, 0)], ..ConvOptions::plain(3) };
    let y = Tensor::full(1f32, [1, 1, 1, 2, 2]).unwrap().conv(&Tensor::full(1f32, [1, 1, 1, 1, 1]).unwrap(), None, &o).unwrap();
    assert_eq!(y, Tensor::full(0f32, [1, 1, 1, 2, 2]).unwrap(), "the one window lies in the padding before the image");
}

#[test]
fn results_as_large_as_their_input_ask_for_room() {
    let _one = limited();
    let x = Tensor::zeros(DType::F32, &[1 << 13, 10 << 10 >> 3]).unwrap();
    let made: [(&str, tensor::Result<Tensor>); 5] = [
        ("abs", x.abs()),
        ("l1", x.l1(&[0, 1], true)),
        ("softmax", x.softmax(1)),
        ("cumsum", x.cumsum(1, false, false)),
        ("transpose", x.transpose(&[1, 0])),
    ];
    for (what, made) in made {
        assert!(matches!(made, Err(TensorError::Memory { .. })), "{what}");
    }
    tensor::memory::set_limit(None);
}

#[test]
fn a_limit_refuses_by_name_and_gives_room_back() {
    let _one = limited();
    let e = Tensor::full(0f32, [1 << 20, 64]).unwrap_err().to_string();
    assert!(e.starts_with("full: needs 268.4 MB for a tensor of shape [1048576, 64], where the memory limit of 67.1 MB leaves"), "{e}");
    let half = Tensor::zeros(DType::U8, &[40 << 20]).unwrap();
    assert!(matches!(half.tile(&[1]), Err(TensorError::Memory { op: "expand", .. })));
    drop(half);
    assert!(Tensor::zeros(DType::U8, &[40 << 20]).is_ok());
    // Tensors made elsewhere are counted too.
    assert!(matches!(Tensor::new(vec![0f64; 10 << 20], [10 << 20]), Err(TensorError::Memory { .. })));
    assert_eq!(tensor::memory::set_limit(None), Some(64 << 20));
    assert!(Tensor::full(0f32, [1 << 20, 32]).is_ok());
}

#[test]
fn a_window_of_padding_alone_gives_no_gradient() {
    let _one = limited();
    let o = PoolOptions {
        kernel: vec![1],
        strides: vec![2],
        pads: vec![(2, 0)],
        dilations: vec![1],
        ceil_mode: false,
        count_include_pad: false,
    };
    for (dtype, size) in [(DType::F32, 3), (DType::F64, 3), (DType::F32, 0)] {
        let x = Tensor::new(vec![5f32; size], [1, 1, size]).unwrap().cast(dtype).unwrap().tracked().unwrap();
        let y = x.max_pool_values(&o).unwrap();
        let expected = if size == 0 { vec![f64::NEG_INFINITY] } else { vec![f64::NEG_INFINITY, 5.0, 5.0] };
        assert_eq!(f64s(&y), expected);
        let dy = y.ones_like().unwrap();
        assert_eq!(f64s(&y.backward_from(dy).unwrap().take(&x).unwrap()), if size == 0 { vec![] } else { vec![1.0, 0.0, 1.0] });
    }
}
