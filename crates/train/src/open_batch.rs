//! Opening a fixed batch: a graph that was exported for one sample at a time trains and is scored on many.
//!
//! Whether samples are independent is not derived from the operators but tested: the opened graph runs on two batches of random
//! samples at once, and must give the original graph's result for each. A Reshape to a constant batch, a mean over the batch or
//! any other dependence shows there, and its node is named.
use crate::{Executor, Mode, Named, TrainError};
use graph::{Dim, Graph, Model, Node, ValueId, ValueType};
use std::collections::HashMap;
use tensor::{Tensor, TensorError};

/// Largest difference between a sample alone and among others, as a share of the largest value: sums may run in another order.
const TOLERANCE: f32 = 1e-4;

type Seen = HashMap<ValueId, Tensor>;

/// The result of opening a model's batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batching {
    /// It was open already, or the model has no batch.
    Open,
    /// It was fixed, and is open now.
    Opened,
    /// It stays fixed: the model runs on so many samples at a time ([`crate::Feeding`]).
    Fixed {
        /// Samples of one run.
        samples: usize,
        /// Why it could not be opened.
        why: String,
    },
}

impl Batching {
    /// A sentence for the user if samples cannot run together.
    pub fn note(&self) -> Option<String> {
        let Batching::Fixed { samples, why } = self else { return None };
        let at_a_time = if *samples == 1 { "one sample".to_string() } else { format!("{samples} samples") };
        Some(format!(
            "the model's batch is fixed at {samples} and stays so ({why}): it runs on {at_a_time} at a time, which is slower; export it with \
             an open first dimension to have many run at once"
        ))
    }
}

/// Makes the first dimension of the first input, and of the inputs that share its size, an open one if it is fixed and samples
/// are independent. Otherwise the graph stays as it is.
pub fn open_batch(model: &mut Model) -> Batching {
    match try_open(model) {
        Ok(batching) => batching,
        Err((samples, why)) => Batching::Fixed { samples, why },
    }
}

fn try_open(model: &mut Model) -> Result<Batching, (usize, String)> {
    let sampled = |v: &ValueId| model.values[*v].shape().is_none_or(|s| !s.is_empty());
    let Some(first) = model.free_inputs().into_iter().find(sampled) else { return Ok(Batching::Open) };
    if crate::feeding::main_axis(model, first) != 0 {
        return Ok(Batching::Open);
    }
    let Some(Dim::Known(batch)) = model.values[first].shape().and_then(|s| s.first().cloned()) else { return Ok(Batching::Open) };
    let refuse = |what: String| (batch, what);
    let at = |e: TensorError| refuse(e.to_string());
    let failed = |e: TrainError| refuse(e.to_string());
    let (one, other) = (samples(model, 1).map_err(&refuse)?, samples(model, 2).map_err(&refuse)?);
    let opened = opened(model, batch);
    let batched: Vec<ValueId> = batched_inputs(model, batch);
    let mut both = one.clone();
    for name in batched.iter().map(|v| &model.values[*v].name) {
        both.insert(name.clone(), Tensor::concat(&[one[name].clone(), other[name].clone()], 0).map_err(at)?);
    }
    let (one, other) = (observe(model, &one).map_err(failed)?, observe(model, &other).map_err(failed)?);
    let both = observe(&opened, &both).map_err(failed)?;
    let apart = |id: &ValueId| samples_stay_apart(one.get(id), other.get(id), both.get(id));
    if let Some(tied) = model.graph.outputs.iter().find(|v| !apart(v)) {
        let fault = model.graph.nodes.iter().find(|n| ties(n, &both, &apart));
        return Err(refuse(match fault {
            Some(n) => format!("node '{}' ({}) ties the samples of a batch together", n.label(&model.values), n.op_type),
            None => format!("output '{}' has no place for each sample", model.values[*tied].name),
        }));
    }
    *model = opened;
    Ok(Batching::Opened)
}

/// Inputs whose first dimension is the batch.
fn batched_inputs(model: &Model, batch: usize) -> Vec<ValueId> {
    let has = |v: &ValueId| model.values[*v].shape().is_some_and(|s| s.first() == Some(&Dim::Known(batch)));
    model.free_inputs().into_iter().filter(has).collect()
}

