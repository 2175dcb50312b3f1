//! Run-time-rank tensors, reverse-mode differentiation, and the CPU kernels that make training fast.
//!
//! A [`Tensor`] is a contiguous, row-major array of one [`DType`] with a shape known at run time. Every operation is a
//! method that returns a `Result`: nothing here panics on data. An operation whose inputs are tracked (descend from a
//! tensor on which [`Tensor::tracked`] was called) records itself, and [`Tensor::backward`] walks the record.
//! The crate knows nothing of ONNX.
//!
//! One topic a file: `dtype`, `buffer`, `tensor` (the type itself), `tape` (differentiation), and one file for each family of
//! operations; hand-written fast paths are under `kernels`, those for GPUs (feature `gpu`) under `gpu`.
mod activation;
mod attention;
mod batch_norm;
mod buffer;
mod cast;
mod compare;
mod context;
mod conv;
pub mod device;
mod dtype;
mod elementary;
mod elementwise;
mod error;
mod fake_quant;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod gradcheck;
mod index;
mod kernels;
mod loss;
mod map;
mod matmul;
pub mod memory;
mod mixed;
mod movement;
mod noise;
mod norm;
mod number;
mod optim;
mod parallel;
mod pool;
pub mod profile;
pub mod random;
mod recycle;
mod reduce;
pub mod shape;
mod small_float;
mod softmax;
mod strided;
mod tape;
#[allow(clippy::module_inception)]
mod tensor;
mod threads;
mod unary;
mod window;

pub use attention::AttentionOptions;
pub use batch_norm::Activation;
pub use buffer::{Buffer, Element};
pub use cast::{CastOptions, PowerRounding};
pub use context::Context;
pub use conv::ConvOptions;
pub use device::Device;
pub use dtype::DType;
pub use error::{Result, TensorError};
pub use index::{Reduction, Unique};
#[doc(hidden)]
pub use kernels::simd::HasAvx2;
pub use loss::{cross_entropy, distillation_loss, mse_loss};
pub use movement::PadMode;
pub use noise::SignalToNoise;
pub use optim::{AdamWOptions, SgdOptions, adamw_step, sgd_step, sum_squares};
pub use pool::PoolOptions;
pub use recycle::{keep_for_reuse, release_kept};
pub use tape::{Gradients, record, record_many, record_replay};
pub use tensor::Tensor;
pub use threads::set_threads;
pub use window::MAX_AXIS;

pub use half::{bf16, f16};
