//! The machine and the software, for the record.
use report::record::Environment;

/// Facts about this machine, with the number of threads that compute.
pub fn environment(threads: usize) -> Environment {
    Environment {
        espalier: env!("CARGO_PKG_VERSION").to_string(),
        cpu: cpu().unwrap_or_else(|| "unknown".to_string()),
        threads,
        os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        runtimes: Default::default(),
    }
}

/// The processor's model name, where the system tells it in a file.
fn cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}
