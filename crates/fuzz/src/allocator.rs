//! The allocator of the workers: it counts the bytes in use, and refuses requests beyond a limit. The code that made such a
//! request is written to stderr.
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most bytes in use at once, while the limit is on.
pub(crate) const MOST: usize = 1 << 30;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static BOUNDED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Set while the place of a request is looked up, which itself allocates.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Counts, and forwards to the system's allocator.
pub(crate) struct Bounded;

/// From here on requests beyond [`MOST`] fail.
pub(crate) fn bound() {
    BOUNDED.store(true, Ordering::Relaxed);
}

/// Most bytes that were in use at once.
pub(crate) fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// Bytes in use.
pub(crate) fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

fn take(bytes: usize) -> bool {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
    if held > MOST && BOUNDED.load(Ordering::Relaxed) && !TELLING.with(Cell::get) {
        HELD.fetch_sub(bytes, Ordering::Relaxed);
        TELLING.with(|t| t.set(true));
        tell(bytes);
        TELLING.with(|t| t.set(false));
        return false;
    }
    PEAK.fetch_max(held, Ordering::Relaxed);
    true
}

/// The innermost functions of this workspace on the stack.
fn tell(bytes: usize) {
    let trace = std::backtrace::Backtrace::force_capture().to_string();
    let names = trace.lines().filter(|l| l.contains("espalier_") && !l.contains("espalier_fuzz"));
    let mut ours: Vec<&str> = names.map(|l| l.trim().split_once(": ").map_or(l, |(_, name)| name)).collect();
    ours.dedup();
    ours.truncate(2);
    eprintln!("over: {bytes} bytes asked for by {}", if ours.is_empty() { "unknown".to_string() } else { ours.join(" < ") });
}

// SAFETY: every request goes to the system's allocator unchanged, or fails with a null pointer, as the trait allows.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > layout.size() && !take(size - layout.size()) {
            return std::ptr::null_mut();
        }
        if size < layout.size() {
            HELD.fetch_sub(layout.size() - size, Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}
