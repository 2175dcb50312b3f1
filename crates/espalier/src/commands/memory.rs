//! `--memory-limit`: the limit on the memory of tensors.
use std::path::{Path, PathBuf};

/// The default limit as a share of the machine's memory. The rest is for work space, files, other runtimes and other programs.
const SHARE: f64 = 0.8;

/// Sets how many bytes the tensors of the whole process may take together. Without a number it is four fifths of the memory that
/// the machine, or the container, has; where the system does not tell, there is no limit. An operation that needs more is refused
/// by name instead of ending the process. Returns the limit.
pub fn limit_memory(bytes: Option<u64>) -> Option<u64> {
    let limit = bytes.or_else(|| Some((machine()? as f64 * SHARE) as u64));
    tensor::memory::set_limit(limit);
    limit
}

/// Bytes of memory that this process can use: the machine's, or its container's. Only Linux tells.
fn machine() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let all = total(&read(Path::new("/proc/meminfo"))?)?;
    let own = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    Some(limit_files(&own).iter().filter_map(|file| read(file)?.trim().parse::<u64>().ok()).fold(all, u64::min))
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let kilobytes = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?.trim().strip_suffix("kB")?.trim();
    kilobytes.parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that may hold a limit of control groups, from `/proc/self/cgroup`: of the process's group and of all groups above
/// it.
fn limit_files(own: &str) -> Vec<PathBuf> {
    let mut files = vec![];
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers.split(',').any(|c| c == "memory") {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false if controllers.is_empty() => ("/sys/fs/cgroup", "memory.max"),
            false => continue,
        };
        let group = Path::new(root).join(path.trim_start_matches('/'));
        files.extend(group.ancestors().take_while(|g| g.starts_with(root)).map(|g| g.join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_the_system_writes() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree:  12 kB\n"), Some(16 << 20));
        assert_eq!(total("MemFree: 12 kB\n"), None);
        let files = limit_files("12:cpu,memory:/job\n3:pids:/other\n0::/user/slice\n");
        let names: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
        assert_eq!(
            names,
            [
                "/sys/fs/cgroup/memory/job/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/user/slice/memory.max",
                "/sys/fs/cgroup/user/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
    }
}
