//! Moving elements without changing them: transposing, slicing, joining, padding, repeating. Any element type.
use crate::device::{device_or, on_device};
use crate::kernels::transpose::transpose;
use crate::parallel::fill;
use crate::strided::Strided;
use crate::{Buffer, DType, Element, Result, Tensor, TensorError, memory, record, recycle, shape};

/// The elements beyond the border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// A constant value.
    Constant,
    /// The mirror image, without the border element itself.
    Reflect,
    /// The border element.
    Edge,
    /// The opposite side.
    Wrap,
}

/// A strided view of a tensor in which no element occurs twice.
#[derive(Clone)]
struct View {
    shape: Vec<usize>,
    strides: Vec<isize>,
    start: isize,
}

impl View {
    fn space(&self) -> Strided<1> {
        Strided::new(&self.shape, [&self.strides], [self.start])
    }
}

fn read<T: Element>(from: &[T], space: &Strided<1>, n: usize) -> Buffer {
    let Some(first) = from.first().filter(|_| n > 0) else { return T::wrap(Vec::new().into()) };
    let mut out = vec![first.clone(); n];
    copy_runs(from, space, &mut out);
    T::wrap(out.into())
}

fn copy_runs<T: Element>(from: &[T], space: &Strided<1>, out: &mut [T]) {
    let [inner] = space.inner();
    fill(out, &|at, piece| {
        space.runs(at, piece.len(), |done, run, [offset]| {
            let o = &mut piece[done..done + run];
            match inner {
                1 => o.clone_from_slice(&from[offset..offset + run]),
                0 => o.fill(from[offset].clone()),
                _ => o.iter_mut().enumerate().for_each(|(k, o)| *o = from[(offset as isize + k as isize * inner) as usize].clone()),
            }
        });
    });
}

/// [`read`] into recycled storage.
fn read_f32(from: &[f32], space: &Strided<1>, n: usize) -> Buffer {
    let mut out = recycle::take(n);
    if n > 0 {
        copy_runs(from, space, &mut out);
    }
    f32::wrap(out.into())
}

/// [`read_f32`] for a transposition, whose axes all have positive strides and together read each element once.
fn read_transposed(from: &[f32], space: &Strided<1>, n: usize) -> Buffer {
    let axes: Vec<(usize, usize)> = space.axes().map(|(dim, [stride])| (dim, stride as usize)).collect();
    let mut out = recycle::take(n);
    match transpose(from, &axes, &mut out) {
        true => f32::wrap(out.into()),
        false => {
            recycle::give(out);
            read_f32(from, space, n)
        }
    }
}

fn write<T: Element>(onto: &mut [T], from: &[T], space: &Strided<1>) {
    let [inner] = space.inner();
    space.runs(0, from.len(), |done, run, [offset]| {
        for k in 0..run {
            onto[(offset as isize + k as isize * inner) as usize] = from[done + k].clone();
        }
    });
}

/// Zeros, of f32 in recycled storage.
fn cleared(dtype: DType, to: &[usize]) -> Result<Tensor> {
    if dtype != DType::F32 {
        return Tensor::zeros(dtype, to);
    }
    let mut out = recycle::take(memory::room::<f32>("zeros", to)?);
    fill(&mut out, &|_, piece| piece.fill(0.0));
    Tensor::new(out, to)
}

impl Tensor {
    fn view(&self, name: &'static str, view: View) -> Result<Tensor> {
        let n = self.room(name, &view.shape)?;
        let space = view.space();
        let on_host = || {
            let buffer = match self.buffer() {
                Buffer::F32(v) => read_f32(v, &space, n),
                other => crate::with_buffer!(other, v => read(v, &space, n)),
            };
            Tensor::from_buffer(self.dtype(), buffer, view.shape.clone())
        };
        let out = device_or!(crate::gpu::read_view(self, &space, &view.shape), on_host()?);
        let from = self.shape().to_vec();
        Ok(record(name, &[self], out, move |dy| {
            on_device!(crate::gpu::scatter_view(&dy, &view.space(), &from).map(|dx| dx.map(|dx| vec![Some(dx)])));
            let mut dx = cleared(dy.dtype(), &from)?;
            dx.write_view(&dy, &view)?;
            Ok(vec![Some(dx)])
        }))
    }

    fn write_view(&mut self, from: &Tensor, view: &View) -> Result<()> {
        let space = view.space();
        crate::with_buffer!(from.buffer(), v => { write(self.as_mut_slice()?, v, &space); Ok(()) })
    }

