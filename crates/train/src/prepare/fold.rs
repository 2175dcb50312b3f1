//! Constant folding: nodes that read only constants are computed once and become constants, in subgraphs too.
use super::names::Names;
use super::origin::{Origins, is_uniform};
use crate::{Executor, Mode, Named, Overrides, TrainError};
use graph::{Annotation, Constant, Extra, Graph, Model, Node, Origin, Setting, ValueId, ValueType};
use ops::Role;
use std::collections::{HashMap, HashSet};
use tensor::{DType, Tensor};

/// Operators whose result is not a function of their inputs, or whose folding would lose how a value is stored (a
/// DequantizeLinear of a stored integer weight).
const KEPT: &[&str] = &[
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
    "Dropout",
    "QuantizeLinear",
    "DequantizeLinear",
];

/// Operators that change the layout of their first input's elements.
const VIEWS: &[&str] = &["Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"];

/// Results with more elements than all inputs together (an embedding repeated by Tile or Expand) are folded up to this size:
/// beyond it, the file would grow.
const MOST_GROWTH: usize = 1024;
/// The same for floats, whose copies would be trained separately.
const MOST_FLOAT_GROWTH: usize = 16;

/// The result of folding.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// Number of removed nodes.
    pub(super) nodes: usize,
    /// The origin of each folded constant.
    pub(super) origins: Origins,
}

/// Folds constant nodes and removes nodes and values without readers. An If whose condition has become a constant is replaced by
/// the branch taken. Returns how many nodes were removed.
///
/// Nodes whose folding would make the file larger stay, and so does a weight that one node reads directly and another through a
/// Transpose or the like: it is one weight with two readers. A node that cannot be evaluated stays too; the run reports it.
///
/// # Errors
/// For a graph that is not well formed.
pub fn fold_constants(model: &mut Model) -> Result<usize, TrainError> {
    Ok(fold(model)?.nodes)
}

/// As [`fold_constants`], with the origin of each new constant.
pub(super) fn fold(model: &mut Model) -> Result<Folded, TrainError> {
    let before = count(&model.graph);
    let mut origins = Origins::default();
    // Inlining a branch may make further nodes constant, whose results decide further branches.
    loop {
        let plan = FoldPlan::new(model);
        let mut graph = std::mem::take(&mut model.graph);
        let mut folder = Folder { names: Names::of(&model.values), model, plan: &plan, origins: &mut origins, hoisted: vec![] };
        folder.graph(&mut graph, true);
        graph.constants.extend(folder.hoisted);
        model.graph = graph;
        if !inline_constant_ifs(model)? {
            break;
        }
    }
    model.remove_dead();
    remove_dead_inside(&mut model.graph);
    model.graph.sort(&model.values)?;
    Ok(Folded { nodes: before.saturating_sub(count(&model.graph)), origins })
}

fn count(graph: &Graph) -> usize {
    let mut nodes = 0;
    graph.visit(&mut |_| nodes += 1);
    nodes
}

/// Which nodes are folded, determined before anything is computed.
struct FoldPlan {
    /// First outputs of these nodes.
    foldable: HashSet<ValueId>,
    /// Known elements of inputs that are no constants but follow from the declared shapes.
    elements: HashMap<ValueId, Tensor>,
}

impl FoldPlan {
    fn new(model: &Model) -> FoldPlan {
        let ops::Inferred { types, elements } = ops::infer(model).unwrap_or_default();
        let mut readers: HashMap<ValueId, Vec<(&Node, usize)>> = HashMap::new();
        model.graph.visit(&mut |node| {
            for (i, v) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
                readers.entry(v).or_default().push((node, i));
            }
        });
        let weighty = |id: ValueId| {
            let tensor = model.constant(id).filter(|t| t.rank() >= 2 && !is_uniform(t))?;
            (model.annotations.get(id).is_none_or(Annotation::is_empty) && !tensor.is_empty()).then_some(id)
        };
        let weighty: HashSet<ValueId> = readers.keys().filter_map(|v| weighty(*v)).collect();
        let mut blocked = HashSet::new();
        loop {
            let sight = Sight { types: &types, elements: &elements, readers: &readers, weighty: &weighty };
            let mut pass = Pass { model, sight, blocked: &blocked, out: Found::default() };
            pass.graph(&model.graph);
            let Found { foldable, roots, staying, .. } = pass.out;
            let tied = |v: &ValueId| roots.get(v).is_some_and(|r| r.iter().any(|root| staying.contains(root)));
            let tied: Vec<ValueId> = foldable.iter().filter(|(v, identity)| !**identity && tied(v)).map(|(v, _)| *v).collect();
            if tied.is_empty() {
                return FoldPlan { foldable: foldable.into_keys().collect(), elements };
            }
            blocked.extend(tied);
        }
    }
}

