//! Units: consecutive nodes that one kernel computes. A unit ends at a value that has another reader, an annotation or a tap.
use crate::plan::Work;
use graph::{AttributeValue, Graph, Links, Model, Node, ValueId};
use std::collections::HashSet;
use tensor::{Activation, DType};

/// Nodes that are computed together.
pub(crate) struct Unit {
    /// Indices of its nodes, in the order of the graph.
    pub(crate) members: Vec<usize>,
    /// The last of them, at whose place the unit is computed.
    pub(crate) last: usize,
    /// The work of the unit.
    pub(crate) work: Work,
    /// Values that it reads, in the order of the kernel's inputs.
    pub(crate) reads: Vec<Option<ValueId>>,
}

/// The unit with this node as its core. `hidden` tells whether no other code reads a value; `claimed` nodes belong to another
/// unit.
pub(crate) fn unit_at(
    (model, links): (&Model, &Links),
    at: usize,
    node: &Node,
    hidden: &dyn Fn(ValueId) -> bool,
    claimed: &HashSet<usize>,
) -> Option<Unit> {
    match node.op_type.as_str() {
        "BatchNormalization" => {
            let Norm { members, residual, activation } = norm_unit((model, links), at, node, hidden, claimed)?;
            let mut reads = node.inputs.clone();
            reads.truncate(5);
            reads.push(residual);
            let last = members.last().copied()?;
            Some(Unit { members, last, work: Work::BatchNorm { norm: at, activation }, reads })
        }
        "Softmax" => attention_unit((model, links), at, node, hidden, claimed),
        _ => None,
    }
}

/// The unit around a Softmax over the last axis, between a product of queries and keys and one with values.
fn attention_unit(
    (model, links): (&Model, &Links),
    at: usize,
    node: &Node,
    hidden: &dyn Fn(ValueId) -> bool,
    claimed: &HashSet<usize>,
) -> Option<Unit> {
    let graph = &model.graph;
    let weights = node.output(0).filter(|v| hidden(*v))?;
    let rank = || model.values[weights].shape().map(|s| s.len());
    let over_last = match node.attributes.get("axis") {
        // Up to operator set 12 an absent axis means 1, and all axes from 1 on.
        _ if model.opset("").is_none_or(|version| version < 13) => false,
        None | Some(AttributeValue::Int(-1)) => true,
        Some(AttributeValue::Int(axis)) => rank().is_some_and(|r| *axis + 1 == r as i64),
        Some(_) => false,
    };
    if !node.is_onnx() || !over_last {
        return None;
    }
    let free = |i: usize| Some(i).filter(|i| !claimed.contains(i) && graph.nodes[*i].is_onnx());
    let last = links.consumers(weights).first().copied().and_then(free)?;
    let product = &graph.nodes[last];
    if product.op_type != "MatMul" || product.input(0) != Some(weights) {
        return None;
    }
    let values = product.input(1)?;
    let mut members = vec![at, last];
    let (mut scale, mut bias, mut scores) = (1.0, None, node.input(0)?);
    loop {
        let maker = links.producer(scores).filter(|_| hidden(scores)).and_then(free)?;
        members.push(maker);
        let maker = &graph.nodes[maker];
        let (a, b) = (maker.input(0)?, maker.input(1)?);
        let factor = |v: ValueId| {
            let constant = model.constant(v).filter(|t| t.rank() < 2 && model.annotations.get(v).is_none());
            constant.and_then(|t| t.item::<f32>().ok())
        };
        // The bias must be added after the factor, as in the kernel.
        match (maker.op_type.as_str(), factor(a), factor(b)) {
            ("MatMul", ..) => {
                members.sort_unstable();
                let reads = [Some(a), Some(b), Some(values), bias].to_vec();
                return Some(Unit { members, last, work: Work::Attention { scale }, reads });
            }
            ("Mul", None, Some(by)) if scale == 1.0 => (scale, scores) = (f64::from(by), a),
            ("Mul", Some(by), None) if scale == 1.0 => (scale, scores) = (f64::from(by), b),
            ("Div", None, Some(by)) if scale == 1.0 => (scale, scores) = (1.0 / f64::from(by), a),
            ("Add", ..) if scale == 1.0 && bias.is_none() => {
                let product = |p: usize| matches!(graph.nodes[p].op_type.as_str(), "MatMul" | "Mul" | "Div");
                let is_scores = |v: ValueId| hidden(v) && links.producer(v).is_some_and(product);
                (scores, bias) = if is_scores(a) { (a, Some(b)) } else { (b, Some(a)) };
            }
            _ => return None,
        }
    }
}