    /// Axes in another order: axis `i` of the result is axis `permutation[i]`.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if `permutation` is not one of `0..rank`.
    pub fn transpose(&self, permutation: &[usize]) -> Result<Tensor> {
        let mut sorted = permutation.to_vec();
        sorted.sort_unstable();
        if sorted.into_iter().ne(0..self.rank()) {
            return Err(TensorError::shape("transpose", format!("{permutation:?} does not permute the axes of {:?}", self.shape())));
        }
        let out = self.transposed(permutation)?;
        let mut back = vec![0; permutation.len()];
        permutation.iter().enumerate().for_each(|(i, p)| back[*p] = i);
        Ok(record("transpose", &[self], out, move |dy| Ok(vec![Some(dy.transposed(&back)?)])))
    }

    /// [`Tensor::transpose`] outside the record.
    fn transposed(&self, permutation: &[usize]) -> Result<Tensor> {
        let to: Vec<usize> = permutation.iter().map(|p| self.shape()[*p]).collect();
        if permutation.iter().filter(|p| self.shape()[**p] != 1).is_sorted() {
            return self.detach().reshape(to);
        }
        let strides = shape::strides(self.shape());
        let strides: Vec<isize> = permutation.iter().map(|p| strides[*p] as isize).collect();
        let space = Strided::new(&to, [&strides], [0]);
        on_device!(crate::gpu::read_view(self, &space, &to));
        let n = self.room("transpose", &to)?;
        let buffer = match self.buffer() {
            Buffer::F32(v) => read_transposed(v, &space, n),
            other => crate::with_buffer!(other, v => read(v, &space, n)),
        };
        Tensor::from_buffer(self.dtype(), buffer, to)
    }

    /// Swaps the last two axes.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if there are fewer than two.
    pub fn transpose_last(&self) -> Result<Tensor> {
        let rank = self.rank();
        if rank < 2 {
            return Err(TensorError::shape("transpose", format!("{:?} has fewer than two axes", self.shape())));
        }
        let mut permutation: Vec<usize> = (0..rank).collect();
        permutation.swap(rank - 2, rank - 1);
        self.transpose(&permutation)
    }

