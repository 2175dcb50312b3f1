//! Some rows of a data set, one behind the other, as a data set of their own.
use crate::{DataError, Dataset, Place, Result, Sample};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct Part {
    inner: Arc<dyn Dataset>,
    rows: Range<usize>,
}

/// The rows of a range.
///
/// # Errors
/// [`DataError::Invalid`] if there are none, or the data set has fewer.
pub fn part(dataset: Arc<dyn Dataset>, rows: Range<usize>) -> Result<Arc<dyn Dataset>> {
    let (from, to, all) = (rows.start, rows.end, dataset.len());
    if from >= to || to > all {
        let path = dataset.path().display();
        return Err(DataError::invalid(format!(
            "{path}: rows [{from}, {to}] are not within its {all} rows: name the first and the one behind the last"
        )));
    }
    Ok(Arc::new(Part { inner: dataset, rows }))
}

impl Part {
    /// The row of the whole data set.
    fn row(&self, row: usize) -> Result<usize> {
        if row < self.rows.len() {
            return Ok(self.rows.start + row);
        }
        let (path, from, to) = (self.path().display(), self.rows.start, self.rows.end);
        Err(DataError::invalid(format!("{path}: row {row} is not within the {} rows of [{from}, {to}]", self.rows.len())))
    }
}

impl Dataset for Part {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn file(&self, row: usize) -> PathBuf {
        self.row(row).map_or_else(|_| self.path().into(), |row| self.inner.file(row))
    }
    fn len(&self) -> usize {
        self.rows.len()
    }
    fn class_names(&self) -> &[String] {
        self.inner.class_names()
    }
    fn read(&self, row: usize) -> Result<Sample> {
        self.inner.read(self.row(row)?)
    }
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        Ok(self.inner.labels()?.drain(..).skip(self.rows.start).take(self.rows.len()).collect())
    }
    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }
    fn labels_are_positions(&self) -> bool {
        self.inner.labels_are_positions()
    }
    fn holds_arrays(&self) -> bool {
        self.inner.holds_arrays()
    }
    fn has_values(&self) -> bool {
        self.inner.has_values()
    }
    fn notes(&self) -> Vec<String> {
        self.inner.notes()
    }
    fn arranged(&self, places: &BTreeMap<String, Place>) -> Result<Option<Arc<dyn Dataset>>> {
        self.inner.arranged(places)?.map(|inner| part(inner, self.rows.clone())).transpose()
    }
    fn runs(&self) -> Vec<Range<usize>> {
        let own = |run: Range<usize>| run.start.max(self.rows.start)..run.end.min(self.rows.end);
        let runs = self.inner.runs().into_iter().map(own).filter(|run| run.start < run.end);
        runs.map(|run| run.start - self.rows.start..run.end - self.rows.start).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers;

    impl Dataset for Numbers {
        fn path(&self) -> &Path {
            Path::new("numbers")
        }
        fn len(&self) -> usize {
            10
        }
        fn class_names(&self) -> &[String] {
            &[]
        }
        fn read(&self, row: usize) -> Result<Sample> {
            Err(DataError::invalid(format!("row {row}")))
        }
        fn labels(&self) -> Result<Vec<Option<i64>>> {
            Ok((0..10).map(Some).collect())
        }
        fn runs(&self) -> Vec<Range<usize>> {
            vec![0..4, 4..8, 8..10]
        }
    }

    #[test]
    fn it_has_the_rows_of_the_range() {
        let some = part(Arc::new(Numbers), 3..8).unwrap();
        assert_eq!(some.len(), 5);
        assert_eq!(some.labels().unwrap(), (3..8).map(Some).collect::<Vec<_>>());
        assert_eq!(some.runs(), [0..1, 1..5]);
        assert!(some.read(4).err().unwrap().to_string().contains("row 7"));
        assert!(some.read(5).err().unwrap().to_string().ends_with("row 5 is not within the 5 rows of [3, 8]"));
        for wrong in [8..8, 3..11] {
            let error = part(Arc::new(Numbers), wrong).err().unwrap().to_string();
            assert!(error.contains("not within its 10 rows"), "{error}");
        }
    }
}
