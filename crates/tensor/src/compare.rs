//! Comparison, logic, bits, choice.
use crate::device::{device_or, on_device};
use crate::map::{map, zip};
use crate::number::with_number;
use crate::strided::Strided;
use crate::{DType, Element, Result, Tensor, TensorError, record, shape};

macro_rules! comparison {
    ($($(#[$doc:meta])* $name:ident, $op:tt;)*) => {
        impl Tensor {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`TensorError`] if the types differ or have no order, or the shapes do not broadcast.
            pub fn $name(&self, other: &Tensor) -> Result<Tensor> {
                same(stringify!($name), self, other)?;
                if self.is_half() {
                    return self.cast(DType::F32)?.$name(&other.cast(DType::F32)?);
                }
                on_device!(crate::gpu::compare(stringify!($name), self, other));
                with_number!(stringify!($name), self.dtype(), T => zip(stringify!($name), self, other, |a: T, b: T| a $op b))
            }
        )*}
    };
}
comparison! {
    /// True where `self < other`.
    less, <;
    /// True where `self > other`.
    greater, >;
    /// True where `self <= other`.
    less_or_equal, <=;
    /// True where `self >= other`.
    greater_or_equal, >=;
}

fn same(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dtype() == b.dtype() {
        return Ok(());
    }
    Err(TensorError::dtype(op, b.dtype(), format!("where the other operand has {}", a.dtype())))
}

macro_rules! integer_bits {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            DType::F32 | DType::F64 => Err(TensorError::dtype($op, $dtype, "is not an integer")),
            dtype => integer_bits!(@ $op, dtype, $T => $body, i8 I8, i16 I16, i32 I32, i64 I64, u8 U8, u16 U16, u32 U32, u64 U64),
        }
    };
    (@ $op:expr, $dtype:ident, $T:ident => $body:expr, $($t:ident $v:ident),*) => {
        match $dtype {
            $(DType::$v => { type $T = $t; $body })*
            other => Err(TensorError::dtype($op, other, "is not an integer")),
        }
    };
}

impl Tensor {
    /// True where the elements are equal (numbers, booleans, strings).
    ///
    /// # Errors
    /// [`TensorError`] if the types differ, or the shapes do not broadcast.
    pub fn equal(&self, other: &Tensor) -> Result<Tensor> {
        same("equal", self, other)?;
        match self.dtype() {
            DType::F16 | DType::BF16 => self.cast(DType::F32)?.equal(&other.cast(DType::F32)?),
            DType::Bool => zip("equal", self, other, |a: bool, b: bool| a == b),
            DType::String => {
                let to = shape::broadcast("equal", self.shape(), other.shape())?;
                let (a, b) = (self.expand(&to)?, other.expand(&to)?);
                let pairs = a.as_slice::<String>()?.iter().zip(b.as_slice::<String>()?);
                Tensor::new(pairs.map(|(a, b)| a == b).collect(), to)
            }
            dtype => {
                on_device!(crate::gpu::compare("equal", self, other));
                with_number!("equal", dtype, T => zip("equal", self, other, |a: T, b: T| a == b))
            }
        }
    }

    /// Logical and of booleans.
    ///
    /// # Errors
    /// [`TensorError`] if an operand is not bool, or the shapes do not broadcast (so for the next two).
    pub fn and(&self, other: &Tensor) -> Result<Tensor> {
        zip("and", self, other, |a: bool, b: bool| a & b)
    }

    /// Logical or of booleans.
    pub fn or(&self, other: &Tensor) -> Result<Tensor> {
        zip("or", self, other, |a: bool, b: bool| a | b)
    }

    /// Exclusive or of booleans.
    pub fn xor(&self, other: &Tensor) -> Result<Tensor> {
        zip("xor", self, other, |a: bool, b: bool| a ^ b)
    }

    /// Logical negation.
    ///
    /// # Errors
    /// [`TensorError::DType`] if the elements are not bool.
    pub fn not(&self) -> Result<Tensor> {
        map(self, |a: bool| !a)
    }

    /// Bitwise and of integers.
    ///
    /// # Errors
    /// [`TensorError`] if the types differ or are not integers, or the shapes do not broadcast (so for all below).
    pub fn bitwise_and(&self, other: &Tensor) -> Result<Tensor> {
        same("bitwise_and", self, other)?;
        integer_bits!("bitwise_and", self.dtype(), T => zip("bitwise_and", self, other, |a: T, b: T| a & b))
    }

    /// Bitwise or of integers.
    pub fn bitwise_or(&self, other: &Tensor) -> Result<Tensor> {
        same("bitwise_or", self, other)?;
        integer_bits!("bitwise_or", self.dtype(), T => zip("bitwise_or", self, other, |a: T, b: T| a | b))
    }

