//! Notes on the machine and the software, without anything that names the host.
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Instruction sets worth knowing of a processor.
const SETS: &[&str] = &["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "asimd", "sve"];

/// Processor, instruction sets, cores, memory, system, versions, date.
pub(super) fn notes(python: &Path) -> Value {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| info.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_once(':')).map(|(_, v)| v.trim());
    let flags: Vec<&str> = field("flags").or(field("Features")).unwrap_or_default().split_whitespace().collect();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")).map(|l| l.trim_end_matches("kB").trim().to_string());
    let versions = "import torch, onnxruntime, numpy, platform; print(platform.python_version(), torch.__version__, onnxruntime.__version__, numpy.__version__)";
    let peers = said(Command::new(python).args(["-c", versions]));
    let peers: Vec<&str> = peers.split_whitespace().collect();
    json!({
        "date": said(Command::new("date").args(["-u", "+%Y-%m-%d"])),
        "cpu": field("model name").unwrap_or("unknown"),
        "cpu_family": field("cpu family"),
        "cpu_model": field("model\t"),
        "instruction_sets": SETS.iter().filter(|s| flags.contains(s)).collect::<Vec<_>>(),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "memory_kb": kilobytes,
        "system": said(Command::new("uname").args(["-sm"])),
        "load_before": std::fs::read_to_string("/proc/loadavg").ok().and_then(|l| l.split(' ').next().map(str::to_string)),
        "rustc": said(Command::new("rustc").arg("--version")),
        "commit": said(Command::new("git").args(["describe", "--always", "--dirty"])),
        "python": peers.first(),
        "torch": peers.get(1),
        "onnxruntime": peers.get(2),
        "numpy": peers.get(3),
    })
}

/// A name for the machine that is not its host name: processor and cores.
pub(super) fn label(notes: &Value) -> String {
    let cpu: String = notes["cpu"].as_str().unwrap_or("cpu").to_lowercase();
    let words: Vec<&str> = cpu.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).take(3).collect();
    format!("{}-{}cores", words.join("-"), notes["cores"])
}

/// What a program prints, or nothing.
fn said(command: &mut Command) -> String {
    let out = command.output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string());
    out.unwrap_or_default()
}
