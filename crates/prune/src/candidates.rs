//! Which weights may be pruned.
use crate::{Result, WeightView};
use graph::{Graph, Model, Node, ValueId};
use ops::{ChannelAxis, Effect, Role};
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
    /// The meaning of its elements; `None` for a weight that no products are summed with (an embedding), or of an operator that is not
    /// known.
    pub view: Option<WeightView>,
    /// The value that it is multiplied with, and the axis of its channels, where that is a value of the graph.
    pub data: Option<(ValueId, ChannelAxis)>,
    /// It is the first weight in the order of the graph's nodes, or the last one, whatever `skip` leaves out.
    pub place: Place,
    /// The BatchNormalization that scales those channels as the only reader of the result, by its scale and variance.
    pub norm: Option<Normalization>,
}

/// Where a weight stands in the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The weight that is read first.
    First,
    /// Between the two.
    #[default]
    Inner,
    /// The weight that is read last.
    Last,
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
    let (mut found, mut order) = (BTreeMap::new(), vec![]);
    collect(model, &model.graph, &mut found, &mut order);
    for (weight, place) in [(order.first(), Place::First), (order.last().filter(|_| order.len() > 1), Place::Last)] {
        weight.and_then(|weight| found.get_mut(weight)).into_iter().for_each(|c: &mut Candidate| c.place = place);
    }
    for pattern in skip {
        if !found.values().any(|c: &Candidate| graph::matches(pattern, &c.name)) {
            return Err(Fault::new("skip", format!("'{pattern}' matches no weight")).into());
        }
    }
    Ok(found.into_values().filter(|c| !skip.iter().any(|p| graph::matches(p, &c.name))).collect())
}

fn collect(model: &Model, graph: &Graph, found: &mut BTreeMap<ValueId, Candidate>, order: &mut Vec<ValueId>) {
    let (uses, linked) = (graph.use_counts(), graph.linked());
    for node in &graph.nodes {
        for sub in node.subgraphs() {
            collect(model, sub, found, order);
        }
        let Some(op) = ops::find(&node.domain, &node.op_type) else { continue };
        for (i, id) in node.inputs.iter().enumerate() {
            let Some(id) = id.filter(|_| op.role(node, i) == Role::Weight) else { continue };
            let Some(tensor) = model.values.tensor(id).filter(|t| t.dtype() == DType::F32) else { continue };
            let axis = match op.effect(node, model) {
                Effect::Computes { weight: Some(rule), .. } if rule.input == i => rule.axis,
                _ => None,
            };
            let norm = node.output(0).and_then(|out| ops::norm_behind((model, &linked), &uses, out)).and_then(normalization);
            let name = model.values[id].name.clone();
            let axes = ops::weight_axes(node, i, tensor.shape());
            let data = axes.as_ref().and_then(|axes| axes.data).and_then(|(i, at)| Some((node.input(i)?, at)));
            let view = axes.map(|axes| WeightView::new(tensor.shape(), &axes));
            found.entry(id).or_insert_with(|| {
                order.push(id);
                Candidate { weight: id, name, axis, view, data, place: Place::Inner, norm }
            });
        }
    }
}

fn normalization(norm: &Node) -> Option<Normalization> {
    Some(Normalization { scale: norm.input(1)?, variance: norm.input(4)?, epsilon: norm.float_or("epsilon", 1e-5).ok()? })
}
