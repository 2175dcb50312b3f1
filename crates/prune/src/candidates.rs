//! Which weights may be pruned.
use crate::Result;
use graph::{Graph, Model, Node, ValueId};
use ops::{Effect, Role};
use std::collections::BTreeMap;
use technique::Fault;
use tensor::DType;

/// A weight that may be pruned.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Value of the weight.
    pub weight: ValueId,
    /// The weight's name in the graph.
    pub name: String,
    /// Axis of its output channels, if the operator that reads it has one.
    pub axis: Option<usize>,
    /// The BatchNormalization that scales those channels as the only reader of the result, by its scale and variance.
    pub norm: Option<Normalization>,
}

/// The factor of a BatchNormalization for each channel: `scale / sqrt(variance + epsilon)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Scale (gamma), one element a channel.
    pub scale: ValueId,
    /// Running variance, one element a channel.
    pub variance: ValueId,
    /// Added to the variance.
    pub epsilon: f32,
}

/// The f32 constants that an operator reads as a weight, without those that match a pattern of `skip`, in the order of
/// value ids. A weight that several nodes read is listed once, as its first reader sees it.
///
/// # Errors
/// [`crate::PruneError::Setting`] for a pattern that matches no weight: it is most likely misspelt.
pub fn candidates(model: &Model, skip: &[String]) -> Result<Vec<Candidate>> {
    let mut found = BTreeMap::new();
    collect(model, &model.graph, &mut found);
    for pattern in skip {
        if !found.values().any(|c: &Candidate| graph::matches(pattern, &c.name)) {
            return Err(Fault::new("skip", format!("'{pattern}' matches no weight")).into());
        }
    }
    Ok(found.into_values().filter(|c| !skip.iter().any(|p| graph::matches(p, &c.name))).collect())
}

fn collect(model: &Model, graph: &Graph, found: &mut BTreeMap<ValueId, Candidate>) {
    let (uses, linked) = (graph.use_counts(), graph.linked());
    for node in &graph.nodes {
        for sub in node.subgraphs() {
            collect(model, sub, found);
        }
        let Some(op) = ops::find(&node.domain, &node.op_type) else { continue };
        for (i, id) in node.inputs.iter().enumerate() {
            let Some(id) = id.filter(|_| op.role(node, i) == Role::Weight) else { continue };
            if model.values.tensor(id).is_none_or(|t| t.dtype() != DType::F32) {
                continue;
            }
            let axis = match op.effect(node, model) {
                Effect::Computes { weight: Some(rule), .. } if rule.input == i => rule.axis,
                _ => None,
            };
            let norm = node.output(0).and_then(|out| ops::norm_behind((model, &linked), &uses, out)).and_then(normalization);
            let name = model.values[id].name.clone();
            found.entry(id).or_insert(Candidate { weight: id, name, axis, norm });
        }
    }
}

fn normalization(norm: &Node) -> Option<Normalization> {
    Some(Normalization { scale: norm.input(1)?, variance: norm.input(4)?, epsilon: norm.float_or("epsilon", 1e-5).ok()? })
}
