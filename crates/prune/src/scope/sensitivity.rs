//! Sensitivity: shares by what each layer alone was measured to cost.
use super::{Allocation, Measure, Scope, ScopeLayer, Scopes};
use crate::Curve;
use technique::{Choice, Entry, Fault, Manual, Settings, member, within};
use train::Harm;

pub(super) const ENTRY: Entry<dyn Scope> = member!(
    SensitivityShares as dyn Scope,
    Manual {
        name: "sensitivity",
        summary: "A share for each layer, with the least harm in sum: each layer alone is measured at several sparsities first.",
        details: "\
Before anything is pruned, each layer alone is pruned to each of `sparsities`, by the stage's criterion and granularity, and the network
runs on `samples` samples (validation samples, else training samples, never test samples). Its harm is

    noise: sum |y_pruned - y|^2 / sum |y|^2 over the outputs, or with by = \"loss\" the rise of the loss, which needs labels

Harms of layers are taken to add up. With c_l the largest convex curve below a layer's harms, through 0 at sparsity 0, and n_l its elements,

    minimize sum over l of c_l(s_l)  so that  sum over l of n_l * s_l = sparsity * sum over l of n_l

which taking the cheapest pieces of all curves first solves exactly. No share exceeds the largest of `sparsities`. A gradual schedule follows the
same curves from the cheapest piece on. `table` names a file that `espalier sensitivity --prune` wrote, edited or not, in place of
measuring.

Harm that is noise saturates: a layer that is broken cannot break more, so keep the largest of `sparsities` where the network still works.",
        source: "Han et al. 2015, arXiv:1506.02626, section 4.1 (a layer's sensitivity); Li et al. 2017, arXiv:1608.08710, section 3.2",
        example: "scope = { kind = \"sensitivity\", sparsities = [0.3, 0.5, 0.7, 0.8, 0.9], samples = 256 }",
    }
);

/// Harm of a sparsity that cannot be measured.
const WORST: f64 = 1e30;

/// A share for each layer, by what each alone costs.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SensitivityShares {
    /// The sparsities at which each layer is measured, rising, above 0 and below 1.
    pub sparsities: Vec<f64>,
    /// What the choice goes by: `noise` (power of the change of the outputs) or `loss` (needs labels).
    pub by: Harm,
    /// Number of samples to measure on.
    pub samples: usize,
    /// A file with a table that `espalier sensitivity --prune` wrote, in place of measuring.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The measured curves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(skip)]
    pub curves: Vec<Curve>,
}

impl Default for SensitivityShares {
    fn default() -> Self {
        SensitivityShares { sparsities: Measure::SPARSITIES.to_vec(), by: Harm::Noise, samples: 256, table: None, curves: vec![] }
    }
}

impl Settings for SensitivityShares {
    fn check(&self) -> Result<(), Fault> {
        Measure::check(&self.sparsities)?;
        for point in self.curves.iter().flat_map(|c| &c.points) {
            within("curves", point[0], 0.0, 1.0, "it is a share of a layer's weights")?;
        }
        match self.samples {
            0 => Err(Fault::new("samples", "samples = 0: at least one sample is needed to measure on")),
            _ => Ok(()),
        }
    }
}

impl Scope for SensitivityShares {
    fn allocate(&self, layers: &[ScopeLayer], sparsity: f64) -> Result<Allocation, Fault> {
        if self.curves.is_empty() {
            let what = "nothing has been measured: the shares follow from what each layer alone costs";
            return Err(Fault::new("curves", what).hint("take the curves of prune::sensitivity, or prune in a stage, which measures first"));
        }
        let mut pieces = vec![];
        // A layer of zeros alone has nothing to lose, and was not measured.
        for (at, layer) in layers.iter().enumerate().filter(|(_, l)| l.elements > 0) {
            let Some(curve) = self.curves.iter().find(|c| c.weight == layer.name) else {
                let what = format!("nothing was measured of '{}': measure again with this model and these settings", layer.name);
                return Err(Fault::new("table", what));
            };
            let line = convex(&curve.points);
            pieces.extend(line.windows(2).map(|ends| Piece {
                slope: (ends[1][1] - ends[0][1]) / ((ends[1][0] - ends[0][0]) * layer.elements as f64),
                length: ends[1][0] - ends[0][0],
                layer: at,
            }));
        }
        pieces.sort_by(|a, b| a.slope.total_cmp(&b.slope));
        let total: f64 = layers.iter().map(|l| l.elements as f64).sum();
        let (mut left, mut shares) = (sparsity * total, vec![0.0; layers.len()]);
        for piece in &pieces {
            let elements = layers[piece.layer].elements as f64;
            let taken = piece.length.min(left / elements);
            shares[piece.layer] += taken;
            left = (left - taken * elements).max(0.0);
        }
        if left > 0.5 {
            let most = (1.0 - left / total / sparsity) * sparsity * 100.0;
            let what = format!("with the largest share that was measured in every layer, {most:.1} % of the weights become zero");
            return Err(Fault::new("sparsities", what).hint("add a larger one to sparsities, or lower the stage's sparsity"));
        }
        Ok(Allocation::Shares(shares))
    }

