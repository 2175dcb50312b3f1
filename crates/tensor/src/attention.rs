//! Scaled dot-product attention. f32 has a kernel; its definition in tensor operations is used for other types and is the
//! kernel's reference.
use crate::kernels::attention::{Bias, Heads, backward, forward};
use crate::{DType, Result, Tensor, memory, record, recycle, shape};

/// Settings of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionOptions {
    /// Factor of the products of queries and keys.
    pub scale: f64,
    /// Keys are given as `[.., d, n]`, ready for the product, instead of `[.., n, d]`.
    pub keys_transposed: bool,
}

impl Tensor {
    /// `softmax(scale * q k^T + bias) v` with queries `[.., m, d]` (this tensor), keys `[.., n, d]` and values `[.., n, e]`:
    /// `[.., m, e]`. `bias` broadcasts to the scores `[.., m, n]`. A query for which every score is -inf gives NaN.
    ///
    /// # Errors
    /// [`crate::TensorError`] if the types differ, are not floats, or the shapes do not fit.
    ///
    /// # Source
    /// Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
    pub fn attention(&self, keys: &Tensor, values: &Tensor, bias: Option<&Tensor>, options: AttentionOptions) -> Result<Tensor> {
        match Sizes::of(self, keys, values, bias, options) {
            Some(sizes) => self.attention_kernel(keys, values, bias, options, sizes),
            None => self.attention_composed(keys, values, bias, options),
        }
    }

    fn attention_composed(&self, keys: &Tensor, values: &Tensor, bias: Option<&Tensor>, options: AttentionOptions) -> Result<Tensor> {
        let mut scores = self.matmul(&if options.keys_transposed { keys.clone() } else { keys.transpose_last()? })?;
        if options.scale != 1.0 {
            scores = scores.mul_scalar(options.scale)?;
        }
        if let Some(bias) = bias {
            scores = scores.add(bias)?;
        }
        let last = scores.rank().saturating_sub(1);
        scores.softmax(last)?.matmul(values)
    }

    fn attention_kernel(
        &self,
        keys: &Tensor,
        values: &Tensor,
        bias: Option<&Tensor>,
        options: AttentionOptions,
        sizes: Sizes,
    ) -> Result<Tensor> {
        let (q, k, v, bias) = (self.detach(), keys.detach(), values.detach(), bias.map(Tensor::detach));
        let mut out = recycle::take(memory::room::<f32>("attention", &[sizes.heads, sizes.m, sizes.e])?);
        forward(&sizes.heads(&q, &k, &v, bias.as_ref(), options)?, &mut out);
        let mut to = q.shape().to_vec();
        if let Some(last) = to.last_mut() {
            *last = sizes.e;
        }
        let out = Tensor::new(out, to)?;
        Ok(record("attention", &[self, keys, values], out, move |dy| {
            let mut gradients = [&q, &k, &v].map(|t| recycle::take(t.len()));
            backward(&sizes.heads(&q, &k, &v, bias.as_ref(), options)?, dy.as_slice()?, gradients.each_mut().map(Vec::as_mut_slice));
            gradients.into_iter().zip([&q, &k, &v]).map(|(g, t)| Tensor::new(g, t.shape()).map(Some)).collect()
        }))
    }
}

/// The sizes of an attention that the kernel computes.
#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    m: usize,
    n: usize,
    d: usize,
    e: usize,
}

impl Sizes {
    /// `None` if the kernel does not apply: other types, operands on a device, heads that broadcast, a bias that is larger than
    /// the scores or needs a gradient, empty tensors.
    fn of(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, options: AttentionOptions) -> Option<Sizes> {
        let tensors = || [Some(q), Some(k), Some(v), bias].into_iter().flatten();
        if tensors().any(|t| t.dtype() != DType::F32 || t.on_device() || t.is_empty()) || bias.is_some_and(Tensor::is_tracked) {
            return None;
        }
        let ([lead @ .., m, d], [lead_k @ .., rows, columns], [lead_v @ .., n, e]) = (q.shape(), k.shape(), v.shape()) else {
            return None;
        };
        let stored = if options.keys_transposed { [*d, *n] } else { [*n, *d] };
        if lead != lead_k || lead != lead_v || [*rows, *columns] != stored {
            return None;
        }
        let scores = [lead, &[*m, *n]].concat();
        if let Some(bias) = bias
            && shape::broadcast("attention", &scores, bias.shape()).ok()? != scores
        {
            return None;
        }
        Some(Sizes { heads: lead.iter().product(), m: *m, n: *n, d: *d, e: *e })
    }

