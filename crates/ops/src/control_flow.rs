//! If, Loop and Scan: subgraphs run eagerly, so the gradient follows the executed path.
use crate::simple::Simple;
use crate::{Effect, EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Graph, Node, ValueId, ValueType};
use tensor::{DType, Tensor};

const FLOAT: fn(&Node) -> Effect = |_| Effect::NotQuantizable("control flow computes nothing itself");

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("If", "Runs one of two subgraphs.", &[1, 11, 13, 16, 19, 21, 23, 24, 25], eval_if, unknown).effect(FLOAT),
    &Simple::new("Loop", "Runs a subgraph while a condition holds.", &[1, 11, 13, 16, 19, 21, 23, 24, 25], eval_loop, unknown)
        .effect(FLOAT),
    &Simple::new("Scan", "Runs a subgraph over the slices of its inputs.", &[8, 9, 11, 16, 19, 21, 23, 24, 25], eval_scan, unknown)
        .effect(FLOAT)
        .upgrade(upgrade_scan),
];

fn unknown(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![ValueType::Unknown; cx.node.outputs.len()])
}

/// The only element of a condition.
fn condition(node: &Node, t: &Tensor) -> Result<bool, OpError> {
    if t.dtype() != DType::Bool {
        return Err(node.error(format!("its condition has type {}, not bool", t.dtype())).into());
    }
    Ok(t.item::<bool>()?)
}

fn eval_if(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let branch = if condition(cx.node, inputs.get(0)?)? { "then_branch" } else { "else_branch" };
    cx.subgraphs.run_subgraph(cx.node.subgraph(branch)?, vec![])
}

/// Outputs of one iteration, collected for a scan output.
#[derive(Default)]
struct Collected(Vec<Tensor>);

impl Collected {
    fn stacked(mut self, node: &Node, axis: i64, reverse: bool) -> Result<Tensor, OpError> {
        if reverse {
            self.0.reverse();
        }
        let Some(first) = self.0.first() else {
            return Err(node.error("its body returns fewer values than it has outputs").into());
        };
        let axis = tensor::shape::axis("scan_output_axes", axis, first.rank() + 1)?;
        let slices = self.0.iter().map(|t| t.unsqueeze(&[axis])).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::concat(&slices, axis)?)
    }
}

fn eval_loop(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let body = cx.node.subgraph("body")?;
    let limit = match inputs.opt(0) {
        None => None,
        Some(t) => Some(t.to_i64_vec()?.first().copied().ok_or_else(|| cx.node.error("its trip count is empty"))?),
    };
    let mut go_on = inputs.opt(1).map_or(Ok(true), |t| condition(cx.node, t))?;
    let mut carried: Vec<Tensor> =
        inputs.into_vec().into_iter().skip(2).collect::<Option<_>>().ok_or_else(|| cx.node.error("a carried value is missing"))?;
    let scans = body.outputs.len().checked_sub(1 + carried.len()).ok_or_else(|| cx.node.error("its body returns too few values"))?;
    let mut collected: Vec<Collected> = (0..scans).map(|_| Collected::default()).collect();
    let mut i = 0i64;
    while go_on && limit.is_none_or(|m| i < m) {
        let mut arguments = vec![Tensor::scalar(i), Tensor::scalar(true)];
        let count = carried.len();
        arguments.append(&mut carried);
        let mut results = cx.subgraphs.run_subgraph(body, arguments)?.into_iter();
        let flag = results.next().ok_or_else(|| cx.node.error("its body returned no condition"))?;
        go_on = condition(cx.node, &flag)?;
        carried = results.by_ref().take(count).collect();
        for (list, t) in collected.iter_mut().zip(results) {
            list.0.push(t);
        }
        i += 1;
    }
    if i == 0 {
        let first = 1 + carried.len();
        carried.extend(empty_outputs(cx, body, first)?);
        return Ok(carried);
    }
    for list in collected {
        carried.push(list.stacked(cx.node, 0, false)?);
    }
    Ok(carried)
}

/// Scan outputs of a loop without iterations: no rows, of the shape that the body declares.
fn empty_outputs(cx: &EvalCx, body: &Graph, first: usize) -> Result<Vec<Tensor>, OpError> {
    let empty = |id: &ValueId| match cx.subgraphs.declared(*id) {
        ValueType::Tensor { dtype, shape: Some(dims) } => {
            let shape: Vec<usize> = std::iter::once(0).chain(dims.iter().map(|d| d.known().unwrap_or(0))).collect();
            Ok(Tensor::zeros(dtype, &shape)?)
        }
        _ => Err(OpError::unsupported(cx.node, "a scan output of no iterations whose shape is not declared")),
    };
    body.outputs.iter().skip(first).map(empty).collect()
}

/// How a Scan reads its inputs and writes its outputs.
struct ScanPlan {
    scans: usize,
    input_axes: Vec<i64>,
    input_backwards: Vec<bool>,
    output_axes: Vec<i64>,
    output_backwards: Vec<bool>,
}

