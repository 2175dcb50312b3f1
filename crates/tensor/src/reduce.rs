//! Reductions over axes.
use crate::device::device_or;
use crate::kernels::simd::vectorised;
use crate::number::{Number, with_float, with_number};
use crate::parallel::{CHUNK, THRESHOLD, fill, fill_rows};
use crate::{DType, Result, Tensor, TensorError, memory, record};
use rayon::prelude::*;

/// A way to combine elements that is associative up to rounding.
trait Fold<T>: Sync {
    const START: T;
    fn join(a: T, b: T) -> T;
}

macro_rules! fold {
    ($name:ident, $start:ident, $join:ident) => {
        struct $name;
        impl<T: Number> Fold<T> for $name {
            const START: T = T::$start;
            #[inline(always)]
            fn join(a: T, b: T) -> T {
                a.$join(b)
            }
        }
    };
}
fold!(Sum, ZERO, plus);
fold!(Product, ONE, times);
fold!(Largest, LOWEST, larger);
fold!(Smallest, HIGHEST, smaller);

const LANES: usize = 16;
const BLOCK: usize = 4096;

/// Folds a run of elements: in lanes for the vector units, in blocks so that rounding errors of sums stay small.
#[inline(always)]
fn fold_run<T: Number, F: Fold<T>>(run: &[T]) -> T {
    run.chunks(BLOCK).fold(F::START, |total, block| {
        let mut lanes = [F::START; LANES];
        let (whole, rest) = block.as_chunks::<LANES>();
        for piece in whole {
            for (lane, v) in lanes.iter_mut().zip(piece) {
                *lane = F::join(*lane, *v);
            }
        }
        let tail = rest.iter().fold(F::START, |a, b| F::join(a, *b));
        let block = lanes.into_iter().fold(tail, F::join);
        F::join(total, block)
    })
}

/// Folds `[outer, count, inner]` to `[outer, inner]`.
fn fold_middle<T: Number, F: Fold<T>>(x: &[T], outer: usize, count: usize, inner: usize) -> Vec<T> {
    let mut out = vec![F::START; outer * inner];
    if inner == 1 && outer == 1 && count >= THRESHOLD {
        let parts: Vec<T> = x.par_chunks(CHUNK).map(|run| vectorised!(fold_run::<T, F>(run))).collect();
        out[0] = fold_run::<T, F>(&parts);
    } else if inner == 1 {
        fill_rows(&mut out, 1, count, &|row, o| o[0] = vectorised!(fold_run::<T, F>(&x[row * count..(row + 1) * count])));
    } else if outer > 1 {
        fill_rows(&mut out, inner, count * inner, &|row, o| {
            vectorised!({
                for line in x[row * count * inner..(row + 1) * count * inner].chunks_exact(inner) {
                    o.iter_mut().zip(line).for_each(|(o, v)| *o = F::join(*o, *v));
                }
            });
        });
    } else if inner < THRESHOLD && count * inner >= THRESHOLD {
        // Few columns: blocks of whole rows, cut by the data's size alone, then the blocks in order.
        let rows = (CHUNK / inner).max(1);
        let parts: Vec<Vec<T>> = x
            .par_chunks(rows * inner)
            .map(|block| {
                let mut sums = vec![F::START; inner];
                vectorised!(block.chunks_exact(inner).for_each(|line| sums.iter_mut().zip(line).for_each(|(o, v)| *o = F::join(*o, *v))));
                sums
            })
            .collect();
        parts.iter().for_each(|part| out.iter_mut().zip(part).for_each(|(o, v)| *o = F::join(*o, *v)));
    } else {
        let columns = |at: usize, o: &mut [T]| {
            for line in x.chunks_exact(inner) {
                o.iter_mut().zip(&line[at..]).for_each(|(o, v)| *o = F::join(*o, *v));
            }
        };
        fill(&mut out, &columns);
    }
    out
}