/// A BatchNormalization, a residual Add and an activation.
struct Norm {
    members: Vec<usize>,
    residual: Option<ValueId>,
    activation: Activation,
}

/// The unit that starts at a BatchNormalization, if the fused kernel supports it. A node that another unit has `claimed` ends it:
/// two branches may meet in one Add.
fn norm_unit(
    (model, links): (&Model, &Links),
    at: usize,
    node: &Node,
    hidden: &dyn Fn(ValueId) -> bool,
    claimed: &HashSet<usize>,
) -> Option<Norm> {
    let graph = &model.graph;
    let several_outputs = node.outputs.iter().flatten().count() > 1;
    let own_mode = node.attributes.get("training_mode").is_some_and(|v| *v != AttributeValue::Int(0));
    let per_activation = node.attributes.get("spatial").is_some_and(|v| *v == AttributeValue::Int(0));
    if node.op_type != "BatchNormalization" || !node.is_onnx() || several_outputs || own_mode || per_activation {
        return None;
    }
    let statistics_are_constant =
        (1..5).all(|i| node.input(i).is_some_and(|v| model.values[v].constant.as_ref().is_some_and(|c| c.tensor.dtype() == DType::F32)));
    if !statistics_are_constant {
        return None;
    }
    let mut unit = Norm { members: vec![at], residual: None, activation: Activation::None };
    let mut value = node.output(0)?;
    loop {
        if !hidden(value) {
            return Some(unit);
        }
        let Some(next) = links.consumers(value).first().copied().filter(|n| !claimed.contains(n)) else { return Some(unit) };
        let reader = &graph.nodes[next];
        match reader.op_type.as_str() {
            "Add" if reader.is_onnx() && unit.residual.is_none() => {
                let Some(other) = reader.inputs.iter().flatten().copied().find(|v| *v != value) else { return Some(unit) };
                // The kernel adds equal shapes only; a constant or a value from inside this unit is not a residual.
                if model.values[other].constant.is_some() || !same_shape_residual((graph, links), other) {
                    return Some(unit);
                }
                unit.residual = Some(other);
            }
            _ => match plain_activation(model, reader) {
                Some(activation) => unit.activation = activation,
                None => return Some(unit),
            },
        }
        unit.members.push(next);
        if unit.activation != Activation::None {
            return Some(unit);
        }
        match reader.output(0) {
            Some(v) => value = v,
            None => return Some(unit),
        }
    }
}

/// Residual branches come from convolution units or padding of them, never from broadcasting ones such as a pooled gate.
fn same_shape_residual((graph, links): (&Graph, &Links), value: ValueId) -> bool {
    match links.producer(value) {
        None => graph.inputs.contains(&value),
        Some(i) => matches!(
            graph.nodes[i].op_type.as_str(),
            "Conv" | "BatchNormalization" | "Relu" | "Clip" | "Add" | "Pad" | "MaxPool" | "Concat"
        ),
    }
}

