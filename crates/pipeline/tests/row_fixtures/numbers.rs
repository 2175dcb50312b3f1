//! Masks of very large numbers, NaN, and layers whose weights are all pruned.
use crate::net::Net;
use crate::whole::{Case, Form, all, normal, runtime, whole};
use tensor::{DType, Tensor};

/// Attention with a mask that is added to its scores; causal, of a constant.
fn attention(masked: f32) -> Net {
    let mask = (0..36).map(|i| if i % 6 > i / 6 { masked } else { 0.0 }).collect();
    Net::new(
        "in x [N, 6, 16]
         wq ~ [16, 16]
         wk ~ [16, 16]
         wv ~ [16, 16]
         wo ~ [16, 5]
         q = MatMul(x, wq)
         k = MatMul(x, wk)
         v = MatMul(x, wv)
         kt = Transpose(k) perm=0,2,1
         s0 = MatMul(q, kt)
         s = Add(s0, mask)
         p = Softmax(s) axis=-1
         o = MatMul(p, v)
         y = MatMul(o, wo)
         out y [N, 6, 5]",
    )
    .constant("mask", Tensor::new(mask, [6, 6]).unwrap())
}

/// The same with a mask that is an input: one minus it, times a large number.
fn fed(masked: f32) -> Net {
    Net::new(
        "in x [N, 5, 8]
         in mask [N, 5]
         wq ~ [8, 8]
         wk ~ [8, 8]
         wo ~ [8, 3]
         one = [] 1.0
         last = 1
         q = MatMul(x, wq)
         k = MatMul(x, wk)
         kt = Transpose(k) perm=0,2,1
         s = MatMul(q, kt)
         inv = Sub(one, mask)
         big = Mul(inv, minus)
         bu = Unsqueeze(big, last)
         sm = Add(s, bu)
         p = Softmax(sm) axis=-1
         o = MatMul(p, x)
         y = MatMul(o, wo)
         out y [N, 5, 3]",
    )
    .constant("minus", Tensor::scalar(masked))
}

/// A mask of ones and zeros with at least one position left.
fn padded(name: &str, dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    if name != "mask" {
        return normal(name, dtype, shape, seed);
    }
    let width = shape[1];
    let keep = (0..shape[0] * width).map(|i| f32::from(u8::from(i % width <= (seed as usize + i / width) % width)));
    Tensor::new(keep.collect(), shape).unwrap()
}

#[test]
fn masked_attention() {
    let even = |net: &Net, scores: &str| {
        // A grid from the mask's number to zero has no step between the scores: all become equal.
        let zero = net.reworded("in x", "none = [] 0.0\nin x");
        match scores {
            "s" => zero.reworded("s = Add(s0, mask)", "z = Mul(s0, none)\ns = Add(z, mask)"),
            _ => zero.reworded("sm = Add(s, bu)", "z = Mul(s, none)\nsm = Add(z, bu)"),
        }
    };
    let mut cases = vec![Case::new("no mask", 4, 20.0, attention(0.0))];
    for (name, masked) in [("-10", -10.0), ("-1e4", -1e4), ("the least float", f32::MIN), ("-inf", f32::NEG_INFINITY)] {
        let net = attention(masked);
        let (flat, open) = (even(&net, "s"), attention(0.0));
        cases.push(Case::new(name, 4, 20.0, net).not("equal scores", flat).not("without the mask", open));
    }
    for (name, masked) in [("-1e4 times an input", -1e4), ("the least float times an input", f32::MIN)] {
        let net = fed(masked);
        let (flat, open) = (even(&net, "sm"), fed(0.0));
        cases.push(Case::new(name, 3, 20.0, net).fed(padded).not("equal scores", flat).not("without the mask", open));
    }
    all(&cases);
}

