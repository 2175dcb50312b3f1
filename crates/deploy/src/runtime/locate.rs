//! Places where the ONNX Runtime shared library may be.
use std::path::{Path, PathBuf};

/// Environment variables that name the library, or a folder with it; asked in this order.
pub(super) const VARIABLES: [&str; 2] = ["ORT_DYLIB_PATH", "ESPALIER_ORT"];

/// Folder that `scripts/fetch_onnxruntime.sh` fills, relative to the working directory.
pub(super) const FETCHED: &str = ".espalier/onnxruntime";

/// Files that may be the library, best first. If a variable is set, no other place is searched: loading another library than the
/// one named would hide a mistake.
pub(super) fn candidates() -> Vec<PathBuf> {
    for variable in VARIABLES {
        if let Some(path) = std::env::var_os(variable).filter(|v| !v.is_empty()) {
            let path = PathBuf::from(path);
            return if path.is_dir() { libraries_in(&path) } else { vec![path] };
        }
    }
    let mut folders = vec![PathBuf::from(FETCHED)];
    folders.extend(user_folder());
    if let Some(dir) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        folders.push(dir.to_path_buf());
        folders.push(dir.join("../lib"));
    }
    // Where package managers put libraries on Linux and macOS.
    let usual = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/opt/homebrew/lib"]; // tidy: allow
    folders.extend(usual.map(PathBuf::from));
    folders.push(PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH)));
    folders.iter().flat_map(|f| libraries_in(f)).collect()
}

/// The user's own folder for the library, which `espalier runtime fetch` fills.
pub fn user_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| set("LOCALAPPDATA")).or_else(|| Some(set("HOME")?.join(".local/share")))?;
    Some(data.join("espalier/onnxruntime"))
}

/// The library under each of its usual names (`libonnxruntime.so`, `libonnxruntime.so.1.32.0`, `onnxruntime.dll`, ...),
/// newest name first; not the helper libraries beside it (`libonnxruntime_providers_shared.so`).
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let stem = format!("{}onnxruntime.", std::env::consts::DLL_PREFIX);
    let mut found: Vec<PathBuf> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&stem) && is_library(n)))
        .collect();
    found.sort();
    found.reverse();
    found
}

fn is_library(name: &str) -> bool {
    name.contains(std::env::consts::DLL_SUFFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_library_itself_is_taken_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let suffix = std::env::consts::DLL_SUFFIX;
        let prefix = std::env::consts::DLL_PREFIX;
        for name in [
            format!("{prefix}onnxruntime{suffix}.1.24.0"),
            format!("{prefix}onnxruntime{suffix}.1.32.0"),
            format!("{prefix}onnxruntime_providers_shared{suffix}"),
            "onnxruntime.txt".to_string(),
        ] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let names: Vec<String> = libraries_in(dir.path()).iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, [format!("{prefix}onnxruntime{suffix}.1.32.0"), format!("{prefix}onnxruntime{suffix}.1.24.0")]);
        assert!(libraries_in(&dir.path().join("absent")).is_empty());
    }
}
