//! Dense matrix products of f32 and f64: this crate's own kernel where it is faster, else the `gemm` crates (run-time choice of
//! vector instructions).
use super::product;
use super::simd::Isa;
use crate::window::reach;
use gemm_common::Parallelism;

/// A matrix in a slice: element `(i, j)` is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A row-major matrix with `columns` columns, read as its transpose if `transposed`.
    pub(crate) fn row_major(data: &'a [T], columns: usize, transposed: bool) -> Self {
        match transposed {
            false => Matrix { data, row_stride: columns, column_stride: 1 },
            true => Matrix { data, row_stride: 1, column_stride: columns },
        }
    }

    fn covers(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || reach(0, &[[rows - 1, self.row_stride], [columns - 1, self.column_stride]]) < self.data.len()
    }
}

/// A type with a fast product.
pub(crate) trait Gemm: Copy + Send + Sync {
    /// `out[m, n] = a[m, k] * b[k, n]`, `out` row-major. Threads are used if `parallel`; each element's sum runs in an
    /// order that does not depend on them.
    ///
    /// Returns false, with nothing written, if a slice is too short for its matrix.
    fn product(out: &mut [Self], a: Matrix<Self>, b: Matrix<Self>, m: usize, k: usize, n: usize, parallel: bool) -> bool;
}

macro_rules! gemm {
    ($t:ty, $kernel:path, $own:expr) => {
        impl Gemm for $t {
            fn product(out: &mut [Self], a: Matrix<Self>, b: Matrix<Self>, m: usize, k: usize, n: usize, parallel: bool) -> bool {
                if out.len() < reach(0, &[[m, n]]) || !a.covers(m, k) || !b.covers(k, n) {
                    return false;
                }
                if $own(out, a, b, [m, k, n], parallel) {
                    return true;
                }
                let threads = if parallel { Parallelism::Rayon(0) } else { Parallelism::None };
                // SAFETY: the three matrices lie within their slices (checked above), `out` is exclusively borrowed and
                // row-major without overlap, and the function returned for this processor only uses instructions it has.
                unsafe {
                    $kernel()(
                        m,
                        n,
                        k,
                        out.as_mut_ptr(),
                        1,
                        n as isize,
                        false,
                        a.data.as_ptr(),
                        a.column_stride as isize,
                        a.row_stride as isize,
                        b.data.as_ptr(),
                        b.column_stride as isize,
                        b.row_stride as isize,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        threads,
                    );
                }
                true
            }
        }
    };
}
gemm!(f32, gemm_f32::gemm::f32::get_gemm_fn, |out: &mut [f32], a, b, [m, k, n]: [usize; 3], parallel| {
    let isa = Isa::best();
    let serves = product::serves(isa, m, k, n);
    if serves {
        product::product(isa, out, a, b, [m, k, n], parallel);
    }
    serves
});
gemm!(f64, gemm_f64::gemm::f64::get_gemm_fn, |_: &mut [f64], _, _, _: [usize; 3], _| false);
