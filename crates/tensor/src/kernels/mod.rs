//! Hand-written fast paths, the only modules with `unsafe`: each block states why it is sound.
// Register tiles are arrays indexed by small constant ranges, in step with pointers that are no slices.
#![allow(clippy::needless_range_loop)]

pub(crate) mod attention;
pub(crate) mod batch_norm;
pub(crate) mod conv;
pub(crate) mod gemm;
pub(crate) mod layer_norm;
pub(crate) mod pages;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod scratch;
pub(crate) mod simd;
pub(crate) mod transpose;
