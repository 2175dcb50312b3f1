//! Makes every parameter visible: an initializer that its operator reads directly, and that only one operator reads.
//!
//! A weight is found by the role of the input that reads it, so a weight behind an Identity, a Transpose, a Cast or the Slice and
//! Concat of an exporter would not be found: it would be neither counted nor trained, pruned or quantized.
mod bias;
mod float32;
mod fold;
mod names;
mod origin;
mod share;

pub use float32::{is_double, to_float32};
pub use fold::fold_constants;

use crate::TrainError;
use graph::{Graph, Model, Node, Origin, ValueId};
use names::Names;
use ops::{Role, Roles};
use std::collections::{BTreeSet, HashSet};

/// Most names in a note.
const LISTED: usize = 3;

/// Prepares a model from a file, and returns sentences about the changes; none for a model whose parameters are visible already,
/// which stays as it is. The model computes the same as before.
///
/// Files that other tools quantized are lifted before (`deploy::lift`), and half and double precision is made float32
/// ([`to_float32`]): neither is done here.
///
/// - Functions are inlined.
/// - Nodes that compute with constants alone are folded, in the branches of an If too; an If on a constant is replaced by its branch.
///   What would make the file larger stays, and so does the one weight of an embedding and the layer that is tied to it.
/// - Parameters that were stored as one because they are equal (fresh biases and normalizations) are taken apart.
/// - An Add behind a layer becomes its bias.
/// - Parameters that were inputs with a default, or Constant nodes, become initializers.
///
/// # Errors
/// [`TrainError::Graph`] for a graph that is not well formed.
pub fn prepare(model: &mut Model) -> Result<Vec<String>, TrainError> {
    let mut notes = vec![];
    if !model.functions.is_empty() {
        *model = graph::inline_functions(model)?;
        notes.push("the model's functions were inlined".into());
    }
    let defaults = settle_defaults(model);
    if !defaults.is_empty() {
        notes.push(format!("inputs with a default, now parameters alone: {}", list(&defaults)));
    }
    let visible = parameters(model);
    let folded = fold::fold(model)?;
    let shares = share::separate(model, &folded.origins);
    rename(model, &folded.origins);
    let biases = bias::merge(model);
    settle_constants(model);
    // Annotations of folded values are removed.
    let mut live = vec![];
    values(&model.graph, &mut live);
    let live: HashSet<ValueId> = live.into_iter().collect();
    let gone: Vec<ValueId> = model.annotations.iter().map(|(v, _)| v).filter(|v| !live.contains(v)).collect();
    gone.into_iter().for_each(|v| drop(model.annotations.remove(v)));
    model.verify()?;
    if folded.nodes > 0 {
        let shown: Vec<String> = parameters(model).difference(&visible).map(|v| model.values[*v].name.clone()).collect();
        let shown = shown.into_iter().filter(|n| !shares.apart.contains(n) && !biases.contains(n)).collect::<Vec<_>>();
        let hidden = match shown.len() {
            0 => String::new(),
            n => format!("; {} hidden that way: {}", were(n, "parameter"), list(&shown)),
        };
        notes.push(match folded.nodes {
            1 => format!("a node that computes with constants alone was folded{hidden}"),
            n => format!("{n} nodes that compute with constants alone were folded{hidden}"),
        });
    }
    if !shares.apart.is_empty() {
        let (n, names) = (shares.apart.len(), list(&shares.apart));
        notes.push(format!("stored as one because they are equal, now with a tensor of their own: {n} parameters, {names}"));
    }
    notes.extend(shares.tied.iter().map(|(name, n)| format!("'{name}' is read by {n} layers and stays one weight")));
    if !biases.is_empty() {
        notes.push(format!("added behind a layer, now its bias: {}", list(&biases)));
    }
    Ok(notes)
}

/// Stored numbers of a model that no operator reads as a parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreached {
    /// Elements of float constants that are no parameters, without single numbers.
    pub elements: usize,
    /// Elements of all float constants.
    pub total: usize,
    /// The constants that are no parameters, the largest first.
    pub names: Vec<String>,
}

impl Unreached {
    /// A sentence, if the share is at least one in a hundred.
    pub fn note(&self) -> Option<String> {
        let Unreached { elements, total, names } = self;
        (*elements * 100 >= *total && *elements > 0).then(|| {
            format!(
                "{elements} of {total} stored numbers ({:.1} %) are constants that no operator reads as a parameter; they are neither \
                 trained nor pruned: {}",
                *elements as f64 / *total as f64 * 100.0,
                list(names)
            )
        })
    }
}

