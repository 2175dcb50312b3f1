//! Element types in files, and elements as bytes.
use half::{bf16, f16};
use std::sync::Arc;
use tensor::{Buffer, DType, Tensor};

pub(crate) fn from_number(number: i64) -> Result<DType, String> {
    graph::dtype_of_code(number).ok_or_else(|| format!("element type {number} is not supported"))
}

pub(crate) use graph::code_of_dtype as number;

/// Bytes that `count` elements take in a file.
pub(crate) fn packed_len(dtype: DType, count: usize) -> Option<usize> {
    count.checked_mul(dtype.bits())?.checked_add(7).map(|bits| bits / 8)
}

/// Elements from a file's little-endian bytes; `raw` has exactly the length of [`packed_len`].
pub(crate) fn from_bytes(dtype: DType, raw: &[u8], shape: Vec<usize>, count: usize) -> Result<Tensor, String> {
    macro_rules! read {
        ($variant:ident, $ty:ty, $n:literal) => {
            Buffer::$variant(Arc::new(raw.chunks_exact($n).map(|b| <$ty>::from_le_bytes(std::array::from_fn(|i| b[i]))).collect()))
        };
    }
    let buffer = match dtype {
        DType::F32 => read!(F32, f32, 4),
        DType::F64 => read!(F64, f64, 8),
        DType::F16 => read!(F16, f16, 2),
        DType::BF16 => read!(BF16, bf16, 2),
        DType::I8 => Buffer::I8(Arc::new(raw.iter().map(|b| *b as i8).collect())),
        DType::I16 => read!(I16, i16, 2),
        DType::I32 => read!(I32, i32, 4),
        DType::I64 => read!(I64, i64, 8),
        DType::U16 => read!(U16, u16, 2),
        DType::U32 => read!(U32, u32, 4),
        DType::U64 => read!(U64, u64, 8),
        DType::Bool => Buffer::Bool(Arc::new(raw.iter().map(|b| *b != 0).collect())),
        DType::U8 | DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 => {
            Buffer::U8(Arc::new(raw.to_vec()))
        }
        DType::U4 | DType::F4E2M1 | DType::U2 => Buffer::U8(Arc::new(unpack(raw, dtype.bits(), count))),
        DType::I4 | DType::I2 => {
            let spare = 8 - dtype.bits() as u32;
            Buffer::I8(Arc::new(unpack(raw, dtype.bits(), count).into_iter().map(|v| (v << spare) as i8 >> spare).collect()))
        }
        DType::C64 => {
            let parts: Vec<f32> = raw.chunks_exact(4).map(|b| f32::from_le_bytes(std::array::from_fn(|i| b[i]))).collect();
            Buffer::C64(Arc::new(parts.chunks_exact(2).map(|p| [p[0], p[1]]).collect()))
        }
        DType::C128 => {
            let parts: Vec<f64> = raw.chunks_exact(8).map(|b| f64::from_le_bytes(std::array::from_fn(|i| b[i]))).collect();
            Buffer::C128(Arc::new(parts.chunks_exact(2).map(|p| [p[0], p[1]]).collect()))
        }
        DType::String => return Err("strings are not stored as raw bytes".into()),
    };
    Tensor::from_buffer(dtype, buffer, shape).map_err(|e| e.to_string())
}

/// Sub-byte elements, the first in the lowest bits.
fn unpack(raw: &[u8], bits: usize, count: usize) -> Vec<u8> {
    let per_byte = 8 / bits;
    (0..count).map(|i| raw[i / per_byte] >> (i % per_byte * bits) & ((1 << bits) - 1)).collect()
}

fn pack(values: impl Iterator<Item = u8>, bits: usize, count: usize) -> Vec<u8> {
    let per_byte = 8 / bits;
    let mut out = vec![0u8; count.div_ceil(per_byte)];
    for (i, v) in values.enumerate() {
        out[i / per_byte] |= (v & ((1 << bits) - 1)) << (i % per_byte * bits);
    }
    out
}

/// A tensor's little-endian bytes as a file holds them; `None` for strings.
pub(crate) fn to_bytes(t: &Tensor) -> Option<Vec<u8>> {
    let bits = t.dtype().bits();
    Some(match t.buffer() {
        Buffer::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::BF16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::I8(v) if bits < 8 => pack(v.iter().map(|x| *x as u8), bits, v.len()),
        Buffer::I8(v) => v.iter().map(|x| *x as u8).collect(),
        Buffer::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::U8(v) if bits < 8 => pack(v.iter().copied(), bits, v.len()),
        Buffer::U8(v) => v.as_ref().clone(),
        Buffer::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::Bool(v) => v.iter().map(|x| u8::from(*x)).collect(),
        Buffer::C64(v) => v.iter().flatten().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::C128(v) => v.iter().flatten().flat_map(|x| x.to_le_bytes()).collect(),
        Buffer::String(_) => return None,
    })
}
