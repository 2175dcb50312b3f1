//! The `espalier` program: arguments, printing, exit codes. What it does is in the `espalier` library.
mod args;
mod commands;
mod output;
mod panic;
mod progress;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    panic::install();
    let args = args::Args::parse();
    let printer = output::Printer::new(&args);
    match commands::dispatch(&args.command, &printer) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            printer.error(args.command.name(), &error);
            ExitCode::from(error.exit_code())
        }
    }
}
