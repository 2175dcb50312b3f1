//! Applying a scalar function to every element of one or two tensors.
use crate::buffer::Element;
use crate::kernels::simd::vectorised;
use crate::parallel::{CHUNK, THRESHOLD, fill};
use crate::recycle::storage;
use crate::strided::Strided;
use crate::{Result, Tensor, TensorError, memory, shape};
use rayon::prelude::*;

/// `f` of each element.
pub(crate) fn map<A, R>(a: &Tensor, f: impl Fn(A) -> R + Sync) -> Result<Tensor>
where
    A: Element + Copy,
    R: Element + Copy + Default,
{
    let x = a.as_slice::<A>()?;
    let mut out = storage::<R>(memory::room::<R>("map", a.shape())?);
    fill(&mut out, &|at, piece| {
        vectorised!(piece.iter_mut().zip(&x[at..]).for_each(|(o, v)| *o = f(*v)));
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
    let mut out = storage::<R>(memory::room::<R>(op, &to)?);
    let space = Strided::broadcast(&to, [a.shape(), b.shape()]);
    let inner = space.inner();
    fill(&mut out, &|at, piece| {
        space.runs(at, piece.len(), |done, run, [i, j]| {
            let o = &mut piece[done..done + run];
            vectorised!(match inner {
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

/// Rewrites the elements of `a` in pieces of `chunk`: `f(offset, piece)` gets the old values in the piece, and its results are
/// collected in order. The storage is `a`'s own if there is no other reference; else each piece is copied to new storage just
/// before, so that there is one pass over memory either way. The result is not recorded on the tape.
pub(crate) fn rewrite<T, R>(mut a: Tensor, chunk: usize, f: impl Fn(usize, &mut [T]) -> R + Sync) -> Result<(Tensor, Vec<R>)>
where
    T: Element + Copy + Default,
    R: Send,
{
    a.grad = None;
    if let Some(own) = a.unshared::<T>() {
        let results = pieces(own, chunk, f);
        return Ok((a, results));
    }
    let from = a.as_slice::<T>()?;
    let mut out = storage::<T>(memory::room::<T>("map", a.shape())?);
    let results = pieces(&mut out, chunk, |at, piece| {
        piece.copy_from_slice(&from[at..at + piece.len()]);
        f(at, piece)
    });
    Ok((Tensor::new(out, a.shape())?, results))
}

fn pieces<T: Send, R: Send>(data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) -> R + Sync) -> Vec<R> {
    let chunk = chunk.max(1);
    match data.len() < THRESHOLD {
        true => data.chunks_mut(chunk).enumerate().map(|(i, piece)| f(i * chunk, piece)).collect(),
        false => data.par_chunks_mut(chunk).enumerate().map(|(i, piece)| f(i * chunk, piece)).collect(),
    }
}

/// `f` of each element of `a` and its counterpart in `b`, which has `a`'s shape or broadcasts to it, by [`rewrite`].
pub(crate) fn zip_onto<T: Element + Copy + Default>(
    op: &'static str,
    a: Tensor,
    b: &Tensor,
    f: impl Fn(T, T) -> T + Sync,
) -> Result<Tensor> {
    if shape::broadcast(op, a.shape(), b.shape())? != a.shape() {
        return Err(TensorError::shape(op, format!("{:?} does not broadcast to {:?}", b.shape(), a.shape())));
    }
    let y = b.as_slice::<T>()?;
    let space = Strided::broadcast(a.shape(), [b.shape()]);
    let [inner] = space.inner();
    let (out, _) = rewrite(a, CHUNK, |at, piece: &mut [T]| {
        space.runs(at, piece.len(), |done, run, [j]| {
            let o = &mut piece[done..done + run];
            vectorised!(match inner {
                1 => o.iter_mut().zip(&y[j..j + run]).for_each(|(o, y)| *o = f(*o, *y)),
                _ => {
                    let y = y[j];
                    o.iter_mut().for_each(|o| *o = f(*o, y));
                }
            });
        });
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform;

    #[test]
    fn rewriting_leaves_other_holders_alone() {
        let x = uniform(1, &[3, 70, 901], -1.0, 1.0).unwrap();
        let held = x.clone();
        let b = uniform(2, &[70, 1], -1.0, 1.0).unwrap();
        let expected = zip::<f32, f32, f32>("sub", &x, &b, |a, b| a - b).unwrap();
        let copied = zip_onto("sub", x, &b, |a: f32, b| a - b).unwrap();
        assert_eq!(copied, expected);
        let at = held.as_slice::<f32>().unwrap().as_ptr();
        let in_place = zip_onto("sub", held, &b, |a: f32, b| a - b).unwrap();
        assert_eq!(in_place, expected);
        assert_eq!(in_place.as_slice::<f32>().unwrap().as_ptr(), at, "its own storage");
        assert!(zip_onto("sub", b, &expected, |a: f32, b| a - b).is_err());
    }
}