#[derive(Default)]
struct Found {
    /// First outputs of the nodes that read only constants; true for an Identity.
    foldable: HashMap<ValueId, bool>,
    known: HashSet<ValueId>,
    /// The weights behind a folded value.
    roots: HashMap<ValueId, Vec<ValueId>>,
    /// Weights read by a node that stays.
    staying: HashSet<ValueId>,
    /// Results of Identity nodes, by their inputs.
    alias: HashMap<ValueId, ValueId>,
}

/// Facts about a model, determined before the folding is planned.
#[derive(Clone, Copy)]
struct Sight<'a> {
    types: &'a HashMap<ValueId, ValueType>,
    elements: &'a HashMap<ValueId, Tensor>,
    readers: &'a HashMap<ValueId, Vec<(&'a Node, usize)>>,
    weighty: &'a HashSet<ValueId>,
}

struct Pass<'a> {
    model: &'a Model,
    sight: Sight<'a>,
    blocked: &'a HashSet<ValueId>,
    out: Found,
}

impl Pass<'_> {
    fn graph(&mut self, graph: &Graph) {
        for node in &graph.nodes {
            node.subgraphs().for_each(|g| self.graph(g));
            match node.outputs.first().copied().flatten().filter(|_| self.is_foldable(graph, node)) {
                Some(first) => {
                    self.out.foldable.insert(first, node.op_type == "Identity");
                    if let (Some(read), "Identity") = (node.input(0), node.op_type.as_str()) {
                        self.out.alias.insert(first, self.out.alias.get(&read).copied().unwrap_or(read));
                    }
                    let mut roots: Vec<ValueId> = node.inputs.iter().flatten().flat_map(|v| self.roots_of(*v)).collect();
                    roots.sort_unstable();
                    roots.dedup();
                    for v in node.outputs.iter().flatten() {
                        self.out.known.insert(*v);
                        // A result that depends only on a weight's shape is no copy of it.
                        if !matches!(self.sight.types.get(v), Some(ValueType::Tensor { dtype: DType::I64 | DType::I32 | DType::Bool, .. }))
                        {
                            self.out.roots.insert(*v, roots.clone());
                        }
                    }
                }
                None => {
                    let read: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
                    self.stays(&read);
                }
            }
        }
        self.stays(&graph.outputs);
    }

    fn stays(&mut self, read: &[ValueId]) {
        for v in read {
            // A reader of a folded value reads a copy of the weight; only the weight itself, or an Identity of it, is the weight.
            let v = self.out.alias.get(v).unwrap_or(v);
            if self.sight.weighty.contains(v) {
                self.out.staying.insert(*v);
            }
        }
    }

    fn roots_of(&self, v: ValueId) -> Vec<ValueId> {
        match self.out.roots.get(&v) {
            Some(roots) => roots.clone(),
            None => self.sight.weighty.get(&v).copied().into_iter().collect(),
        }
    }

    fn is_foldable(&self, graph: &Graph, node: &Node) -> bool {
        let constant = |v: ValueId| {
            let plain = self.model.annotations.get(v).is_none_or(Annotation::is_empty);
            self.out.known.contains(&v) && plain || self.model.constant(v).is_some() && (plain || carries(self.model, node, v))
        };
        node.is_onnx()
            && !KEPT.contains(&node.op_type.as_str())
            && node.subgraphs().next().is_none()
            && !node.inputs.is_empty()
            && node.inputs.iter().flatten().all(|v| constant(*v) || self.cuts(node, *v))
            && !node.outputs.iter().flatten().any(|v| graph.outputs.contains(v) || self.blocked.contains(v))
            && ops::find(&node.domain, &node.op_type).is_some_and(|op| !self.hides(op, node))
            && self.grows_little(node)
    }

    /// True for bounds and sizes by which a float constant is cut or laid out, if they follow from declared shapes (the hidden
    /// size in a recurrent layer's state). Other values are not derived from declared shapes, since a declared batch may be
    /// opened later.
    fn cuts(&self, node: &Node, v: ValueId) -> bool {
        let cut = node.op_type == "Slice" || VIEWS.contains(&node.op_type.as_str());
        let data = node.input(0).filter(|d| *d != v);
        let float = data.is_some_and(|d| match (self.model.constant(d), self.sight.types.get(&d)) {
            (Some(t), _) => t.dtype().is_float(),
            (None, Some(ValueType::Tensor { dtype, .. })) => dtype.is_float() && self.out.known.contains(&d),
            _ => false,
        });
        cut && float && self.sight.elements.contains_key(&v)
    }

    /// A trained weight must not be hidden in the result of a node, unless that result is a parameter itself.
    fn hides(&self, op: &dyn ops::Operator, node: &Node) -> bool {
        let float = |v: ValueId| match (self.model.values.tensor(v), self.sight.types.get(&v)) {
            (Some(t), _) => t.dtype().is_float(),
            (None, Some(ValueType::Tensor { dtype, .. })) => dtype.is_float(),
            (None, _) => true,
        };
        let trains = (0..node.inputs.len()).any(|i| node.input(i).is_some_and(float) && is_parameter(op.role(node, i)));
        let seen = |(reader, i): &(&Node, usize)| {
            VIEWS.contains(&reader.op_type.as_str())
                || ops::find(&reader.domain, &reader.op_type).is_some_and(|op| is_parameter(op.role(reader, *i)))
        };
        trains && !node.outputs.iter().flatten().all(|v| self.sight.readers.get(v).is_some_and(|r| r.iter().all(seen)))
    }

    /// False if the result is larger than its inputs, or of unknown size.
    fn grows_little(&self, node: &Node) -> bool {
        let size = |v: &ValueId| match (self.model.values.tensor(*v), self.sight.types.get(v)) {
            (Some(t), _) => Some((t.len(), t.dtype())),
            (None, Some(ValueType::Tensor { dtype, shape: Some(shape) })) => {
                Some((shape.iter().try_fold(1usize, |n, d| n.checked_mul(d.known()?))?, *dtype))
            }
            _ => None,
        };
        let given: usize = node.inputs.iter().flatten().filter_map(size).map(|(n, _)| n).fold(0, usize::saturating_add);
        let sizes: Option<Vec<(usize, DType)>> = node.outputs.iter().flatten().map(size).collect();
        let little = |sizes: Vec<(usize, DType)>| {
            sizes.iter().all(|(n, dtype)| *n <= given.max(if dtype.is_float() { MOST_FLOAT_GROWTH } else { MOST_GROWTH }))
        };
        sizes.is_some_and(little)
    }
}

