//! Calling the program.
use std::path::PathBuf;
use std::process::{Command, Output};

/// The program, without colours and without a terminal's width.
pub(crate) fn espalier(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_espalier"));
    command.args(arguments).env("NO_COLOR", "1").env_remove("COLUMNS");
    command
}

/// The output: exit code, stdout, stderr.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    parts(espalier(arguments).output().expect("the program starts"))
}

pub(crate) fn parts(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// The digits that come with the repository.
pub(crate) fn digits() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../recipes/data")
}