impl ScanPlan {
    fn of(node: &Node, states: usize, scans: usize, outputs: usize, names: (&str, &str)) -> Result<ScanPlan, OpError> {
        let list = |name: &str, n: usize| -> Result<Vec<i64>, OpError> {
            let list = node.ints_or(name, vec![0; n])?;
            if list.len() == n { Ok(list) } else { Err(node.attribute_error(name, format!("needs {n} entries")).into()) }
        };
        let outputs = outputs.checked_sub(states).ok_or_else(|| node.error("its body returns too few values"))?;
        let flags = |v: Vec<i64>| v.into_iter().map(|d| d != 0).collect();
        Ok(ScanPlan {
            scans,
            input_axes: list("scan_input_axes", scans)?,
            input_backwards: flags(list(names.0, scans)?),
            output_axes: list("scan_output_axes", outputs)?,
            output_backwards: flags(list(names.1, outputs)?),
        })
    }
}

fn eval_scan(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let node = cx.node;
    let outputs = node.subgraph("body")?.outputs.len();
    let scans =
        usize::try_from(node.int_required("num_scan_inputs")?).map_err(|_| node.attribute_error("num_scan_inputs", "is negative"))?;
    let mut list = inputs.into_vec();
    let lengths = if cx.opset < 9 && !list.is_empty() { list.remove(0) } else { None };
    let list: Vec<Tensor> = list.into_iter().collect::<Option<_>>().ok_or_else(|| node.error("an input is missing"))?;
    let states = list.len().checked_sub(scans).ok_or_else(|| node.error("has fewer inputs than num_scan_inputs"))?;
    if cx.opset >= 9 {
        let plan = ScanPlan::of(node, states, scans, outputs, ("scan_input_directions", "scan_output_directions"))?;
        return scan(cx, &plan, list, None);
    }
    // Operator set 8 scans each element of a batch for itself and stacks the results.
    let plan = ScanPlan::of(node, states, scans, outputs, ("directions", ""))?;
    let batch = list.first().and_then(|t| t.shape().first().copied()).unwrap_or(0);
    let lengths = lengths.map(|t| t.to_i64_vec()).transpose()?;
    let mut rows: Vec<Vec<Tensor>> = vec![];
    for b in 0..batch {
        let own = list.iter().map(|t| t.narrow(0, b, 1)?.squeeze(&[0])).collect::<Result<Vec<_>, _>>()?;
        rows.push(scan(cx, &plan, own, lengths.as_ref().and_then(|l| l.get(b)).copied())?);
    }
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns)
        .map(|c| {
            let column = rows.iter().map(|r| r[c].unsqueeze(&[0])).collect::<Result<Vec<_>, _>>()?;
            Ok(Tensor::concat(&column, 0)?)
        })
        .collect()
}

fn scan(cx: &EvalCx, plan: &ScanPlan, mut state: Vec<Tensor>, length: Option<i64>) -> Result<Vec<Tensor>, OpError> {
    let (node, body) = (cx.node, cx.node.subgraph("body")?);
    let sequences = state.split_off(state.len() - plan.scans);
    let mut axes = vec![];
    for (t, axis) in sequences.iter().zip(&plan.input_axes) {
        axes.push(tensor::shape::axis("scan_input_axes", *axis, t.rank())?);
    }
    let full = sequences.iter().zip(&axes).map(|(t, a)| t.shape()[*a]).next().unwrap_or(0);
    if sequences.iter().zip(&axes).any(|(t, a)| t.shape()[*a] != full) {
        return Err(node.error("its scan inputs differ in length").into());
    }
    let steps = match length {
        Some(n) => usize::try_from(n)
            .ok()
            .filter(|n| *n <= full)
            .ok_or_else(|| node.error(format!("a sequence length of {n} for {full} steps")))?,
        None => full,
    };
    let mut collected: Vec<Collected> = plan.output_axes.iter().map(|_| Collected::default()).collect();
    for i in 0..steps {
        let states = state.len();
        let mut arguments = std::mem::take(&mut state);
        for (k, t) in sequences.iter().enumerate() {
            let at = if plan.input_backwards[k] { steps - 1 - i } else { i };
            arguments.push(t.narrow(axes[k], at, 1)?.squeeze(&[axes[k]])?);
        }
        let mut results = cx.subgraphs.run_subgraph(body, arguments)?.into_iter();
        state = results.by_ref().take(states).collect();
        for (list, t) in collected.iter_mut().zip(results) {
            list.0.push(t);
        }
    }
    if steps == 0 {
        let first = state.len();
        state.extend(empty_outputs(cx, body, first)?);
        return Ok(state);
    }
    for (k, list) in collected.into_iter().enumerate() {
        let mut out = list.stacked(node, plan.output_axes[k], plan.output_backwards[k])?;
        if steps < full {
            let mut pads = vec![(0, 0); out.rank()];
            pads[0] = (0, (full - steps) as i64);
            out = out.pad(&pads, tensor::PadMode::Constant, None)?;
        }
        state.push(out);
    }
    Ok(state)
}

fn upgrade_scan(node: &mut Node, to: i64, _: &[ValueType], _: &mut dyn FnMut(&str, Tensor) -> ValueId) -> Result<(), OpError> {
    match to {
        9 => Err(OpError::unsupported(node, "a Scan over a batch of sequences cannot be expressed from operator set 9 on")),
        _ => Ok(()),
    }
}
