//! The storage of a tensor: a shared vector of one Rust element type.
use crate::DType;
use half::{bf16, f16};
use std::sync::Arc;

/// Shared elements. Sub-byte integers are one element a byte; 8- and 4-bit floats are their bits.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Buffer {
    F32(Arc<Vec<f32>>),
    F64(Arc<Vec<f64>>),
    F16(Arc<Vec<f16>>),
    BF16(Arc<Vec<bf16>>),
    I8(Arc<Vec<i8>>),
    I16(Arc<Vec<i16>>),
    I32(Arc<Vec<i32>>),
    I64(Arc<Vec<i64>>),
    U8(Arc<Vec<u8>>),
    U16(Arc<Vec<u16>>),
    U32(Arc<Vec<u32>>),
    U64(Arc<Vec<u64>>),
    Bool(Arc<Vec<bool>>),
    String(Arc<Vec<String>>),
    C64(Arc<Vec<[f32; 2]>>),
    C128(Arc<Vec<[f64; 2]>>),
}

/// A Rust type that a tensor's elements can have.
pub trait Element: Clone + Send + Sync + PartialEq + std::fmt::Debug + 'static {
    /// The tensor type that corresponds directly to this Rust type.
    const DTYPE: DType;
    /// Wraps a vector.
    fn wrap(data: Arc<Vec<Self>>) -> Buffer;
    /// The vector, if the buffer holds this type.
    fn peek(buffer: &Buffer) -> Option<&Arc<Vec<Self>>>;
    /// The vector for writing, if the buffer holds this type.
    fn peek_mut(buffer: &mut Buffer) -> Option<&mut Arc<Vec<Self>>>;
}

macro_rules! element {
    ($($ty:ty, $variant:ident, $dtype:ident;)*) => {
        $(impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
            fn wrap(data: Arc<Vec<Self>>) -> Buffer { Buffer::$variant(data) }
            fn peek(buffer: &Buffer) -> Option<&Arc<Vec<Self>>> {
                if let Buffer::$variant(v) = buffer { Some(v) } else { None }
            }
            fn peek_mut(buffer: &mut Buffer) -> Option<&mut Arc<Vec<Self>>> {
                if let Buffer::$variant(v) = buffer { Some(v) } else { None }
            }
        })*
        impl Buffer {
            /// Number of elements.
            pub fn len(&self) -> usize {
                match self { $(Buffer::$variant(v) => v.len(),)* }
            }
            /// True if there is no element.
            pub fn is_empty(&self) -> bool { self.len() == 0 }
        }
    };
}
element! {
    f32, F32, F32; f64, F64, F64; f16, F16, F16; bf16, BF16, BF16;
    i8, I8, I8; i16, I16, I16; i32, I32, I32; i64, I64, I64;
    u8, U8, U8; u16, U16, U16; u32, U32, U32; u64, U64, U64;
    bool, Bool, Bool; String, String, String; [f32; 2], C64, C64; [f64; 2], C128, C128;
}

/// Runs `$body` with `$v` bound to the `Arc<Vec<T>>` inside, whatever `T` is: for code that only moves elements.
#[macro_export]
macro_rules! with_buffer {
    ($buffer:expr, $v:ident => $body:expr) => {
        match $buffer {
            $crate::Buffer::F32($v) => $body,
            $crate::Buffer::F64($v) => $body,
            $crate::Buffer::F16($v) => $body,
            $crate::Buffer::BF16($v) => $body,
            $crate::Buffer::I8($v) => $body,
            $crate::Buffer::I16($v) => $body,
            $crate::Buffer::I32($v) => $body,
            $crate::Buffer::I64($v) => $body,
            $crate::Buffer::U8($v) => $body,
            $crate::Buffer::U16($v) => $body,
            $crate::Buffer::U32($v) => $body,
            $crate::Buffer::U64($v) => $body,
            $crate::Buffer::Bool($v) => $body,
            $crate::Buffer::String($v) => $body,
            $crate::Buffer::C64($v) => $body,
            $crate::Buffer::C128($v) => $body,
        }
    };
}