    /// Bitwise exclusive or of integers.
    pub fn bitwise_xor(&self, other: &Tensor) -> Result<Tensor> {
        same("bitwise_xor", self, other)?;
        integer_bits!("bitwise_xor", self.dtype(), T => zip("bitwise_xor", self, other, |a: T, b: T| a ^ b))
    }

    /// Inverts every bit.
    pub fn bitwise_not(&self) -> Result<Tensor> {
        integer_bits!("bitwise_not", self.dtype(), T => map(self, |a: T| !a))
    }

    /// Bits moved left (or right) by a count per element; a count of the width or more gives zero (right shift of a
    /// negative number: -1).
    pub fn bit_shift(&self, count: &Tensor, left: bool) -> Result<Tensor> {
        same("bit_shift", self, count)?;
        integer_bits!("bit_shift", self.dtype(), T => zip("bit_shift", self, count, move |a: T, b: T| {
            #[allow(clippy::unnecessary_cast)]
            let n = b as u32;
            match (left, n < T::BITS) {
                (true, true) => a << n,
                (false, true) => a >> n,
                (true, false) => 0,
                (false, false) => (a >> (T::BITS - 1)) >> 1,
            }
        }))
    }

    /// `a` where `condition` holds, `b` elsewhere, all three broadcast.
    ///
    /// # Errors
    /// [`TensorError`] if `condition` is not bool, the types of `a` and `b` differ, or the shapes do not broadcast.
    pub fn where_(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        same("where", a, b)?;
        let to = shape::broadcast("where", condition.shape(), &shape::broadcast("where", a.shape(), b.shape())?)?;
        let on_host = || {
            let space = Strided::broadcast(&to, [condition.shape(), a.shape(), b.shape()]);
            let chosen = condition.as_slice::<bool>()?;
            let n = a.room("where", &to)?;
            let buffer = crate::with_buffer!(a.buffer(), v => choose(chosen, v, b.as_slice()?, &space, n));
            Tensor::from_buffer(a.dtype(), buffer, to.clone())
        };
        let out = device_or!(crate::gpu::select_elements(condition, a, b, &to), on_host()?);
        let condition = condition.detach();
        let (shape_a, shape_b) = (a.shape().to_vec(), b.shape().to_vec());
        let wanted = [a.is_tracked(), b.is_tracked()];
        Ok(record("where", &[a, b], out, move |dy| {
            let zero = dy.scalar_like(0.0)?;
            let da = wanted[0].then(|| Tensor::where_(&condition, &dy, &zero)?.sum_to(&shape_a)).transpose()?;
            let db = wanted[1].then(|| Tensor::where_(&condition, &zero, &dy)?.sum_to(&shape_b)).transpose()?;
            Ok(vec![da, db])
        }))
    }
}

fn choose<T: Element>(condition: &[bool], a: &[T], b: &[T], space: &Strided<3>, n: usize) -> crate::Buffer {
    let mut out = Vec::with_capacity(n);
    let inner = space.inner().map(|s| s as usize);
    space.runs(0, n, |_, run, [c, i, j]| {
        out.extend((0..run).map(|k| if condition[c + k * inner[0]] { a[i + k * inner[1]].clone() } else { b[j + k * inner[2]].clone() }));
    });
    T::wrap(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::uniform_f64;

    #[test]
    fn where_broadcasts_and_splits_the_gradient() {
        let c = Tensor::new(vec![true, false, true], [3, 1]).unwrap();
        let inputs = [uniform_f64(1, &[3, 4], -1.0, 1.0), uniform_f64(2, &[4], -1.0, 1.0)];
        check(&inputs, |t| Tensor::where_(&c, &t[0], &t[1])).unwrap();
        let s = |v: &[&str]| Tensor::vector(v.iter().map(|s| s.to_string()).collect());
        let cond = Tensor::vector(vec![true, false]);
        assert_eq!(Tensor::where_(&cond, &s(&["a", "b"]), &s(&["c", "d"])).unwrap(), s(&["a", "d"]));
    }

    #[test]
    fn shifts_beyond_the_width_do_not_panic() {
        let a = Tensor::vector(vec![1u8, 255, 255]);
        let n = Tensor::vector(vec![7u8, 8, 1]);
        assert_eq!(a.bit_shift(&n, true).unwrap(), Tensor::vector(vec![128u8, 0, 254]));
        assert_eq!(a.bit_shift(&n, false).unwrap(), Tensor::vector(vec![0u8, 0, 127]));
    }
}
