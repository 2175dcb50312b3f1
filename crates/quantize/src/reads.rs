//! What layers read in other bits than those of the value, or as two levels: `reads` of a rule.
//!
//! A residual sum that an Add reads in 8 bits and a convolution in 4 is two values: the sum, and for the convolution an Identity of
//! it with a grid of its own.
use crate::plan::{Planner, is_data};
use crate::{ActivationSettings, QuantizeSettings, Result};
use graph::{Graph, Linked, Model, Names, Node, ValueId, Values};
use ops::{Effect, Roles};
use std::collections::{BTreeMap, HashMap};
use target::QuantRule;

/// How nodes read values: by a node's first output and the number of the input, the value and how it is read.
type Asked = BTreeMap<(ValueId, usize), (ValueId, ActivationSettings)>;

/// Puts an Identity in front of the nodes that read a value in other bits than the rest of its readers, one for each way.
///
/// # Errors
/// If the edited graph is not well formed.
pub(crate) fn separate(model: &mut Model, settings: &QuantizeSettings) -> Result<()> {
    if !asks(settings) {
        return Ok(());
    }
    let mut asked = Planner::new(model, &Roles::of(model), settings).asked();
    let agreed = agreed(model, &asked);
    asked.retain(|_, (value, _)| !agreed.contains_key(value));
    let mut names = (Names::of_nodes(&model.graph), model.names());
    separate_in(&mut model.graph, &mut model.values, &asked, &mut names);
    model.verify()?;
    Ok(())
}

/// How values are read that all their readers read in the same way, by the value that carries the grid.
pub(crate) fn widths(planner: &Planner) -> BTreeMap<ValueId, ActivationSettings> {
    let model = planner.model;
    let (here, uses) = (model.graph.linked(), model.graph.use_counts());
    agreed(model, &planner.asked()).into_iter().map(|(value, read)| (origin(model, &here, &uses, value), read)).collect()
}

pub(crate) fn asks(settings: &QuantizeSettings) -> bool {
    settings.rules.iter().any(|r| r.reads.is_some())
}

impl Planner<'_> {
    /// What nodes read in another way than what makes it would give it.
    fn asked(&self) -> Asked {
        let mut found = Asked::new();
        self.in_graphs(&self.model.graph, &mut |here, node| {
            let scheme = self.rules.scheme(self.model, node);
            let (Some(read), Some(output)) = (scheme.reads, node.output(0)) else { return };
            let rule = self.rule(node);
            if !matches!(rule, QuantRule::Integer { .. }) {
                return;
            }
            for (at, value) in node.inputs.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?))) {
                let maker = here.maker(self.root(here, value)).unwrap_or(node);
                let own = self.rules.scheme(self.model, maker).activations.or(scheme.activations);
                let same = read.stored().is_some() && own == read.stored();
                if is_data(&rule, at) && self.model.values.tensor(value).is_none() && !same {
                    found.insert((output, at), (value, read));
                }
            }
        });
        found
    }
}

/// Values whose every use is asked for in the same way. A use as an output of the graph is none that asks.
fn agreed(model: &Model, asked: &Asked) -> BTreeMap<ValueId, ActivationSettings> {
    let uses = model.graph.use_counts();
    let mut readers: BTreeMap<ValueId, Vec<ActivationSettings>> = BTreeMap::new();
    for (value, read) in asked.values() {
        readers.entry(*value).or_default().push(*read);
    }
    readers.retain(|value, list| uses.get(value) == Some(&list.len()) && list.iter().all(|read| *read == list[0]));
    readers.into_iter().map(|(value, list)| (value, list[0])).collect()
}

/// Back through operators that only move elements, as long as nothing else reads what they move.
fn origin(model: &Model, here: &Linked, uses: &HashMap<ValueId, usize>, mut value: ValueId) -> ValueId {
    while let Some(node) = here.maker(value).filter(|n| n.outputs.iter().flatten().count() == 1)
        && let Some(from) = node.input(0).filter(|v| uses.get(v) == Some(&1) && here.maker(*v).is_some())
        && ops::find(&node.domain, &node.op_type).is_some_and(|op| op.effect(node, model) == Effect::Moves)
    {
        value = from;
    }
    value
}

