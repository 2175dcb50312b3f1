//! Errors of model files.

/// A file that could not be read or written: what, and where in it.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The bytes are not a model.
    #[error("{place}: {what}")]
    Format {
        /// Where in the model (`graph 'main' / node 'conv1' / attribute 'pads'`).
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// The version or a feature is not supported.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The file system reported an error.
    #[error("{path}: {source}")]
    Io {
        /// Path of the file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Writing would destroy another file.
    #[error("{path} {what}")]
    Taken {
        /// Path of the file.
        path: String,
        /// Why it is kept, and what to do.
        what: String,
    },
    /// The graph is not well formed.
    #[error(transparent)]
    Graph(#[from] graph::GraphError),
}

impl OnnxError {
    /// The same error with the path of the file.
    pub fn in_file(self, path: &std::path::Path) -> Self {
        match self {
            OnnxError::Format { place, what } => OnnxError::Format { place: format!("{}: {place}", path.display()), what },
            OnnxError::Unsupported(what) => OnnxError::Unsupported(format!("{}: {what}", path.display())),
            other => other,
        }
    }
}

/// Result of reading or writing.
pub type Result<T> = std::result::Result<T, OnnxError>;

/// A place in the model, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    kind: &'a str,
    name: &'a str,
}

impl<'a> Place<'a> {
    pub(crate) fn root(kind: &'a str) -> Self {
        Place { parent: None, kind, name: "" }
    }

    pub(crate) fn inside(&'a self, kind: &'a str, name: &'a str) -> Place<'a> {
        Place { parent: Some(self), kind, name }
    }

    pub(crate) fn error(&self, what: impl Into<String>) -> OnnxError {
        OnnxError::Format { place: self.path(), what: what.into() }
    }

    fn path(&self) -> String {
        let own = if self.name.is_empty() { self.kind.to_string() } else { format!("{} '{}'", self.kind, self.name) };
        match self.parent {
            Some(p) => format!("{} / {own}", p.path()),
            None => own,
        }
    }
}
