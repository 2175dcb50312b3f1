//! A random mixture of two tensors, element by element.
use crate::buffer::Element;
use crate::map::rewrite;
use crate::number::with_float;
use crate::parallel::{CHUNK, fill};
use crate::random::bits;
use crate::recycle::storage;
use crate::{Result, Tensor, TensorError, memory, record};

/// Draws of 16 bits in one 64-bit number.
const DRAWS: usize = 4;

/// Calls `f(i, first)` for elements `at..at + len`, `i` counted from `at`: `first` with the probability `limit / 2^16`. The draw
/// depends only on the seed and the element's position.
#[inline(always)]
fn draw(seed: u64, limit: u64, at: usize, len: usize, mut f: impl FnMut(usize, bool)) {
    let (mut i, mut drawn) = (0, bits(seed, (at / DRAWS) as u64) >> (16 * (at % DRAWS)));
    while i < len {
        f(i, drawn & 0xffff < limit);
        i += 1;
        drawn = if (at + i).is_multiple_of(DRAWS) { bits(seed, ((at + i) / DRAWS) as u64) } else { drawn >> 16 };
    }
}

fn forward<T: Element + Copy + Default>(a: &Tensor, b: &Tensor, limit: u64, seed: u64) -> Result<Tensor> {
    let (x, y) = (a.as_slice::<T>()?, b.as_slice::<T>()?);
    let mut out = storage::<T>(memory::room::<T>("mixed", a.shape())?);
    fill(&mut out, &|at, piece| {
        let (x, y) = (&x[at..], &y[at..]);
        draw(seed, limit, at, piece.len(), |i, first| piece[i] = if first { x[i] } else { y[i] });
    });
    Tensor::new(out, a.shape())
}

/// `dy` with zeros where the elements of the other tensor were taken.
fn part<T: Element + Copy + Default>(dy: Tensor, first: bool, limit: u64, seed: u64) -> Result<Tensor> {
    let zero = |at: usize, piece: &mut [T]| {
        draw(seed, limit, at, piece.len(), |i, drawn| piece[i] = if drawn == first { piece[i] } else { T::default() });
    };
    Ok(rewrite(dy, CHUNK, zero)?.0)
}

impl Tensor {
    /// Each element of this tensor with the probability `share` (0..1, to 16 bits), else that of `other`, a tensor of the same
    /// shape. Gradients flow to the tensor that the element came from.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if the shapes differ, [`TensorError::DType`] if the types differ or are not f32 or f64.
    pub fn mixed(&self, other: &Tensor, share: f64, seed: u64) -> Result<Tensor> {
        if self.shape() != other.shape() {
            return Err(TensorError::shape("mixed", format!("{:?} with {:?}", self.shape(), other.shape())));
        }
        if self.dtype() != other.dtype() {
            return Err(TensorError::dtype("mixed", other.dtype(), format!("where the other operand has {}", self.dtype())));
        }
        let limit = (share.clamp(0.0, 1.0) * 65536.0).round() as u64;
        let out = with_float!("mixed", self.dtype(), T => forward::<T>(self, other, limit, seed))?;
        let wanted = [self.is_tracked(), other.is_tracked()];
        Ok(record("mixed", &[self, other], out, move |dy| {
            let one = |dy: Tensor, first: bool| with_float!("mixed", dy.dtype(), T => part::<T>(dy, first, limit, seed));
            let of_first = wanted[0].then(|| one(dy.clone(), true)).transpose()?;
            Ok(vec![of_first, wanted[1].then(|| one(dy, false)).transpose()?])
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::gradcheck::check;
    use crate::random::uniform_f64;
    use crate::{DType, Tensor};

    #[test]
    fn the_share_is_kept_and_each_element_comes_from_one_of_both() {
        let n = 100_003;
        let (a, b) = (Tensor::full(1f32, vec![n]).unwrap(), Tensor::full(2f32, vec![n]).unwrap());
        for share in [0.0, 0.25, 0.5, 1.0] {
            let mixed = a.mixed(&b, share, 7).unwrap();
            let of_a = mixed.as_slice::<f32>().unwrap().iter().filter(|v| **v == 1.0).count();
            let of_b = mixed.as_slice::<f32>().unwrap().iter().filter(|v| **v == 2.0).count();
            assert_eq!(of_a + of_b, n);
            assert!((of_a as f64 / n as f64 - share).abs() < 0.01, "{share}: {of_a}");
        }
        let (one, other) = (a.mixed(&b, 0.5, 1).unwrap(), a.mixed(&b, 0.5, 2).unwrap());
        let same = one.as_slice::<f32>().unwrap().iter().zip(other.as_slice::<f32>().unwrap()).filter(|(a, b)| a == b).count();
        assert!((same as f64 / n as f64 - 0.5).abs() < 0.01, "two seeds agree in {same}");
        assert!(a.mixed(&b.reshape([n, 1]).unwrap(), 0.5, 1).is_err());
        assert!(a.mixed(&b.cast(DType::F64).unwrap(), 0.5, 1).is_err());
    }

    #[test]
    fn gradients_go_where_the_element_came_from() {
        let inputs = [uniform_f64(1, &[5, 7], -1.0, 1.0), uniform_f64(2, &[5, 7], -1.0, 1.0)];
        check(&inputs, |t| t[0].mixed(&t[1], 0.4, 3)).unwrap();
    }
}
