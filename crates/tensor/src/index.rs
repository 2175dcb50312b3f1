//! Reading and writing elements at computed positions.
//!
//! Every operation here is reduced to lists of *blocks*: runs of consecutive elements, each given by its number. Reading a list
//! of blocks is the gradient of adding to it, and the other way round.
use crate::number::{Number, with_float, with_number};
use crate::{DType, Element, Result, Tensor, TensorError, memory, record, shape};

/// How a scatter combines the update with the existing element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The update replaces it (which of several updates of one element wins is not defined).
    None,
    /// Sum.
    Add,
    /// Product.
    Mul,
    /// The smaller of old and new element.
    Min,
    /// The larger of old and new element.
    Max,
}

fn read_blocks<T: Element>(from: &[T], blocks: &[usize], width: usize) -> crate::Buffer {
    let mut out = Vec::with_capacity(blocks.len() * width);
    for b in blocks {
        out.extend_from_slice(&from[b * width..(b + 1) * width]);
    }
    T::wrap(out.into())
}

fn write_blocks<T: Element>(onto: &mut [T], blocks: &[usize], width: usize, from: &[T]) {
    for (i, b) in blocks.iter().enumerate() {
        onto[b * width..(b + 1) * width].clone_from_slice(&from[i * width..(i + 1) * width]);
    }
}

fn merge_blocks<T: Copy>(onto: &mut [T], blocks: &[usize], width: usize, from: &[T], f: impl Fn(T, T) -> T) {
    for (i, b) in blocks.iter().enumerate() {
        for (o, v) in onto[b * width..(b + 1) * width].iter_mut().zip(&from[i * width..(i + 1) * width]) {
            *o = f(*o, *v);
        }
    }
}

/// Converts an index that may count from the end into a position.
fn position(op: &'static str, index: i64, dim: usize) -> Result<usize> {
    let at = if index < 0 { index.saturating_add(dim as i64) } else { index };
    if (0..dim as i64).contains(&at) {
        Ok(at as usize)
    } else {
        Err(TensorError::value(op, format!("index {index} is outside an axis of size {dim}")))
    }
}

impl Tensor {
    fn take_blocks(&self, op: &'static str, blocks: Vec<usize>, width: usize, to: Vec<usize>) -> Result<Tensor> {
        let buffer = crate::with_buffer!(self.buffer(), v => read_blocks(v.as_slice(), &blocks, width));
        let out = Tensor::from_buffer(self.dtype(), buffer, to)?;
        let from = self.shape().to_vec();
        Ok(record(op, &[self], out, move |dy| {
            let zeros = Tensor::zeros(dy.dtype(), &from)?;
            Ok(vec![Some(zeros.put_blocks(op, blocks, width, &dy, Reduction::Add)?)])
        }))
    }

    fn put_blocks(&self, op: &'static str, blocks: Vec<usize>, width: usize, updates: &Tensor, how: Reduction) -> Result<Tensor> {
        if self.dtype() != updates.dtype() {
            return Err(TensorError::dtype(op, updates.dtype(), format!("as updates of {}", self.dtype())));
        }
        if self.is_half() && how != Reduction::None {
            let wide = self.cast(DType::F32)?.put_blocks(op, blocks, width, &updates.cast(DType::F32)?, how)?;
            return wide.cast(self.dtype());
        }
        let mut out = self.detach();
        if how == Reduction::None {
            crate::with_buffer!(updates.buffer(), v => write_blocks(out.as_mut_slice()?, &blocks, width, v));
        } else {
            with_number!(op, self.dtype(), T => {
                let (onto, from) = (out.as_mut_slice::<T>()?, updates.as_slice::<T>()?);
                match how {
                    Reduction::None => {}
                    Reduction::Add => merge_blocks(onto, &blocks, width, from, T::plus),
                    Reduction::Mul => merge_blocks(onto, &blocks, width, from, T::times),
                    Reduction::Min => merge_blocks(onto, &blocks, width, from, T::smaller),
                    Reduction::Max => merge_blocks(onto, &blocks, width, from, T::larger),
                }
                Ok(())
            })?;
        }
        let shape = updates.shape().to_vec();
        Ok(record(op, &[self, updates], out, move |dy| {
            let du = dy.take_blocks(op, blocks.clone(), width, shape.clone())?;
            let dx = match how {
                Reduction::Add => dy,
                Reduction::None => {
                    let zeros = du.zeros_like()?;
                    dy.put_blocks(op, blocks, width, &zeros, Reduction::None)?
                }
                other => return Err(TensorError::unsupported(op, format!("the gradient of reduction {other:?}"))),
            };
            Ok(vec![Some(dx), Some(du)])
        }))
    }

