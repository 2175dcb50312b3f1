//! ERK: large layers lose more than small ones (Erdős-Rényi with kernels).
use super::{Allocation, Scope, ScopeLayer, rest};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Scope> = member!(
    Erk as dyn Scope,
    Manual {
        name: "erk",
        summary: "Large layers lose more than small ones, by the lengths of their weights' axes.",
        details: "\
The share of a weight's elements that live is proportional to

    (sum of the lengths of its axes) / (product of them), so (n_in + n_out + w + h) / (n_in * n_out * w * h) of a convolution

with one factor for all layers, by which the whole network has the sparsity asked for. A layer whose share would be above 1 stays dense,
and the others make up for it. Data and gradients are not needed. A good choice at 80 % and above; it costs more operations than the same
sparsity in every layer, since small layers on large images keep more.",
        source: "Evci et al. 2020 (RigL), arXiv:1911.11134, section 3",
        example: "scope = \"erk\"",
    }
);

/// Large layers lose more than small ones.
///
/// # Source
/// Evci et al. 2020 (RigL), arXiv:1911.11134, section 3.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Erk {}

impl Settings for Erk {}

impl Scope for Erk {
    fn allocate(&self, layers: &[ScopeLayer], sparsity: f64) -> Result<Allocation, Fault> {
        let raw: Vec<f64> =
            layers.iter().map(|l| l.shape.iter().sum::<usize>() as f64 / l.shape.iter().product::<usize>().max(1) as f64).collect();
        let mut decided = vec![None; layers.len()];
        // A density above 1 becomes 1, which raises the others: until none is above it.
        loop {
            let open: f64 =
                layers.iter().zip(&raw).zip(&decided).filter(|(_, d)| d.is_none()).map(|((l, r), _)| r * l.elements as f64).sum();
            let density = 1.0 - rest(layers, sparsity, &decided);
            let live: f64 = layers.iter().zip(&decided).filter(|(_, d)| d.is_none()).map(|(l, _)| density * l.elements as f64).sum();
            let factor = if open > 0.0 { live / open } else { 0.0 };
            let above: Vec<usize> = (0..layers.len()).filter(|i| decided[*i].is_none() && factor * raw[*i] >= 1.0).collect();
            if above.is_empty() {
                let share = |(r, d): (&f64, &Option<f64>)| d.unwrap_or(1.0 - factor * r);
                return Ok(Allocation::Shares(raw.iter().zip(&decided).map(share).collect()));
            }
            above.into_iter().for_each(|i| decided[i] = Some(0.0));
        }
    }
}
