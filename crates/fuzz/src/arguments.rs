//! The command line of the supervisor and of its workers.
use std::path::PathBuf;

const USAGE: &str =
    "usage: cargo xtask fuzz [--seconds N] [--cases N] [--seed S] [--target NAME]... [--case NAME:NUMBER] [--findings DIR] [--list]";

/// The role of this process.
pub(crate) enum Job {
    /// Starts the workers and counts.
    Supervise,
    /// Runs cases of one target, from a number on.
    Work { target: String, from: u64 },
    /// Runs one case and keeps its files.
    Once { target: String, number: u64 },
    /// Prints the names of the targets.
    List,
}

/// What the command line asked for.
pub(crate) struct Arguments {
    pub(crate) job: Job,
    /// Seconds for all targets together.
    pub(crate) seconds: f64,
    /// Most cases of each target.
    pub(crate) cases: u64,
    pub(crate) seed: u64,
    /// The targets; empty: all.
    pub(crate) targets: Vec<String>,
    /// Folder for the files of findings.
    pub(crate) findings: PathBuf,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let findings = PathBuf::from("target").join("fuzz");
        let mut a = Arguments { job: Job::Supervise, seconds: 60.0, cases: u64::MAX, seed: 1, targets: vec![], findings };
        while let Some(word) = words.next() {
            if word == "--list" {
                a.job = Job::List;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{word} {value}: not a whole number\n{USAGE}"));
            match word.as_str() {
                "--seconds" => a.seconds = value.parse().map_err(|_| format!("{word} {value}: not a number\n{USAGE}"))?,
                "--cases" => a.cases = number()?,
                "--seed" => a.seed = number()?,
                "--target" => a.targets.push(value),
                "--findings" => a.findings = PathBuf::from(value),
                "--work" | "--case" => {
                    let (target, n) = value.split_once(':').ok_or_else(|| format!("{word} {value}: NAME:NUMBER is needed\n{USAGE}"))?;
                    let n = n.parse().map_err(|_| format!("{word} {value}: not a whole number\n{USAGE}"))?;
                    let target = target.to_string();
                    a.job = if word == "--work" { Job::Work { target, from: n } } else { Job::Once { target, number: n } };
                }
                _ => return Err(format!("unknown argument '{word}'\n{USAGE}")),
            }
        }
        Ok(a)
    }
}
