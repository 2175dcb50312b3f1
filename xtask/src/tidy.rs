//! The repository's own rules: who may import whom, and what no committed file may hold.
use std::collections::BTreeMap;
use std::process::Command;

/// Who may import whom among our own crates; every edge not listed is an error.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("files", &[]),
    ("technique", &[]),
    ("tensor", &[]),
    ("graph", &["tensor"]),
    ("onnx", &["files", "graph", "tensor"]),
    ("ops", &["graph", "tensor"]),
    ("target", &["technique", "ops", "graph", "tensor"]),
    ("encodings", &["technique", "graph", "tensor"]),
    ("data", &["files", "tensor"]),
    ("train", &["technique", "files", "ops", "encodings", "graph", "tensor", "data"]),
    ("zoo", &["ops", "graph", "tensor"]),
    ("quantize", &["technique", "target", "train", "data", "encodings", "ops", "graph", "tensor"]),
    ("prune", &["technique", "train", "data", "encodings", "ops", "graph", "tensor"]),
    ("distill", &["technique", "train", "data", "encodings", "ops", "graph", "tensor"]),
    ("deploy", &["technique", "target", "onnx", "train", "data", "encodings", "ops", "graph", "tensor"]),
    ("report", &[]),
    (
        "pipeline",
        &[
            "technique",
            "target",
            "files",
            "onnx",
            "deploy",
            "report",
            "zoo",
            "quantize",
            "prune",
            "distill",
            "train",
            "data",
            "encodings",
            "ops",
            "graph",
            "tensor",
        ],
    ),
    (
        "espalier",
        &[
            "technique",
            "target",
            "files",
            "pipeline",
            "onnx",
            "deploy",
            "report",
            "zoo",
            "quantize",
            "prune",
            "distill",
            "train",
            "data",
            "encodings",
            "ops",
            "graph",
            "tensor",
        ],
    ),
    ("cli", &["espalier"]),
    ("fuzz", &["espalier", "pipeline", "onnx", "deploy", "report", "train", "data", "ops", "graph", "tensor"]),
    ("xtask", &[]),
];

/// Text that betrays one machine.
const MACHINE_PATHS: &[&str] = &["/root/", "/home/", "/tmp/", "/opt/"];

/// Runs all rules and reports every violation.
pub(crate) fn run() -> Result<(), String> {
    let mut wrong = imports()?;
    wrong.extend(files()?);
    if wrong.is_empty() {
        println!("== tidy: imports and files are in order");
        return Ok(());
    }
    Err(format!("tidy:\n  {}", wrong.join("\n  ")))
}

fn output(program: &str, args: &[&str]) -> Result<String, String> {
    let out = Command::new(program).args(args).output().map_err(|e| format!("{program} does not start: {e}"))?;
    if !out.status.success() {
        return Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr)));
    }
    String::from_utf8(out.stdout).map_err(|e| format!("{program}: {e}"))
}

fn imports() -> Result<Vec<String>, String> {
    let metadata = output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--locked"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).map_err(|e| format!("cargo metadata: {e}"))?;
    let short = |name: &str| name.strip_prefix("espalier-").unwrap_or(name).to_string();
    let rules: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = vec![];
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = short(package["name"].as_str().unwrap_or_default());
        let Some(allowed) = rules.get(name.as_str()) else {
            wrong.push(format!("crate {name} has no rule in xtask/src/tidy.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let own = dependency["path"].is_string();
            // Tests may reach further than the code they test.
            let shipped = dependency["kind"].as_str() != Some("dev");
            let to = short(dependency["name"].as_str().unwrap_or_default());
            if own && shipped && !allowed.contains(&to.as_str()) {
                wrong.push(format!("crate {name} imports {to}, which is against the directions in ARCHITECTURE.md"));
            }
        }
    }
    Ok(wrong)
}

fn files() -> Result<Vec<String>, String> {
    let mut wrong = vec![];
    for path in output("git", &["ls-files"])?.lines() {
        if path == "xtask/src/tidy.rs" || path.starts_with("LICENSE") {
            continue;
        }
        let Ok(bytes) = std::fs::read(path) else { continue };
        if bytes.len() > 2 << 20 {
            wrong.push(format!("{path} has {} kB: large files do not belong in the repository", bytes.len() / 1024));
        }
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        for (i, line) in text.lines().enumerate() {
            if MACHINE_PATHS.iter().any(|p| line.contains(p)) && !line.contains("tidy: allow") {
                wrong.push(format!("{path}:{}: holds a path of one machine", i + 1));
            }
        }
    }
    Ok(wrong)
}
