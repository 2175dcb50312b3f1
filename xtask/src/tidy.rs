//! The repository's own rules: allowed imports between crates, and forbidden contents of files.
use std::collections::BTreeMap;
use std::process::Command;

/// Allowed imports between our own crates; every edge not listed is an error.
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
    ("zoo", &["technique", "ops", "graph", "tensor"]),
    ("quantize", &["technique", "target", "train", "data", "encodings", "ops", "graph", "tensor"]),
    ("prune", &["technique", "train", "data", "encodings", "ops", "graph", "tensor"]),
    ("distill", &["technique", "train", "data", "encodings", "ops", "graph", "tensor"]),
    ("deploy", &["technique", "target", "onnx", "train", "data", "encodings", "ops", "graph", "tensor"]),
    ("report", &[]),
    ("unpack", &[]),
    ("pack", &["unpack", "onnx", "graph", "tensor"]),
    (
        "pipeline",
        &[
            "technique",
            "target",
            "files",
            "pack",
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
            "pack",
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
    ("fuzz", &["espalier", "pipeline", "pack", "unpack", "onnx", "deploy", "report", "train", "data", "ops", "graph", "tensor"]),
    ("test-support", &["pipeline", "report", "onnx", "graph"]),
    ("xtask", &[]),
];

/// Files outside `ops` that may name operators: patterns over several nodes, and what a runtime's kernels are called. Everywhere else
/// what follows from an operator is asked of it (`ops::find`), so that a new one needs no edit.
const MAY_NAME_OPERATORS: &[&str] = &[
    "crates/deploy/src/block_products.rs",
    "crates/deploy/src/float_form.rs",
    "crates/deploy/src/lift.rs",
    "crates/deploy/src/lower/bodies.rs",
    "crates/deploy/src/lower/rewrite.rs",
    "crates/deploy/src/placement.rs",
    "crates/deploy/src/table.rs",
    "crates/espalier/src/commands/init/mod.rs",
    "crates/espalier/src/commands/observe.rs",
    "crates/pipeline/src/actions/deploy.rs",
    "crates/quantize/src/masks.rs",
    "crates/quantize/src/plan.rs",
    "crates/quantize/src/scales.rs",
    "crates/target/src/integer_only.rs",
    "crates/target/src/onnxruntime.rs",
    "crates/train/src/prepare/bias.rs",
    "crates/train/src/prepare/float32.rs",
    "crates/train/src/prepare/fold.rs",
    "crates/train/src/trainer.rs",
    "crates/train/src/units.rs",
];

/// Crates that work with operators, or build graphs of them.
const OF_OPERATORS: &[&str] = &["ops", "onnx", "zoo", "fuzz"];

/// Names of encodings, which only `encodings` knows: others go by how a stored value decodes.
const ENCODINGS: &[&str] = &["\"affine\"", "\"codebook\"", "\"ternary\"", "\"binary\"", "\"power_of_two\"", "\"additive_power_of_two\""];

/// Text that identifies one machine.
const MACHINE_PATHS: &[&str] = &["/root/", "/home/", "/tmp/", "/opt/"];

/// Runs all rules and reports every violation.
pub(crate) fn run() -> Result<(), String> {
    let mut wrong = imports()?;
    wrong.extend(files()?);
    wrong.extend(names()?);
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
            // Tests may import more crates than the code they test.
            let shipped = dependency["kind"].as_str() != Some("dev");
            let to = short(dependency["name"].as_str().unwrap_or_default());
            if own && shipped && !allowed.contains(&to.as_str()) {
                wrong.push(format!("crate {name} imports {to}, which is against the directions in ARCHITECTURE.md"));
            }
        }
    }
    Ok(wrong)
}

/// Names of operators and encodings where they do not belong. Code after `#[cfg(test)]` is exempt.
fn names() -> Result<Vec<String>, String> {
    let mut wrong = vec![];
    for path in output("git", &["ls-files", "crates/*/src/*.rs"])?.lines() {
        let krate = path.split('/').nth(1).unwrap_or_default();
        let test = path.contains("/tests") || path.ends_with("testing.rs");
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (i, line) in shipped.lines().enumerate().filter(|(_, line)| !test && !line.contains("tidy: allow")) {
            if line.trim_start().starts_with("//") {
                continue;
            }
            if !OF_OPERATORS.contains(&krate) && !MAY_NAME_OPERATORS.contains(&path) && matches_operator(line) {
                wrong.push(format!("{path}:{}: matches an operator by its name; ask ops::find what is true of it", i + 1));
            }
            if !["encodings", "ops"].contains(&krate) && ENCODINGS.iter().any(|name| line.contains(name)) {
                wrong.push(format!("{path}:{}: names an encoding; go by how a stored value decodes", i + 1));
            }
        }
    }
    Ok(wrong)
}

/// True for a pattern or comparison with a name such as `"Conv"`.
fn matches_operator(line: &str) -> bool {
    let pieces: Vec<&str> = line.split('"').collect();
    let quoted = pieces.iter().enumerate().filter(|(i, _)| i % 2 == 1);
    quoted.into_iter().any(|(i, name)| {
        let operator =
            name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric()) && name.len() > 2;
        let behind = pieces.get(i + 1).map_or("", |rest| rest.trim_start());
        let before = pieces[i - 1].trim_end();
        let compared = line.contains("op_type") && (before.ends_with("==") || before.ends_with("!="));
        let pattern = (behind.starts_with("=>") || behind.starts_with("| ")) || (before.ends_with('|') && line.contains("op_type"));
        operator && (compared || pattern || (line.contains("matches!") && line.contains("op_type")))
    })
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