/// A Relu, or a Clip with constant bounds.
pub(crate) fn plain_activation(model: &Model, node: &Node) -> Option<Activation> {
    match node.op_type.as_str() {
        "Relu" if node.is_onnx() => Some(Activation::Relu),
        "Clip" if node.is_onnx() => ops::clip_bounds(model, node).map(|(min, max)| Activation::Clip { min, max }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Executor, Mode, Named};
    use tensor::{Tensor, random};

    /// The nodes between the product of queries and keys and the Softmax, and the Softmax's settings.
    struct Scores {
        chain: &'static [&'static str],
        axis: Option<i64>,
        opset: i64,
        shown: bool,
    }

    const PLAIN: Scores = Scores { chain: &[], axis: Some(-1), opset: 17, shown: false };

    /// `MatMul → chain → Softmax → MatMul` on inputs q, k (transposed), v and a mask.
    fn attention(of: &Scores) -> Model {
        let mut m = Model::new(of.opset);
        let inputs = ["q", "k", "v", "mask"].map(|name| m.values.add_named(name));
        m.graph.inputs = inputs.to_vec();
        let [q, k, v, mask] = inputs;
        let factor = m.values.add_constant("factor", Tensor::scalar(0.25f32));
        m.graph.constants.push(factor);
        let mut node = |op: &str, name: &str, reads: &[ValueId]| {
            let out = m.values.add_named(name);
            m.graph.nodes.push(Node::new(op, name, reads, &[out]));
            out
        };
        let mut scores = node("MatMul", "scores", &[q, k]);
        for (i, step) in of.chain.iter().enumerate() {
            let (op, second) = step.split_once(' ').unwrap();
            let other = if op == "Add" { mask } else { factor };
            let reads = if second == "second" { [scores, other] } else { [other, scores] };
            scores = node(op, &format!("step{i}"), &reads);
        }
        let weights = node("Softmax", "weights", &[scores]);
        let out = node("MatMul", "out", &[weights, v]);
        m.graph.outputs = if of.shown { vec![out, weights] } else { vec![out] };
        if let Some(axis) = of.axis {
            let at = m.graph.nodes.len() - 2;
            m.graph.nodes[at] = m.graph.nodes[at].clone().with("axis", AttributeValue::Int(axis));
        }
        m.verify().unwrap();
        m
    }

    fn steps(m: &Model) -> usize {
        crate::plan::Plan::new(m, &HashSet::new(), true).unwrap().steps.len()
    }

    #[test]
    fn attention_is_one_unit_and_means_the_same() {
        let draw = |seed, shape: &[usize]| random::uniform(seed, shape, -1.0, 1.0).unwrap();
        let feed = Named::from([
            ("q".to_string(), draw(1, &[2, 3, 5, 4])),
            ("k".to_string(), draw(2, &[2, 3, 4, 6])),
            ("v".to_string(), draw(3, &[2, 3, 6, 7])),
            ("mask".to_string(), draw(4, &[2, 1, 5, 6])),
        ]);
        for chain in [
            &[][..],
            &["Mul second"],
            &["Mul first"],
            &["Div second"],
            &["Add second"],
            &["Add first"],
            &["Div second", "Add second"],
            &["Mul first", "Add first"],
        ] {
            let m = attention(&Scores { chain, ..PLAIN });
            assert_eq!(steps(&m), 1, "{chain:?}");
            let fused = Executor::new(&m).unwrap().run(&feed, Mode::FLOAT).unwrap();
            let plain = Executor::unfused(&m).unwrap().run(&feed, Mode::FLOAT).unwrap();
            let (fused, plain) = (fused["out"].to_f32_vec().unwrap(), plain["out"].to_f32_vec().unwrap());
            assert!(fused.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-6), "{chain:?}: {fused:?} {plain:?}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_mean_is_no_unit() {
        for of in [
            // The mask is scaled too, a factor divides, or there are two.
            Scores { chain: &["Add second", "Mul second"], ..PLAIN },
            Scores { chain: &["Div first"], ..PLAIN },
            Scores { chain: &["Mul second", "Mul second"], ..PLAIN },
            // Another axis, or before operator set 13 all axes from 1 on.
            Scores { axis: Some(1), ..PLAIN },
            Scores { axis: None, opset: 11, ..PLAIN },
            // The weights are observed.
            Scores { shown: true, ..PLAIN },
        ] {
            let m = attention(&of);
            assert_eq!(steps(&m), m.graph.nodes.len(), "{:?} axis {:?}", of.chain, of.axis);
        }
        assert_eq!(steps(&attention(&Scores { axis: None, ..PLAIN })), 1);
    }

    /// Annotated weights are not fused: they pass through their encoding between the two products.
    #[test]
    fn annotated_weights_are_no_unit() {
        let mut m = attention(&PLAIN);
        let weights = m.graph.nodes[1].output(0).unwrap();
        m.annotations.entry(weights);
        assert_eq!(steps(&m), 3);
    }

    /// An initializer that is also a graph input is a default: the fed value is used in its place.
    #[test]
    fn a_default_that_can_be_fed_is_no_constant() {
        let mut m = attention(&Scores { chain: &["Mul second"], ..PLAIN });
        let factor = m.find("factor").unwrap();
        m.graph.inputs.push(factor);
        assert_eq!(steps(&m), m.graph.nodes.len());

        let mut m = Model::new(17);
        let [x, y] = ["x", "y"].map(|name| m.values.add_named(name));
        let six = m.values.add_constant("six", Tensor::scalar(6f32));
        m.graph.constants.push(six);
        let mut clip = Node::new("Clip", "clip", &[x], &[y]);
        clip.inputs.extend([None, Some(six)]);
        assert_eq!(plain_activation(&m, &clip), Some(Activation::Clip { min: f32::MIN, max: 6.0 }));
        m.graph.inputs.push(six);
        assert_eq!(plain_activation(&m, &clip), None);
    }
}