    fn heads<'a>(
        self,
        q: &'a Tensor,
        k: &'a Tensor,
        v: &'a Tensor,
        bias: Option<&'a Tensor>,
        options: AttentionOptions,
    ) -> Result<Heads<'a>> {
        let Sizes { heads, m, n, d, e } = self;
        let lead = &q.shape()[..q.rank() - 2];
        let bias = bias.map(|b| {
            let strides = shape::broadcast_strides(b.shape(), &[lead, &[m, n]].concat());
            let (outer, inner) = strides.split_at(lead.len());
            let places = shape::strides(lead);
            let begin = |head: usize| (0..lead.len()).map(|a| head / places[a] % lead[a] * outer[a]).sum();
            Ok::<_, crate::TensorError>(Bias { data: b.as_slice()?, heads: (0..heads).map(begin).collect(), strides: [inner[0], inner[1]] })
        });
        let (q, k, v, bias) = (q.as_slice()?, k.as_slice()?, v.as_slice()?, bias.transpose()?);
        Ok(Heads { q, k, v, bias, scale: options.scale as f32, keys_transposed: options.keys_transposed, heads, m, n, d, e })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::{uniform, uniform_f64};
    use proptest::prelude::*;

    #[test]
    fn gradients() {
        let u = |seed, shape: &[usize]| uniform_f64(seed, shape, -1.0, 1.0);
        for keys_transposed in [false, true] {
            let keys = if keys_transposed { [2, 3, 5] } else { [2, 5, 3] };
            let inputs = [u(1, &[2, 4, 3]), u(2, &keys), u(3, &[2, 5, 2]), u(4, &[4, 5])];
            let options = AttentionOptions { scale: 0.7, keys_transposed };
            check(&inputs, |t| t[0].attention(&t[1], &t[2], Some(&t[3]), options)).unwrap();
        }
    }

    /// The kernel in f32 against its definition in f64: output and the gradients by queries, keys and values.
    fn compare(shape: [usize; 5], bias: Option<&[usize]>, options: AttentionOptions, seed: u64) {
        let [heads, m, n, d, e] = shape;
        let draw = |seed, shape: &[usize]| uniform(seed, shape, -2.0, 2.0).unwrap();
        let keys = if options.keys_transposed { [heads, d, n] } else { [heads, n, d] };
        let inputs = [draw(seed, &[heads, m, d]), draw(seed ^ 1, &keys), draw(seed ^ 2, &[heads, n, e])];
        let bias = bias.map(|b| draw(seed ^ 3, b));
        let dy = uniform(seed ^ 4, &[heads, m, e], -1.0, 1.0).unwrap();
        let run = |dtype: DType| {
            let [q, k, v] = inputs.each_ref().map(|t| t.cast(dtype).unwrap().tracked().unwrap());
            let bias = bias.as_ref().map(|b| b.cast(dtype).unwrap());
            assert_eq!(Sizes::of(&q, &k, &v, bias.as_ref(), options).is_some(), dtype == DType::F32);
            let y = q.attention(&k, &v, bias.as_ref(), options).unwrap();
            let mut gradients = y.backward_from(dy.cast(dtype).unwrap()).unwrap();
            let mut all = vec![y.to_f64_vec().unwrap()];
            all.extend([q, k, v].iter().map(|t| gradients.take(t).unwrap().to_f64_vec().unwrap()));
            all
        };
        for (got, expected) in run(DType::F32).iter().zip(&run(DType::F64)) {
            let largest = expected.iter().fold(1f64, |m, v| m.max(v.abs()));
            for (a, b) in got.iter().zip(expected) {
                assert!((a - b).abs() < 2e-5 * largest, "{shape:?} {options:?}: {a} against {b}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn kernel_agrees_with_its_meaning(heads in 1usize..5, m in 1usize..40, n in 1usize..70, d in 1usize..20, e in 1usize..20, bias in 0usize..5, keys_transposed: bool, seed: u64) {
            let bias = [None, Some(vec![m, n]), Some(vec![heads, 1, n]), Some(vec![heads, m, 1]), Some(vec![1])][bias].clone();
            compare([heads, m, n, d, e], bias.as_deref(), AttentionOptions { scale: 0.3, keys_transposed }, seed);
        }
    }

    /// More queries than a block holds, with fewer heads than threads and with more.
    #[test]
    fn blocks_of_queries_add_up() {
        for (heads, keys_transposed) in [(1, false), (1, true), (9, false)] {
            compare([heads, 70, 1200, 16, 9], Some(&[70, 1200]), AttentionOptions { scale: 0.2, keys_transposed }, 5);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_broadcasts_is_composed() {
        let options = AttentionOptions { scale: 1.0, keys_transposed: false };
        let u = |shape: &[usize]| uniform(1, shape, -1.0, 1.0).unwrap();
        assert!(u(&[2, 4, 3]).attention(&u(&[2, 5, 4]), &u(&[2, 5, 3]), None, options).is_err());
        let y = u(&[2, 4, 3]).attention(&u(&[1, 5, 3]), &u(&[5, 3]), Some(&u(&[3, 1, 1, 1])), options).unwrap();
        assert_eq!(y.shape(), [3, 2, 4, 3]);
        assert_eq!(u(&[2, 0, 3]).attention(&u(&[2, 5, 3]), &u(&[2, 5, 6]), None, options).unwrap().shape(), [2, 0, 6]);
    }
}
