//! `cargo xtask validate` runs the whole gate; `cargo xtask tidy` the repository's own rules alone; `cargo xtask bench`
//! measures against the peers; `cargo xtask fuzz` gives damaged files to every parser and the interpreter (docs/fuzzing.md).
mod bench;
mod tidy;

use std::process::{Command, ExitCode};
use std::time::Instant;

/// The gate, in the order in which it fails fastest. Training on a GPU would compile all crates once more for one test; it is
/// run by hand (CONTRIBUTING.md).
const GATE: &[(&str, &[&str], &[(&str, &str)])] = &[
    ("format", &["fmt", "--all", "--check"], &[]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], &[]),
    ("documentation", &["doc", "--workspace", "--no-deps", "--locked"], &[("RUSTDOCFLAGS", "-D warnings")]),
    ("tests", &["test", "--workspace", "--locked", "--no-fail-fast"], &[]),
    ("check with gpu", &["clippy", "--workspace", "--all-targets", "--features", "gpu", "--locked", "--", "-D", "warnings"], &[]),
    ("kernels on a gpu", &["test", "-p", "espalier-tensor", "--features", "gpu", "--locked", "--lib", "gpu::"], &[]),
];

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let result = match task.as_str() {
        "validate" => tidy::run().and_then(|()| GATE.iter().try_for_each(|(name, args, env)| cargo(name, args, env))),
        "tidy" => tidy::run(),
        "fuzz" => fuzz(std::env::args().skip(2)),
        "bench" => bench::run(&std::env::args().skip(2).collect::<Vec<_>>()),
        other => Err(format!("unknown task '{other}'; there are: validate, tidy, bench, fuzz")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("xtask: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Built as tests are: an overflow is then a panic.
fn fuzz(arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let arguments: Vec<String> = arguments.collect();
    let fixed = ["run", "-p", "espalier-fuzz", "--locked", "--"];
    cargo("fuzz", &fixed.into_iter().chain(arguments.iter().map(String::as_str)).collect::<Vec<_>>(), &[])
}

fn cargo(name: &str, args: &[&str], env: &[(&str, &str)]) -> Result<(), String> {
    println!("== {name}: cargo {}", args.join(" "));
    let start = Instant::now();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let status =
        Command::new(cargo).args(args).envs(env.iter().copied()).status().map_err(|e| format!("{name}: cargo does not start: {e}"))?;
    println!("== {name}: {:.0} s", start.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("{name} failed")) }
}
