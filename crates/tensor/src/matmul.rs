//! Matrix products.
use crate::device::on_device;
use crate::kernels::gemm::{Gemm, Matrix};
use crate::number::{Number, with_number};
use crate::parallel::fill_rows;
use crate::recycle::storage;
use crate::{DType, Element, Result, Tensor, TensorError, memory, record, shape};

/// Multiply-accumulate operations below which one thread is faster.
const PARALLEL_MACS: usize = 1 << 18;

/// One product of matrices in slices; plain loops for types without a fast kernel.
trait Product: Element + Copy + Default {
    fn multiply(out: &mut [Self], a: Matrix<Self>, b: Matrix<Self>, m: usize, k: usize, n: usize, parallel: bool);
}

macro_rules! fast {
    ($($t:ty),*) => {$(
        impl Product for $t {
            fn multiply(out: &mut [Self], a: Matrix<Self>, b: Matrix<Self>, m: usize, k: usize, n: usize, parallel: bool) {
                let done = <$t as Gemm>::product(out, a, b, m, k, n, parallel);
                assert!(done, "matrices are larger than their slices");
            }
        }
    )*};
}
fast!(f32, f64);

macro_rules! plain {
    ($($t:ty),*) => {$(
        impl Product for $t {
            fn multiply(out: &mut [Self], a: Matrix<Self>, b: Matrix<Self>, m: usize, k: usize, n: usize, _parallel: bool) {
                for i in 0..m {
                    let row = &mut out[i * n..(i + 1) * n];
                    for p in 0..k {
                        let x = a.data[i * a.row_stride + p * a.column_stride];
                        for (j, o) in row.iter_mut().enumerate() {
                            *o = o.plus(x.times(b.data[p * b.row_stride + j * b.column_stride]));
                        }
                    }
                }
            }
        }
    )*};
}
plain!(i8, i16, i32, i64, u8, u16, u32, u64);

/// Batches of matrices: `a` is `[.., m, k]`, `b` `[.., k, n]` (or their transposes), batch axes broadcast.
fn batched(a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool) -> Result<Tensor> {
    let bad = || TensorError::shape("matmul", format!("{:?}{} by {:?}{}", a.shape(), mark(transpose_a), b.shape(), mark(transpose_b)));
    let ([batch_a @ .., ra, ca], [batch_b @ .., rb, cb]) = (a.shape(), b.shape()) else { return Err(bad()) };
    let (m, k) = if transpose_a { (*ca, *ra) } else { (*ra, *ca) };
    let (k2, n) = if transpose_b { (*cb, *rb) } else { (*rb, *cb) };
    if k != k2 {
        return Err(bad());
    }
    let batch = shape::broadcast("matmul", batch_a, batch_b)?;
    let to = [batch.as_slice(), &[m, n]].concat();
    let count = shape::count(&to)?;
    // A single matrix on the right turns all rows on the left into one product.
    if !transpose_a && batch_b.iter().all(|d| *d == 1) && batch == batch_a && a.rank() > 2 {
        let rows = a.reshape([a.len().checked_div(k).unwrap_or(count.checked_div(n).unwrap_or(0)), k])?;
        let matrix = b.reshape([*rb, *cb])?;
        return batched(&rows, &matrix, false, transpose_b)?.reshape(to);
    }
    on_device!(crate::gpu::matmul(a, b, [transpose_a, transpose_b], k, &to));
    let batches = shape::count(&batch)?;
    let (at_a, at_b) = (batch_offsets(&batch, batch_a, m * k), batch_offsets(&batch, batch_b, k * n));
    with_number!("matmul", a.dtype(), T => {
        let (x, y) = (a.as_slice::<T>()?, b.as_slice::<T>()?);
        let mut out = storage::<T>(memory::room::<T>("matmul", &to)?);
        if k == 0 {
            out.fill(T::default());
        }
        let one = |i: usize, o: &mut [T], parallel: bool| {
            let left = Matrix::row_major(&x[at_a[i]..at_a[i] + m * k], *ca, transpose_a);
            let right = Matrix::row_major(&y[at_b[i]..at_b[i] + k * n], *cb, transpose_b);
            T::multiply(o, left, right, m, k, n, parallel);
        };
        if batches == 1 {
            one(0, &mut out, m * k * n >= PARALLEL_MACS);
        } else {
            fill_rows(&mut out, m * n, (m * k * n).min(PARALLEL_MACS), &|i, o| one(i, o, false));
        }
        Tensor::new(out, to)
    })
}