    /// Part of a tensor, by NumPy's `start:end:step` along each of `axes` (negative positions count from the end, those
    /// out of range are clamped).
    ///
    /// # Errors
    /// [`TensorError::Shape`] if the lists differ in length, an axis does not exist or comes twice, or a step is zero.
    pub fn slice(&self, starts: &[i64], ends: &[i64], axes: &[usize], steps: &[i64]) -> Result<Tensor> {
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err(TensorError::shape("slice", "starts, ends, axes and steps differ in length"));
        }
        let mut view = View {
            shape: self.shape().to_vec(),
            strides: shape::strides(self.shape()).into_iter().map(|s| s as isize).collect(),
            start: 0,
        };
        for (i, &axis) in axes.iter().enumerate() {
            if axis >= self.rank() || axes[..i].contains(&axis) {
                return Err(TensorError::shape("slice", format!("axes {axes:?} of a tensor of shape {:?}", self.shape())));
            }
            let (start, count) = shape::slice_range(self.shape()[axis], starts[i], ends[i], steps[i])?;
            view.start += start as isize * view.strides[axis];
            view.strides[axis] = view.strides[axis].saturating_mul(steps[i] as isize);
            view.shape[axis] = count;
        }
        self.view("slice", view)
    }

    /// The elements `start..start + len` along one axis.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if that is outside the tensor.
    pub fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Tensor> {
        match self.shape().get(axis) {
            Some(dim) if start.checked_add(len).is_some_and(|end| end <= *dim) => {
                self.slice(&[start as i64], &[(start + len) as i64], &[axis], &[1])
            }
            _ => Err(TensorError::shape("narrow", format!("{len} elements from {start} along axis {axis} of {:?}", self.shape()))),
        }
    }

    /// The order of the elements reversed along the axes.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if an axis does not exist or comes twice.
    pub fn flip(&self, axes: &[usize]) -> Result<Tensor> {
        let n = axes.len();
        self.slice(&vec![-1; n], &vec![i64::MIN; n], axes, &vec![-1; n])
    }

    /// Tensors joined along an axis.
    ///
    /// # Errors
    /// [`TensorError`] if there are none, or types or the other axes differ.
    pub fn concat(list: &[Tensor], axis: usize) -> Result<Tensor> {
        let first = list.first().ok_or_else(|| TensorError::shape("concat", "there is nothing to join"))?;
        let mut to = first.shape().to_vec();
        if axis >= to.len() {
            return Err(TensorError::shape("concat", format!("axis {axis} of tensors of shape {to:?}")));
        }
        to[axis] = 0;
        for t in list {
            let fits = t.rank() == to.len() && (0..to.len()).all(|i| i == axis || t.shape()[i] == to[i]);
            if !fits {
                return Err(TensorError::shape("concat", format!("{:?} and {:?} along axis {axis}", first.shape(), t.shape())));
            }
            if t.dtype() != first.dtype() {
                return Err(TensorError::dtype("concat", t.dtype(), format!("beside {}", first.dtype())));
            }
            to[axis] = to[axis].saturating_add(t.shape()[axis]);
        }
        let n = first.room("concat", &to)?;
        let outer: usize = if n == 0 { 0 } else { to[..axis].iter().product() };
        let widths: Vec<usize> = list.iter().map(|t| t.shape()[axis..].iter().product()).collect();
        let on_host = || -> Result<Tensor> {
            let buffer = crate::with_buffer!(first.buffer(), v => join(v.as_slice(), list, &widths, outer, n)?);
            Tensor::from_buffer(first.dtype(), buffer, to.clone())
        };
        let out = device_or!(crate::gpu::concat(list, axis, &to), on_host()?);
        let sizes: Vec<Option<usize>> = list.iter().map(|t| t.is_tracked().then(|| t.shape()[axis])).collect();
        let all: Vec<usize> = list.iter().map(|t| t.shape()[axis]).collect();
        Ok(record("concat", &list.iter().collect::<Vec<_>>(), out, move |dy| {
            let mut start = 0;
            let mut grads = Vec::with_capacity(all.len());
            for (size, wanted) in all.iter().zip(sizes) {
                grads.push(wanted.map(|w| dy.narrow(axis, start, w)).transpose()?);
                start += size;
            }
            Ok(grads)
        }))
    }

    /// The tensor cut along an axis into pieces of these sizes.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if the sizes do not add up to the axis.
    pub fn split(&self, axis: usize, sizes: &[usize]) -> Result<Vec<Tensor>> {
        let total = sizes.iter().try_fold(0usize, |a, b| a.checked_add(*b));
        if self.shape().get(axis).copied() != total {
            return Err(TensorError::shape("split", format!("sizes {sizes:?} along axis {axis} of {:?}", self.shape())));
        }
        let mut start = 0;
        let piece = |size: &usize| {
            let t = self.narrow(axis, start, *size);
            start += size;
            t
        };
        sizes.iter().map(piece).collect()
    }

    /// Broadcast to a shape (which must be at least as large along every axis, as NumPy's `broadcast_to`).
    ///
    /// # Errors
    /// [`TensorError::Shape`] if the shape does not broadcast so.
    pub fn expand(&self, to: &[usize]) -> Result<Tensor> {
        if shape::broadcast("expand", self.shape(), to)? != to {
            return Err(TensorError::shape("expand", format!("{:?} does not broadcast to {to:?}", self.shape())));
        }
        let n = self.room("expand", to)?;
        let space = Strided::broadcast(to, [self.shape()]);
        let on_host = || {
            let buffer = match self.buffer() {
                Buffer::F32(v) => read_f32(v, &space, n),
                other => crate::with_buffer!(other, v => read(v, &space, n)),
            };
            Tensor::from_buffer(self.dtype(), buffer, to)
        };
        let out = device_or!(crate::gpu::expand(self, to), on_host()?);
        let from = self.shape().to_vec();
        Ok(record("expand", &[self], out, move |dy| Ok(vec![Some(dy.sum_to(&from)?)])))
    }

    /// Repeated `repeats[i]` times along axis `i`.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if there is not one count for each axis, or the result is too large.
    pub fn tile(&self, repeats: &[usize]) -> Result<Tensor> {
        if repeats.len() != self.rank() {
            return Err(TensorError::shape("tile", format!("{} counts for shape {:?}", repeats.len(), self.shape())));
        }
        let pairs = self.shape().iter().zip(repeats);
        let single: Vec<usize> = self.shape().iter().flat_map(|d| [1, *d]).collect();
        let many: Vec<usize> = pairs.clone().flat_map(|(d, r)| [*r, *d]).collect();
        let to: Vec<usize> = pairs.map(|(d, r)| d.checked_mul(*r)).collect::<Option<_>>().ok_or_else(|| {
            TensorError::shape("tile", format!("{:?} repeated {repeats:?} times has more elements than can be counted", self.shape()))
        })?;
        self.reshape(single)?.expand(&many)?.reshape(to)
    }

    /// Without the given axes, which must have size 1.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if one has another size or does not exist.
    pub fn squeeze(&self, axes: &[usize]) -> Result<Tensor> {
        if let Some(bad) = axes.iter().find(|a| self.shape().get(**a) != Some(&1)) {
            return Err(TensorError::shape("squeeze", format!("axis {bad} of {:?} is not of size 1", self.shape())));
        }
        let kept = self.shape().iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| *d);
        self.reshape(kept.collect::<Vec<_>>())
    }

    /// With axes of size 1 at the given positions of the result.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if a position comes twice or is outside the result.
    pub fn unsqueeze(&self, axes: &[usize]) -> Result<Tensor> {
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        let mut to = self.shape().to_vec();
        for (i, axis) in sorted.iter().enumerate() {
            if *axis > to.len() || (i > 0 && sorted[i - 1] == *axis) {
                return Err(TensorError::shape("unsqueeze", format!("axes {axes:?} added to {:?}", self.shape())));
            }
            to.insert(*axis, 1);
        }
        self.reshape(to)
    }

    /// With `pads[i].0` elements before and `pads[i].1` after along axis `i`; negative counts cut off.
    ///
    /// # Errors
    /// [`TensorError`] if there is not one pair for each axis, more is cut than there is, the value's type differs, or the
    /// mode needs elements of an axis that has none.
    pub fn pad(&self, pads: &[(i64, i64)], mode: PadMode, value: Option<&Tensor>) -> Result<Tensor> {
        if pads.len() != self.rank() {
            return Err(TensorError::shape("pad", format!("{} pairs for shape {:?}", pads.len(), self.shape())));
        }
        let mut cut = self.clone();
        for (axis, (before, after)) in pads.iter().enumerate() {
            let (from, off) = (before.saturating_neg().max(0), after.saturating_neg().max(0));
            let dim = self.shape()[axis] as i64;
            if from.checked_add(off).is_none_or(|n| n > dim) {
                return Err(TensorError::shape("pad", format!("pads {pads:?} cut more than {:?} has", self.shape())));
            }
            if from + off > 0 {
                cut = cut.narrow(axis, from as usize, (dim - from - off) as usize)?;
            }
        }
        let grow: Vec<(usize, usize)> = pads.iter().map(|(b, a)| ((*b).max(0) as usize, (*a).max(0) as usize)).collect();
        if grow.iter().all(|g| *g == (0, 0)) {
            return Ok(cut);
        }
        match mode {
            PadMode::Constant => cut.pad_constant(&grow, value),
            _ => grow.iter().enumerate().filter(|(_, g)| **g != (0, 0)).try_fold(cut, |t, (axis, g)| {
                let padded = [g.0, g.1].iter().try_fold(t.shape()[axis], |n, g| n.checked_add(*g)).unwrap_or(usize::MAX);
                memory::room::<i64>("pad", &[padded])?;
                let from = border_indices(t.shape()[axis], *g, mode)?;
                t.gather(&Tensor::vector(from), axis)
            }),
        }
    }

    fn pad_constant(&self, grow: &[(usize, usize)], value: Option<&Tensor>) -> Result<Tensor> {
        let to: Vec<usize> = self
            .shape()
            .iter()
            .zip(grow)
            .map(|(d, g)| d.checked_add(g.0)?.checked_add(g.1))
            .collect::<Option<_>>()
            .ok_or_else(|| TensorError::shape("pad", "the padded tensor has more elements than can be counted"))?;
        if let Some(v) = value
            && v.dtype() != self.dtype()
        {
            return Err(TensorError::dtype("pad", v.dtype(), format!("as value beside {}", self.dtype())));
        }
        self.room("pad", &to)?;
        let strides = shape::strides(&to);
        let start = strides.iter().zip(grow).map(|(s, g)| (s * g.0) as isize).sum();
        let view = View { shape: self.shape().to_vec(), strides: strides.into_iter().map(|s| s as isize).collect(), start };
        let on_host = || -> Result<Tensor> {
            let mut out = match value {
                Some(v) => v.detach().reshape([])?.expand(&to)?,
                None => Tensor::zeros(self.dtype(), &to)?,
            };
            out.write_view(self, &view)?;
            Ok(out)
        };
        let out = device_or!(crate::gpu::pad(self, &view.space(), &to, value), on_host()?);
        Ok(record("pad", &[self], out, move |dy| Ok(vec![Some(dy.view("pad", view)?)])))
    }
}

