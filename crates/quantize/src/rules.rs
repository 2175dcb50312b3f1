//! Rules for how layers are stored: settings for all layers, and rules for some of them.
use crate::{ActivationSettings, QuantizeSettings, Result};
use encodings::Encodings;
use graph::{Model, Node, ValueId};
use std::fmt;
use target::QuantRule;
use technique::{Choice, Fault};

/// The position of a layer among the layers with a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// The first one.
    First,
    /// The last one.
    Last,
}

/// One rule. It applies to the nodes that fit all of `match`, `op` and `position`. If several apply, the last one with `weights`
/// decides on weights, the last one with `activations` on activations, and so with `reads` and `weight_only`.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Pattern of node names; `*` stands for any run of characters.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Operator, as `inspect` lists it: "Conv", "Gemm", ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// The first or the last layer with a weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// How the weights of these nodes are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Choice<Encodings>>,
    /// How the outputs of these nodes are stored; false: in float.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activations: Option<ActivationSettings>,
    /// Bits in which these nodes read their data, or { kind = "binary" }, where they compute on integers. Other readers of the same value read it as what makes
    /// it stores it, so a layer can read a residual sum in 4 bits that the next Add reads in 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<ActivationSettings>,
    /// Whether the weights of these nodes are stored although they compute in float (LSTM, GRU, RNN, an embedding).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_only: Option<bool>,
    /// Skips these nodes: they stay in float, or as an earlier quantization left them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip: bool,
}

impl Rule {
    /// The rule for an entry of `skip`.
    pub fn skipping(pattern: &str) -> Rule {
        Rule { pattern: Some(pattern.to_string()), skip: true, ..Rule::default() }
    }

    fn check(&self) -> Result<(), Fault> {
        let refuse = |what: &str, hint: &str| Err(Fault::new("rules", format!("the rule '{self}' {what}")).hint(hint));
        if self.pattern.is_none() && self.op.is_none() && self.position.is_none() {
            return refuse("applies to every node", "write match, op or position, or set weights and activations of the stage");
        }
        if self.weights.is_none() && self.activations.is_none() && self.reads.is_none() && self.weight_only.is_none() && !self.skip {
            return refuse("changes nothing", "write weights, activations, reads, weight_only or skip = true");
        }
        if self.reads.as_ref().is_some_and(|r| r.stored().is_none() && r.two_levels().is_none()) {
            return refuse("reads in float", "write the bits, such as reads = { bits = 4 }, or activations = false for layers in float");
        }
        Ok(())
    }
}

/// The rule in a line: `match = "conv1*": weights codebook with bits = 4`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut which: Vec<String> = vec![];
        which.extend(self.pattern.as_ref().map(|p| format!("match = \"{p}\"")));
        which.extend(self.op.as_ref().map(|p| format!("op = \"{p}\"")));
        which.extend(self.position.map(|p| format!("position = \"{}\"", if p == Position::First { "first" } else { "last" })));
        let mut what: Vec<String> = vec![];
        what.extend(self.weights.as_ref().map(|w| format!("weights {w}")));
        what.extend(self.activations.as_ref().map(|a| format!("activations {a}")));
        what.extend(self.reads.as_ref().map(|r| format!("reads {r}")));
        what.extend(self.weight_only.map(|on| {
            if on { "weights stored where it computes in float" } else { "weights in float where it computes in float" }.to_string()
        }));
        what.extend(self.skip.then(|| "skip".to_string()));
        let or = |list: Vec<String>, none: &str| if list.is_empty() { none.to_string() } else { list.join(", ") };
        write!(f, "{}: {}", or(which, "every node"), or(what, "nothing"))
    }
}

/// How one node is stored.
#[derive(Clone, Debug)]
pub(crate) struct Scheme<'s> {
    pub(crate) weights: &'s Choice<Encodings>,
    /// `None`: in float.
    pub(crate) activations: Option<u32>,
    /// How its data are read, if a rule says so.
    pub(crate) reads: Option<ActivationSettings>,
    /// Weights are stored in the encoding also where the operator computes in float.
    pub(crate) weight_only: bool,
    pub(crate) skip: bool,
}

/// The rules of the settings, resolved for one model.
#[derive(Clone, Debug)]
pub(crate) struct Rules<'s> {
    settings: &'s QuantizeSettings,
    rules: Vec<Rule>,
    /// First outputs of the first and the last layer with a constant weight.
    ends: [Option<ValueId>; 2],
}

impl<'s> Rules<'s> {
    pub(crate) fn of(model: &Model, settings: &'s QuantizeSettings) -> Self {
        let rules = settings.all_rules();
        let mut layers = vec![];
        if rules.iter().any(|r| r.position.is_some()) {
            model.graph.visit(&mut |node| layers.extend(node.output(0).filter(|_| has_weight(model, settings, node))));
        }
        Rules { settings, rules, ends: [layers.first().copied(), layers.last().copied()] }
    }

