//! Shapes of a model's values: inferred where that suffices, else observed in a run with limits on its loops.
use super::inputs::example_inputs;
use crate::Result;
use graph::{Dim, Model, ValueId, ValueType};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use train::{Executor, Limits, Mode};

/// Most iterations of loops: after one, a body's shapes are known.
const MOST_ITERATIONS: u64 = 1000;
/// Most nodes run in loops.
const MOST_NODES: u64 = 100_000;
/// Longest time in loops.
const LONGEST: Duration = Duration::from_secs(10);

/// More loop iterations than any sample needs.
const UNHEARD_OF: u64 = 1_000_000;

/// Limits of a run that only observes shapes.
pub(super) fn limits() -> Limits {
    Limits { iterations: Some(MOST_ITERATIONS), nodes: Some(MOST_NODES), deadline: Some(Instant::now() + LONGEST) }
}

/// Limits that a usable model does not reach on one sample.
pub(super) fn generous_limits() -> Limits {
    Limits { iterations: Some(UNHEARD_OF), nodes: None, deadline: Some(Instant::now() + LONGEST) }
}

/// Which loops of a model the limits ended, on a sample of zeros; `None` if all loops end, or if the model does not run on such a
/// sample.
pub(super) fn unended(model: &Model, limits: Limits) -> Option<String> {
    let mut loops = false;
    let graphs = model.functions.iter().map(|f| &f.graph).chain([&model.graph]);
    graphs.for_each(|graph| graph.visit(&mut |node| loops |= node.op_type == "Loop"));
    if !loops {
        return None;
    }
    let inputs = example_inputs(model, &BTreeMap::new()).ok()?;
    let executor = Executor::new(model).ok()?.within(limits);
    executor.run(&inputs, Mode::FLOAT).err().map(|e| e.to_string()).filter(|e| e.contains(train::LOOPS_ENDED))
}

/// Shapes by value.
pub(super) type Shapes = HashMap<ValueId, Vec<usize>>;

/// The shapes of all values computed for inputs of the declared shapes, with unknown sizes taken as 1; and a sentence about loops
/// that were ended.
///
/// # Errors
/// If the model does not run on such inputs.
pub(super) fn observe(model: &Model, shapes: &BTreeMap<String, Vec<usize>>) -> Result<(Shapes, Option<String>)> {
    if let Some(inferred) = infer(model, shapes)? {
        return Ok((inferred, None));
    }
    let inputs = example_inputs(model, shapes)?;
    let mut seen = Shapes::new();
    let executor = Executor::unfused(model)?.within(limits());
    let run = executor.run_observed(&inputs, Mode::FLOAT, &mut |id, t| {
        seen.insert(id, t.shape().to_vec());
    });
    match run {
        Ok(()) => Ok((seen, None)),
        // Shapes observed so far are valid; values after the ended loop are not counted.
        Err(e) if e.to_string().contains(train::LOOPS_ENDED) => Ok((seen, Some(format!("{e}: what comes after it is not counted")))),
        Err(e) => Err(e.into()),
    }
}

/// Shapes by inference only; `None` if some are missing. Declared shapes of inner values are ignored. Values in subgraphs depend
/// on the data, so a model with subgraphs is run.
fn infer(model: &Model, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Option<Shapes>> {
    if !model.functions.is_empty() || model.graph.nodes.iter().any(|n| n.subgraphs().next().is_some()) {
        return Ok(None);
    }
    let bare = ops::bare(model, |name, declared| {
        let ones = || declared.map(|dims| dims.iter().map(|d| d.known().unwrap_or(1)).collect());
        Some(shapes.get(name).cloned().or_else(ones)?.into_iter().map(Dim::Known).collect())
    });
    // The run reports a contradiction in the words of the operator.
    let Ok(types) = ops::infer_types(&bare) else { return Ok(None) };
    let known = |ty: &ValueType| match ty {
        ValueType::Tensor { shape: Some(dims), .. } => dims.iter().map(Dim::known).collect::<Option<Vec<usize>>>(),
        _ => None,
    };
    let made = model.graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten());
    let made = made.map(|id| Some((*id, types.get(id).and_then(known)?)));
    let inputs = model.free_inputs().into_iter().map(|id| Some((id, known(&bare.values[id].ty)?)));
    Ok(made.chain(inputs).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{AttributeValue, Graph, Node, Value};
    use tensor::{DType, Tensor};

    fn input(m: &mut Model, name: &str, shape: &[usize]) -> ValueId {
        let dims = std::iter::once(Dim::Symbol("N".into())).chain(shape.iter().map(|d| Dim::Known(*d))).collect();
        let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(dims) };
        let id = m.values.add(Value { name: name.into(), ty, ..Value::default() });
        m.graph.inputs.push(id);
        id
    }

    #[test]
    fn inference_says_what_a_run_says() {
        for name in ["lenet5", "resnet8", "ds-cnn", "mobilenet-v2"] {
            let entry = zoo::find(name).unwrap();
            let m = entry.build(&zoo::ZooOptions { width: 0.25, ..entry.default_options() }).unwrap();
            let inferred = infer(&m, &BTreeMap::new()).unwrap().expect(name);
            let mut seen = Shapes::new();
            let inputs = example_inputs(&m, &BTreeMap::new()).unwrap();
            Executor::unfused(&m)
                .unwrap()
                .run_observed(&inputs, Mode::FLOAT, &mut |id, t| drop(seen.insert(id, t.shape().to_vec())))
                .unwrap();
            assert_eq!(inferred, seen, "{name}");
        }
    }

    #[test]
    fn a_declaration_that_is_wrong_is_not_believed() {
        let mut m = Model::new(17);
        let x = input(&mut m, "x", &[3]);
        let y = m.values.add(Value { name: "y".into(), ty: m.values[x].ty.clone(), ..Value::default() });
        m.values[y].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Known(7), Dim::Known(9)]) };
        m.graph.nodes.push(Node::new("Relu", "r", &[x], &[y]));
        m.graph.outputs.push(y);
        assert_eq!(observe(&m, &BTreeMap::new()).unwrap().0[&y], [1, 3]);
    }

    #[test]
    fn a_loop_without_an_end_is_ended_and_said() {
        for trips in [Some(1_000_000_000_000_000_000i64), None] {
            let mut m = Model::new(17);
            let x = input(&mut m, "x", &[3]);
            let (i, go, state) = (m.values.add_named("i"), m.values.add_named("go"), m.values.add_named("state"));
            let (still, next) = (m.values.add_named("still"), m.values.add_named("next"));
            let body = Graph {
                inputs: vec![i, go, state],
                nodes: vec![Node::new("Identity", "", &[go], &[still]), Node::new("Relu", "inner", &[state], &[next])],
                outputs: vec![still, next],
                ..Graph::default()
            };
            let y = m.values.add_named("y");
            let mut node = Node::new("Loop", "endless", &[], &[y]).with("body", AttributeValue::Graph(Box::new(body)));
            let count = trips.map(|n| {
                let id = m.values.add_constant("n", Tensor::scalar(n));
                m.graph.constants.push(id);
                id
            });
            node.inputs = vec![count, None, Some(x)];
            m.graph.nodes.push(node);
            m.graph.outputs.push(y);
            m.verify().unwrap();
            let (seen, note) = observe(&m, &BTreeMap::new()).unwrap();
            assert_eq!(seen[&next], [1, 3]);
            let note = note.unwrap();
            assert!(note.contains("node 'endless'") && note.contains("after 1000 iterations"), "{note}");
        }
    }
}
