//! FPGM: filters that the others of their layer can stand in for.
use crate::{Candidate, Criterion, ImportanceContext, PruneError, Result};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Fpgm as dyn Criterion,
    Manual {
        name: "fpgm",
        summary: "Removes the filters nearest to the others of their layer (geometric median). For granularity filter.",
        details: "\
    importance of each weight of output o = mean over the other outputs p of |W_o - W_p| / sqrt(weights of an output)

A filter near the geometric median of its layer's filters holds what the others hold too, whatever its norm. All weights of an output have the
same importance, so it is meant for granularity = \"filter\"; scope = \"layer\" is the paper's. No data needed.",
        source: "He et al. 2019, arXiv:1811.00250, equation 5",
        example: "criterion = \"fpgm\"\ngranularity = \"filter\"\nscope = \"layer\"",
    }
);

/// The mean distance of an output's weights to those of the other outputs.
///
/// # Source
/// He et al. 2019, arXiv:1811.00250, equation 5.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fpgm {}

impl Settings for Fpgm {}

impl Criterion for Fpgm {
    fn spares(&self, _: &ImportanceContext, candidate: &Candidate) -> Option<String> {
        candidate.view.is_none().then(|| "its operator sums no products with it".into())
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let Some(view) = &candidate.view else {
            return Err(PruneError::Weight { weight: candidate.name.clone(), what: "sums no products".into() });
        };
        let weight = context.read(candidate, candidate.weight)?;
        let mut filters: Vec<Vec<f32>> = vec![vec![]; view.outputs];
        view.map(|output, _, _| output).into_iter().zip(&weight).for_each(|(output, w)| filters[output].push(*w));
        let distances = distances(&filters);
        Ok(view.map(|output, _, _| distances[output]))
    }
}

/// The mean distance of each filter to the others, by the root of its size.
fn distances(filters: &[Vec<f32>]) -> Vec<f32> {
    let mut sums = vec![0f64; filters.len()];
    for (i, a) in filters.iter().enumerate() {
        for (j, b) in filters.iter().enumerate().skip(i + 1) {
            let square: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            sums[i] += square.sqrt();
            sums[j] += square.sqrt();
        }
    }
    let others = filters.len().saturating_sub(1).max(1) as f64;
    sums.iter().zip(filters).map(|(s, f)| (s / others / (f.len().max(1) as f64).sqrt()) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_between_the_others_is_the_least_important() {
        let found = distances(&[vec![0.0, 0.0], vec![4.0, 0.0], vec![2.0, 0.0], vec![2.0, 6.0]]);
        let least = found.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        assert_eq!(least, 2);
        let wanted = (4.0 + 2.0 + 40f64.sqrt()) / 3.0 / 2f64.sqrt();
        assert!((f64::from(found[0]) - wanted).abs() < 1e-6);
    }
}
