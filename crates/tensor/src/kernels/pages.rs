//! Large pages for large storage. A kernel that works channel by channel touches another page every few hundred bytes; with pages
//! of 4 KiB it waits for the address translation as long as for the data. Linux provides larger pages on request.

/// Smaller storage uses normal pages, in elements (1 MiB).
#[cfg(target_os = "linux")]
const SMALLEST: usize = 1 << 18;

/// A vector of zeros, on large pages where it is large and the system has them.
pub(crate) fn zeros(len: usize) -> Vec<f32> {
    let v = vec![0.0; len];
    #[cfg(target_os = "linux")]
    if len >= SMALLEST {
        let page = rustix::param::page_size();
        let (at, bytes) = (v.as_ptr() as usize, size_of_val(v.as_slice()));
        let first = at.next_multiple_of(page);
        let whole = (at + bytes).saturating_sub(first) / page * page;
        // SAFETY: the whole pages between `first` and the end belong to the vector alone, and the advice changes neither
        // their contents nor what may be done with them. A refusal leaves pages as they were.
        let _ = unsafe { rustix::mm::madvise((v.as_ptr() as *mut u8).add(first - at).cast(), whole, rustix::mm::Advice::LinuxHugepage) };
    }
    v
}
