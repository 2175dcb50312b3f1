//! Printing: results on stdout, everything else on stderr.
use crate::args::{Args, Color};
use anstyle::{AnsiColor, Style};
use espalier::Error;
use espalier::report::text;
use serde::Serialize;
use serde_json::json;
use std::fmt::Display;
use std::io::Write;

/// Version of the JSON envelope: `{schema_version, command, ok, result | error}`.
const ENVELOPE: u32 = 1;

/// Exit code of a command line that cannot be read.
pub(crate) const USAGE: u8 = 2;

/// Prints a usage error as JSON, for calls with `--json`.
pub(crate) fn usage_error(error: &clap::Error) {
    let text = error.to_string();
    let said = text.split("\n\nUsage:").next().unwrap_or_default().split("\n\nFor more").next().unwrap_or_default();
    let said = said.trim_start_matches("error: ");
    let message = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let error = json!({ "message": message, "hint": "espalier --help", "exit_code": USAGE });
    let envelope = json!({ "schema_version": ENVELOPE, "command": null, "ok": false, "error": error });
    let _ = writeln!(anstream::stdout(), "{}", json(&format!("{envelope:#}")));
}

/// JSON that cannot control a terminal: characters above 0x7e that the format leaves as they are become escapes.
fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c == '\n' || text::line(c.encode_utf8(&mut [0; 4])).chars().eq([c]) {
            true => out.push(c),
            false => out += &format!("\\u{:04x}", u32::from(c)),
        }
    }
    out
}

/// Prints as `--json`, `--quiet`, `--verbose` and `--color` ask for.
pub(crate) struct Printer {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
}

impl Printer {
    pub(crate) fn new(args: &Args) -> Self {
        let choice = match args.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
        Printer { json: args.json, quiet: args.quiet, verbose: args.verbose }
    }

    /// Prints a result: its JSON in the envelope, or its text.
    pub(crate) fn result<T: Serialize>(&self, command: &str, value: &T, text: impl Display) {
        if self.json {
            self.envelope(&json!({ "schema_version": ENVELOPE, "command": command, "ok": true, "result": value }));
        } else {
            self.out(&text.to_string());
        }
    }

    /// Prints plain text on stdout. Names from files are escaped, so that they cannot control the terminal. If the reader closes
    /// the pipe, the output ends, not the program.
    pub(crate) fn out(&self, text: &str) {
        let _ = anstream::stdout().write_all(text::block(text).as_bytes());
    }

    /// Prints a note on stderr.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(anstream::stderr(), "{}", text::block(text));
        }
    }

    /// Prints an error: one line, the place in the recipe, a hint.
    pub(crate) fn error(&self, command: &str, error: &Error) {
        if self.json {
            let (message, hint, code) = (error.to_string(), error.hint(), error.exit_code());
            let error = json!({ "message": message, "hint": hint, "exit_code": code });
            self.envelope(&json!({ "schema_version": ENVELOPE, "command": command, "ok": false, "error": error }));
            return;
        }
        let (red, blue) = (AnsiColor::Red.on_default().bold(), AnsiColor::Cyan.on_default().bold());
        let paint = |style: Style, text: &str| format!("{style}{text}{style:#}");
        let plain = |s: &dyn Display| text::block(&s.to_string());
        let mut text = format!("{} {}\n", paint(red, "error:"), plain(error));
        if let Some(snippet) = error.snippet() {
            text += &format!("{}\n", plain(&snippet));
        }
        if let Some(hint) = error.hint() {
            text += &format!("{} {}\n", paint(blue, "hint:"), plain(&hint));
        }
        let _ = anstream::stderr().write_all(text.as_bytes());
    }

    fn envelope(&self, value: &serde_json::Value) {
        let _ = anstream::stdout().write_all(json(&format!("{value:#}\n")).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_without_controlling_a_terminal() {
        let value = json!({ "name": "a\u{9b}31m\u{1b}[2J\u{202e}\n\u{7f}é", "n": [1, 2] });
        let printed = json(&format!("{value:#}\n"));
        assert!(printed.chars().all(|c| !c.is_control() || c == '\n') && !printed.contains('\u{202e}'), "{printed}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
    }
}
