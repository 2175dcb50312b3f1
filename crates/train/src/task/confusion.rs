//! The confusion matrix of a classifier.
use crate::TrainError;
use std::collections::BTreeMap;
use tensor::Tensor;

/// How often each class was predicted as which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Number of classes of the network.
    pub classes: usize,
    /// Samples of each class.
    pub samples: BTreeMap<usize, u64>,
    /// Samples by label and prediction; pairs that did not occur are absent.
    pub taken: BTreeMap<(usize, usize), u64>,
    /// Samples with NaN among their outputs: no prediction.
    pub nan: u64,
}

impl Confusion {
    /// Adds one batch of outputs `[n, classes, ...]` (trailing axes of size 1) and labels `[n]` of any integer type.
    ///
    /// # Errors
    /// [`TrainError::Data`] if the shapes do not fit, or a label is not a class.
    pub fn add(&mut self, scores: &Tensor, labels: &Tensor) -> Result<(), TrainError> {
        for (row, label) in scored_rows(scores, labels)? {
            self.classes = self.classes.max(row.len());
            *self.samples.entry(label).or_default() += 1;
            match arg_max(&row) {
                Some(best) => *self.taken.entry((label, best)).or_default() += 1,
                None => self.nan += 1,
            }
        }
        Ok(())
    }

    /// Number of samples.
    pub fn total(&self) -> u64 {
        self.samples.values().sum()
    }

    /// Samples of a class that were predicted correctly.
    pub fn correct_of(&self, class: usize) -> u64 {
        self.taken.get(&(class, class)).copied().unwrap_or(0)
    }

    /// Samples that were predicted correctly.
    pub fn correct(&self) -> u64 {
        self.samples.keys().map(|class| self.correct_of(*class)).sum()
    }
}

/// Index of the largest element, the first of equals; `None` if an element is NaN, or there is none.
pub fn arg_max(row: &[f32]) -> Option<usize> {
    let mut best = None;
    for (i, v) in row.iter().enumerate() {
        if v.is_nan() {
            return None;
        }
        if best.is_none_or(|b: usize| *v > row[b]) {
            best = Some(i);
        }
    }
    best
}

/// The scores of each sample with its label, as an index of a class.
///
/// # Errors
/// [`TrainError::Data`] if the shapes do not fit, or a label is not a class.
pub(super) fn scored_rows(scores: &Tensor, labels: &Tensor) -> Result<Vec<(Vec<f32>, usize)>, TrainError> {
    let (labels_of, rows) = (labels.to_i64_vec().map_err(crate::loss_error)?, scores.to_f32_vec().map_err(crate::loss_error)?);
    let classes = if labels_of.is_empty() { 0 } else { rows.len() / labels_of.len() };
    if classes == 0 || scores.shape().first() != Some(&labels_of.len()) || rows.len() != classes * labels_of.len() {
        let what = format!("outputs of shape {:?} cannot be scored against labels of shape {:?}", scores.shape(), labels.shape());
        return Err(TrainError::Data(what));
    }
    let class = |(i, label): (usize, i64)| {
        let what = || TrainError::Data(format!("row {i} of the batch: label {label} is not one of the network's {classes} classes"));
        usize::try_from(label).ok().filter(|l| *l < classes).ok_or_else(what)
    };
    rows.chunks(classes).zip(labels_of.into_iter().enumerate()).map(|(row, label)| Ok((row.to_vec(), class(label)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_is_counted_by_what_it_was_taken_for() {
        let mut c = Confusion::default();
        let scores = Tensor::new(vec![9f32, 1.0, 1.0, 9.0, 1.0, 9.0, f32::NAN, 1.0], [4, 2]).unwrap();
        c.add(&scores, &Tensor::vector(vec![0i64, 1, 0, 1])).unwrap();
        assert_eq!((c.classes, c.total(), c.correct(), c.nan), (2, 4, 2, 1));
        assert_eq!(c.taken, BTreeMap::from([((0, 0), 1), ((0, 1), 1), ((1, 1), 1)]));
        assert_eq!((c.correct_of(0), c.samples[&1]), (1, 2));
    }

    #[test]
    fn ties_go_to_the_first_and_a_label_beyond_the_classes_is_refused() {
        let scores = Tensor::new(vec![0f32, 1.0, 1.0, 0.5, 0.1, 0.2], [2, 3]).unwrap();
        let mut c = Confusion::default();
        c.add(&scores, &Tensor::vector(vec![2i64, 0])).unwrap();
        assert_eq!((c.correct(), c.taken[&(2, 1)]), (1, 1));
        let error = c.add(&scores, &Tensor::vector(vec![3i64, 0])).unwrap_err();
        assert!(error.to_string().contains("label 3 is not one of the network's 3 classes"), "{error}");
        assert!(c.add(&scores, &Tensor::vector(vec![0i64])).is_err());
    }
}
