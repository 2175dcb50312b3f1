//! Global: all weights are ranked together.
use super::{Allocation, Scope, ScopeLayer};
use technique::{Entry, Fault, Manual, Settings, member};

pub(super) const ENTRY: Entry<dyn Scope> = member!(
    Global as dyn Scope,
    Manual {
        name: "global",
        summary: "All weights of the network together: less important layers lose more.",
        details: "\
What the criterion ranks lowest in the whole network becomes zero. Wants a criterion whose importance compares between layers: taylor,
lamp. By magnitude, a layer of small weights may lose all of them at a high sparsity, and nothing passes it then: set
min_per_layer = 0.05, or take another scope.",
        source: "",
        example: "scope = \"global\"\nmin_per_layer = 0.05",
    }
);

/// All weights of the network together: less important layers lose more.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Global {}

impl Settings for Global {}

impl Scope for Global {
    fn allocate(&self, _: &[ScopeLayer], _: f64) -> Result<Allocation, Fault> {
        Ok(Allocation::Together)
    }
}
