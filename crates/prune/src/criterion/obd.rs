//! OBD: what the second derivative of the loss says about a zero.
use super::at_least_one;
use crate::{Candidate, Criterion, ImportanceContext, Needs, Result};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Criterion> = member!(
    Obd as dyn Criterion,
    Manual {
        name: "obd",
        summary: "Optimal brain damage: removes the weights whose absence raises the loss least, by the diagonal of its Hessian.",
        details: "\
At a minimum of the loss the first derivatives vanish, and a zero in place of w_i changes the loss by

    importance^2 = 1/2 * |h_ii| * w_i^2,  h_ii the second derivative of the loss by w_i

The diagonal is the mean of r * (H r) over `draws` random directions r of signs; H r is the difference of the gradients at both ends of a small
step along r, over `batches` batches: 2 * draws * batches gradients are taken. The root is compared, so that small values do not vanish in
f32.

With the squared gradients in place of h_ii (the diagonal of the empirical Fisher information) the same formula ranks as `taylor` does, from
half as many gradients or fewer and with less noise: take taylor first.",
        source: "LeCun et al. 1989, Optimal Brain Damage, equation 5; Bekas et al. 2007, An estimator for the diagonal of a matrix",
        example: "criterion = { kind = \"obd\", batches = 16, draws = 8 }",
    }
);

/// `|w| * sqrt(|h| / 2)`, `h` an estimate of the loss's second derivative by the element.
///
/// # Source
/// LeCun et al. 1989, Optimal Brain Damage, equation 5.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Obd {
    /// Number of training batches of each gradient.
    pub batches: u64,
    /// Number of random directions.
    pub draws: u64,
}

impl Default for Obd {
    fn default() -> Self {
        Obd { batches: 16, draws: 8 }
    }
}

impl Settings for Obd {
    fn check(&self) -> Result<(), Fault> {
        at_least_one(self.batches)?;
        match self.draws {
            0 => Err(Fault::new("draws", "draws = 0: at least one direction is needed")),
            _ => Ok(()),
        }
    }
}

impl Criterion for Obd {
    fn needs(&self) -> Needs {
        Needs::Curvature { batches: self.batches, draws: self.draws }
    }

    fn importance(&self, context: &ImportanceContext, candidate: &Candidate) -> Result<Vec<f32>> {
        let weight = context.read(candidate, candidate.weight)?;
        let curvature = context.known(candidate, &context.curvature, "second derivatives are")?;
        Ok(weight.iter().zip(curvature).map(|(w, h)| w.abs() * (h.abs() / 2.0).sqrt()).collect())
    }
}