/// Folds the axes of `x` that are marked, one group of neighbours at a time, the last group first.
fn fold_axes<T: Number, F: Fold<T>>(x: &Tensor, marked: &[bool], to: &[usize]) -> Result<Vec<T>> {
    let len = memory::room::<T>("reduce", to)?;
    // Nothing to fold: the result has the initial values.
    if x.is_empty() {
        return Ok(vec![F::START; len]);
    }
    let mut groups: Vec<(bool, usize)> = Vec::new();
    for (dim, mark) in x.shape().iter().zip(marked) {
        match groups.last_mut() {
            Some((m, size)) if m == mark => *size *= dim,
            _ => groups.push((*mark, *dim)),
        }
    }
    let mut data: Option<Vec<T>> = None;
    let mut inner = 1;
    while let Some((mark, size)) = groups.pop() {
        if !mark {
            inner *= size;
            continue;
        }
        let outer = groups.iter().map(|g| g.1).product();
        let source = match &data {
            Some(d) => d,
            None => x.as_slice::<T>()?,
        };
        data = Some(fold_middle::<T, F>(source, outer, size, inner));
    }
    Ok(match data {
        Some(d) => d,
        None => x.as_slice::<T>()?.to_vec(),
    })
}

/// Shapes of the result with the reduced axes kept as 1, and without them.
fn reduced_shapes(op: &'static str, shape: &[usize], axes: &[usize]) -> Result<(Vec<bool>, Vec<usize>, Vec<usize>)> {
    let mut marked = vec![false; shape.len()];
    for axis in axes {
        match marked.get_mut(*axis) {
            Some(m) => *m = true,
            None => return Err(TensorError::shape(op, format!("axis {axis} is outside a tensor of shape {shape:?}"))),
        }
    }
    let kept = shape.iter().zip(&marked).map(|(d, m)| if *m { 1 } else { *d }).collect();
    let dropped = shape.iter().zip(&marked).filter(|(_, m)| !**m).map(|(d, _)| *d).collect();
    Ok((marked, kept, dropped))
}