    fn applies(&self, rule: &Rule, model: &Model, node: &Node) -> bool {
        let end = |p: Position| self.ends[if p == Position::First { 0 } else { 1 }];
        rule.op.as_ref().is_none_or(|op| *op == node.op_type)
            && rule.position.is_none_or(|p| end(p).is_some() && end(p) == node.output(0))
            && rule.pattern.as_ref().is_none_or(|p| graph::matches(p, &node.label(&model.values)))
    }

    /// Whether a rule decides on the weights of a node, and whether one decides on its activations.
    pub(crate) fn named(&self, model: &Model, node: &Node) -> (bool, bool) {
        let own = || self.rules.iter().filter(|r| self.applies(r, model, node));
        (own().any(|r| r.weights.is_some()), own().any(|r| r.activations.is_some()))
    }

    /// How a node is stored, by the rules that apply to it. `weights` borrows from the settings or their rules.
    pub(crate) fn scheme(&self, model: &Model, node: &Node) -> Scheme<'_> {
        let own = self.settings;
        let (activations, weight_only) = (own.activations.stored(), own.weight_only);
        let mut scheme = Scheme { weights: &own.weights, activations, reads: None, weight_only, skip: false };
        for rule in self.rules.iter().filter(|r| self.applies(r, model, node)) {
            if let Some(weights) = &rule.weights {
                scheme.weights = weights;
            }
            if let Some(activations) = &rule.activations {
                scheme.activations = activations.stored();
            }
            scheme.reads = rule.reads.or(scheme.reads);
            scheme.weight_only = rule.weight_only.unwrap_or(scheme.weight_only);
            scheme.skip |= rule.skip;
        }
        scheme
    }
}

fn has_weight(model: &Model, settings: &QuantizeSettings, node: &Node) -> bool {
    let QuantRule::Integer { weight: Some(rule), .. } = settings.target.rule(node, model) else { return false };
    node.input(rule.input).is_some_and(|w| model.values.tensor(w).is_some())
}

impl QuantizeSettings {
    /// All rules in order, those of `skip` first.
    pub fn all_rules(&self) -> Vec<Rule> {
        self.skip.iter().map(|p| Rule::skipping(p)).chain(self.rules.iter().cloned()).collect()
    }

    pub(crate) fn check_rules(&self) -> Result<(), Fault> {
        for rule in &self.rules {
            rule.check()?;
            if let Some(activations) = &rule.activations {
                activations.check().map_err(|fault| fault.under("rules.activations"))?;
            }
            if let Some(reads) = &rule.reads {
                reads.check_read().map_err(|fault| fault.under("rules.reads"))?;
            }
        }
        Ok(())
    }
}

/// Checks that each rule applies to a node. Call it before BatchNormalization is folded: folded nodes no longer exist, and rules
/// for them must not be refused.
///
/// # Errors
/// [`crate::QuantizeError::Setting`] for a rule or a pattern of `skip` that matches no node.
pub fn check_skip(model: &Model, settings: &QuantizeSettings) -> Result<()> {
    let rules = Rules::of(model, settings);
    for (i, rule) in rules.rules.iter().enumerate() {
        let mut found = false;
        model.graph.visit(&mut |n| found |= rules.applies(rule, model, n));
        if !found {
            let fault = match settings.skip.get(i) {
                Some(pattern) => Fault::new("skip", format!("'{pattern}' matches no node")),
                None => Fault::new("rules", format!("the rule '{rule}' applies to no node")),
            };
            return Err(fault.into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> std::result::Result<Vec<Rule>, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn rules_are_read_and_written_and_print_as_sentences() {
        let text = r#"[{"match":"conv*","weights":{"kind":"codebook","bits":3}},{"op":"Gemm","activations":false},
                       {"position":"first","weights":{"bits":8}},{"match":"fc","skip":true}]"#;
        let read = rules(text).unwrap();
        let printed: Vec<String> = read.iter().map(|r| r.to_string()).collect();
        assert_eq!(
            printed,
            [
                "match = \"conv*\": weights codebook with bits = 3",
                "op = \"Gemm\": activations in float",
                "position = \"first\": weights affine with bits = 8",
                "match = \"fc\": skip",
            ]
        );
        assert_eq!(rules(&serde_json::to_string(&read).unwrap()).unwrap(), read);
        assert!(rules(r#"[{"mach":"x"}]"#).is_err() && rules(r#"[{"op":"Conv","weights":"affin"}]"#).unwrap_err().contains("affine"));
    }

    #[test]
    fn a_rule_without_condition_or_effect_is_refused() {
        let check = |text: &str| QuantizeSettings { rules: rules(text).unwrap(), ..Default::default() }.check().unwrap_err().to_string();
        assert!(check(r#"[{"skip":true}]"#).contains("every node"));
        assert!(check(r#"[{"op":"Conv"}]"#).contains("changes nothing"));
        assert!(check(r#"[{"op":"Conv","activations":{"bits":1}}]"#).contains("2..16"));
    }
}
