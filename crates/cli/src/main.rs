//! The `espalier` program: arguments, printing, exit codes. The `espalier` library does the work.
mod args;
mod commands;
mod known;
mod output;
mod panic;
mod progress;
mod values;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() && std::env::args().any(|a| a == "--json") => {
            output::usage_error(&error);
            return ExitCode::from(output::USAGE);
        }
        Err(error) => error.exit(),
    };
    let printer = output::Printer::new(&args);
    if let Err((path, error)) = espalier::onnx::allow_external(&args.allow_external) {
        printer.error(args.command.name(), &espalier::Error::Input(format!("--allow-external {}: {error}", path.display())));
        return ExitCode::from(1);
    }
    espalier::commands::limit_memory(args.memory_limit.map(|size| size.0));
    match panic::guard(|| espalier::commands::select_device(&args.device).and_then(|_| commands::dispatch(&args.command, &printer))) {
        Some(Ok(code)) => {
            espalier::deploy::runtime::take_messages().iter().for_each(|m| printer.note(&format!("warning: the runtime says: {m}")));
            ExitCode::from(code)
        }
        Some(Err(error)) => {
            printer.error(args.command.name(), &error);
            ExitCode::from(error.exit_code())
        }
        None => ExitCode::from(panic::INTERNAL),
    }
}
