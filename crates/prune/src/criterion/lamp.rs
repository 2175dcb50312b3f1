//! LAMP: magnitude against what is left of the layer.
use crate::{Candidate, Criterion, ImportanceContext, Result};
use technique::{Entry, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Lamp as dyn Criterion,
    Manual {
        name: "lamp",
        summary: "Removes the weights that are small beside those of their layer that would be left: magnitude that compares between layers.",
        details: "\
With a weight's elements sorted by magnitude,

    importance of w_u = w_u^2 / (sum of w_v^2 over all v with |w_v| >= |w_u|)

Within a layer the order is that of the plain magnitudes; between layers it bounds what a zero changes of the layer's result, as a share of
it. The largest element of each layer has the importance 1, so no layer is emptied before all others. Meant for scope = \"global\",
where it finds the share of each layer; no data needed.",
        source: "Lee et al. 2021, arXiv:2010.07611, equation 2",
        example: "criterion = \"lamp\"\nscope = \"global\"",
    }
);

/// `w_u^2` over the sum of the squares of all elements of the layer that are as large or larger.
///
/// # Source
/// Lee et al. 2021, arXiv:2010.07611, equation 2.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lamp {}

impl Settings for Lamp {}

impl Criterion for Lamp {
    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        Ok(scores(&context.read(candidate, candidate.weight)?))
    }
}

/// Elements of the same magnitude: the later in the order has the smaller sum, so that each of them differs.
fn scores(weight: &[f32]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..weight.len()).collect();
    order.sort_by(|a, b| weight[*b].abs().total_cmp(&weight[*a].abs()).then(b.cmp(a)));
    let (mut scores, mut sum) = (vec![0f32; weight.len()], 0f64);
    for i in order {
        let square = f64::from(weight[i]).powi(2);
        sum += square;
        scores[i] = if square > 0.0 {
            (square / sum) as f32
        } else if weight[i].is_nan() {
            f32::NAN
        } else {
            0.0
        };
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scores_are_those_of_the_paper() {
        assert_eq!(scores(&[1.0, -2.0, 0.0]), [1.0 / 5.0, 1.0, 0.0]);
        assert!(scores(&[1.0, f32::NAN])[1].is_nan());
    }

    proptest! {
        #[test]
        fn the_order_within_a_layer_is_that_of_magnitudes(weight in prop::collection::vec(-3f32..3.0, 1..40)) {
            let found = scores(&weight);
            for i in 0..weight.len() {
                for j in 0..weight.len() {
                    prop_assert!(weight[i].abs() <= weight[j].abs() || found[i] >= found[j]);
                }
            }
            prop_assert!(weight.iter().all(|w| *w == 0.0) || found.contains(&1.0));
        }
    }
}
