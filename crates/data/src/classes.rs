//! Checks of a data set's labels before it is used, and splitting rows off for validation.
use crate::batch::{in_range, out_of_range};
use crate::random::Draws;
use crate::{DataError, Dataset, Result};
use std::collections::BTreeMap;

/// What a data set will be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Learning: each class must have rows.
    Training,
    /// Choosing quantization ranges: a class without rows is worth a note.
    Calibration,
    /// Measuring accuracy: a class without rows is worth a note.
    Evaluation,
}

/// Checks the labels of all rows, or of some, against a number of classes, and returns notes for the user.
///
/// # Errors
/// [`DataError::Row`] for a label out of range or a row without one, unless for calibration;
/// [`DataError::Format`] in training if a class has no rows.
pub fn check_classes(dataset: &dyn Dataset, rows: Option<&[usize]>, classes: usize, purpose: Purpose) -> Result<Vec<String>> {
    let labels = dataset.labels()?;
    let all: Vec<usize>;
    let rows = match rows {
        Some(rows) => rows,
        None => {
            all = (0..labels.len()).collect();
            &all
        }
    };
    let mut counts = vec![0usize; classes];
    for &row in rows {
        let fault = |what: String| DataError::row(&dataset.file(row), row, what);
        match labels.get(row).copied().flatten() {
            Some(label) if in_range(label, classes) => counts[label as usize] += 1,
            // Calibration reads no labels, so they need not be the network's.
            _ if purpose == Purpose::Calibration => {}
            Some(label) => return Err(fault(out_of_range(label, classes))),
            None => return Err(fault("has no label".into())),
        }
    }
    let named = |class: usize| match dataset.class_names().get(class) {
        Some(name) => format!("{class} ({name})"),
        None => class.to_string(),
    };
    let empty: Vec<String> = counts.iter().enumerate().filter(|(_, count)| **count == 0).map(|(class, _)| named(class)).collect();
    if empty.is_empty() || counts.iter().all(|count| *count == 0) && purpose == Purpose::Calibration {
        return Ok(vec![]);
    }
    let shown = empty.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let more = if empty.len() > 5 { format!(" and {} more", empty.len() - 5) } else { String::new() };
    let what = format!("no rows of class {shown}{more}, of {classes}");
    match purpose {
        Purpose::Training => Err(DataError::format(dataset.path(), format!("{what}: a class cannot be learnt without examples"))),
        Purpose::Calibration | Purpose::Evaluation => Ok(vec![format!("{}: {what}", dataset.path().display())]),
    }
}

/// How many of the training rows are held out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Holdout {
    /// A part of them, 0..1.
    Fraction(f64),
    /// A number of rows.
    Count(usize),
}

/// Training rows, and rows held out of them, both in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Rows to train on.
    pub train: Vec<usize>,
    /// Rows held out.
    pub held_out: Vec<usize>,
}

/// Salt of the random numbers, so that they differ from those of the loader.
const SALT: u64 = 3;

/// At most `count` of `rows` rows, evenly chosen, so that a set sorted by class gives some of each.
pub fn evenly(rows: usize, count: usize) -> Vec<usize> {
    let count = count.min(rows);
    (0..count).map(|i| i * rows / count).collect()
}

/// Holds rows out for validation, the same share of each class (largest remainders decide where it is not a whole number; rows
/// without a label count as a class). The same seed gives the same rows.
///
/// # Errors
/// [`DataError::Invalid`] if nothing or everything would be held out.
pub fn split_holdout(dataset: &dyn Dataset, holdout: Holdout, seed: u64) -> Result<Split> {
    let total = dataset.len();
    let wanted = match holdout {
        Holdout::Count(count) => count,
        Holdout::Fraction(part) if part.is_finite() && part > 0.0 => (part * total as f64).round() as usize,
        Holdout::Fraction(part) => return Err(DataError::invalid(format!("holdout = {part}: a part between 0 and 1 is needed"))),
    };
    if wanted == 0 || wanted >= total {
        return Err(DataError::invalid(format!(
            "holdout of {wanted} rows from {total}: between 1 and {} are needed",
            total.saturating_sub(1)
        )));
    }
    let mut classes: BTreeMap<Option<i64>, Vec<usize>> = BTreeMap::new();
    for (row, label) in dataset.labels()?.into_iter().enumerate() {
        classes.entry(label).or_default().push(row);
    }
    let share = |rows: &Vec<usize>| rows.len() as u128 * wanted as u128;
    let mut counts: Vec<usize> = classes.values().map(|rows| (share(rows) / total as u128) as usize).collect();
    let mut by_remainder: Vec<usize> = (0..counts.len()).collect();
    let remainders: Vec<u128> = classes.values().map(|rows| share(rows) % total as u128).collect();
    by_remainder.sort_by_key(|class| std::cmp::Reverse(remainders[*class]));
    let missing = wanted - counts.iter().sum::<usize>();
    by_remainder.iter().take(missing).for_each(|class| counts[*class] += 1);

    let draws = Draws::new(SALT, seed, 0, 0);
    let mut split = Split { train: vec![], held_out: vec![] };
    for (index, (mut rows, count)) in classes.into_values().zip(counts).enumerate() {
        draws.row(index).shuffle(&mut rows);
        split.train.extend_from_slice(&rows[count..]);
        split.held_out.extend_from_slice(&rows[..count]);
    }
    split.train.sort_unstable();
    split.held_out.sort_unstable();
    Ok(split)
}

#[cfg(test)]
mod tests {
    use super::evenly;

    #[test]
    fn rows_are_chosen_evenly() {
        assert_eq!((evenly(10, 3), evenly(3, 5), evenly(0, 4)), (vec![0, 3, 6], vec![0, 1, 2], vec![]));
    }
}
