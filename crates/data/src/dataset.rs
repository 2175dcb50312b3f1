//! The interface of every source of rows.
use crate::{Result, Sample};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a network's input takes, as far as it decides how arrays are cut into rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its rank, where that is declared.
    pub rank: Option<usize>,
    /// The axis along which a batch's samples lie; `None` where the input is one for all of them.
    pub axis: Option<usize>,
    /// One array serves all samples, whatever its shape.
    pub held: bool,
    /// A run takes one sample. The declared shape does not tell which of its axes of size 1 is the batch axis; an array's shape
    /// may.
    pub single: bool,
}

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

    /// True if each row holds all inputs of one run of a network ([`crate::Content::Ready`]), so that rows are never stacked.
    fn is_ready(&self) -> bool {
        false
    }

    /// True if a label is only the position of its class among [`Dataset::class_names`], so that a data set with fewer classes
    /// has other labels for the same classes.
    fn labels_are_positions(&self) -> bool {
        false
    }

    /// True if rows hold arrays, which are taken as they are, not images or sounds.
    fn holds_arrays(&self) -> bool {
        false
    }

    /// True if rows have numbers to predict, as [`crate::Wanted::Values`] asks for.
    fn has_values(&self) -> bool {
        false
    }

    /// Notes for the user, such as files that were passed over.
    fn notes(&self) -> Vec<String> {
        vec![]
    }

    /// The same data with arrays cut into rows as a network's inputs ask for, by their names; `None` where rows stay as they are.
    ///
    /// # Errors
    /// [`crate::DataError::Format`] if the arrays then have different numbers of rows.
    fn arranged(&self, _places: &BTreeMap<String, Place>) -> Result<Option<Arc<dyn Dataset>>> {
        Ok(None)
    }

    /// Runs of rows that are cheap to read together. One run of everything means that any order is cheap; several mean
    /// that going from run to run costs a read of the whole next run (a Parquet row group), so a shuffle goes run by run.
    fn runs(&self) -> Vec<Range<usize>> {
        std::iter::once(0..self.len()).collect()
    }
}
