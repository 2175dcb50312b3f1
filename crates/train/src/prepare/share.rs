//! Which readers of a stored tensor share a parameter.
//!
//! Exporters store equal tensors once: initial biases and normalizations then share one initializer, directly or through
//! Identity, although each is a parameter of its own. A weight with different elements does not equal another by accident: it is
//! one weight with several readers, and so are the biases of layers that share their weight.
use super::names::Names;
use super::origin::{Key, Origins, is_uniform};
use graph::{Annotation, Graph, Model, Node, ValueId};
use ops::{Role, Roles};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names of separated and of shared parameters.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Shares {
    /// Parameters that got a tensor of their own.
    pub(super) apart: Vec<String>,
    /// Weights with several readers, with the number of readers.
    pub(super) tied: Vec<(String, usize)>,
}

/// One use of a constant.
struct Reader {
    value: ValueId,
    /// Position of the node in a walk over the model, and the input's.
    place: (usize, usize),
    /// Role of the input, if it is a parameter's.
    role: Option<Role>,
    /// For a bias: the weight of its layer.
    mate: Option<Key>,
    /// A name for the parameter, if it has none of its own.
    name: String,
}

/// Readers with the same class share a parameter.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    /// The weight, with all its readers.
    Weight,
    /// No parameter.
    Constant,
    /// A bias of the layers with this weight.
    Mate(Key),
    /// A parameter of normalizations, by its input index.
    Norm(usize),
    /// A class of one value: no other value equals it.
    Alone(usize),
}

/// Gives each parameter a tensor of its own and each shared weight one alone.
pub(super) fn separate(model: &mut Model, origins: &Origins) -> Shares {
    let readers = readers(model, origins);
    let mut groups: Vec<Vec<usize>> = vec![];
    let mut known: HashMap<Key, usize> = HashMap::new();
    for (i, reader) in readers.iter().enumerate() {
        let at = *known.entry(origins.key(&model.values, reader.value)).or_insert_with(|| {
            groups.push(vec![]);
            groups.len() - 1
        });
        groups[at].push(i);
    }
    let outputs: BTreeSet<ValueId> = outputs(&model.graph);
    let mut names = Names::of(&model.values);
    let (mut shares, mut moved) = (Shares::default(), BTreeMap::new());
    for group in groups {
        let group: Vec<&Reader> = group.into_iter().map(|i| &readers[i]).collect();
        let fixed = |r: &&Reader| outputs.contains(&r.value) || !model.annotations.get(r.value).is_none_or(Annotation::is_empty);
        if group.len() < 2 || group.iter().all(|r| r.role.is_none()) || group.iter().any(fixed) {
            continue;
        }
        let Some(tensor) = model.values.tensor(group[0].value).cloned() else { continue };
        if group.iter().any(|r| model.values.tensor(r.value) != Some(&tensor)) {
            continue;
        }
        let uniform = is_uniform(&tensor);
        let weighs = !uniform && group.iter().any(|r| r.role == Some(Role::Weight));
        let mut classes: Vec<(Class, Vec<&Reader>)> = vec![];
        for (i, reader) in group.iter().enumerate() {
            let class = match (reader.role, reader.mate) {
                (None, _) if weighs => Class::Weight,
                (None, _) => Class::Constant,
                (Some(Role::Bias), Some(mate)) => Class::Mate(mate),
                _ if uniform => Class::Alone(i),
                (Some(Role::Weight), _) => Class::Weight,
                _ => Class::Norm(reader.place.1),
            };
            match classes.iter_mut().find(|(c, _)| *c == class) {
                Some((_, list)) => list.push(reader),
                None => classes.push((class, vec![reader])),
            }
        }
        let mut taken = BTreeSet::new();
        for (class, list) in classes {
            let own = list.iter().map(|r| r.value).find(|v| !taken.contains(v));
            let id = own.unwrap_or_else(|| {
                let id = model.values.add_constant(names.fresh(&list[0].name), tensor.clone());
                model.graph.constants.push(id);
                id
            });
            if !taken.is_empty() && list.iter().any(|r| r.role.is_some()) {
                shares.apart.push(model.values[id].name.clone());
            }
            let weights = list.iter().filter(|r| r.role == Some(Role::Weight)).count();
            if class == Class::Weight && weights > 1 {
                shares.tied.push((model.values[id].name.clone(), weights));
            }
            taken.insert(id);
            moved.extend(list.iter().filter(|r| r.value != id).map(|r| (r.place, id)));
        }
    }
    if !moved.is_empty() {
        // Constants read in several graphs are stored in the main graph.
        let targets: BTreeSet<ValueId> = moved.values().copied().collect();
        rewire(&mut model.graph, &mut 0, &moved);
        lift_out(&mut model.graph, &targets);
        let held: BTreeSet<ValueId> = model.graph.constants.iter().copied().collect();
        for v in targets {
            if !held.contains(&v) {
                model.values[v].name = names.apart(&model.values[v].name);
                model.graph.constants.push(v);
            }
        }
        model.remove_dead();
    }
    shares
}

fn outputs(graph: &Graph) -> BTreeSet<ValueId> {
    let mut all: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
    for sub in graph.nodes.iter().flat_map(Node::subgraphs) {
        all.extend(outputs(sub));
    }
    all
}

fn readers(model: &Model, origins: &Origins) -> Vec<Reader> {
    let roles = Roles::of(model);
    let (mut list, mut at) = (vec![], 0);
    model.graph.visit(&mut |node| {
        let weight = match roles.bias_of(node) {
            Some((layer, _)) => layer.input(1),
            None => (0..node.inputs.len()).find(|i| roles.role(node, *i) == Role::Weight).and_then(|i| node.input(i)),
        };
        for (i, v) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
            if model.constant(v).is_none_or(|t| !t.dtype().is_float()) {
                continue;
            }
            let role = roles.role(node, i);
            let part = match (role, i) {
                (Role::Weight, _) => "weight",
                (Role::Bias | Role::NormBias, _) => "bias",
                (Role::NormScale, _) => "scale",
                (Role::Statistic, 3) => "running_mean",
                (Role::Statistic, _) => "running_var",
                (Role::Data | Role::Constant, _) => "",
            };
            let of_weight = weight.filter(|_| role == Role::Bias).and_then(|w| model.values[w].name.strip_suffix(".weight"));
            let base = of_weight.map_or_else(|| node.label(&model.values), str::to_string);
            list.push(Reader {
                value: v,
                place: (at, i),
                role: (!part.is_empty()).then_some(role),
                mate: weight.filter(|_| role == Role::Bias).map(|w| origins.key(&model.values, w)),
                name: format!("{base}.{part}"),
            });
        }
        at += 1;
    });
    list
}

/// Replaces the inputs of readers, in the order of [`Graph::visit`].
fn rewire(graph: &mut Graph, at: &mut usize, moved: &BTreeMap<(usize, usize), ValueId>) {
    for node in &mut graph.nodes {
        for (i, v) in node.inputs.iter_mut().enumerate() {
            if let Some(to) = moved.get(&(*at, i)) {
                *v = Some(*to);
            }
        }
        *at += 1;
        node.subgraphs_mut().for_each(|g| rewire(g, at, moved));
    }
}

/// Removes constants from subgraphs.
fn lift_out(graph: &mut Graph, targets: &BTreeSet<ValueId>) {
    for sub in graph.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
        sub.constants.retain(|v| !targets.contains(v));
        lift_out(sub, targets);
    }
}