/// Random numbers in the inputs' declared shapes; zeros for other types than floats.
fn samples(model: &Model, seed: u64) -> Result<Named, String> {
    let mut inputs = Named::new();
    for (i, id) in model.free_inputs().into_iter().enumerate() {
        let value = &model.values[id];
        let sizes = value.shape().and_then(|s| s.iter().map(Dim::known).collect::<Option<Vec<usize>>>());
        let (Some(sizes), Some(dtype)) = (sizes, value.dtype()) else {
            return Err(format!("not all sizes of input '{}' are declared, so it cannot be tried", value.name));
        };
        let key = tensor::random::derive(seed, i as u64);
        let drawn = if dtype.is_float() {
            tensor::random::uniform(key, &sizes, 0.0, 1.0).and_then(|t| t.cast(dtype))
        } else {
            Tensor::zeros(dtype, &sizes)
        };
        inputs.insert(value.name.clone(), drawn.map_err(|e| e.to_string())?);
    }
    Ok(inputs)
}

/// The graph with an open batch: declared sizes that may depend on the batch are removed.
fn opened(model: &Model, batch: usize) -> Model {
    let mut opened = model.clone();
    let symbol = Dim::Symbol("N".into());
    for id in batched_inputs(model, batch).into_iter().chain(model.graph.outputs.iter().copied()) {
        if let ValueType::Tensor { shape: Some(dims), .. } = &mut opened.values[id].ty
            && let Some(first) = dims.first_mut()
        {
            *first = if *first == Dim::Known(batch) { symbol.clone() } else { Dim::Unknown };
        }
    }
    let mut inner = vec![];
    made(&opened.graph, &mut inner);
    for id in inner.into_iter().filter(|v| !model.graph.outputs.contains(v)) {
        if let ValueType::Tensor { shape, .. } = &mut opened.values[id].ty {
            *shape = None;
        }
    }
    opened
}

/// Values that nodes compute, also in subgraphs.
fn made(graph: &Graph, out: &mut Vec<ValueId>) {
    for node in &graph.nodes {
        out.extend(node.outputs.iter().flatten());
        node.subgraphs().for_each(|g| made(g, out));
    }
}

fn observe(model: &Model, inputs: &Named) -> Result<Seen, TrainError> {
    let mut seen = Seen::new();
    let executor = Executor::unfused(model)?;
    executor.run_observed(inputs, Mode::SIMULATED, &mut |id, t| {
        seen.insert(id, t.clone());
    })?;
    Ok(seen)
}

/// True if the values of two batches run at once are those of each, one after another, or do not depend on the batch.
fn samples_stay_apart(one: Option<&Tensor>, other: Option<&Tensor>, both: Option<&Tensor>) -> bool {
    // Values without a producer node (an output that is an input or a constant) are not compared, and stay as they are.
    let (Some(one), Some(other), Some(both)) = (one, other, both) else { return one.is_none() && both.is_none() };
    if one == other && one == both {
        return true;
    }
    let joined = if one.rank() > 0 { Tensor::concat(&[one.clone(), other.clone()], 0).ok() } else { None };
    joined.is_some_and(|expected| expected.shape() == both.shape() && close(&expected, both))
}

fn close(a: &Tensor, b: &Tensor) -> bool {
    let (Ok(a), Ok(b)) = (a.to_f32_vec(), b.to_f32_vec()) else { return false };
    let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
    a.iter().zip(&b).all(|(x, y)| x == y || (x - y).abs() <= TOLERANCE * largest || (x.is_nan() && y.is_nan()))
}

