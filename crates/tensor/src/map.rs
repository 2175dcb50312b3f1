//! Applying a scalar function to every element of one or two tensors.
use crate::buffer::Element;
use crate::kernels::simd::vectorised;
use crate::parallel::fill;
use crate::recycle::storage;
use crate::strided::Strided;
use crate::{Result, Tensor, shape};

/// `f` of each element.
pub(crate) fn map<A, R>(a: &Tensor, f: impl Fn(A) -> R + Sync) -> Result<Tensor>
where
    A: Element + Copy,
    R: Element + Copy + Default,
{
    let x = a.as_slice::<A>()?;
    let mut out = storage::<R>(x.len());
    fill(&mut out, &|at, piece| {
        vectorised(|| piece.iter_mut().zip(&x[at..]).for_each(|(o, v)| *o = f(*v)));
    });
    Tensor::new(out, a.shape())
}

/// `f` of each pair, broadcast as NumPy does. Same shapes, a scalar and a per-channel operand run at the speed of memory.
pub(crate) fn zip<A, B, R>(op: &'static str, a: &Tensor, b: &Tensor, f: impl Fn(A, B) -> R + Sync) -> Result<Tensor>
where
    A: Element + Copy,
    B: Element + Copy,
    R: Element + Copy + Default,
{
    let to = shape::broadcast(op, a.shape(), b.shape())?;
    let (x, y) = (a.as_slice::<A>()?, b.as_slice::<B>()?);
    let mut out = storage::<R>(shape::count(&to)?);
    let space = Strided::broadcast(&to, [a.shape(), b.shape()]);
    let inner = space.inner();
    fill(&mut out, &|at, piece| {
        space.runs(at, piece.len(), |done, run, [i, j]| {
            let o = &mut piece[done..done + run];
            vectorised(|| match inner {
                [1, 1] => o.iter_mut().zip(&x[i..i + run]).zip(&y[j..j + run]).for_each(|((o, x), y)| *o = f(*x, *y)),
                [1, _] => {
                    let y = y[j];
                    o.iter_mut().zip(&x[i..i + run]).for_each(|(o, x)| *o = f(*x, y));
                }
                [_, 1] => {
                    let x = x[i];
                    o.iter_mut().zip(&y[j..j + run]).for_each(|(o, y)| *o = f(x, *y));
                }
                _ => o.fill(f(x[i], y[j])),
            });
        });
    });
    Tensor::new(out, to)
}