    /// Slices along an axis, picked by index: the result's shape is this one with the axis replaced by `indices`' shape.
    ///
    /// # Errors
    /// [`TensorError`] if the axis does not exist or an index is outside it (negative ones count from the end).
    pub fn gather(&self, indices: &Tensor, axis: usize) -> Result<Tensor> {
        let Some(&dim) = self.shape().get(axis) else {
            return Err(TensorError::shape("gather", format!("axis {axis} of {:?}", self.shape())));
        };
        let picked: Vec<usize> = indices.to_i64_vec()?.into_iter().map(|i| position("gather", i, dim)).collect::<Result<_>>()?;
        let to = [&self.shape()[..axis], indices.shape(), &self.shape()[axis + 1..]].concat();
        let n = self.room("gather", &to)?;
        let width = self.shape()[axis + 1..].iter().product();
        let outer: usize = if n == 0 { 0 } else { self.shape()[..axis].iter().product() };
        memory::work_space::<usize>("gather", outer * picked.len(), 1)?;
        let mut blocks = Vec::with_capacity(outer * picked.len());
        (0..outer).for_each(|o| blocks.extend(picked.iter().map(|p| o * dim + p)));
        self.take_blocks("gather", blocks, width, to)
    }

    /// Positions of single elements for `gather_elements` and `scatter_elements`.
    fn element_positions(&self, op: &'static str, indices: &Tensor, axis: usize) -> Result<Vec<usize>> {
        let fits = axis < self.rank()
            && indices.rank() == self.rank()
            && (0..self.rank()).all(|i| i == axis || indices.shape()[i] <= self.shape()[i]);
        if !fits {
            let what = format!("indices of shape {:?} into {:?} along axis {axis}", indices.shape(), self.shape());
            return Err(TensorError::shape(op, what));
        }
        let own = shape::strides(self.shape());
        let mut strides: Vec<isize> = own.iter().map(|s| *s as isize).collect();
        strides[axis] = 0;
        let space = crate::strided::Strided::new(indices.shape(), [&strides], [0]);
        let [inner] = space.inner();
        memory::work_space::<usize>(op, indices.len(), 2)?;
        let list = indices.to_i64_vec()?;
        let mut positions = Vec::with_capacity(list.len());
        let mut failed = None;
        space.runs(0, list.len(), |done, run, [offset]| {
            for k in 0..run {
                match position(op, list[done + k], self.shape()[axis]) {
                    Ok(p) => positions.push(offset + k * inner as usize + p * own[axis]),
                    Err(e) => failed = Some(e),
                }
            }
        });
        failed.map_or(Ok(positions), Err)
    }

    /// Elements picked along an axis, one index for each element of the result.
    ///
    /// # Errors
    /// [`TensorError`] if the shapes do not fit or an index is outside the axis.
    pub fn gather_elements(&self, indices: &Tensor, axis: usize) -> Result<Tensor> {
        let positions = self.element_positions("gather_elements", indices, axis)?;
        self.take_blocks("gather_elements", positions, 1, indices.shape().to_vec())
    }

    /// A copy with the elements named by `indices` along an axis updated.
    ///
    /// # Errors
    /// [`TensorError`] if the shapes or types do not fit or an index is outside the axis.
    pub fn scatter_elements(&self, indices: &Tensor, updates: &Tensor, axis: usize, reduction: Reduction) -> Result<Tensor> {
        if indices.shape() != updates.shape() {
            let what = format!("indices of shape {:?}, updates of shape {:?}", indices.shape(), updates.shape());
            return Err(TensorError::shape("scatter_elements", what));
        }
        let positions = self.element_positions("scatter_elements", indices, axis)?;
        self.put_blocks("scatter_elements", positions, 1, updates, reduction)
    }

