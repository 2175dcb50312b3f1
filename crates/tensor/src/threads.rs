//! The threads that compute.

/// Requests a number of threads (`None`: `RAYON_NUM_THREADS`, else one for each processor) and returns the actual number: the
/// first request or computation in a process decides.
///
/// The calling thread becomes one of them, so call it from the thread that will train or score: it then takes part in the
/// computation instead of sleeping until each operation is done.
pub fn set_threads(wanted: Option<usize>) -> usize {
    let from_environment = || std::env::var("RAYON_NUM_THREADS").ok()?.parse().ok().filter(|n: &usize| *n > 0);
    let n = wanted.or_else(from_environment).unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let mut pool = rayon::ThreadPoolBuilder::new().num_threads(n);
    // A pool with this thread alone would have no thread for other threads' work while this one waits for them.
    if n > 1 {
        pool = pool.use_current_thread();
    }
    // It fails if the threads exist already; the returned count tells.
    pool.build_global().ok();
    rayon::current_num_threads()
}
