//! Scaled dot-product attention, f32.
//!
//! Loop order: head (threads) → block of queries → the products, each in blocks of its own (`product`). A block's scores are
//! computed, turned into weights and used within the second-level cache: no array of all queries by all keys is in memory. The
//! backward pass recomputes the weights from queries and keys, which costs a quarter more arithmetic than keeping them, so that
//! memory grows linearly with the length of a sequence. Unlike FlashAttention (Dao et al. 2022, arXiv:2205.14135) a row's scores
//! are all in the cache at once, which caches of this size allow, so its sum needs no correction afterwards. If there are fewer
//! heads than threads, the heads are computed in sequence and the threads share each product; every sum runs in the same order
//! either way.
use super::gemm::{Gemm, Matrix};
use super::scratch;
use super::simd::vectorised;
use crate::softmax::{backward_row, softmax_in_place};
use rayon::prelude::*;

/// Most scores of a block of queries, in elements: two such arrays leave half of a second-level cache of 512 KiB.
const SCORES: usize = 32 << 10;

/// The bias of the scores, broadcast over them.
pub(crate) struct Bias<'a> {
    pub(crate) data: &'a [f32],
    /// Start of each head's bias.
    pub(crate) heads: Vec<usize>,
    /// Distance of neighbouring queries, and of neighbouring keys (0 or 1).
    pub(crate) strides: [usize; 2],
}

/// Queries `[heads, m, d]`, keys `[heads, n, d]` (or `[heads, d, n]` if transposed), values `[heads, n, e]`.
pub(crate) struct Heads<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
    pub(crate) v: &'a [f32],
    pub(crate) bias: Option<Bias<'a>>,
    pub(crate) scale: f32,
    pub(crate) keys_transposed: bool,
    pub(crate) heads: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) d: usize,
    pub(crate) e: usize,
}

/// `out[rows, columns] = a * b`, the sizes being rows, depth and columns.
fn multiply(out: &mut [f32], a: Matrix<f32>, b: Matrix<f32>, [rows, depth, columns]: [usize; 3], parallel: bool) {
    let done = f32::product(out, a, b, rows, depth, columns, parallel);
    assert!(done, "matrices are larger than their slices");
}

/// [`multiply`] that adds to `out`, unless this is the `first` product.
fn accumulate(first: bool, out: &mut [f32], a: Matrix<f32>, b: Matrix<f32>, size: [usize; 3], parallel: bool) {
    if first {
        return multiply(out, a, b, size, parallel);
    }
    scratch::with(out.len(), |more| {
        multiply(more, a, b, size, parallel);
        vectorised!(out.iter_mut().zip(&*more).for_each(|(o, m)| *o += m));
    });
}

