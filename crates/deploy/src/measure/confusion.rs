//! What a classifier says of each class.
use super::compare::arg_max;
use super::evaluate::scored_rows;
use crate::Result;
use std::collections::BTreeMap;
use tensor::Tensor;

/// How often each class was taken for which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Classes that the network tells apart.
    pub classes: usize,
    /// Samples of each class.
    pub samples: BTreeMap<usize, u64>,
    /// Samples by what they are and what they were taken for; pairs that did not occur are absent.
    pub taken: BTreeMap<(usize, usize), u64>,
    /// Samples with a NaN among their outputs: taken for nothing.
    pub nan: u64,
}

impl Confusion {
    /// Adds one batch of outputs `[n, classes, ...]` (trailing axes of size 1) and labels `[n]`.
    ///
    /// # Errors
    /// [`crate::DeployError::Measure`] if the shapes do not fit, or a label is not a class.
    pub fn add(&mut self, scores: &Tensor, labels: &Tensor) -> Result<()> {
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

    /// Samples in all.
    pub fn total(&self) -> u64 {
        self.samples.values().sum()
    }

    /// Samples of a class that were taken for it.
    pub fn correct_of(&self, class: usize) -> u64 {
        self.taken.get(&(class, class)).copied().unwrap_or(0)
    }

    /// Samples that were taken for what they are.
    pub fn correct(&self) -> u64 {
        self.samples.keys().map(|class| self.correct_of(*class)).sum()
    }
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
}