impl Tensor {
    fn fold<F>(&self, op: &'static str, axes: &[usize], keep_dims: bool) -> Result<(Tensor, Vec<usize>)>
    where
        F: Fold<f32> + Fold<f64> + Fold<i8> + Fold<i16> + Fold<i32> + Fold<i64> + Fold<u8> + Fold<u16> + Fold<u32> + Fold<u64>,
    {
        let (marked, kept, dropped) = reduced_shapes(op, self.shape(), axes)?;
        let to = if keep_dims { kept.clone() } else { dropped };
        let out = device_or!(
            crate::gpu::reduce(op, self, &marked, &to),
            with_number!(op, self.dtype(), T => Tensor::new(fold_axes::<T, F>(self, &marked, &to)?, to))?
        );
        Ok((out, kept))
    }

    /// Sum over `axes`; the reduced axes stay with size 1 if `keep_dims` (so for all reductions below).
    ///
    /// Without elements, sums are 0, products 1, the largest element is -inf and the smallest inf (for integers, the least and
    /// the greatest value), a mean is NaN, and a logarithm of a sum -inf, as in ONNX.
    ///
    /// # Errors
    /// [`TensorError`] if an axis does not exist or the type has no arithmetic (so for all below).
    pub fn sum(&self, axes: &[usize], keep_dims: bool) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.sum(axes, keep_dims)?.cast(self.dtype());
        }
        let (out, kept) = self.fold::<Sum>("sum", axes, keep_dims)?;
        let from = self.shape().to_vec();
        Ok(record("sum", &[self], out, move |dy| Ok(vec![Some(dy.reshape(kept)?.expand(&from)?)])))
    }

    /// Sum of all elements, as a rank-0 tensor.
    pub fn sum_all(&self) -> Result<Tensor> {
        self.sum(&(0..self.rank()).collect::<Vec<_>>(), false)
    }

    /// Mean of all elements, as a rank-0 tensor.
    pub fn mean_all(&self) -> Result<Tensor> {
        self.mean(&(0..self.rank()).collect::<Vec<_>>(), false)
    }

    /// Sums over the axes along which `to` was broadcast to this shape: the gradient of broadcasting.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if `to` does not broadcast to this shape.
    pub fn sum_to(&self, to: &[usize]) -> Result<Tensor> {
        if self.shape() == to {
            return Ok(self.clone());
        }
        let Some(lead) = self.rank().checked_sub(to.len()) else {
            return Err(TensorError::shape("sum_to", format!("{to:?} does not broadcast to {:?}", self.shape())));
        };
        let axes: Vec<usize> = (0..self.rank()).filter(|i| *i < lead || to[i - lead] != self.shape()[*i]).collect();
        self.sum(&axes, true)?.reshape(to)
    }

    /// Mean; integers divide the wrapped sum and truncate.
    pub fn mean(&self, axes: &[usize], keep_dims: bool) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.mean(axes, keep_dims)?.cast(self.dtype());
        }
        let sum = self.sum(axes, keep_dims)?;
        if self.is_empty() && !sum.is_empty() && self.dtype().is_int() {
            return Err(TensorError::value("mean", format!("no integer is the mean of no elements (shape {:?})", self.shape())));
        }
        let count = self.len().checked_div(sum.len()).unwrap_or(0) as f64;
        sum.div(&sum.scalar_like(count)?)
    }

    /// Product.
    pub fn prod(&self, axes: &[usize], keep_dims: bool) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.prod(axes, keep_dims)?.cast(self.dtype());
        }
        let (out, kept) = self.fold::<Product>("prod", axes, keep_dims)?;
        let (x, axes) = (self.detach(), axes.to_vec());
        Ok(record("prod", &[self], out, move |dy| Ok(vec![Some(products_of_others(&x, &axes)?.mul(&dy.reshape(kept)?)?)])))
    }

    /// Largest element. Elements that tie share the gradient evenly.
    pub fn max_reduce(&self, axes: &[usize], keep_dims: bool) -> Result<Tensor> {
        self.extreme::<Largest>("max_reduce", axes, keep_dims)
    }

    /// Smallest element. Elements that tie share the gradient evenly.
    pub fn min_reduce(&self, axes: &[usize], keep_dims: bool) -> Result<Tensor> {
        self.extreme::<Smallest>("min_reduce", axes, keep_dims)
    }

    fn extreme<F>(&self, op: &'static str, axes: &[usize], keep_dims: bool) -> Result<Tensor>
    where
        F: Fold<f32> + Fold<f64> + Fold<i8> + Fold<i16> + Fold<i32> + Fold<i64> + Fold<u8> + Fold<u16> + Fold<u32> + Fold<u64>,
    {
        match self.dtype() {
            DType::F16 | DType::BF16 => return self.cast(DType::F32)?.extreme::<F>(op, axes, keep_dims)?.cast(self.dtype()),
            DType::Bool => return self.cast(DType::U8)?.extreme::<F>(op, axes, keep_dims)?.clip(Some(0.0), Some(1.0))?.cast(DType::Bool),
            _ => {}
        }
        let (out, kept) = self.fold::<F>(op, axes, keep_dims)?;
        let (x, y, axes) = (self.detach(), out.clone(), axes.to_vec());
        Ok(record(op, &[self], out, move |dy| {
            let hit = x.equal(&y.reshape(kept.clone())?)?.cast(x.dtype())?;
            let share = dy.reshape(kept)?.div(&hit.sum(&axes, true)?)?;
            Ok(vec![Some(hit.mul(&share)?)])
        }))
    }

    /// Sum of magnitudes.
    pub fn l1(&self, axes: &[usize], keep_dims: bool) -> Result<Tensor> {
        self.abs()?.sum(axes, keep_dims)
    }

    /// Root of the sum of squares.
    pub fn l2(&self, axes: &[usize], keep_dims: bool) -> Result<Tensor> {
        let squares = self.sum_square(axes, keep_dims)?;
        match self.dtype().is_float() {
            true => squares.sqrt(),
            false => squares.cast(DType::F64)?.sqrt()?.cast(self.dtype()),
        }
    }

    /// Logarithm of the sum.
    pub fn log_sum(&self, axes: &[usize], keep_dims: bool) -> Result<Tensor> {
        let sum = self.sum(axes, keep_dims)?;
        match self.dtype().is_float() {
            true => sum.log(),
            false => sum.cast(DType::F64)?.log()?.cast(self.dtype()),
        }
    }

    /// Logarithm of the sum of exponentials, without overflow.
    pub fn log_sum_exp(&self, axes: &[usize], keep_dims: bool) -> Result<Tensor> {
        if !self.dtype().is_float() {
            return self.cast(DType::F64)?.log_sum_exp(axes, keep_dims)?.cast(self.dtype());
        }
        // If all are infinite, the shift must not be: infinity minus infinity is NaN.
        let lowest = if self.dtype() == DType::F64 { f64::MIN } else { f32::MIN as f64 };
        let largest = self.detach().max_reduce(axes, true)?.clip(Some(lowest), Some(-lowest))?;
        let sum = self.sub(&largest)?.exp()?.sum(axes, keep_dims)?.log()?;
        let shift = largest.reshape(sum.shape())?;
        sum.add(&shift)
    }

    /// Sum of squares.
    pub fn sum_square(&self, axes: &[usize], keep_dims: bool) -> Result<Tensor> {
        self.mul(self)?.sum(axes, keep_dims)
    }
}

