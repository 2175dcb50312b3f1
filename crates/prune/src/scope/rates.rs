//! Rates: a share for each layer, by its name.
use super::{Allocation, Scope, ScopeLayer};
use technique::{Entry, Fault, Manual, Settings, member, within};

pub(super) const ENTRY: Entry<dyn Scope> = member!(
    Rates as dyn Scope,
    Manual {
        name: "rates",
        summary: "A share for each layer, by patterns of the weights' names.",
        details: "\
The first pattern that matches a weight's name decides (* stands for any characters); `others` is the share of the weights that none
matches. The sparsity of the stage then follows and is not given. A gradual schedule raises all shares together. `espalier sensitivity
--prune` shows what each layer bears.",
        source: "",
        example: "scope = { kind = \"rates\", rates = [{ weights = \"layer3.*\", sparsity = 0.8 }], others = 0.4 }",
    }
);

/// The share of the weights with certain names.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// A pattern of weight names; `*` stands for any characters.
    pub weights: String,
    /// Share of each such weight's elements that becomes zero, 0..1.
    pub sparsity: f64,
}

/// A share for each layer, by its name.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rates {
    /// The shares, the first that matches counts.
    pub rates: Vec<Rate>,
    /// The share of the weights that no pattern matches, 0..1.
    pub others: f64,
}

impl Settings for Rates {
    fn check(&self) -> Result<(), Fault> {
        within("others", self.others, 0.0, 1.0, "it is a share of each weight's elements")?;
        let check = |rate: &Rate| within("rates", rate.sparsity, 0.0, 1.0, "it is a share of a weight's elements");
        self.rates.iter().try_for_each(check)
    }
}

impl Scope for Rates {
    fn allocate(&self, layers: &[ScopeLayer], sparsity: f64) -> Result<Allocation, Fault> {
        if let Some(rate) = self.rates.iter().find(|rate| !layers.iter().any(|l| graph::matches(&rate.weights, l.name))) {
            return Err(Fault::new("rates", format!("'{}' matches no weight", rate.weights)));
        }
        let share = |l: &ScopeLayer| {
            let named = self.rates.iter().find(|rate| graph::matches(&rate.weights, l.name));
            sparsity * named.map_or(self.others, |rate| rate.sparsity)
        };
        Ok(Allocation::Shares(layers.iter().map(share).collect()))
    }

    /// The shares as they are written are those of a sparsity of 1.
    fn sparsity(&self) -> Option<f64> {
        Some(1.0)
    }
}
