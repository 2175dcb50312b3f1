//! Labels matched by the names of their classes instead of their positions in one data set.
use crate::{DataError, Dataset, Place, Result, Sample};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A data set whose labels are mapped to another list of classes.
struct Relabelled {
    inner: Arc<dyn Dataset>,
    /// The new label of each old one.
    labels: Vec<i64>,
    names: Vec<String>,
}

/// The data set with labels that are positions in `names`, the classes of a network or a training set. A data set that does not
/// name its classes, and one that numbers them itself and uses other names, stays as it is.
///
/// # Errors
/// [`DataError::Invalid`] naming a class that `names` does not have, where labels are only positions of names
/// ([`Dataset::labels_are_positions`]).
pub fn relabel(dataset: Arc<dyn Dataset>, names: &[String]) -> Result<Arc<dyn Dataset>> {
    let own = dataset.class_names();
    if names.is_empty() || own.is_empty() || own == names {
        return Ok(dataset);
    }
    let place = |name: &String| names.iter().position(|n| n == name);
    let unknown: Vec<&str> = own.iter().filter(|name| place(name).is_none()).map(String::as_str).collect();
    if unknown.is_empty() {
        let labels = own.iter().filter_map(place).map(|at| at as i64).collect();
        return Ok(Arc::new(Relabelled { labels, names: names.to_vec(), inner: dataset }));
    }
    if !dataset.labels_are_positions() {
        return Ok(dataset);
    }
    Err(DataError::invalid(format!(
        "{}: {} not among the classes that the network knows, {}",
        dataset.path().display(),
        match unknown.as_slice() {
            [one] => format!("class '{one}' is"),
            many => format!("classes '{}' are", listed(many)),
        },
        listed(names)
    )))
}

/// Refuses a data set whose labels are positions among another number of classes than the network has: there is no way to know
/// which class is which.
///
/// # Errors
/// [`DataError::Invalid`], with what to do.
pub fn check_positions(dataset: &dyn Dataset, classes: usize) -> Result<()> {
    let own = dataset.class_names();
    if !dataset.labels_are_positions() || own.len() == classes {
        return Ok(());
    }
    Err(DataError::invalid(format!(
        "{}: its {} classes are {}, the network has {classes}, and neither its metadata nor a training set tells which of them these are: \
        name the folder that contains this one and 'train', or give each missing class a folder, which may be empty",
        dataset.path().display(),
        own.len(),
        listed(own)
    )))
}

/// The first of some names.
fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let shown = names.iter().take(12).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if names.len() > 12 { format!("{shown} and {} more", names.len() - 12) } else { shown }
}

impl Relabelled {
    fn label(&self, label: Option<i64>) -> Option<i64> {
        // A label that is no position is reported by the label check.
        label.map(|label| usize::try_from(label).ok().and_then(|at| self.labels.get(at)).copied().unwrap_or(-1))
    }
}

impl Dataset for Relabelled {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn file(&self, row: usize) -> PathBuf {
        self.inner.file(row)
    }
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn class_names(&self) -> &[String] {
        &self.names
    }
    fn read(&self, row: usize) -> Result<Sample> {
        let sample = self.inner.read(row)?;
        Ok(Sample { label: self.label(sample.label), ..sample })
    }
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        Ok(self.inner.labels()?.into_iter().map(|label| self.label(label)).collect())
    }
    fn is_ready(&self) -> bool {
        self.inner.is_ready()
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
        let arranged = self.inner.arranged(places)?;
        let relabelled = |inner| Relabelled { inner, labels: self.labels.clone(), names: self.names.clone() };
        Ok(arranged.map(|inner| Arc::new(relabelled(inner)) as Arc<dyn Dataset>))
    }
    fn runs(&self) -> Vec<Range<usize>> {
        self.inner.runs()
    }
}