    /// Block numbers and width for the `_nd` operations: the last axis of `indices` holds tuples into the axes after the
    /// first `batch_dims`.
    fn tuple_blocks(&self, op: &'static str, indices: &Tensor, batch_dims: usize) -> Result<(Vec<usize>, usize)> {
        let bad =
            || TensorError::shape(op, format!("indices of shape {:?} into {:?}, {batch_dims} batch axes", indices.shape(), self.shape()));
        let (&depth, lead) = indices.shape().split_last().ok_or_else(bad)?;
        if lead.len() < batch_dims || lead[..batch_dims] != self.shape()[..batch_dims.min(self.rank())] || batch_dims + depth > self.rank()
        {
            return Err(bad());
        }
        let dims = &self.shape()[batch_dims..batch_dims + depth];
        let width = self.shape()[batch_dims + depth..].iter().product();
        if self.room(op, &[lead, &self.shape()[batch_dims + depth..]].concat())? == 0 {
            return Ok((vec![], width));
        }
        let batches: usize = lead[..batch_dims].iter().product();
        let per_batch: usize = lead[batch_dims..].iter().product();
        let span: usize = dims.iter().product();
        let list = indices.to_i64_vec()?;
        memory::work_space::<usize>(op, batches * per_batch, 1)?;
        let mut blocks = Vec::with_capacity(batches * per_batch);
        for i in 0..batches * per_batch {
            let mut block = 0;
            for (index, dim) in list[i * depth..(i + 1) * depth].iter().zip(dims) {
                block = block * dim + position(op, *index, *dim)?;
            }
            blocks.push(i / per_batch.max(1) * span + block);
        }
        Ok((blocks, width))
    }

    /// Slices picked by tuples of indices, the last axis of `indices`; the first `batch_dims` axes of both go together.
    ///
    /// # Errors
    /// [`TensorError`] if the shapes do not fit or an index is outside its axis.
    pub fn gather_nd(&self, indices: &Tensor, batch_dims: usize) -> Result<Tensor> {
        let (blocks, width) = self.tuple_blocks("gather_nd", indices, batch_dims)?;
        let depth = indices.shape().last().copied().unwrap_or(0);
        let to = [&indices.shape()[..indices.rank() - 1], &self.shape()[batch_dims + depth..]].concat();
        self.take_blocks("gather_nd", blocks, width, to)
    }

    /// A copy with the slices named by tuples of indices updated.
    ///
    /// # Errors
    /// [`TensorError`] if the shapes or types do not fit or an index is outside its axis.
    pub fn scatter_nd(&self, indices: &Tensor, updates: &Tensor, reduction: Reduction) -> Result<Tensor> {
        let (blocks, width) = self.tuple_blocks("scatter_nd", indices, 0)?;
        if updates.len() != blocks.len() * width {
            let what = format!("indices of shape {:?}, updates of shape {:?}", indices.shape(), updates.shape());
            return Err(TensorError::shape("scatter_nd", what));
        }
        self.put_blocks("scatter_nd", blocks, width, updates, reduction)
    }

    /// Vectors along a new axis that hold `on` at each index and `off` elsewhere; an index out of range (negative ones
    /// count from the end) gives a vector of `off`. `self` holds the indices, of any real type.
    ///
    /// # Errors
    /// [`TensorError`] if the axis is beyond the rank, the values' types differ, or the result is too large.
    pub fn one_hot(&self, depth: usize, axis: usize, off: &Tensor, on: &Tensor) -> Result<Tensor> {
        if axis > self.rank() {
            return Err(TensorError::shape("one_hot", format!("axis {axis} of indices of shape {:?}", self.shape())));
        }
        let mut to = self.shape().to_vec();
        to.insert(axis, depth);
        off.room("one_hot", &to)?;
        let inner: usize = self.shape()[axis..].iter().product();
        let lit: Vec<(usize, usize)> = self
            .to_i64_vec()?
            .into_iter()
            .enumerate()
            .filter_map(|(i, index)| Some((i, position("one_hot", index, depth).ok()?)))
            .collect();
        let blocks: Vec<usize> = lit.iter().map(|(i, p)| (i / inner * depth + p) * inner + i % inner).collect();
        let updates = on.reshape([])?.expand(&[blocks.len()])?;
        off.reshape([])?.expand(&to)?.put_blocks("one_hot", blocks, 1, &updates, Reduction::None)
    }

