//! The threads that compute.

/// Asks for a number of threads (`None`: one for each processor) and returns what there are: whoever computes or asks
/// first in a process decides for all of it.
pub fn set_threads(wanted: Option<usize>) -> usize {
    if let Some(n) = wanted {
        // It fails where the threads are there already; the count that is returned tells.
        rayon::ThreadPoolBuilder::new().num_threads(n).build_global().ok();
    }
    rayon::current_num_threads()
}
