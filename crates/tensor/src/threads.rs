//! The threads that compute.

/// Asks for a number of threads (`None`: `RAYON_NUM_THREADS`, else one for each processor) and returns what there are:
/// whoever computes or asks first in a process decides for all of it.
///
/// The calling thread becomes one of them, so call it from the thread that will train or score: it then computes along
/// instead of handing each operation over and sleeping until it is done.
pub fn set_threads(wanted: Option<usize>) -> usize {
    let from_environment = || std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|n: &usize| *n > 0);
    let n = wanted.or_else(from_environment).unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let mut pool = rayon::ThreadPoolBuilder::new().num_threads(n);
    // A pool of this thread alone would leave nobody to serve other threads' work while this one waits for them.
    if n > 1 {
        pool = pool.use_current_thread();
    }
    // It fails where the threads are there already; the count that is returned tells.
    pool.build_global().ok();
    rayon::current_num_threads()
}