fn mark(transposed: bool) -> &'static str {
    if transposed { " transposed" } else { "" }
}

/// Start of each batch's matrix in an operand whose batch axes are broadcast.
fn batch_offsets(batch: &[usize], own: &[usize], size: usize) -> Vec<usize> {
    let strides = shape::broadcast_strides(own, batch);
    let places = shape::strides(batch);
    let total: usize = batch.iter().product();
    (0..total).map(|i| (0..batch.len()).map(|d| i / places[d] % batch[d] * strides[d]).sum::<usize>() * size).collect()
}

/// [`batched`] with f16 and bf16 through f32, and recorded.
fn product(a: &Tensor, b: &Tensor, transpose_a: bool, transpose_b: bool) -> Result<Tensor> {
    if a.dtype() != b.dtype() {
        return Err(TensorError::dtype("matmul", b.dtype(), format!("where the other operand has {}", a.dtype())));
    }
    if a.is_half() {
        return product(&a.cast(DType::F32)?, &b.cast(DType::F32)?, transpose_a, transpose_b)?.cast(a.dtype());
    }
    let (x, y) = (a.detach(), b.detach());
    let out = batched(&x, &y, transpose_a, transpose_b)?;
    let (wanted_a, wanted_b) = (a.is_tracked(), b.is_tracked());
    Ok(record("matmul", &[a, b], out, move |dy| {
        let by_a = || match transpose_a {
            false => batched(&dy, &y, false, !transpose_b)?.sum_to(x.shape()),
            true => batched(&y, &dy, transpose_b, true)?.sum_to(x.shape()),
        };
        let by_b = || match transpose_b {
            false => weight_gradient(&x, &dy, transpose_a, y.shape()),
            true => batched(&dy, &x, true, transpose_a)?.sum_to(y.shape()),
        };
        Ok(vec![wanted_a.then(by_a).transpose()?, wanted_b.then(by_b).transpose()?])
    }))
}

/// Gradient of `b` in `a * b`: one product over all rows where `b` is a single matrix, else one for each batch.
fn weight_gradient(a: &Tensor, dy: &Tensor, transpose_a: bool, to: &[usize]) -> Result<Tensor> {
    if let ([_, _], [.., k], [.., n], false) = (to, a.shape(), dy.shape(), transpose_a)
        && a.rank() == dy.rank()
        && a.rank() > 2
        && *k > 0
        && *n > 0
    {
        return batched(&a.reshape([a.len() / k, *k])?, &dy.reshape([dy.len() / n, *n])?, true, false);
    }
    batched(a, dy, !transpose_a, false)?.sum_to(to)
}

