//! Element types: every type an ONNX tensor can have, by ONNX's own names.
use std::fmt;

/// The type of a tensor's elements.
///
/// Types narrower than a byte are held one element a byte ([`DType::I4`], [`DType::U4`], [`DType::I2`],
/// [`DType::U2`]); 8-bit and 4-bit floats are held as their bits in a `u8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum DType {
    F32,
    F64,
    F16,
    BF16,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    F4E2M1,
    I2,
    I4,
    I8,
    I16,
    I32,
    I64,
    U2,
    U4,
    U8,
    U16,
    U32,
    U64,
    Bool,
    String,
    C64,
    C128,
}

impl DType {
    /// True for the types that gradients may flow through: f32, f64, f16, bf16.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }

    /// True for signed and unsigned integers of any width (not bool).
    pub fn is_int(self) -> bool {
        use DType::*;
        matches!(self, I2 | I4 | I8 | I16 | I32 | I64 | U2 | U4 | U8 | U16 | U32 | U64)
    }

    /// Width of one element in a file, in bits; 0 for strings, whose length varies.
    pub fn bits(self) -> usize {
        use DType::*;
        match self {
            I2 | U2 => 2,
            I4 | U4 | F4E2M1 => 4,
            F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | I8 | U8 | Bool => 8,
            F16 | BF16 | I16 | U16 => 16,
            F32 | I32 | U32 => 32,
            F64 | I64 | U64 | C64 => 64,
            C128 => 128,
            String => 0,
        }
    }

    /// ONNX's name of the type, lower case (`float`, `int64`, `bfloat16`, ...).
    pub fn name(self) -> &'static str {
        use DType::*;
        match self {
            F32 => "float",
            F64 => "double",
            F16 => "float16",
            BF16 => "bfloat16",
            F8E4M3FN => "float8e4m3fn",
            F8E4M3FNUZ => "float8e4m3fnuz",
            F8E5M2 => "float8e5m2",
            F8E5M2FNUZ => "float8e5m2fnuz",
            F8E8M0 => "float8e8m0",
            F4E2M1 => "float4e2m1",
            I2 => "int2",
            I4 => "int4",
            I8 => "int8",
            I16 => "int16",
            I32 => "int32",
            I64 => "int64",
            U2 => "uint2",
            U4 => "uint4",
            U8 => "uint8",
            U16 => "uint16",
            U32 => "uint32",
            U64 => "uint64",
            Bool => "bool",
            String => "string",
            C64 => "complex64",
            C128 => "complex128",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