fn is_parameter(role: Role) -> bool {
    matches!(role, Role::Weight | Role::Bias | Role::NormScale | Role::NormBias | Role::Statistic)
}

/// True if the node keeps the annotation of its input: a Transpose, and any view of a value with one scale.
fn carries(model: &Model, node: &Node, v: ValueId) -> bool {
    let axis = model.annotations.encoding(v).is_some_and(|e| e.settings.contains_key("axis"));
    let free = node.output(0).is_none_or(|v| model.annotations.get(v).is_none_or(Annotation::is_empty));
    let view = VIEWS.contains(&node.op_type.as_str()) && (!axis || matches!(node.op_type.as_str(), "Transpose" | "Identity"));
    free && view && node.input(0) == Some(v)
}

struct Folder<'a> {
    model: &'a mut Model,
    plan: &'a FoldPlan,
    origins: &'a mut Origins,
    names: Names,
    /// Float results in subgraphs are parameters; they are stored in the main graph so that branches can share them.
    hoisted: Vec<ValueId>,
}

impl Folder<'_> {
    fn graph(&mut self, graph: &mut Graph, main: bool) {
        let mut rest = Vec::with_capacity(graph.nodes.len());
        for mut node in std::mem::take(&mut graph.nodes) {
            for sub in node.subgraphs_mut() {
                self.graph(sub, false);
            }
            let planned = node.outputs.first().copied().flatten().is_some_and(|v| self.plan.foldable.contains(&v));
            if planned {
                self.settle_elements(&mut node);
            }
            let known = planned && node.inputs.iter().flatten().all(|v| self.model.values.tensor(*v).is_some());
            let Some(results) = known.then(|| evaluate_alone(self.model, &node)).flatten() else {
                rest.push(node);
                continue;
            };
            for (v, tensor) in node.outputs.iter().zip(results) {
                let (Some(v), Some(tensor)) = (*v, tensor) else { continue };
                self.origins.computed(&self.model.values, &node, v);
                let hoist = !main && tensor.dtype().is_float() && tensor.len() > 1;
                pass_on(self.model, &node, v, &tensor);
                let values = &mut self.model.values;
                values[v].constant = Some(Constant { tensor: tensor.clone(), origin: Origin::Initializer, extra: Extra::default() });
                values.set_tensor(v, tensor);
                graph.value_info.retain(|w| *w != v);
                if hoist {
                    values[v].name = self.names.apart(&values[v].name);
                    self.hoisted.push(v);
                } else {
                    graph.constants.push(v);
                }
            }
        }
        graph.nodes = rest;
    }
}

