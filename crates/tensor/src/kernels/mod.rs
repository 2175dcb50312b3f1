//! Hand-written fast paths, the one place where `unsafe` is allowed: each block says why it is sound.
pub(crate) mod gemm;