    /// Positions of the elements that are not zero (or false, or empty), as a matrix `[rank, count]` of i64.
    ///
    /// # Errors
    /// [`TensorError::DType`] for complex numbers.
    pub fn nonzero(&self) -> Result<Tensor> {
        let found: Vec<usize> = match self.dtype() {
            DType::Bool => self.as_slice::<bool>()?.iter().enumerate().filter(|(_, v)| **v).map(|(i, _)| i).collect(),
            DType::String => self.as_slice::<String>()?.iter().enumerate().filter(|(_, v)| !v.is_empty()).map(|(i, _)| i).collect(),
            _ => self.to_f64_vec()?.iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, _)| i).collect(),
        };
        let strides = shape::strides(self.shape());
        let columns = strides.iter().zip(self.shape());
        let out = columns.flat_map(|(s, d)| found.iter().map(move |i| (i / s % d) as i64)).collect();
        Tensor::new(out, [self.rank(), found.len()])
    }

    /// The lower or upper triangle of the last two axes, the rest zero; `diagonal` 0 is the main one, positive ones lie above.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if there are fewer than two axes.
    pub fn trilu(&self, diagonal: i64, upper: bool) -> Result<Tensor> {
        let [.., rows, columns] = *self.shape() else {
            return Err(TensorError::shape("trilu", format!("{:?} has fewer than two axes", self.shape())));
        };
        if self.is_empty() {
            return Ok(self.clone());
        }
        let keep = |r: i64, c: i64| {
            let from_diagonal = (c - r).saturating_sub(diagonal);
            if upper { from_diagonal >= 0 } else { from_diagonal <= 0 }
        };
        let mask = (0..rows as i64).flat_map(|r| (0..columns as i64).map(move |c| keep(r, c))).collect();
        let zero = Tensor::zeros(self.dtype(), &[])?;
        Tensor::where_(&Tensor::new(mask, [rows, columns])?, self, &zero)
    }
}

/// The distinct elements of a tensor, or its distinct slices along an axis.
pub struct Unique {
    /// The distinct values.
    pub values: Tensor,
    /// Where each first occurs.
    pub first: Tensor,
    /// Which of `values` each element of the input is.
    pub inverse: Tensor,
    /// How often each occurs.
    pub counts: Tensor,
}

impl Tensor {
    /// Distinct elements (of the flattened tensor, or slices along `axis`), in ascending order or that of first occurrence.
    ///
    /// # Errors
    /// [`TensorError`] if the axis does not exist or the elements have no order.
    pub fn unique(&self, axis: Option<usize>, sorted: bool) -> Result<Unique> {
        let flat = if axis.is_some() { self.clone() } else { self.reshape([self.len()])? };
        let axis = axis.unwrap_or(0);
        let Some(&count) = flat.shape().get(axis) else {
            return Err(TensorError::shape("unique", format!("axis {axis} of {:?}", flat.shape())));
        };
        crate::memory::room::<[usize; 8]>("unique", &[count])?;
        let mut front: Vec<usize> = (0..flat.rank()).collect();
        front.remove(axis);
        front.insert(0, axis);
        let rows = flat.transpose(&front)?;
        let width = rows.len().checked_div(count).unwrap_or(0);
        let groups = match self.dtype() {
            DType::String => group(rows.as_slice::<String>()?, count, width, |a, b| a.cmp(b), sorted),
            DType::Bool => group(rows.as_slice::<bool>()?, count, width, |a, b| a.cmp(b), sorted),
            DType::F16 | DType::BF16 => group(&rows.to_f32_vec()?, count, width, |a, b| a.total_cmp(b), sorted),
            dtype if dtype.is_int() => match rows.cast(DType::U64).ok().filter(|_| dtype == DType::U64) {
                Some(u) => group(u.as_slice::<u64>()?, count, width, |a, b| a.cmp(b), sorted),
                None => group(&rows.to_i64_vec()?, count, width, |a, b| a.cmp(b), sorted),
            },
            dtype => with_float!("unique", dtype, T => Ok(group(rows.as_slice::<T>()?, count, width, |a, b| a.total_cmp(b), sorted)))?,
        };
        let first: Vec<i64> = groups.first.iter().map(|i| *i as i64).collect();
        let as_i64 = |v: &[usize]| Tensor::vector(v.iter().map(|i| *i as i64).collect::<Vec<_>>());
        let first = Tensor::vector(first);
        Ok(Unique { values: flat.gather(&first, axis)?, first, inverse: as_i64(&groups.inverse), counts: as_i64(&groups.counts) })
    }
}

