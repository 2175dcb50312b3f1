//! Bytes of tensors that are alive, as one thread counts them: what it makes adds, what it drops subtracts. Scratch of
//! kernels and storage that waits for reuse do not count; elements count once, however many tensors share them. Elements on
//! a GPU do not count, copies of them on the processor do.
use std::cell::Cell;

/// Live bytes, and the most there were since [`watch_peak`].
type Count = (i64, i64);

thread_local! {
    static COUNT: Cell<Count> = const { Cell::new((0, 0)) };
}

/// Live bytes now. Negative where the thread dropped more than it made (tensors that came from other threads): only
/// differences mean something.
pub fn live() -> i64 {
    COUNT.get().0
}

/// The most live bytes since [`watch_peak`], on the same scale as [`live`].
pub fn peak() -> i64 {
    COUNT.get().1
}

/// Begins to watch the peak anew, from what is alive now.
pub fn watch_peak() {
    COUNT.set((live(), live()));
}

fn change(by: i64) {
    // A tensor that a thread drops while it ends is not counted.
    let _ = COUNT.try_with(|c| {
        let (live, peak) = c.get();
        c.set((live + by, peak.max(live + by)));
    });
}

/// Counts elements that were made.
pub(crate) fn made<T>(elements: &[T]) {
    change(size_of_val(elements) as i64);
}

/// Counts elements that nobody holds any more.
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