impl Folder<'_> {
    /// Replaces inputs of a folded node that follow from declared shapes by constants.
    fn settle_elements(&mut self, node: &mut Node) {
        for v in node.inputs.iter_mut().flatten() {
            let open = self.model.values.tensor(*v).is_none();
            if let Some(elements) = self.plan.elements.get(v).filter(|_| open) {
                *v = self.model.values.add_constant(self.names.fresh("bound"), elements.clone());
            }
        }
    }
}

/// Evaluates one node that reads only constants; `None` if it cannot be.
fn evaluate_alone(model: &Model, node: &Node) -> Option<Vec<Option<Tensor>>> {
    let mut alone = Model { opsets: model.opsets.clone(), ..Model::default() };
    let mut copy = node.clone();
    for v in copy.inputs.iter_mut().flatten() {
        let tensor = model.values.tensor(*v)?.clone();
        let name = alone.values.len().to_string();
        *v = alone.values.add_constant(name, tensor);
        alone.graph.constants.push(*v);
    }
    for v in copy.outputs.iter_mut().flatten() {
        let name = alone.values.len().to_string();
        *v = alone.values.add_named(name);
        alone.graph.outputs.push(*v);
    }
    let made = copy.outputs.clone();
    alone.graph.nodes.push(copy);
    let mut out = Executor::new(&alone).ok()?.run_with(&Named::new(), &Overrides::default(), Mode::FLOAT, None).ok()?;
    Some(made.iter().map(|v| v.and_then(|v| out.values.remove(&v))).collect())
}

/// Copies the annotation of a view's input to its result.
fn pass_on(model: &mut Model, node: &Node, to: ValueId, result: &Tensor) {
    let Some(from) = node.input(0).and_then(|v| model.annotations.get(v)).filter(|a| !a.is_empty()).cloned() else { return };
    let mut annotation = from;
    if node.op_type == "Transpose" {
        let reversed = (0..result.rank() as i64).rev().collect();
        let order: Vec<usize> = node.ints_or("perm", reversed).unwrap_or_default().iter().map(|i| *i as usize).collect();
        annotation.mask = annotation.mask.and_then(|m| m.transpose(&order).ok());
        if let Some(Setting::Int(axis)) = annotation.encoding.as_mut().and_then(|e| e.settings.get_mut("axis")) {
            *axis = order.iter().position(|i| *i as i64 == *axis).map_or(*axis, |at| at as i64);
        }
    } else {
        annotation.mask = annotation.mask.and_then(|m| m.reshape(result.shape()).ok());
    }
    *model.annotations.entry(to) = annotation;
}

/// Removes unused nodes and values from subgraphs; [`Model::remove_dead`] does it for the main graph.
fn remove_dead_inside(graph: &mut Graph) {
    for sub in graph.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
        remove_dead_inside(sub);
        loop {
            let uses = sub.use_counts();
            let before = sub.nodes.len();
            sub.nodes.retain(|n| n.outputs.iter().flatten().any(|v| uses.contains_key(v)));
            if sub.nodes.len() == before {
                sub.constants.retain(|v| uses.contains_key(v));
                break;
            }
        }
    }
}