fn separate_in(graph: &mut Graph, values: &mut Values, asked: &Asked, names: &mut (Names, Names)) {
    let mut made: HashMap<(ValueId, ActivationSettings), ValueId> = HashMap::new();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        for sub in node.subgraphs_mut() {
            separate_in(sub, values, asked, names);
        }
        let output = node.output(0);
        for at in 0..node.inputs.len() {
            let Some((value, read_as)) = output.and_then(|o| asked.get(&(o, at))).copied() else { continue };
            let own = *made.entry((value, read_as)).or_insert_with(|| {
                let name = names.1.fresh(&format!("{}_{}", values[value].name, read_as.label()));
                let node = names.0.fresh(&format!("{name}_Identity"));
                let read = values.add_named(name);
                let ty = values[value].ty.clone();
                values[read].ty = ty;
                nodes.push(Node::new("Identity", node, &[value], &[read]));
                read
            });
            node.inputs[at] = Some(own);
        }
        nodes.push(node);
    }
    graph.nodes = nodes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corrections::tests::{quantized, residual, with};
    use crate::{ActivationSettings, Rule};

    fn reading(bits: u32) -> QuantizeSettings {
        let rule = Rule { op: Some("Conv".into()), reads: Some(ActivationSettings { bits, ..Default::default() }), ..Default::default() };
        let first = Rule { op: None, position: Some(crate::Position::First), reads: Some(ActivationSettings::default()), ..rule.clone() };
        QuantizeSettings { rules: vec![rule, first], ..with("[]") }
    }

    #[test]
    fn a_value_that_is_also_added_gets_a_second_grid_and_one_that_only_layers_read_does_not() {
        let model = residual();
        let before = model.graph.nodes.len();
        let (model, _) = quantized(model, &reading(4));
        let bits = |id: ValueId| model.annotations.encoding(id).and_then(|e| encodings::affine::AffineSettings::of(e).ok()).map(|s| s.bits);
        let mut seen = vec![];
        for node in model.graph.nodes.iter().filter(|n| n.op_type == "Conv") {
            seen.push(bits(node.input(0).unwrap()));
        }
        assert_eq!(seen[0], Some(8));
        assert!(seen[1..].iter().all(|b| *b == Some(4)), "{seen:?}");
        let identities: Vec<&Node> = model.graph.nodes.iter().filter(|n| n.op_type == "Identity").collect();
        assert_eq!(model.graph.nodes.len(), before + identities.len());
        let uses = model.graph.use_counts();
        for node in &identities {
            let (value, read) = (node.input(0).unwrap(), node.output(0).unwrap());
            assert_eq!((bits(value), bits(read)), (Some(8), Some(4)));
            assert!(uses[&value] > 1);
        }
        assert!(!identities.is_empty());
        // Again on the same graph: nothing more is needed.
        let (again, _) = quantized(model.clone(), &reading(4));
        assert_eq!(again.graph.nodes.len(), model.graph.nodes.len());
    }

    /// What a convolution reads has two levels; what the Add reads stays on its grid. Behind a ReLU zero is one of the levels.
    #[test]
    fn layers_read_two_levels_and_sums_stay_on_their_grids() {
        let mut settings = reading(4);
        settings.rules[0].reads = Some(ActivationSettings::binary(encodings::binary::ActivationEstimator::IrNet));
        let (model, _) = quantized(residual(), &settings);
        let levels = |id: ValueId| model.annotations.encoding(id).and_then(|e| encodings::binary::activation_levels(e).unwrap());
        let convolutions: Vec<&Node> = model.graph.nodes.iter().filter(|n| n.op_type == "Conv").collect();
        assert_eq!(levels(convolutions[0].input(0).unwrap()), None);
        for node in &convolutions[1..] {
            let [low, high, threshold] = levels(node.input(0).unwrap()).unwrap();
            assert!(low == 0.0 && high == 2.0 * threshold && high > 0.0);
            // No kernel adds a bias on a grid to such products.
            assert!(node.input(2).is_some_and(|b| model.annotations.encoding(b).is_none()));
        }
        let add = model.graph.nodes.iter().find(|n| n.op_type == "Add").unwrap();
        for v in add.inputs.iter().flatten() {
            assert!(levels(*v).is_none() && model.annotations.encoding(*v).is_some());
        }
        assert!(model.graph.nodes.iter().any(|n| n.op_type == "Identity" && n.name.contains("_1bit")));
        assert!(crate::corrections::tests::output(&model, 3, train::Mode::SIMULATED).iter().all(|v| v.is_finite()));
        let (again, _) = quantized(model.clone(), &settings);
        assert_eq!(again.graph.nodes.len(), model.graph.nodes.len());
    }

    #[test]
    fn reading_in_the_bits_of_the_value_changes_nothing() {
        let (plain, _) = quantized(residual(), &with("[]"));
        let (model, _) = quantized(residual(), &reading(8));
        assert_eq!(plain, model);
    }
}
