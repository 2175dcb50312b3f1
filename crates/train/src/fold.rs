//! Constant folding: nodes that read only constants are computed once and become constants.
use crate::{Executor, Mode, Named, TrainError};
use graph::{Graph, Model, Node};
use ops::Role;

/// Operators whose result is not a function of their inputs, or whose folding would undo what the file says about
/// storage (a DequantizeLinear of a stored integer weight).
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

/// Folds what can be folded in the main graph and removes what nobody reads any more. An If whose condition has become
/// a constant is replaced by the branch taken. Returns how many nodes went.
///
/// # Errors
/// Whatever evaluating such a node reports, by name.
pub fn fold_constants(model: &mut Model) -> Result<usize, TrainError> {
    let before = model.graph.nodes.len();
    inline_constant_ifs(model)?;
    let mut i = 0;
    while i < model.graph.nodes.len() {
        if !is_foldable(model, &model.graph.nodes[i]) {
            i += 1;
            continue;
        }
        let node = model.graph.nodes.remove(i);
        let outputs = evaluate_alone(model, &node)?;
        for (v, t) in node.outputs.iter().zip(outputs) {
            if let (Some(v), Some(t)) = (v, t) {
                model.values[*v].constant =
                    Some(graph::Constant { tensor: t.clone(), origin: graph::Origin::Initializer, extra: graph::Extra::default() });
                model.values.set_tensor(*v, t);
                model.graph.constants.push(*v);
                model.graph.value_info.retain(|w| w != v);
            }
        }
        i = 0;
        inline_constant_ifs(model)?;
    }
    model.remove_dead();
    Ok(before.saturating_sub(model.graph.nodes.len()))
}

fn is_foldable(model: &Model, node: &Node) -> bool {
    let constant = |v: graph::ValueId| model.constant(v).is_some() && model.annotations.get(v).is_none();
    // A weight stays a weight: what trains must not be hidden in the result of a node.
    let trains = |op: &dyn ops::Operator| {
        (0..node.inputs.len()).any(|i| matches!(op.role(node, i), Role::Weight | Role::Bias | Role::NormScale | Role::NormBias))
    };
    node.is_onnx()
        && !KEPT.contains(&node.op_type.as_str())
        && node.subgraphs().next().is_none()
        && !node.inputs.is_empty()
        && node.inputs.iter().flatten().all(|v| constant(*v))
        && !node.outputs.iter().flatten().any(|v| model.graph.outputs.contains(v))
        && ops::find(&node.domain, &node.op_type).is_some_and(|op| !trains(op))
}

/// Evaluates one node that reads only constants.
fn evaluate_alone(model: &Model, node: &Node) -> Result<Vec<Option<tensor::Tensor>>, TrainError> {
    let mut alone = Model { opsets: model.opsets.clone(), values: model.values.clone(), ..Model::default() };
    alone.graph = Graph { nodes: vec![node.clone()], outputs: node.outputs.iter().flatten().copied().collect(), ..Graph::default() };
    let executor = Executor::new(&alone)?;
    let mut out = executor.run_with(&Named::new(), &crate::Overrides::default(), Mode::FLOAT, None)?;
    Ok(node.outputs.iter().map(|v| v.and_then(|v| out.values.remove(&v))).collect())
}

/// Replaces each If whose condition is a constant by the nodes of the branch taken.
fn inline_constant_ifs(model: &mut Model) -> Result<(), TrainError> {
    let decided = |model: &Model, n: &Node| {
        let condition = n.input(0).and_then(|v| model.constant(v))?;
        (n.op_type == "If" && n.is_onnx()).then(|| condition.item::<bool>().ok()).flatten()
    };
    while let Some((i, taken)) = model.graph.nodes.iter().enumerate().find_map(|(i, n)| decided(model, n).map(|d| (i, d))) {
        let node = model.graph.nodes[i].clone();
        let branch = node.subgraph(if taken { "then_branch" } else { "else_branch" })?.clone();
        model.graph.nodes.remove(i);
        let names: Vec<(graph::ValueId, String)> = branch
            .nodes
            .iter()
            .flat_map(|n| n.outputs.iter().flatten())
            .chain(&branch.constants)
            .map(|v| (*v, model.values[*v].name.clone()))
            .collect();
        for (v, name) in names {
            // The branch's names were its own scope's; in the main graph they must not collide.
            if model.find(&name).is_some() {
                model.values[v].name = model.fresh_name(&name);
            }
        }
        model.graph.constants.extend(branch.constants);
        let count = branch.nodes.len();
        for (k, n) in branch.nodes.into_iter().enumerate() {
            model.graph.nodes.insert(i + k, n);
        }
        for (outer, inner) in node.outputs.iter().zip(&branch.outputs) {
            let Some(outer) = outer else { continue };
            if model.graph.outputs.contains(outer) {
                // A graph output keeps its name: an Identity makes it.
                model.graph.nodes.insert(i + count, Node::new("Identity", "", &[*inner], &[*outer]));
            } else {
                model.graph.replace_uses(*outer, *inner);
            }
        }
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