/// Replaces each If whose condition is a constant by the nodes of the branch taken, subgraphs included. Returns whether any was.
fn inline_constant_ifs(model: &mut Model) -> Result<bool, TrainError> {
    let mut graph = std::mem::take(&mut model.graph);
    let mut inlined = false;
    let result = inline_in(&mut graph, model, &mut inlined);
    model.graph = graph;
    result.map(|()| inlined)
}

fn inline_in(graph: &mut Graph, model: &mut Model, inlined: &mut bool) -> Result<(), TrainError> {
    let mut i = 0;
    while i < graph.nodes.len() {
        for sub in graph.nodes[i].subgraphs_mut() {
            inline_in(sub, model, inlined)?;
        }
        let node = &graph.nodes[i];
        let condition = node.input(0).filter(|v| node.op_type == "If" && node.is_onnx() && !graph.inputs.contains(v));
        let Some(taken) = condition.and_then(|v| model.values.tensor(v)).and_then(|t| t.item::<bool>().ok()) else {
            i += 1;
            continue;
        };
        let node = graph.nodes.remove(i);
        let branch = node.subgraph(if taken { "then_branch" } else { "else_branch" })?.clone();
        let made = branch.nodes.iter().flat_map(|n| n.outputs.iter().flatten());
        let mut names = Names::of(&model.values);
        for v in made.chain(&branch.constants).copied().collect::<Vec<ValueId>>() {
            // Names were unique only in the branch's scope; outside they must not collide.
            model.values[v].name = names.apart(&model.values[v].name);
        }
        graph.constants.extend(branch.constants);
        let count = branch.nodes.len();
        graph.nodes.splice(i..i, branch.nodes);
        for (outer, inner) in node.outputs.iter().zip(&branch.outputs) {
            let Some(outer) = outer else { continue };
            if graph.outputs.contains(outer) {
                // A graph output keeps its name: an Identity computes it.
                graph.nodes.insert(i + count, Node::new("Identity", "", &[*inner], &[*outer]));
            } else {
                graph.replace_uses(*outer, *inner);
            }
        }
        *inlined = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::AttributeValue;
    use tensor::Tensor;

    #[test]
    fn a_chain_of_constants_folds_and_an_if_on_it_takes_its_branch() {
        let mut m = Model::new(17);
        let constant = |m: &mut Model, n: &str, t: Tensor| {
            let id = m.values.add_constant(n, t);
            m.graph.constants.push(id);
            id
        };
        let (a, b) = (constant(&mut m, "a", Tensor::scalar(2f32)), constant(&mut m, "b", Tensor::scalar(3f32)));
        let x = m.values.add_named("x");
        m.graph.inputs.push(x);
        let sum = m.values.add_named("sum");
        m.graph.nodes.push(Node::new("Add", "add", &[a, b], &[sum]));
        let cond = m.values.add_named("cond");
        m.graph.nodes.push(Node::new("Greater", "greater", &[sum, a], &[cond]));
        let branch = |m: &mut Model, op: &str| {
            let out = m.values.add_named("branch_out");
            Graph { nodes: vec![Node::new(op, "inner", &[x, sum], &[out])], outputs: vec![out], ..Graph::default() }
        };
        let (then, other) = (branch(&mut m, "Mul"), branch(&mut m, "Add"));
        let y = m.values.add_named("y");
        let node = Node::new("If", "if", &[cond], &[y]).with("then_branch", AttributeValue::Graph(Box::new(then)));
        m.graph.nodes.push(node.with("else_branch", AttributeValue::Graph(Box::new(other))));
        m.graph.outputs.push(y);
        fold_constants(&mut m).unwrap();
        m.verify().unwrap();
        let ops: Vec<&str> = m.graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
        assert_eq!(ops, ["Mul", "Identity"]);
        let out = Executor::new(&m).unwrap().run(&Named::from([("x".into(), Tensor::scalar(4f32))]), Mode::FLOAT).unwrap();
        assert_eq!(out["y"], Tensor::scalar(20f32));
    }
}
