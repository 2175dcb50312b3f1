//! Hand-written fast paths, the one place where `unsafe` is allowed: each block says why it is sound.
pub(crate) mod conv;
pub(crate) mod gemm;
pub(crate) mod scratch;
pub(crate) mod simd;
