//! Runs one measured process: its time, its peak memory, and the figures that it prints.
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Interval between two readings of a process's memory. The kernel keeps the peak, so only a peak after the last reading is
/// missed.
const LOOK: Duration = Duration::from_millis(5);

/// Runs a process to its end. The result holds what it printed as JSON (without the envelope), `wall_seconds`, and
/// `peak_memory_bytes` where it did not print that itself.
pub(super) fn run(command: &mut Command, what: &str) -> Result<Value, String> {
    let out = tempfile(what)?;
    let err = tempfile(&format!("{what}.err"))?;
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.1)
        .stderr(err.1)
        .spawn()
        .map_err(|e| format!("{what}: {} does not start: {e}", command.get_program().to_string_lossy()))?;
    let mut peak = None;
    let status = loop {
        peak = peak_memory(child.id()).or(peak);
        match child.try_wait().map_err(|e| format!("{what}: {e}"))? {
            Some(status) => break status,
            None => std::thread::sleep(LOOK),
        }
    };
    let wall = began.elapsed().as_secs_f64();
    let read = |path| std::fs::read_to_string(path).map_err(|e| format!("{what}: {e}"));
    let (text, errors) = (read(&out.0)?, read(&err.0)?);
    if !status.success() {
        let last: Vec<&str> = errors.lines().chain(text.lines()).rev().take(12).collect();
        return Err(format!("{what} failed:\n  {}", last.into_iter().rev().collect::<Vec<_>>().join("\n  ")));
    }
    let mut figures = figures(&text).ok_or_else(|| format!("{what} printed no JSON"))?;
    figures["wall_seconds"] = json!(wall);
    if figures["peak_memory_bytes"].is_null() {
        figures["peak_memory_bytes"] = json!(peak);
    }
    Ok(figures)
}

/// A file below the target folder for a process's output: a full pipe without a reader would block it.
fn tempfile(name: &str) -> Result<(std::path::PathBuf, std::fs::File), String> {
    let path = super::scratch()?.join(format!("{}.txt", name.replace([' ', ',', '/'], "-")));
    let file = std::fs::File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok((path, file))
}

/// Our envelope's result, or the last line of a peer's output. A run's record is reduced to its measurements.
fn figures(text: &str) -> Option<Value> {
    let whole: Option<Value> = serde_json::from_str(text).ok();
    let printed = whole.or_else(|| serde_json::from_str(text.lines().last()?).ok())?;
    match printed.get("result") {
        Some(result) if result.get("stages").is_some() => Some(json!({ "stages_seconds": result["stages"][0]["seconds"] })),
        Some(result) => Some(result.clone()),
        None => printed.is_object().then_some(printed),
    }
}

/// Peak resident memory of a running process, where the system has `/proc`.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
