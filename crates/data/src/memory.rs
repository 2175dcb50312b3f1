//! Limits on the sizes that a file may announce.

/// Assumed free memory where the system does not tell.
const UNKNOWN: u64 = 4 << 30;

/// Bytes that arrays of one file may take: half of the memory that is free.
pub(crate) fn most() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map_or(UNKNOWN, |n| n.saturating_mul(1024) / 2)
}

/// Refuses an announced size that is too large.
///
/// # Errors
/// A sentence with both numbers.
pub(crate) fn check(announced: u64, most: u64) -> Result<(), String> {
    if announced > most {
        return Err(format!(
            "its header announces arrays that take {announced} bytes in memory, and at most {most} may be used for one file; data sets \
             that are larger can be read row by row from Parquet files or image folders"
        ));
    }
    Ok(())
}
