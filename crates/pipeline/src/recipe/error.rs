//! Errors of a recipe, with their place.
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A recipe that cannot be used. `Display` is one line; [`RecipeError::snippet`] shows the place.
#[derive(Clone, Debug, PartialEq)]
pub struct RecipeError {
    /// The recipe file.
    pub path: Option<PathBuf>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The place, in bytes of the text.
    place: Option<(String, Range<usize>)>,
}

impl RecipeError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        RecipeError { path: None, message: message.into(), hint: None, place: None }
    }

    pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let what = match error.kind() {
            std::io::ErrorKind::InvalidData => {
                "is not text, so it is no recipe; for a model, espalier init MODEL --data DATA writes one".to_string()
            }
            _ => format!("cannot be read: {error}"),
        };
        RecipeError { path: Some(path.to_path_buf()), ..RecipeError::new(what) }
    }

    pub(super) fn at(mut self, text: &str, span: Option<Range<usize>>) -> Self {
        self.place = span.filter(|s| s.start <= s.end && s.end <= text.len()).map(|s| (text.to_string(), s));
        self
    }

    pub(super) fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    pub(super) fn in_file(mut self, path: &Path) -> Self {
        self.path = Some(path.to_path_buf());
        self
    }

    /// The error of an override: without a place, since the text was not the user's file.
    pub(super) fn in_override(self, text: &str) -> Self {
        RecipeError { message: format!("--set {text}: {}", self.message), place: None, ..self }
    }

    /// Line and column, both from 1.
    pub fn line_column(&self) -> Option<(usize, usize)> {
        let (text, span) = self.place.as_ref()?;
        let before = text.get(..span.start)?;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some((before.matches('\n').count() + 1, column))
    }

    /// The line with the place underlined, for a terminal.
    pub fn snippet(&self) -> Option<String> {
        let (text, span) = self.place.as_ref()?;
        let (line, column) = self.line_column()?;
        let shown = text.lines().nth(line - 1)?.replace('\t', " ");
        let in_line = shown.chars().count().saturating_sub(column - 1).max(1);
        let width = text.get(span.clone()).map_or(1, |s| s.chars().count()).clamp(1, in_line);
        let gutter = line.to_string().len();
        let path = self.path.as_ref().map_or("recipe".into(), |p| p.display().to_string());
        let mut out = String::new();
        let _ = writeln!(out, "{:gutter$}--> {path}:{line}:{column}", "");
        let _ = writeln!(out, "{:gutter$} |", "");
        let _ = writeln!(out, "{line} | {shown}");
        let _ = write!(out, "{:gutter$} | {:indent$}{}", "", "", "^".repeat(width), indent = column - 1);
        Some(out)
    }
}

impl std::fmt::Display for RecipeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for RecipeError {}
