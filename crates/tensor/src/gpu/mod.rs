//! Tensors on a GPU, through `wgpu` (Vulkan, Metal, Direct3D 12).
//!
//! A tensor of f32 or bool may have its elements in a buffer of the device ([`DeviceData`]); they are copied to the CPU when they
//! are first read there, and the copy is counted under the operator that reads them. An operation with operands on the device
//! runs there if it has a kernel; convolutions, matrix products, normalizations and fake quantization copy their operands to the
//! device. Every function here returns `Ok(None)` if it does not apply, and the caller continues as if there were no device.
//!
//! One WGSL kernel a file; the Rust file of a family chooses the kernel and lays out its parameters. Commands are recorded
//! (`context`) and submitted many at a time; a buffer without references is reused for the next request of its size, which is
//! safe since the device runs commands in the order in which they were recorded.
mod batch_norm;
mod context;
mod elementwise;
mod fake_quant;
mod loss;
mod movement;
mod optim;
mod product;
mod reduce;
mod softmax;
mod storage;
#[cfg(test)]
mod tests;

pub(crate) use batch_norm::{Parts, batch_norm, batch_norm_train};
pub use context::open;
pub(crate) use context::{adapters, deselect, select, selected_name, synchronize};
pub(crate) use elementwise::{binary, compare, select_elements, slope, test, to_float, unary};
pub(crate) use fake_quant::{Grid, fake_quantize, fake_quantize_backward};
pub(crate) use loss::{cross_entropy, distillation_loss};
pub(crate) use movement::{concat, expand, pad, read_view, scatter_view};
pub(crate) use optim::{adamw_step, sgd_step, sum_squares};
pub(crate) use product::{conv_backward_data, conv_backward_weights, conv_forward, matmul};
pub(crate) use reduce::reduce;
pub(crate) use softmax::softmax;
pub(crate) use storage::{DeviceData, take_host_copies, to_device, within};

use std::cell::Cell;

thread_local! {
    /// This thread's choice in place of the process' choice.
    static HERE: Cell<Option<bool>> = const { Cell::new(None) };
}

/// True while operations go to the GPU.
#[inline]
pub(crate) fn active() -> bool {
    HERE.get().unwrap_or_else(context::selected)
}

/// Runs `work` with this thread's operations on the GPU that was [`open`]ed, or on the CPU, whatever the process chose. For tests
/// that compare the two.
pub fn scoped<R>(on_gpu: bool, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<bool>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HERE.set(self.0);
        }
    }
    let _restore = Restore(HERE.replace(Some(on_gpu)));
    work()
}