impl Heads<'_> {
    /// Queries of a block.
    fn block(&self) -> usize {
        (SCORES / self.n.max(1)).max(8).min(self.m.max(1))
    }

    /// True if each head is computed by one thread.
    fn one_thread_a_head(&self) -> bool {
        self.heads >= rayon::current_num_threads()
    }

    fn queries(&self, head: usize, first: usize, rows: usize) -> &[f32] {
        &self.q[(head * self.m + first) * self.d..][..rows * self.d]
    }

    /// Keys as a matrix of `d` rows and `n` columns, or the other way round.
    fn keys(&self, head: usize, columns: bool) -> Matrix<'_, f32> {
        let k = &self.k[head * self.n * self.d..][..self.n * self.d];
        let stored = if self.keys_transposed { self.n } else { self.d };
        Matrix::row_major(k, stored, columns != self.keys_transposed)
    }

    fn values(&self, head: usize) -> &[f32] {
        &self.v[head * self.n * self.e..][..self.n * self.e]
    }

    /// The weights `[rows, n]` of the queries from `first` on: `softmax(scale * q k^T + bias)`.
    fn weights(&self, head: usize, first: usize, to: &mut [f32], parallel: bool) {
        let rows = to.len() / self.n;
        let q = Matrix::row_major(self.queries(head, first, rows), self.d, false);
        multiply(to, q, self.keys(head, true), [rows, self.d, self.n], parallel);
        let scale = self.scale;
        for (r, row) in to.chunks_exact_mut(self.n).enumerate() {
            vectorised!({
                match &self.bias {
                    None => row.iter_mut().for_each(|s| *s *= scale),
                    Some(Bias { data, heads, strides: [query, key] }) => {
                        let bias = &data[heads[head] + (first + r) * query..];
                        match key {
                            0 => row.iter_mut().for_each(|s| *s = *s * scale + bias[0]),
                            _ => row.iter_mut().zip(bias).for_each(|(s, b)| *s = *s * scale + b),
                        }
                    }
                }
                softmax_in_place(row);
            });
        }
    }

    fn forward_head(&self, head: usize, out: &mut [f32], parallel: bool) {
        let block = self.block();
        for (i, out) in out.chunks_mut(block * self.e).enumerate() {
            let rows = out.len() / self.e;
            scratch::with(rows * self.n, |weights| {
                self.weights(head, i * block, weights, parallel);
                let (weights, values) = (Matrix::row_major(weights, self.n, false), Matrix::row_major(self.values(head), self.e, false));
                multiply(out, weights, values, [rows, self.n, self.e], parallel);
            });
        }
    }

    fn backward_head(&self, head: usize, dy: &[f32], [dq, dk, dv]: [&mut [f32]; 3], parallel: bool) {
        let (block, [n, d, e]) = (self.block(), [self.n, self.d, self.e]);
        for (i, dq) in dq.chunks_mut(block * d).enumerate() {
            let (first, rows) = (i * block, dq.len() / d);
            let q = self.queries(head, first, rows);
            let dy = &dy[first * e..][..rows * e];
            scratch::with(rows * n, |weights| {
                scratch::with(rows * n, |ds| {
                    self.weights(head, first, weights, parallel);
                    accumulate(i == 0, dv, Matrix::row_major(weights, n, true), Matrix::row_major(dy, e, false), [n, rows, e], parallel);
                    // Gradients by the weights, replaced in place by those of the products of queries and keys.
                    multiply(ds, Matrix::row_major(dy, e, false), Matrix::row_major(self.values(head), e, true), [rows, e, n], parallel);
                    for (ds, weights) in ds.chunks_exact_mut(n).zip(weights.chunks_exact(n)) {
                        vectorised!({
                            backward_row(ds, weights, false);
                            ds.iter_mut().for_each(|v| *v *= self.scale);
                        });
                    }
                    multiply(dq, Matrix::row_major(ds, n, false), self.keys(head, false), [rows, n, d], parallel);
                    match self.keys_transposed {
                        false => {
                            accumulate(i == 0, dk, Matrix::row_major(ds, n, true), Matrix::row_major(q, d, false), [n, rows, d], parallel);
                        }
                        true => {
                            accumulate(i == 0, dk, Matrix::row_major(q, d, true), Matrix::row_major(ds, n, false), [d, rows, n], parallel);
                        }
                    }
                });
            });
        }
    }
}

/// `softmax(scale * q k^T + bias) v` into `out`, `[heads, m, e]`. No size is zero.
pub(crate) fn forward(of: &Heads, out: &mut [f32]) {
    let size = of.m * of.e;
    match of.one_thread_a_head() {
        true => out.par_chunks_mut(size).enumerate().for_each(|(head, out)| of.forward_head(head, out, false)),
        false => out.chunks_mut(size).enumerate().for_each(|(head, out)| of.forward_head(head, out, true)),
    }
}

/// The gradients by queries, keys and values, in their shapes, from that by the output.
pub(crate) fn backward(of: &Heads, dy: &[f32], [dq, dk, dv]: [&mut [f32]; 3]) {
    let (dy_size, sizes) = (of.m * of.e, [of.m * of.d, of.n * of.d, of.n * of.e]);
    match of.one_thread_a_head() {
        true => {
            let parts = (dq.par_chunks_mut(sizes[0]), dk.par_chunks_mut(sizes[1]), dv.par_chunks_mut(sizes[2]), dy.par_chunks(dy_size));
            parts.into_par_iter().enumerate().for_each(|(head, (dq, dk, dv, dy))| of.backward_head(head, dy, [dq, dk, dv], false));
        }
        false => {
            let parts = dq.chunks_mut(sizes[0]).zip(dk.chunks_mut(sizes[1])).zip(dv.chunks_mut(sizes[2])).zip(dy.chunks(dy_size));
            parts.enumerate().for_each(|(head, (((dq, dk), dv), dy))| of.backward_head(head, dy, [dq, dk, dv], true));
        }
    }
}
