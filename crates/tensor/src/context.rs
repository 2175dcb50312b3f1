//! A device and threads for one piece of work, for programs that compute several things side by side.
use crate::{Device, Result, TensorError};
use std::fmt;

/// The device and the threads of one piece of work; no other work shares these threads. Code outside of any context uses the
/// process' device and threads ([`crate::device::select`], [`crate::set_threads`]).
///
/// ```
/// use espalier_tensor::{Context, Device, Tensor};
///
/// let one = Context::new(Device::Cpu, Some(1))?;
/// let sum = one.run(|| Tensor::new(vec![1f32, 2.0], [2])?.add(&Tensor::new(vec![3f32, 4.0], [2])?))?;
/// assert_eq!(sum.to_f32_vec()?, [4.0, 6.0]);
/// # Ok::<(), espalier_tensor::TensorError>(())
/// ```
pub struct Context {
    device: Device,
    threads: rayon::ThreadPool,
}

impl Context {
    /// `threads`: number of threads; `None`: one for each processor.
    ///
    /// # Errors
    /// [`TensorError::Unsupported`] for a GPU that does not exist, or if the process uses another one; a sentence if the system
    /// cannot start the threads.
    pub fn new(device: Device, threads: Option<usize>) -> Result<Self> {
        crate::device::open(device)?;
        let n = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n.max(1)).build();
        let threads = pool.map_err(|e| TensorError::value("context", format!("{n} threads cannot be started: {e}")))?;
        Ok(Context { device, threads })
    }

    /// The device that the context computes on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Number of threads of the context.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `work` in this context: on one of its threads, with its device.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.threads.install(|| crate::device::within(self.device, work))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({}, {} threads)", self.device, self.threads())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::random::uniform;

    #[test]
    fn contexts_side_by_side_have_their_own_threads_and_the_same_results() {
        let [x, w] = [uniform(1, &[257, 129], -1.0, 1.0), uniform(2, &[129, 301], -1.0, 1.0)].map(Result::unwrap);
        let product = |threads: usize| {
            let context = Context::new(Device::Cpu, Some(threads)).unwrap();
            context.run(|| (rayon::current_num_threads(), x.matmul(&w).unwrap().to_f32_vec().unwrap()))
        };
        let (one, three) = std::thread::scope(|s| {
            let (a, b) = (s.spawn(|| product(1)), s.spawn(|| product(3)));
            (a.join().unwrap(), b.join().unwrap())
        });
        assert_eq!((one.0, three.0), (1, 3));
        assert_eq!(one.1, three.1);
    }

    #[test]
    fn tensors_cross_threads() {
        fn send_and_sync<T: Send + Sync>() {}
        send_and_sync::<Tensor>();
        send_and_sync::<Context>();
    }
}
