//! Uniform+: the same share everywhere, but for the two ends of the network.
use super::{Allocation, Scope, ScopeLayer, rest};
use crate::Place;
use technique::{Entry, Fault, Manual, Settings, member, within};

pub(super) const ENTRY: Entry<dyn Scope> = member!(
    UniformPlus as dyn Scope,
    Manual {
        name: "uniform_plus",
        summary: "The same share of each layer; the first convolution stays dense, and the last layer loses at most 80 %.",
        details: "\
The layers between them have one share, by which the whole network has the sparsity asked for. The first layer stays dense if it is a
convolution; set `last` for another bound on the last one. A layer's share is never above 1, so a sparsity close to 1 may not be
reached whole.",
        source: "Gale et al. 2019, arXiv:1902.09574, section 4.2",
        example: "scope = { kind = \"uniform_plus\", last = 0.8 }",
    }
);

/// The same share of each layer, but for the first convolution and the last layer.
///
/// # Source
/// Gale et al. 2019, arXiv:1902.09574, section 4.2.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UniformPlus {
    /// Largest share of the last layer's weights that becomes zero, 0..1.
    pub last: f64,
}

impl Default for UniformPlus {
    fn default() -> Self {
        UniformPlus { last: 0.8 }
    }
}

impl Settings for UniformPlus {
    fn check(&self) -> Result<(), Fault> {
        within("last", self.last, 0.0, 1.0, "it is a share of the last layer's weights")
    }
}

impl Scope for UniformPlus {
    fn allocate(&self, layers: &[ScopeLayer], sparsity: f64) -> Result<Allocation, Fault> {
        let first = |l: &ScopeLayer| l.place == Place::First && l.shape.len() > 2;
        let mut decided: Vec<Option<f64>> = layers.iter().map(|l| first(l).then_some(0.0)).collect();
        if rest(layers, sparsity, &decided) > self.last {
            layers.iter().zip(&mut decided).filter(|(l, _)| l.place == Place::Last).for_each(|(_, d)| *d = Some(self.last));
        }
        let others = rest(layers, sparsity, &decided);
        Ok(Allocation::Shares(decided.into_iter().map(|d| d.unwrap_or(others)).collect()))
    }
}