/// For each element, the product of the other elements in its reduction over `axes`. It is not computed by division because of
/// zeros.
fn products_of_others(x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let kept: Vec<usize> = (0..x.rank()).filter(|i| !axes.contains(i)).collect();
    let last: Vec<usize> = (0..x.rank()).filter(|i| axes.contains(i)).collect();
    let order = [kept, last.clone()].concat();
    let rows = x.transpose(&order)?;
    let width: usize = last.iter().map(|i| x.shape()[*i]).product();
    let products = with_float!("prod", x.dtype(), T => {
        let source = rows.as_slice::<T>()?;
        let mut out = vec![1.0 as T; source.len()];
        for (row, o) in source.chunks(width.max(1)).zip(out.chunks_mut(width.max(1))) {
            let (mut before, mut after) = (1.0, 1.0);
            for i in 0..row.len() {
                o[i] *= before;
                before *= row[i];
                let j = row.len() - 1 - i;
                o[j] *= after;
                after *= row[j];
            }
        }
        Tensor::new(out, rows.shape())
    })?;
    let mut back = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, o)| back[*o] = i);
    products.transpose(&back)
}

/// The sizes before, along and after an axis.
pub(crate) fn around(op: &'static str, shape: &[usize], axis: usize) -> Result<(usize, usize, usize)> {
    match shape.get(axis) {
        Some(n) => Ok((shape[..axis].iter().product(), *n, shape[axis + 1..].iter().product())),
        None => Err(TensorError::shape(op, format!("axis {axis} is outside a tensor of shape {shape:?}"))),
    }
}

impl Tensor {
    /// Running sum along an axis: without the element itself if `exclusive`, from the end if `reverse`.
    ///
    /// # Errors
    /// [`TensorError`] if the axis does not exist or the type has no arithmetic.
    pub fn cumsum(&self, axis: usize, exclusive: bool, reverse: bool) -> Result<Tensor> {
        self.cumulate("cumsum", axis, exclusive, reverse, false)
    }

    /// Running product along an axis, like [`Tensor::cumsum`]. Not differentiable.
    ///
    /// # Errors
    /// [`TensorError`] if the axis does not exist or the type has no arithmetic.
    pub fn cumprod(&self, axis: usize, exclusive: bool, reverse: bool) -> Result<Tensor> {
        self.cumulate("cumprod", axis, exclusive, reverse, true)
    }