struct Groups {
    first: Vec<usize>,
    inverse: Vec<usize>,
    counts: Vec<usize>,
}

/// Groups equal rows; groups are in the order of their values, or of their first row.
fn group<T>(rows: &[T], count: usize, width: usize, compare: impl Fn(&T, &T) -> std::cmp::Ordering, sorted: bool) -> Groups {
    use std::cmp::Ordering;
    let row = |i: usize| &rows[i * width..(i + 1) * width];
    let by_value = |a: usize, b: usize| {
        row(a).iter().zip(row(b)).map(|(x, y)| compare(x, y)).find(|o| *o != Ordering::Equal).unwrap_or(Ordering::Equal)
    };
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| by_value(*a, *b));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match groups.last_mut() {
            Some(g) if by_value(g[0], i) == Ordering::Equal => g.push(i),
            _ => groups.push(vec![i]),
        }
    }
    if !sorted {
        groups.sort_by_key(|g| g[0]);
    }
    let mut inverse = vec![0; count];
    for (k, g) in groups.iter().enumerate() {
        g.iter().for_each(|i| inverse[*i] = k);
    }
    Groups { first: groups.iter().map(|g| g[0]).collect(), inverse, counts: groups.iter().map(Vec::len).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::uniform_f64;

    #[test]
    fn gradients_of_gathering_and_scattering() {
        let x = uniform_f64(1, &[3, 4, 2], -1.0, 1.0);
        let i = Tensor::new(vec![0i64, -1, 2, 2], [2, 2]).unwrap();
        check(std::slice::from_ref(&x), |t| t[0].gather(&i, 1)).unwrap();
        let e = Tensor::new(vec![0i64, 1, 1, 3, 2, 2], [1, 3, 2]).unwrap();
        check(std::slice::from_ref(&x), |t| t[0].gather_elements(&e, 1)).unwrap();
        let u = uniform_f64(2, &[1, 3, 2], -1.0, 1.0);
        check(&[x.clone(), u.clone()], |t| t[0].scatter_elements(&e, &t[1], 1, Reduction::Add)).unwrap();
        let distinct = Tensor::new(vec![0i64, 1, 1, 3, 2, 2], [1, 3, 2]).unwrap();
        check(&[x.clone(), u], |t| t[0].scatter_elements(&distinct, &t[1], 1, Reduction::None)).unwrap();
        let nd = Tensor::new(vec![0i64, 3, 2, 0], [2, 2]).unwrap();
        check(std::slice::from_ref(&x), |t| t[0].gather_nd(&nd, 0)).unwrap();
        let u = uniform_f64(3, &[2, 2], -1.0, 1.0);
        check(&[x.clone(), u], |t| t[0].scatter_nd(&nd, &t[1], Reduction::None)).unwrap();
        check(&[x], |t| t[0].trilu(0, true)).unwrap();
    }

    #[test]
    fn an_index_out_of_range_is_an_error() {
        let x = Tensor::vector(vec![1f32, 2.0]);
        assert!(x.gather(&Tensor::scalar(2i64), 0).is_err());
        assert!(x.gather(&Tensor::scalar(i64::MIN), 0).is_err());
        assert!(x.scatter_nd(&Tensor::new(vec![5i64], [1, 1]).unwrap(), &Tensor::vector(vec![1f32]), Reduction::Add).is_err());
    }

    #[test]
    fn unique_in_both_orders() {
        let x = Tensor::vector(vec![2f32, 1.0, 1.0, 3.0, 4.0, 3.0]);
        let u = x.unique(None, true).unwrap();
        assert_eq!(u.values, Tensor::vector(vec![1f32, 2.0, 3.0, 4.0]));
        assert_eq!(u.first, Tensor::vector(vec![1i64, 0, 3, 4]));
        assert_eq!(u.inverse, Tensor::vector(vec![1i64, 0, 0, 2, 3, 2]));
        assert_eq!(u.counts, Tensor::vector(vec![2i64, 1, 2, 1]));
        assert_eq!(x.unique(None, false).unwrap().values, Tensor::vector(vec![2f32, 1.0, 3.0, 4.0]));
    }
}
