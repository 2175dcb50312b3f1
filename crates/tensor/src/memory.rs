//! Bytes of live tensors, counted by thread: allocation adds, dropping subtracts. Scratch of kernels and storage kept for reuse
//! do not count; elements count once, however many tensors share them. Elements on a GPU do not count, their copies on the CPU
//! do.
//!
//! All threads together have a limit ([`set_limit`]): an operation that would exceed it is refused by name before it asks the
//! system, which would end the process.
use crate::{Result, TensorError, recycle, shape};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Live bytes, and the most there were since [`watch_peak`].
type Count = (i64, i64);

thread_local! {
    static COUNT: Cell<Count> = const { Cell::new((0, 0)) };
}

/// Live bytes of all threads.
static LIVE: AtomicI64 = AtomicI64::new(0);
/// Most live bytes of all threads; [`NONE`] for no limit.
static LIMIT: AtomicU64 = AtomicU64::new(NONE);
const NONE: u64 = u64::MAX;

/// Smaller requests, in bytes, do not release storage kept for reuse.
const SMALL: u64 = 1 << 20;

/// Live bytes now. Negative if the thread dropped more than it allocated (tensors from other threads): only differences have a
/// meaning.
pub fn live() -> i64 {
    COUNT.get().0
}

/// The most live bytes since [`watch_peak`], on the same scale as [`live`].
pub fn peak() -> i64 {
    COUNT.get().1
}

/// Restarts the peak from the present number of live bytes.
pub fn watch_peak() {
    COUNT.set((live(), live()));
}

/// Sets how many bytes the tensors of the whole process may take together, work space included (`None`: no limit, the initial
/// state), and returns the former limit.
pub fn set_limit(bytes: Option<u64>) -> Option<u64> {
    Some(LIMIT.swap(bytes.unwrap_or(NONE), Ordering::Relaxed)).filter(|b| *b != NONE)
}

/// Checks whether a tensor of shape `of` with elements of `T` fits under the limit; returns its number of elements. For code that
/// allocates the elements itself.
///
/// # Errors
/// [`TensorError::Shape`] for more than [`shape::MAX_ELEMENTS`] elements, [`TensorError::Memory`] where there is no room.
pub fn room<T>(op: &'static str, of: &[usize]) -> Result<usize> {
    room_of(op, size_of::<T>(), of)
}

/// [`room`] in elements of so many bytes.
pub(crate) fn room_of(op: &'static str, bytes: usize, of: &[usize]) -> Result<usize> {
    let n = shape::count(of)?;
    ask(op, (n as u64).saturating_mul(bytes as u64), || format!("a tensor of shape {of:?}"))?;
    Ok(n)
}

/// Bytes of each of the elements.
pub(crate) fn of_each<T>(_: &[T]) -> usize {
    size_of::<T>()
}

/// The same for `elements` of work space in each of `parts`.
pub(crate) fn work_space<T>(op: &'static str, elements: usize, parts: usize) -> Result<()> {
    let bytes = (elements as u64).saturating_mul((parts * size_of::<T>()) as u64);
    ask(op, bytes, || "work space".into())
}

fn ask(op: &'static str, needed: u64, what: impl Fn() -> String) -> Result<()> {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == NONE {
        return Ok(());
    }
    let left = limit.saturating_sub(LIVE.load(Ordering::Relaxed).max(0) as u64);
    if needed > left {
        return Err(TensorError::Memory { op, what: what(), needed, limit, left });
    }
    if needed >= SMALL {
        recycle::make_room(left - needed);
    }
    Ok(())
}

/// Tensors allocated outside of operations are counted too late for a check before; those beyond the limit are refused here.
///
/// # Errors
/// [`TensorError::Memory`].
pub(crate) fn within(op: &'static str) -> Result<()> {
    let (limit, live) = (LIMIT.load(Ordering::Relaxed), LIVE.load(Ordering::Relaxed).max(0) as u64);
    if live <= limit { Ok(()) } else { Err(TensorError::Memory { op, what: "all tensors".into(), needed: live, limit, left: 0 }) }
}

fn change(by: i64) {
    LIVE.fetch_add(by, Ordering::Relaxed);
    // A tensor that is dropped while its thread ends is not counted.
    let _ = COUNT.try_with(|c| {
        let (live, peak) = c.get();
        c.set((live + by, peak.max(live + by)));
    });
}

/// Counts allocated elements.
pub(crate) fn made<T>(elements: &[T]) {
    change(size_of_val(elements) as i64);
}

/// Counts dropped elements.
pub(crate) fn dropped<T>(elements: &[T]) {
    change(-(size_of_val(elements) as i64));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn shared_elements_count_once_and_copies_count() {
        let begin = live();
        watch_peak();
        let mut a = Tensor::vector(vec![0f32; 100]);
        let (b, c) = (a.clone(), a.reshape([10, 10]).unwrap());
        assert_eq!(live() - begin, 400);
        a.as_mut_slice::<f32>().unwrap()[0] = 1.0;
        assert_eq!(live() - begin, 800, "writing to shared elements copies them");
        a.as_mut_slice::<f32>().unwrap()[1] = 1.0;
        assert_eq!(live() - begin, 800, "own elements are written in place");
        drop((b, c));
        assert_eq!(live() - begin, 400);
        let again = Tensor::from_buffer(a.dtype(), a.buffer().clone(), a.shape()).unwrap();
        assert_eq!(live() - begin, 400, "the same storage under another tensor");
        drop(a);
        let v = again.into_vec::<f32>().unwrap();
        assert_eq!(live() - begin, 0, "a vector is no tensor");
        let whole = Tensor::vector(v);
        drop(whole);
        assert_eq!((live() - begin, peak() - begin), (0, 800));
    }
}