/// The source position of each element of a padded axis.
fn border_indices(dim: usize, (before, after): (usize, usize), mode: PadMode) -> Result<Vec<i64>> {
    if dim == 0 {
        return Err(TensorError::shape("pad", "an axis without elements cannot be continued"));
    }
    let d = dim as i64;
    let index = |i: i64| match mode {
        PadMode::Wrap => i.rem_euclid(d),
        PadMode::Reflect if d > 1 => {
            let p = i.rem_euclid(2 * (d - 1));
            p.min(2 * (d - 1) - p)
        }
        _ => i.clamp(0, d - 1),
    };
    Ok((-(before as i64)..d + after as i64).map(index).collect())
}

fn join<T: Element>(_type: &[T], list: &[Tensor], widths: &[usize], outer: usize, n: usize) -> Result<Buffer> {
    let parts: Vec<&[T]> = list.iter().map(|t| t.as_slice::<T>()).collect::<Result<_>>()?;
    let mut out = Vec::with_capacity(n);
    for row in 0..outer {
        for (part, width) in parts.iter().zip(widths) {
            out.extend_from_slice(&part[row * width..(row + 1) * width]);
        }
    }
    Ok(T::wrap(out.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::{uniform, uniform_f64};
    use proptest::prelude::*;

    fn iota(shape: &[usize]) -> Tensor {
        Tensor::new((0..shape.iter().product::<usize>() as i64).collect(), shape).unwrap()
    }

    #[test]
    fn gradients_of_movement() {
        let x = [uniform_f64(1, &[2, 3, 4], -1.0, 1.0)];
        check(&x, |t| t[0].transpose(&[2, 0, 1])).unwrap();
        check(&x, |t| t[0].slice(&[1, -1], &[3, i64::MIN], &[1, 2], &[1, -2])).unwrap();
        check(&x, |t| t[0].pad(&[(1, 0), (-1, 2), (0, 3)], PadMode::Constant, None)).unwrap();
        check(&x, |t| t[0].pad(&[(0, 0), (2, 2), (0, 1)], PadMode::Reflect, None)).unwrap();
        check(&x, |t| t[0].pad(&[(0, 0), (2, 2), (0, 1)], PadMode::Wrap, None)).unwrap();
        check(&x, |t| t[0].unsqueeze(&[0, 4])?.expand(&[3, 2, 3, 4, 2])).unwrap();
        check(&x, |t| t[0].tile(&[2, 1, 3])).unwrap();
        check(&x, |t| t[0].flip(&[0, 2])).unwrap();
        check(&x, |t| Tensor::concat(&[t[0].clone(), t[0].mul_scalar(2.0)?, t[0].split(1, &[1, 2])?.remove(0)], 1)).unwrap();
    }

    #[test]
    fn slices_follow_numpy() {
        let x = iota(&[10]);
        let s = |a, b, st| x.slice(&[a], &[b], &[0], &[st]).unwrap().to_i64_vec().unwrap();
        assert_eq!(s(2, 7, 2), [2, 4, 6]);
        assert_eq!(s(-3, 100, 1), [7, 8, 9]);
        assert_eq!(s(8, 2, -3), [8, 5]);
        assert_eq!(s(100, -100, -4), [9, 5, 1]);
        assert_eq!(s(5, 5, 1), [0i64; 0]);
        assert_eq!(s(20, 30, 1), [0i64; 0]);
        assert!(x.slice(&[0], &[1], &[0], &[0]).is_err());
    }

    #[test]
    fn empty_tensors_and_strings_move_too() {
        let none = Tensor::new(Vec::<f32>::new(), [0, 3]).unwrap();
        assert_eq!(none.transpose(&[1, 0]).unwrap().shape(), [3, 0]);
        let padded = none.pad(&[(1, 0), (0, 0)], PadMode::Constant, Some(&Tensor::scalar(2f32))).unwrap();
        assert_eq!(padded, Tensor::new(vec![2f32; 3], [1, 3]).unwrap());
        let words = Tensor::vector(vec!["a".to_string(), "b".to_string()]);
        assert_eq!(words.flip(&[0]).unwrap().as_slice::<String>().unwrap(), ["b", "a"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(80))]
        /// f32 against the plain reading of another type, with axes of size 1 among them, forward and back.
        #[test]
        fn transposing_agrees_with_the_plain_reading(dims in proptest::array::uniform4(prop_oneof![1usize..3, 3usize..35]), order in Just(vec![0usize, 1, 2, 3]).prop_shuffle(), seed: u64) {
            let x = uniform(seed, &dims, -1.0, 1.0).unwrap();
            let plain = |t: &Tensor, order: &[usize]| t.cast(DType::F64).unwrap().transpose(order).unwrap().cast(DType::F32).unwrap();
            let leaf = x.tracked().unwrap();
            let y = leaf.transpose(&order).unwrap();
            prop_assert_eq!(&y.detach(), &plain(&x, &order));
            let dx = y.backward_from(y.detach()).unwrap().take(&leaf).unwrap();
            prop_assert_eq!(dx, x);
        }
    }
}
