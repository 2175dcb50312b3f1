//! The interface of every source of rows.
use crate::{Result, Sample};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Rows that can be read in any order, from any thread.
pub trait Dataset: Send + Sync {
    /// The file or folder the rows come from, for messages.
    fn path(&self) -> &Path;

    /// The file a row is in, for messages about it.
    fn file(&self, _row: usize) -> PathBuf {
        self.path().to_path_buf()
    }

    /// Number of rows.
    fn len(&self) -> usize;

    /// True if there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the classes in order of their labels; empty where the source does not say.
    fn class_names(&self) -> &[String];

    /// Reads a row, encoded as it is stored.
    ///
    /// # Errors
    /// [`crate::DataError::Row`] if it cannot be read or is beyond the end.
    fn read(&self, row: usize) -> Result<Sample>;

    /// The label of every row (`None` where a row has none), without decoding inputs.
    ///
    /// # Errors
    /// As [`Dataset::read`].
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        (0..self.len()).map(|row| Ok(self.read(row)?.label)).collect()
    }

    /// Runs of rows that are cheap to read together. One run of everything means that any order is cheap; several mean
    /// that going from run to run costs a read of the whole next run (a Parquet row group), so a shuffle goes run by run.
    fn runs(&self) -> Vec<Range<usize>> {
        std::iter::once(0..self.len()).collect()
    }
}
