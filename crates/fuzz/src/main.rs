//! Fuzzing: files made by mutation, against every parser and the interpreter.
//!
//! `cargo xtask fuzz --seconds 60 --seed 1 [--cases N] [--target NAME]` divides the time among the targets. A case is a function of the
//! seed, the target and a number, so every finding can be made again: `--case NAME:NUMBER`. Each target runs in a process of its
//! own, since what cannot be caught (memory that runs out, a stack that overflows, an endless loop) ends it; the next process
//! goes on behind the case that did. A finding is a panic, an abort, a case over its time or memory, and a broken promise of
//! the target (an unedited model is written back byte for byte). Exit code 1 if there is one.
mod allocator;
mod arguments;
mod case;
mod mutate;
mod protobuf;
mod random;
mod supervisor;
mod targets;
mod worker;

use arguments::{Arguments, Job};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::Bounded = allocator::Bounded;

fn main() -> ExitCode {
    let done = Arguments::parse(std::env::args().skip(1)).and_then(|a| match &a.job {
        Job::List => {
            targets::ALL.iter().for_each(|t| println!("{:12} {}", t.name, t.what));
            Ok(true)
        }
        Job::Work { target, from } => worker::work(&a, target, *from).map(|()| true),
        Job::Once { target, number } => worker::once(&a, target, *number),
        Job::Supervise => supervisor::supervise(&a),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            eprintln!("fuzz: {what}");
            ExitCode::from(2)
        }
    }
}