/// Stored numbers that training and pruning cannot reach, because no operator reads them as a parameter.
pub fn unreached(model: &Model) -> Unreached {
    let (reached, mut all) = (parameters(model), vec![]);
    constants(&model.graph, &mut all);
    let mut out = Unreached::default();
    let mut missed = vec![];
    for v in all {
        let Some(tensor) = model.values.tensor(v).filter(|t| t.dtype().is_float()) else { continue };
        out.total += tensor.len();
        // A single number is a factor or an epsilon.
        if !reached.contains(&v) && tensor.len() > 1 {
            out.elements += tensor.len();
            missed.push((tensor.len(), v));
        }
    }
    missed.sort_by_key(|(n, v)| (std::cmp::Reverse(*n), *v));
    out.names = missed.into_iter().map(|(_, v)| model.values[v].name.clone()).collect();
    out
}

/// All values of a graph and its subgraphs.
fn values(graph: &Graph, into: &mut Vec<ValueId>) {
    into.extend(graph.inputs.iter().chain(&graph.constants));
    into.extend(graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten()));
    graph.nodes.iter().flat_map(Node::subgraphs).for_each(|g| values(g, into));
}

fn constants(graph: &Graph, into: &mut Vec<ValueId>) {
    into.extend(&graph.constants);
    graph.nodes.iter().flat_map(Node::subgraphs).for_each(|g| constants(g, into));
}

/// Constants that some operator reads as a weight, a bias, or a normalization's parameter or statistic.
fn parameters(model: &Model) -> BTreeSet<ValueId> {
    let roles = Roles::of(model);
    let mut found = BTreeSet::new();
    model.graph.visit(&mut |node| {
        for (i, v) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
            let plain = matches!(roles.role(node, i), Role::Data | Role::Constant);
            if !plain && model.values.tensor(v).is_some_and(|t| t.dtype().is_float()) {
                found.insert(v);
            }
        }
    });
    found
}

/// Defaults that a run never feeds become constants: all of them in formats that list every initializer as an input, only
/// parameters in others.
fn settle_defaults(model: &mut Model) -> Vec<String> {
    let listed = model.ir_version < 4;
    let parameters = parameters(model);
    let settled = |v: &ValueId| model.values.tensor(*v).is_some() && (listed || parameters.contains(v));
    let (gone, inputs): (Vec<ValueId>, Vec<ValueId>) = model.graph.inputs.iter().partition(|v| settled(v));
    if gone.is_empty() {
        return vec![];
    }
    model.graph.inputs = inputs;
    model.ir_version = model.ir_version.max(4);
    if listed { vec![] } else { gone.iter().map(|v| model.values[*v].name.clone()).collect() }
}

/// Parameters that were Constant nodes become initializers.
fn settle_constants(model: &mut Model) {
    for v in parameters(model) {
        if let Some(constant) = model.values[v].constant.as_mut().filter(|c| matches!(c.origin, Origin::ConstantNode { .. })) {
            constant.origin = Origin::Initializer;
        }
    }
}

/// A folded parameter gets the name of the weight it was computed from, if that is removed: `linear.weight`, not the name of a
/// Transpose.
fn rename(model: &mut Model, origins: &origin::Origins) {
    let mut live = vec![];
    constants(&model.graph, &mut live);
    let (live, parameters): (HashSet<ValueId>, _) = (live.into_iter().collect(), parameters(model));
    let (mut names, mut released) = (Names::of(&model.values), HashSet::new());
    for v in origins.made().iter().filter(|v| parameters.contains(v)) {
        let size = |root: &ValueId| model.values.tensor(*root).map_or(0, |t| t.len());
        let roots = origins.roots(*v);
        // Not the scale beside a weight, nor the indices of a Slice.
        let largest = roots.iter().map(size).max().unwrap_or(0);
        let main: Vec<ValueId> = roots.into_iter().filter(|r| size(r) * 4 >= largest).collect();
        if main.is_empty() || main.iter().any(|r| live.contains(r) || model.graph.inputs.contains(r)) {
            continue;
        }
        let parts: Vec<&str> = main.iter().map(|r| model.values[*r].name.as_str()).collect();
        let base = match parts.as_slice() {
            [first, second] => format!("{first}+{second}"),
            [first, _, ..] => format!("{first}+{}", parts.len() - 1),
            _ => parts.concat(),
        };
        if released.insert(base.clone()) {
            names.release(&base);
        }
        let name = names.fresh(&base);
        model.values[*v].name = name;
    }
}

fn were(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what} was") } else { format!("{n} {what}s were") }
}

/// The first few of a list.
fn list(names: &[String]) -> String {
    let first = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > LISTED { format!("{first} and {} more", names.len() - LISTED) } else { first }
}

#[cfg(test)]
mod tests;
