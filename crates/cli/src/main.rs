//! The `espalier` program: arguments, printing, exit codes. What it does is in the `espalier` library.
mod args;
mod commands;
mod output;
mod panic;
mod progress;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let printer = output::Printer::new(&args);
    match panic::guard(|| espalier::commands::select_device(&args.device).and_then(|_| commands::dispatch(&args.command, &printer))) {
        Some(Ok(code)) => ExitCode::from(code),
        Some(Err(error)) => {
            printer.error(args.command.name(), &error);
            ExitCode::from(error.exit_code())
        }
        None => ExitCode::from(panic::INTERNAL),
    }
}