    fn measure(&self) -> Option<Measure<'_>> {
        let Self { sparsities, by, samples, table, curves } = self;
        curves.is_empty().then_some(Measure { sparsities, by: *by, samples: *samples, table: table.as_deref() })
    }

    fn measured(&self, curves: Vec<Curve>) -> Result<Option<Choice<Scopes>>, Fault> {
        // What is not finite could not be written.
        let finite = |p: [f64; 2]| [p[0], if p[1].is_finite() { p[1].min(WORST) } else { WORST }];
        let curves = curves.into_iter().map(|c| Curve { points: c.points.into_iter().map(finite).collect(), ..c }).collect();
        SensitivityShares { curves, table: None, ..self.clone() }.choice().map(Some)
    }
}

/// A straight piece of a layer's curve.
struct Piece {
    /// Harm for each element.
    slope: f64,
    /// The part of the layer's elements.
    length: f64,
    layer: usize,
}

/// The largest convex curve through (0, 0) that is nowhere above the points, by its corners.
fn convex(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let mut points: Vec<[f64; 2]> =
        points.iter().filter(|p| p[0] > 0.0).map(|p| [p[0], if p[1].is_finite() { p[1].min(WORST) } else { WORST }]).collect();
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    points.dedup_by_key(|p| p[0]);
    let mut corners = vec![[0.0, 0.0]];
    let slope = |a: [f64; 2], b: [f64; 2]| (b[1] - a[1]) / (b[0] - a[0]);
    for point in points {
        while corners.len() > 1 && slope(corners[corners.len() - 1], point) <= slope(corners[corners.len() - 2], corners[corners.len() - 1])
        {
            corners.pop();
        }
        corners.push(point);
    }
    corners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Place;

    fn layer(name: &'static str, elements: usize) -> ScopeLayer<'static> {
        ScopeLayer { name, elements, shape: &[], view: None, place: Place::Inner }
    }

    fn curve(weight: &str, points: &[[f64; 2]]) -> Curve {
        Curve { weight: weight.into(), points: points.to_vec() }
    }

    fn shares(scope: &SensitivityShares, layers: &[ScopeLayer], sparsity: f64) -> Vec<f64> {
        match scope.allocate(layers, sparsity).unwrap() {
            Allocation::Shares(shares) => shares,
            Allocation::Together => panic!("together"),
        }
    }

    #[test]
    fn corners_are_those_of_the_convex_curve() {
        // (0.5, 3) lies above the line from (0.25, 1) to (0.75, 4).
        assert_eq!(convex(&[[0.5, 3.0], [0.25, 1.0], [0.75, 4.0]]), [[0.0, 0.0], [0.25, 1.0], [0.75, 4.0]]);
        assert_eq!(convex(&[[0.25, 0.5], [0.5, 3.0], [0.75, 3.0]]), [[0.0, 0.0], [0.25, 0.5], [0.75, 3.0]]);
        // What cannot be measured is worse than anything else.
        assert_eq!(convex(&[[0.5, 1.0], [0.9, f64::NAN]]), [[0.0, 0.0], [0.5, 1.0], [0.9, WORST]]);
    }

    #[test]
    fn the_cheapest_pieces_go_first_and_the_last_is_cut() {
        let layers = [layer("a", 100), layer("b", 300)];
        let curves = vec![curve("a", &[[0.5, 1.0], [0.75, 3.0]]), curve("b", &[[0.5, 6.0], [0.75, 7.5]])];
        let scope = SensitivityShares { curves, ..SensitivityShares::default() };
        // Harm for each element: a 1/50, then 2/25; b, whose second piece is cheaper, 7.5/225 throughout.
        assert_eq!(shares(&scope, &layers, 0.125), [0.5, 0.0]);
        assert_eq!(shares(&scope, &layers, 0.5), [0.5, 0.5]);
        let all = shares(&scope, &layers, 0.74);
        assert!((all[0] - 0.71).abs() < 1e-9 && all[1] == 0.75, "{all:?}");
        let refused = scope.allocate(&layers, 0.8).unwrap_err();
        assert_eq!(refused.path, ["sparsities"]);
        assert!(refused.what.contains("75.0 %"), "{refused}");
        assert_eq!(scope.allocate(&[layer("c", 1)], 0.5).unwrap_err().path, ["table"]);
        // A layer of zeros is not measured and loses nothing.
        assert_eq!(shares(&scope, &[layer("c", 0), layer("a", 100)], 0.25), [0.0, 0.25]);
        assert_eq!(SensitivityShares::default().allocate(&layers, 0.5).unwrap_err().path, ["curves"]);
    }

    #[test]
    fn settings_that_cannot_be_are_refused_at_their_key() {
        let at = |s: SensitivityShares| s.check().unwrap_err().path;
        let of = |sparsities: &[f64]| SensitivityShares { sparsities: sparsities.to_vec(), ..SensitivityShares::default() };
        for wrong in [&[][..], &[0.5, 0.5], &[0.5, 0.3], &[0.0, 0.5], &[0.5, 1.0], &[f64::NAN]] {
            assert_eq!(at(of(wrong)), ["sparsities"], "{wrong:?}");
        }
        assert_eq!(at(SensitivityShares { samples: 0, ..SensitivityShares::default() }), ["samples"]);
        assert_eq!(of(&[0.5, 0.95]).check(), Ok(()));
    }
}
