//! `--device`: choosing and listing devices.
use super::Entry;
use crate::Result;
use tensor::{Device, device};

/// Chooses the device that computes from now on, for the whole process: `cpu`, `gpu` (the fastest) or `gpu:N`. Returns its name.
///
/// # Errors
/// [`crate::Error::Tensor`] for a name that is no device, and for a GPU where the program was built without the feature `gpu` or
/// the machine has none of that number.
pub fn select_device(name: &str) -> Result<String> {
    Ok(device::select(name.parse::<Device>()?)?)
}

/// The devices of this machine.
pub(super) fn devices() -> Vec<Entry> {
    let gpus = device::gpus().into_iter().enumerate().map(|(i, summary)| Entry { name: format!("gpu:{i}"), summary });
    let summary = match cfg!(feature = "gpu") {
        true => "The processor",
        false => "The processor; GPUs are left out of this build (cargo feature gpu)",
    };
    std::iter::once(Entry { name: "cpu".into(), summary: summary.into() }).chain(gpus).collect()
}