    fn cumulate(&self, op: &'static str, axis: usize, exclusive: bool, reverse: bool, product: bool) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.cumulate(op, axis, exclusive, reverse, product)?.cast(self.dtype());
        }
        let (outer, count, inner) = around(op, self.shape(), axis)?;
        let outer = if self.is_empty() { 0 } else { outer };
        let out = with_number!(op, self.dtype(), T => {
            let x = self.as_slice::<T>()?;
            let mut out = vec![T::ZERO; memory::room::<T>(op, self.shape())?];
            for o in 0..outer {
                let mut running = vec![if product { T::ONE } else { T::ZERO }; inner];
                for step in 0..count {
                    let at = (o * count + if reverse { count - 1 - step } else { step }) * inner;
                    for (k, total) in running.iter_mut().enumerate() {
                        let next = if product { total.times(x[at + k]) } else { total.plus(x[at + k]) };
                        out[at + k] = if exclusive { *total } else { next };
                        *total = next;
                    }
                }
            }
            Tensor::new(out, self.shape())
        })?;
        Ok(record(op, &[self], out, move |dy| match product {
            false => Ok(vec![Some(dy.cumsum(axis, exclusive, !reverse)?)]),
            true => Err(TensorError::unsupported(op, "its gradient")),
        }))
    }

    /// Position of the largest element along an axis (the last of several if `select_last`), as i64.
    ///
    /// # Errors
    /// [`TensorError`] if the axis does not exist or has no elements, or the type has no order.
    pub fn arg_max(&self, axis: usize, keep_dims: bool, select_last: bool) -> Result<Tensor> {
        self.arg_extreme("arg_max", axis, keep_dims, select_last, true)
    }

    /// Position of the smallest element along an axis, like [`Tensor::arg_max`].
    ///
    /// # Errors
    /// As [`Tensor::arg_max`].
    pub fn arg_min(&self, axis: usize, keep_dims: bool, select_last: bool) -> Result<Tensor> {
        self.arg_extreme("arg_min", axis, keep_dims, select_last, false)
    }

    fn arg_extreme(&self, op: &'static str, axis: usize, keep_dims: bool, select_last: bool, largest: bool) -> Result<Tensor> {
        if self.is_half() {
            return self.cast(DType::F32)?.arg_extreme(op, axis, keep_dims, select_last, largest);
        }
        let (outer, count, inner) = around(op, self.shape(), axis)?;
        if count == 0 && outer * inner > 0 {
            return Err(TensorError::shape(op, format!("axis {axis} of {:?} has no elements", self.shape())));
        }
        let outer = if self.is_empty() { 0 } else { outer };
        let mut to = self.shape().to_vec();
        to[axis] = 1;
        let found = with_number!(op, self.dtype(), T => {
            let x = self.as_slice::<T>()?;
            let mut out = Vec::with_capacity(outer * inner);
            for o in 0..outer {
                for i in 0..inner {
                    let at = |k: usize| x[(o * count + k) * inner + i];
                    let better = |a: T, b: T| if largest { a > b } else { a < b };
                    let best = (1..count).fold(0, |best, k| {
                        let tie = select_last && at(k) == at(best);
                        if better(at(k), at(best)) || tie { k } else { best }
                    });
                    out.push(best as i64);
                }
            }
            Ok(out)
        })?;
        let out = Tensor::new(found, to)?;
        if keep_dims { Ok(out) } else { out.squeeze(&[axis]) }
    }

    /// The `k` largest (or smallest) elements along an axis, best first, and their positions as i64. Of equal elements
    /// the one with the lower position comes first. (They are sorted whether or not that is asked for.)
    ///
    /// # Errors
    /// [`TensorError`] if the axis does not exist or has fewer than `k` elements, or the type has no order.
    pub fn top_k(&self, k: usize, axis: usize, largest: bool) -> Result<(Tensor, Tensor)> {
        let (outer, count, inner) = around("top_k", self.shape(), axis)?;
        let outer = if self.is_empty() { 0 } else { outer };
        if k > count {
            return Err(TensorError::shape("top_k", format!("{k} of the {count} elements along axis {axis}")));
        }
        let source = if self.is_half() { self.detach().cast(DType::F32)? } else { self.detach() };
        let mut to = self.shape().to_vec();
        to[axis] = k;
        let mut picked = vec![0i64; memory::room::<i64>("top_k", &to)?];
        with_number!("top_k", source.dtype(), T => {
            let x = source.as_slice::<T>()?;
            for o in 0..outer {
                for i in 0..inner {
                    let at = |p: usize| x[(o * count + p) * inner + i];
                    let mut order: Vec<usize> = (0..count).collect();
                    order.sort_by(|a, b| {
                        let by_value = at(*a).partial_cmp(&at(*b)).unwrap_or(std::cmp::Ordering::Equal);
                        if largest { by_value.reverse() } else { by_value }
                    });
                    for (rank, p) in order.into_iter().take(k).enumerate() {
                        picked[(o * k + rank) * inner + i] = p as i64;
                    }
                }
            }
            Ok(())
        })?;
        let indices = Tensor::new(picked, to)?;
        Ok((self.gather_elements(&indices, axis)?, indices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::uniform_f64;

    #[test]
    fn gradients_of_reductions() {
        let x = [uniform_f64(1, &[2, 3, 4, 2], 0.3, 1.5)];
        for axes in [vec![0, 2], vec![3], vec![0], vec![0, 1, 2, 3], vec![], vec![1, 2]] {
            for keep in [true, false] {
                check(&x, |t| t[0].sum(&axes, keep)).unwrap();
                check(&x, |t| t[0].mean(&axes, keep)).unwrap();
                check(&x, |t| t[0].prod(&axes, keep)).unwrap();
                check(&x, |t| t[0].max_reduce(&axes, keep)).unwrap();
                check(&x, |t| t[0].min_reduce(&axes, keep)).unwrap();
                check(&x, |t| t[0].l1(&axes, keep)).unwrap();
                check(&x, |t| t[0].l2(&axes, keep)).unwrap();
                check(&x, |t| t[0].log_sum(&axes, keep)).unwrap();
                check(&x, |t| t[0].log_sum_exp(&axes, keep)).unwrap();
                check(&x, |t| t[0].sum_square(&axes, keep)).unwrap();
            }
        }
        check(&x, |t| t[0].cumsum(1, true, false)).unwrap();
        check(&x, |t| t[0].cumsum(2, false, true)).unwrap();
        check(&x, |t| Ok(t[0].top_k(2, 2, true)?.0)).unwrap();
        let with_zeros = [Tensor::new(vec![0f64, 2.0, 3.0, 0.0, 0.0, 4.0], [2, 3]).unwrap()];
        check(&with_zeros, |t| t[0].prod(&[1], false)).unwrap();
    }

    #[test]
    fn sums_of_every_axis_pattern_agree_with_a_plain_loop() {
        let shape = [5, 3, 40, 130];
        let x = Tensor::new((0..shape.iter().product::<usize>()).map(|i| (i % 7) as f32).collect(), shape).unwrap();
        let data = x.as_slice::<f32>().unwrap();
        let y = x.sum(&[0, 2, 3], false).unwrap();
        for c in 0..3 {
            let plain: f32 = (0..data.len()).filter(|i| i / (40 * 130) % 3 == c).map(|i| data[i]).sum();
            assert_eq!(y.as_slice::<f32>().unwrap()[c], plain);
        }
        assert_eq!(x.sum_all().unwrap().item::<f32>().unwrap(), data.iter().sum::<f32>());
        let y = x.sum(&[0], false).unwrap();
        let at = 17;
        assert_eq!(y.as_slice::<f32>().unwrap()[at], (0..5).map(|n| data[n * 3 * 40 * 130 + at]).sum::<f32>());
    }

    #[test]
    fn empty_reductions_and_ties() {
        let none = Tensor::new(Vec::<f32>::new(), [0, 2]).unwrap();
        assert_eq!(none.sum(&[0], false).unwrap(), Tensor::vector(vec![0f32, 0.0]));
        assert_eq!(none.max_reduce(&[0], false).unwrap(), Tensor::vector(vec![f32::NEG_INFINITY; 2]));
        // Every reduction over the empty axis and over the other one, whose result has no element, with gradients.
        type F = fn(&Tensor, &[usize], bool) -> Result<Tensor>;
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let all: [(F, f32); 10] = [
            (Tensor::sum, 0.0),
            (Tensor::mean, nan),
            (Tensor::prod, 1.0),
            (Tensor::max_reduce, -inf),
            (Tensor::min_reduce, inf),
            (Tensor::l1, 0.0),
            (Tensor::l2, 0.0),
            (Tensor::log_sum, -inf),
            (Tensor::log_sum_exp, -inf),
            (Tensor::sum_square, 0.0),
        ];
        for shape in [[3, 0], [0, 3]] {
            let x = Tensor::new(Vec::<f32>::new(), shape).unwrap().tracked().unwrap();
            for (i, (f, expected)) in all.into_iter().enumerate() {
                for (axes, len) in [(vec![0, 1], 1), (vec![usize::from(shape[0] == 3)], 3), (vec![usize::from(shape[0] == 0)], 0)] {
                    let y = f(&x, &axes, true).unwrap_or_else(|e| panic!("reduction {i} of {shape:?}: {e}"));
                    let got = y.to_f32_vec().unwrap();
                    assert!(
                        got.len() == len && got.iter().all(|v| *v == expected || v.is_nan() && expected.is_nan()),
                        "{i} {shape:?} {got:?}"
                    );
                    let dy = Tensor::full(1f32, y.shape()).unwrap();
                    assert!(y.backward_from(dy).unwrap().take(&x).is_none_or(|dx| dx.shape() == shape));
                }
            }
        }
        let none = Tensor::new(Vec::<i64>::new(), [0, 2]).unwrap();
        assert_eq!(none.max_reduce(&[0], false).unwrap(), Tensor::vector(vec![i64::MIN; 2]));
        assert_eq!(none.min_reduce(&[0], false).unwrap(), Tensor::vector(vec![i64::MAX; 2]));
        assert_eq!(none.prod(&[0], false).unwrap(), Tensor::vector(vec![1i64; 2]));
        assert!(none.mean(&[0], false).unwrap_err().to_string().contains("no integer is the mean of no elements"));
        assert!(none.arg_max(0, false, false).is_err());
        let x = Tensor::vector(vec![1i32, 3, 3, 0]);
        assert_eq!(x.arg_max(0, false, false).unwrap(), Tensor::scalar(1i64));
        assert_eq!(x.arg_max(0, false, true).unwrap(), Tensor::scalar(2i64));
        assert_eq!(x.top_k(2, 0, true).unwrap().1, Tensor::vector(vec![1i64, 2]));
    }
}
