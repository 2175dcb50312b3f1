//! The first cases of each target, so that fixed findings stay fixed. More of them: docs/fuzzing.md.
use std::process::Command;

#[test]
fn the_first_cases_of_each_target_find_nothing() {
    let folder = std::env::temp_dir().join(format!("espalier-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_espalier-fuzz"))
        .args(["--seconds", "340", "--cases", "1000", "--seed", "1"])
        .current_dir(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("no finding"), "{said}\nfiles: {}", folder.display());
    std::fs::remove_dir_all(&folder).unwrap();
}