/// True for the first node whose independent inputs give a dependent output. Arithmetic on shapes does not count: it uses the
/// batch size without mixing samples.
fn ties(node: &Node, both: &Seen, apart: &impl Fn(&ValueId) -> bool) -> bool {
    let float = |v: &&ValueId| both.get(v).is_some_and(|t| t.dtype().is_float());
    node.inputs.iter().flatten().filter(float).all(apart) && !node.outputs.iter().flatten().filter(float).all(apart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{AttributeValue, Value};
    use tensor::DType;

    /// `x [1, 3, 4, 4]` → the nodes, which end in `y`.
    fn model(outputs: &[Dim], nodes: impl FnOnce(&mut Model, ValueId, ValueId) -> Vec<Node>) -> Model {
        let mut m = Model::new(17);
        let dims = [1, 3, 4, 4].map(Dim::Known).to_vec();
        let ty = |shape: Vec<Dim>| ValueType::Tensor { dtype: DType::F32, shape: Some(shape) };
        let x = m.values.add(Value { name: "x".into(), ty: ty(dims), ..Value::default() });
        let y = m.values.add(Value { name: "y".into(), ty: ty(outputs.to_vec()), ..Value::default() });
        m.graph.inputs.push(x);
        m.graph.outputs.push(y);
        m.graph.nodes = nodes(&mut m, x, y);
        m
    }

    fn constant(m: &mut Model, name: &str, t: Tensor) -> ValueId {
        let id = m.values.add_constant(name, t);
        m.graph.constants.push(id);
        id
    }

    #[test]
    fn a_batch_that_nothing_depends_on_is_opened() {
        let mut m = model(&[Dim::Known(1), Dim::Known(2)], |m, x, y| {
            let w = constant(m, "w", Tensor::full(0.1f32, [48, 2]).unwrap());
            let flat = m.values.add_named("flat");
            m.values[flat].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Known(1), Dim::Known(48)]) };
            m.graph.value_info.push(flat);
            vec![Node::new("Flatten", "flatten", &[x], &[flat]), Node::new("Gemm", "linear", &[flat, w], &[y])]
        });
        assert_eq!(open_batch(&mut m), Batching::Opened);
        let n = Dim::Symbol("N".into());
        assert_eq!(m.values[m.graph.inputs[0]].shape().unwrap()[0], n);
        assert_eq!(m.values[m.graph.outputs[0]].shape().unwrap(), [n, Dim::Known(2)]);
        let five = Named::from([("x".into(), Tensor::full(1f32, [5, 3, 4, 4]).unwrap())]);
        assert_eq!(Executor::new(&m).unwrap().run(&five, Mode::FLOAT).unwrap()["y"].shape(), [5, 2]);
        let before = m.clone();
        assert_eq!(open_batch(&mut m), Batching::Open);
        assert_eq!(m, before);
    }

    #[test]
    fn arithmetic_on_the_batch_is_no_obstacle() {
        let mut m = model(&[Dim::Known(1), Dim::Known(48)], |m, x, y| {
            let [shape, batch, target] = ["shape", "batch", "target"].map(|n| m.values.add_named(n));
            let (zero, rest) = (constant(m, "zero", Tensor::vector(vec![0i64])), constant(m, "rest", Tensor::vector(vec![-1i64])));
            vec![
                Node::new("Shape", "", &[x], &[shape]),
                Node::new("Gather", "", &[shape, zero], &[batch]),
                Node::new("Concat", "", &[batch, rest], &[target]).with("axis", AttributeValue::Int(0)),
                Node::new("Reshape", "", &[x, target], &[y]),
            ]
        });
        assert_eq!(open_batch(&mut m), Batching::Opened);
    }

    #[test]
    fn what_ties_samples_together_is_named_and_the_graph_stays_as_it_is() {
        let reshape = model(&[Dim::Known(1), Dim::Known(48)], |m, x, y| {
            let target = constant(m, "target", Tensor::vector(vec![1i64, -1]));
            let act = m.values.add_named("act");
            vec![Node::new("Relu", "", &[x], &[act]), Node::new("Reshape", "to a row", &[act, target], &[y])]
        });
        let mean = model(&[1, 3, 4, 4].map(Dim::Known), |m, x, y| {
            let mean = m.values.add_named("mean");
            let over = Node::new("ReduceMean", "over the batch", &[x], &[mean]).with("axes", AttributeValue::Ints(vec![0]));
            vec![over, Node::new("Sub", "", &[x, mean], &[y])]
        });
        let fails = model(&[Dim::Known(1), Dim::Known(48)], |m, x, y| {
            let target = constant(m, "target", Tensor::vector(vec![1i64, 48]));
            vec![Node::new("Reshape", "to 48", &[x, target], &[y])]
        });
        for (mut m, node) in [(reshape, "to a row"), (mean, "over the batch"), (fails, "to 48")] {
            let before = m.clone();
            let note = open_batch(&mut m).note().unwrap();
            assert!(note.contains("batch is fixed at 1") && note.contains(node), "{note}");
            assert_eq!(m, before);
        }
    }
}
