//! The element types that arithmetic is done in, and dispatch on them.
use crate::buffer::Element;

/// A type with arithmetic: integers wrap, floats follow IEEE 754. (f16 and bf16 go through f32.)
pub(crate) trait Number: Element + Copy + PartialOrd + Default {
    const ZERO: Self;
    const ONE: Self;
    /// Identity of [`Number::larger`].
    const LOWEST: Self;
    /// Identity of [`Number::smaller`].
    const HIGHEST: Self;
    fn plus(self, o: Self) -> Self;
    fn minus(self, o: Self) -> Self;
    fn times(self, o: Self) -> Self;
    /// Quotient; integers truncate, and a zero divisor (which callers exclude) gives zero.
    fn over(self, o: Self) -> Self;
    /// Remainder with the sign of the dividend (C's `fmod`).
    fn remainder(self, o: Self) -> Self;
    /// Remainder with the sign of the divisor (Python's `%`).
    fn modulo(self, o: Self) -> Self;
    /// The larger; NaN if either is.
    fn larger(self, o: Self) -> Self;
    /// The smaller; NaN if either is.
    fn smaller(self, o: Self) -> Self;
    /// `self` to the power `o`, wrapping for integers.
    fn power(self, o: Self) -> Self;
    fn negated(self) -> Self;
    fn magnitude(self) -> Self;
    /// -1, 0 or 1; NaN of NaN.
    fn signum(self) -> Self;
    /// The nearest value of this type (saturating).
    fn from_f64(v: f64) -> Self;
}

macro_rules! float_number {
    ($($t:ident),*) => {$(
        impl Number for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LOWEST: Self = $t::NEG_INFINITY;
            const HIGHEST: Self = $t::INFINITY;
            fn plus(self, o: Self) -> Self { self + o }
            fn minus(self, o: Self) -> Self { self - o }
            fn times(self, o: Self) -> Self { self * o }
            fn over(self, o: Self) -> Self { self / o }
            fn remainder(self, o: Self) -> Self { self % o }
            fn modulo(self, o: Self) -> Self {
                let r = self % o;
                if r == 0.0 { r.copysign(o) } else if (r < 0.0) != (o < 0.0) { r + o } else { r }
            }
            fn larger(self, o: Self) -> Self { if self > o || self.is_nan() { self } else { o } }
            fn smaller(self, o: Self) -> Self { if self < o || self.is_nan() { self } else { o } }
            fn power(self, o: Self) -> Self { self.powf(o) }
            fn negated(self) -> Self { -self }
            fn magnitude(self) -> Self { self.abs() }
            fn signum(self) -> Self { if self == 0.0 { 0.0 } else { $t::signum(self) } }
            fn from_f64(v: f64) -> Self { v as $t }
        }
    )*};
}
float_number!(f32, f64);

macro_rules! int_number {
    ($($t:ident $negative:expr, $signum:expr, $magnitude:expr;)*) => {$(
        impl Number for $t {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const LOWEST: Self = $t::MIN;
            const HIGHEST: Self = $t::MAX;
            fn plus(self, o: Self) -> Self { self.wrapping_add(o) }
            fn minus(self, o: Self) -> Self { self.wrapping_sub(o) }
            fn times(self, o: Self) -> Self { self.wrapping_mul(o) }
            fn over(self, o: Self) -> Self { if o == 0 { 0 } else { self.wrapping_div(o) } }
            fn remainder(self, o: Self) -> Self { if o == 0 { 0 } else { self.wrapping_rem(o) } }
            fn modulo(self, o: Self) -> Self {
                let r = self.remainder(o);
                if r != 0 && $negative(r) != $negative(o) { r.wrapping_add(o) } else { r }
            }
            fn larger(self, o: Self) -> Self { self.max(o) }
            fn smaller(self, o: Self) -> Self { self.min(o) }
            fn power(self, o: Self) -> Self {
                if $negative(o) {
                    // 1 and -1 are the only integers whose negative powers are integers; others truncate to zero.
                    return match self {
                        1 => 1,
                        v if $negative(v) && $magnitude(v) == 1 => if o % 2 == 0 { 1 } else { v },
                        _ => 0,
                    };
                }
                let (mut base, mut exponent, mut result) = (self, o, 1 as $t);
                while exponent > 0 {
                    if exponent & 1 == 1 { result = result.wrapping_mul(base); }
                    base = base.wrapping_mul(base);
                    exponent >>= 1;
                }
                result
            }
            fn negated(self) -> Self { self.wrapping_neg() }
            fn magnitude(self) -> Self { $magnitude(self) }
            fn signum(self) -> Self { $signum(self) }
            fn from_f64(v: f64) -> Self { v as $t }
        }
    )*};
}
int_number! {
    i8 i8::is_negative, i8::signum, i8::wrapping_abs;
    i16 i16::is_negative, i16::signum, i16::wrapping_abs;
    i32 i32::is_negative, i32::signum, i32::wrapping_abs;
    i64 i64::is_negative, i64::signum, i64::wrapping_abs;
    u8 never, |v: u8| v.min(1), same;
    u16 never, |v: u16| v.min(1), same;
    u32 never, |v: u32| v.min(1), same;
    u64 never, |v: u64| v.min(1), same;
}

fn never<T>(_: T) -> bool {
    false
}

fn same<T>(v: T) -> T {
    v
}

/// Runs `$body` with the type `$T` that a tensor's elements have, if it is one with arithmetic; an error otherwise.
macro_rules! with_number {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {{
        macro_rules! go {
            ($t:ty) => {{
                type $T = $t;
                $body
            }};
        }
        match $dtype {
            $crate::DType::F32 => go!(f32),
            $crate::DType::F64 => go!(f64),
            $crate::DType::I8 => go!(i8),
            $crate::DType::I16 => go!(i16),
            $crate::DType::I32 => go!(i32),
            $crate::DType::I64 => go!(i64),
            $crate::DType::U8 => go!(u8),
            $crate::DType::U16 => go!(u16),
            $crate::DType::U32 => go!(u32),
            $crate::DType::U64 => go!(u64),
            other => Err($crate::TensorError::dtype($op, other, "has no arithmetic")),
        }
    }};
}

/// The same for f32 and f64 alone.
macro_rules! with_float {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {{
        macro_rules! go {
            ($t:ty) => {{
                type $T = $t;
                $body
            }};
        }
        match $dtype {
            $crate::DType::F32 => go!(f32),
            $crate::DType::F64 => go!(f64),
            other => Err($crate::TensorError::dtype($op, other, "is not a float")),
        }
    }};
}

pub(crate) use {with_float, with_number};
