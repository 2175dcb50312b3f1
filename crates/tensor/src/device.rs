//! The computing device. The CPU is always available; a GPU in builds with the feature `gpu` (see `gpu/`).
//!
//! A device is chosen once, at the program's start. Tensors stay values: an operation gives the same numbers (up to rounding)
//! wherever its operands are. Operations without a kernel on the device run on the CPU and are counted.
use crate::{Result, TensorError};
use std::fmt;
use std::str::FromStr;

/// A device to compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Device {
    /// The CPU, which is always available.
    #[default]
    Cpu,
    /// A GPU: the one of this number in `devices`, or the fastest.
    Gpu(Option<usize>),
}

impl FromStr for Device {
    type Err = TensorError;

    /// `cpu`, `gpu` or `gpu:N`.
    fn from_str(name: &str) -> Result<Self> {
        let number = |n: &str| n.parse().ok().map(|n| Device::Gpu(Some(n)));
        match name {
            "cpu" => Some(Device::Cpu),
            "gpu" => Some(Device::Gpu(None)),
            _ => name.strip_prefix("gpu:").and_then(number),
        }
        .ok_or_else(|| TensorError::value("device", format!("'{name}' is not a device: use cpu, gpu or gpu:N")))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Gpu(None) => f.write_str("gpu"),
            Device::Gpu(Some(n)) => write!(f, "gpu:{n}"),
        }
    }
}

/// The error for a GPU in a build without the feature.
#[cfg(not(feature = "gpu"))]
const NOT_BUILT: &str = "this program was built without GPU support: build it with --features gpu";

/// The GPUs of this machine, in the order of their numbers: name, kind and driver. None in builds without the feature.
pub fn gpus() -> Vec<String> {
    #[cfg(feature = "gpu")]
    return crate::gpu::adapters();
    #[cfg(not(feature = "gpu"))]
    vec![]
}

/// Chooses the device of the whole process from now on, and returns its name.
///
/// # Errors
/// [`TensorError::Unsupported`] for a GPU in a build without the feature `gpu`, where there is none, or where another one
/// was chosen before.
pub fn select(device: Device) -> Result<String> {
    match device {
        #[cfg(feature = "gpu")]
        Device::Gpu(number) => crate::gpu::select(number),
        #[cfg(not(feature = "gpu"))]
        Device::Gpu(_) => Err(TensorError::unsupported("device", NOT_BUILT)),
        Device::Cpu => {
            #[cfg(feature = "gpu")]
            crate::gpu::deselect();
            Ok("cpu".into())
        }
    }
}

/// Makes sure that a device can be used, without choosing it.
pub(crate) fn open(device: Device) -> Result<()> {
    match device {
        #[cfg(feature = "gpu")]
        Device::Gpu(number) => crate::gpu::open(number).map(drop),
        #[cfg(not(feature = "gpu"))]
        Device::Gpu(_) => Err(TensorError::unsupported("device", NOT_BUILT)),
        Device::Cpu => Ok(()),
    }
}

/// Runs `work` with this thread's operations on an opened device, whatever device was chosen.
pub(crate) fn within<R>(device: Device, work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "gpu")]
    return crate::gpu::scoped(device != Device::Cpu, work);
    #[cfg(not(feature = "gpu"))]
    {
        let _ = device;
        work()
    }
}

/// The name of the device: `cpu`, or the GPU's name.
pub fn selected() -> String {
    #[cfg(feature = "gpu")]
    if let Some(name) = crate::gpu::selected_name() {
        return name;
    }
    "cpu".into()
}

/// True while this thread's operations go to a GPU.
#[inline(always)]
pub fn is_gpu() -> bool {
    #[cfg(feature = "gpu")]
    return crate::gpu::active();
    #[cfg(not(feature = "gpu"))]
    false
}

/// Runs `work` with this thread's operations on the CPU, whatever device was chosen.
pub fn on_processor<R>(work: impl FnOnce() -> R) -> R {
    within(Device::Cpu, work)
}

/// Tensors copied from the device to the CPU since the last call: for each operator and direction (as in [`crate::profile`]),
/// their number and bytes.
pub fn take_host_copies() -> Vec<(String, u64, u64)> {
    #[cfg(feature = "gpu")]
    return crate::gpu::take_host_copies();
    #[cfg(not(feature = "gpu"))]
    vec![]
}

/// Waits until the device has finished all recorded work. Timings need it: a kernel's call returns as soon as it is recorded.
///
/// # Errors
/// [`TensorError::Value`] if the device failed.
pub fn synchronize() -> Result<()> {
    #[cfg(feature = "gpu")]
    return crate::gpu::synchronize();
    #[cfg(not(feature = "gpu"))]
    Ok(())
}

impl crate::Tensor {
    /// True if its elements are on the device, so that kernels there avoid a copy.
    #[inline(always)]
    pub fn on_device(&self) -> bool {
        #[cfg(feature = "gpu")]
        return crate::gpu::active() && self.device.is_some();
        #[cfg(not(feature = "gpu"))]
        false
    }
}

/// Returns from the function with the device's result, if there is one (`Ok(Some(..))`); nothing in builds without the feature.
macro_rules! on_device {
    ($device:expr) => {
        #[cfg(feature = "gpu")]
        if crate::gpu::active()
            && let Some(done) = $device?
        {
            return Ok(done);
        }
    };
}

/// The device's result, if there is one, else the second expression.
macro_rules! device_or {
    ($device:expr, $host:expr) => {{
        #[cfg(feature = "gpu")]
        let value = match if crate::gpu::active() { $device? } else { None } {
            Some(done) => done,
            None => $host,
        };
        #[cfg(not(feature = "gpu"))]
        let value = $host;
        value
    }};
}
pub(crate) use {device_or, on_device};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in ["cpu", "gpu", "gpu:1"] {
            assert_eq!(name.parse::<Device>().unwrap().to_string(), name);
        }
        assert!("tpu".parse::<Device>().unwrap_err().to_string().contains("'tpu'"));
    }

    #[cfg(not(feature = "gpu"))]
    #[test]
    fn a_build_without_gpu_says_so() {
        assert!(select(Device::Gpu(None)).unwrap_err().to_string().contains("--features gpu"));
        assert!(gpus().is_empty());
    }
}
