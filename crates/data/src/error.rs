//! Errors of data, with the file and, if there is one, the row.
use std::path::{Path, PathBuf};

/// Result of reading or transforming data.
pub type Result<T, E = DataError> = std::result::Result<T, E>;

/// Data that could not be read, understood or used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file that is not what its format promises.
    #[error("{}: {what}", path.display())]
    Format {
        /// Path of the file or folder.
        path: PathBuf,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// One row that cannot be used.
    #[error("{}, row {row}: {what}", path.display())]
    Row {
        /// The file or folder the row is in.
        path: PathBuf,
        /// The row's number in the data set, from 0.
        row: usize,
        /// What is wrong with it, as the end of the message.
        what: String,
    },
    /// No data set of a known format at a path.
    #[error("{}: {what}", path.display())]
    NotFound {
        /// The file or folder that was searched.
        path: PathBuf,
        /// The layouts that were looked for, and what the folder contains.
        what: String,
    },
    /// Options that do not fit each other or the data.
    #[error("{what}")]
    Invalid {
        /// The option, its value, and the fix.
        what: String,
    },
    /// A tensor could not be made.
    #[error(transparent)]
    Tensor(#[from] tensor::TensorError),
}

impl DataError {
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> DataError + '_ {
        move |source| DataError::Io { path: path.to_path_buf(), source }
    }
    pub(crate) fn format(path: &Path, what: impl Into<String>) -> DataError {
        DataError::Format { path: path.to_path_buf(), what: what.into() }
    }
    pub(crate) fn row(path: &Path, row: usize, what: impl Into<String>) -> DataError {
        DataError::Row { path: path.to_path_buf(), row, what: what.into() }
    }
    pub(crate) fn not_found(path: &Path, what: impl Into<String>) -> DataError {
        DataError::NotFound { path: path.to_path_buf(), what: what.into() }
    }
    pub(crate) fn invalid(what: impl Into<String>) -> DataError {
        DataError::Invalid { what: what.into() }
    }
}