impl Tensor {
    /// Matrix product by NumPy's rules: batch axes broadcast, a vector on the left is a row, on the right a column, and
    /// that axis is left out of the result.
    ///
    /// # Errors
    /// [`TensorError`] if the types differ or the shapes do not fit.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        if self.rank() == 0 || other.rank() == 0 {
            return Err(TensorError::shape("matmul", "a scalar is not a matrix"));
        }
        let a = if self.rank() == 1 { self.unsqueeze(&[0])? } else { self.clone() };
        let b = if other.rank() == 1 { other.unsqueeze(&[1])? } else { other.clone() };
        let mut y = product(&a, &b, false, false)?;
        if self.rank() == 1 {
            y = y.squeeze(&[y.rank() - 2])?;
        }
        if other.rank() == 1 {
            y = y.squeeze(&[y.rank() - 1])?;
        }
        Ok(y)
    }

    /// `alpha * op(a) * op(b) + beta * c` for matrices, `op` transposing where asked; `c` broadcasts.
    ///
    /// # Errors
    /// [`TensorError`] if the types differ or the shapes do not fit.
    pub fn gemm(a: &Tensor, b: &Tensor, c: Option<&Tensor>, alpha: f64, beta: f64, transpose_a: bool, transpose_b: bool) -> Result<Tensor> {
        if a.rank() != 2 || b.rank() != 2 {
            return Err(TensorError::shape("gemm", format!("{:?} by {:?}: two matrices are needed", a.shape(), b.shape())));
        }
        let scaled = |t: Tensor, by: f64| match (by == 1.0, t.dtype().is_float()) {
            (true, _) => Ok(t),
            (false, true) => t.mul_scalar(by),
            (false, false) => t.cast(DType::F64)?.mul_scalar(by)?.cast(t.dtype()),
        };
        let y = scaled(product(a, b, transpose_a, transpose_b)?, alpha)?;
        match c {
            Some(c) if shape::broadcast("gemm", y.shape(), c.shape())? != y.shape() => {
                Err(TensorError::shape("gemm", format!("{:?} does not broadcast to {:?}", c.shape(), y.shape())))
            }
            Some(c) => y.add(&scaled(c.clone(), beta)?),
            None => Ok(y),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::uniform_f64;

    #[test]
    fn gradients_of_products() {
        let u = |seed, s: &[usize]| uniform_f64(seed, s, -1.0, 1.0);
        let shapes: [(&[usize], &[usize]); 7] = [
            (&[3, 4], &[4, 2]),
            (&[2, 3, 4], &[4, 2]),
            (&[2, 3, 4], &[2, 4, 5]),
            (&[2, 1, 3, 4], &[3, 4, 2]),
            (&[4], &[4]),
            (&[4], &[2, 4, 3]),
            (&[2, 3, 4], &[4]),
        ];
        for (a, b) in shapes {
            check(&[u(1, a), u(2, b)], |t| t[0].matmul(&t[1])).unwrap_or_else(|e| panic!("{a:?} {b:?}: {e}"));
        }
        for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
            let a = if ta { [4, 3] } else { [3, 4] };
            let b = if tb { [2, 4] } else { [4, 2] };
            let inputs = [u(3, &a), u(4, &b), u(5, &[2])];
            check(&inputs, |t| Tensor::gemm(&t[0], &t[1], Some(&t[2]), 0.5, 2.0, ta, tb)).unwrap();
        }
    }

    #[test]
    fn integers_and_large_floats_agree_with_a_plain_loop() {
        let (m, k, n) = (67, 129, 71);
        let a: Vec<i32> = (0..m * k).map(|i| (i % 13) as i32 - 6).collect();
        let b: Vec<i32> = (0..k * n).map(|i| (i % 7) as i32 - 3).collect();
        let (a, b) = (Tensor::new(a, [m, k]).unwrap(), Tensor::new(b, [k, n]).unwrap());
        let exact = a.matmul(&b).unwrap();
        let float = a.cast(DType::F32).unwrap().matmul(&b.cast(DType::F32).unwrap()).unwrap();
        assert_eq!(float.cast(DType::I32).unwrap(), exact);
        assert!(a.matmul(&a).is_err());
    }

    #[test]
    fn empty_products() {
        let a = Tensor::new(Vec::<f32>::new(), [2, 0]).unwrap();
        let b = Tensor::new(Vec::<f32>::new(), [0, 3]).unwrap();
        assert_eq!(a.matmul(&b).unwrap(), Tensor::full(0f32, [2, 3]).unwrap());
        let a = Tensor::new(Vec::<f32>::new(), [4, 2, 0]).unwrap();
        assert_eq!(a.matmul(&b).unwrap(), Tensor::full(0f32, [4, 2, 3]).unwrap());
    }
}
