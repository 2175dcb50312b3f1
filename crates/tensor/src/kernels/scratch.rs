//! Work space that a thread keeps between calls.
use super::pages;
use std::cell::RefCell;

/// Elements of a cache line: each buffer starts at one, so that whole vectors of packed data never cross two.
const LINE: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(vec![]) };
}

/// Runs `f` with `len` f32 of undefined value. Nested calls get separate buffers.
pub(crate) fn with<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < len + LINE {
        buffer = pages::zeros(len + LINE);
    }
    // A pointer that cannot be aligned (as in Miri) is used as it is.
    let skip = Some(buffer.as_ptr().align_offset(LINE * size_of::<f32>())).filter(|s| *s < LINE).unwrap_or(0);
    let result = f(&mut buffer[skip..skip + len]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}