#[test]
fn rows_that_are_not_numbers_are_counted() {
    let Some(runtime) = runtime() else { return };
    // The square root of negative numbers.
    let net = Net::new(
        "in x [N, 4]
         w ~ [4, 4]
         v ~ [4, 3]
         from = 0
         to = 1
         axes = 1
         a = Relu(x)
         m = MatMul(a, w)
         r = Relu(m)
         k = MatMul(r, v)
         f = Slice(x, from, to, axes)
         s = Sqrt(f)
         o = Sub(s, s)
         y = Add(k, o)
         out y [N, 3]",
    );
    // Calibrated on rows without negative values, tested on 30 rows of which 29 are negative.
    fn positive(name: &str, dtype: DType, shape: &[usize], seed: u64) -> Tensor {
        normal(name, dtype, shape, seed).abs().unwrap()
    }
    for form in [Form::Open, Form::One, Form::Tied] {
        let test = Tensor::new((0..120).map(|i| if i < 4 { 1.0f32 } else { -0.5 - (i % 7) as f32 }).collect(), [30, 4]).unwrap();
        let arrays = [("x".to_string(), test), ("y".to_string(), Tensor::new(vec![0i64; 30], [30]).unwrap())];
        let done = crate::whole::tested(&net, form, positive, arrays.into()).unwrap();
        let start = done.record.start.as_ref().unwrap();
        assert_eq!((start.metrics.images, start.metrics.nan_images), (Some(30), Some(29)), "{form:?}");
        assert!(start.metrics.accuracy.unwrap() <= 1.0 / 30.0, "{:?}", start.metrics.accuracy);
        assert!(done.notes().contains("29 of 30 test samples have NaN among the network's outputs"), "{}", done.notes());
        let file = done.folder.path().join("out/deploy.deployed.onnx");
        assert!(crate::whole::outputs(&runtime, &file, &done.runs, false).is_ok());
    }
}

#[test]
fn a_layer_that_is_pruned_to_nothing_is_named() {
    if runtime().is_none() {
        return;
    }
    let tiny = |i: usize| 1e-4 * ((i % 5) as f32 + 1.0);
    let net = Net::new(
        "in x [N, 8]
         w ~ [8, 8]
         v ~ [4, 3]
         a = MatMul(x, w)
         r = Relu(a)
         m = MatMul(r, small)
         y = MatMul(m, v)
         out y [N, 3]",
    )
    .constant("small", Tensor::new((0..32).map(tiny).collect(), [8, 4]).unwrap());
    for form in [Form::Open, Form::One, Form::Tied] {
        let half = "stages.prune.sparsity=0.5";
        let notes = whole(&net, form, normal, &[half]).unwrap().notes();
        assert!(notes.contains("every weight is zero in small: "), "{notes}");
        let floor = whole(&net, form, normal, &[half, "stages.prune.min_per_layer=0.1"]).unwrap();
        assert!(!floor.notes().contains("nothing is left"), "{}", floor.notes());
        let layer = floor.record.stages[1].layers.iter().find(|l| l.name == "small").unwrap();
        assert!(layer.sparsity <= 0.9, "{}", layer.sparsity);
    }
}

/// Samples that cannot run together train one by one: a normalization has no batch, and keeps its statistics.
#[test]
fn normalizations_of_a_fixed_batch_keep_their_statistics() {
    let net = Net::new(
        "in x [N, 3, 4, 4]
         w ~ [4, 3, 1, 1]
         g = 1.4, 0.6, 1.9, 0.8
         be = 0.5, -0.7, 1.1, 0.2
         me = 0.3, -0.9, 0.4, 1.2
         va = 0.4, 2.1, 0.7, 1.6
         w2 ~ [4, 3]
         c = Conv(x, w)
         n = BatchNormalization(c, g, be, me, va)
         r = Relu(n)
         p = GlobalAveragePool(r)
         f = Flatten(p)
         y = Gemm(f, w2)
         out y [N, 3]",
    );
    for form in [Form::Tied, Form::Open] {
        let (done, before, after) = crate::whole::trained(&net, form).unwrap();
        let said = done.notes().contains("BatchNormalization uses its running statistics, and keeps them");
        assert_eq!(said, form == Form::Tied, "{}", done.notes());
        for name in ["me", "va"] {
            assert_eq!(before[name] == after[name], form == Form::Tied, "{form:?} {name}: {:?} {:?}", before[name], after[name]);
        }
        assert_ne!(before["w"], after["w"]);
        assert_ne!(before["g"], after["g"]);
    }
}
