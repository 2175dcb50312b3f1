//! Layer: the same share of each weight.
use super::{Allocation, Scope, ScopeLayer};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Scope> = member!(
    PerLayer as dyn Scope,
    Manual {
        name: "layer",
        summary: "Each layer separately, to the same sparsity.",
        details: "\
Safe: no layer loses more than the others. Small layers at the ends of a network pay for it; see uniform_plus and erk.",
        source: "",
        example: "scope = \"layer\"",
    }
);

/// Each layer separately, to the same sparsity.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PerLayer {}

impl Settings for PerLayer {}

impl Scope for PerLayer {
    fn allocate(&self, layers: &[ScopeLayer], sparsity: f64) -> Result<Allocation, Fault> {
        Ok(Allocation::Shares(vec![sparsity; layers.len()]))
    }
}
