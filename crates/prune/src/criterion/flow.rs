//! Synaptic flow: what each weight passes on in the network of magnitudes.
use crate::{Candidate, PruneError, Result};
use graph::{Model, ValueId, ValueType};
use ops::{Effect, Operand, Role};
use std::collections::{BTreeMap, HashMap};
use technique::Fault;
use tensor::{DType, Tensor};
use train::{Executor, Mode, Named, Overrides, TrainError};

/// The largest flow after scaling: f32 has room below it for differences of many layers' products.
const LARGEST: f64 = 1e30;

/// The flow of each element of each candidate, scaled so that the largest is [`LARGEST`]. No data are read.
///
/// # Errors
/// [`PruneError::Setting`] for an input that is not of floats or whose shape is open beyond the batch; errors of running the graph.
pub(super) fn flow(model: &Model, list: &[Candidate]) -> Result<BTreeMap<ValueId, Vec<f32>>> {
    let (linear, ends) = magnitudes(model)?;
    let inputs = ones(&linear)?;
    let mut leaves: Vec<(ValueId, Tensor, Tensor)> = vec![];
    for candidate in list {
        let Some(weight) = linear.values.tensor(candidate.weight) else { continue };
        leaves.push((candidate.weight, weight.clone(), weight.tracked().map_err(TrainError::from)?));
    }
    let constants = leaves.iter().map(|(id, _, leaf)| (*id, leaf.clone())).collect();
    let overrides = Overrides { constants, ..Overrides::default() };
    let mode = Mode { training: false, simulate: false, seed: 0 };
    let out = Executor::with_taps(&linear, &ends)?.run_with(&inputs, &overrides, mode, None)?;
    let mut sum: Option<Tensor> = None;
    for end in ends.iter().filter_map(|end| out.values.get(end)).filter(|t| t.dtype().is_float()) {
        let own = end.sum_all().map_err(TrainError::from)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&own).map_err(TrainError::from)?,
            None => own,
        });
    }
    let mut gradients = sum.ok_or_else(no_flow)?.backward().map_err(TrainError::from)?;
    let mut flows: Vec<(ValueId, Vec<f64>)> = vec![];
    for (id, weight, leaf) in &leaves {
        let weight = weight.to_f64_vec().map_err(TrainError::from)?;
        let gradient = gradients.take(leaf).map(|g| g.to_f64_vec()).transpose().map_err(TrainError::from)?;
        flows.push((*id, gradient.map_or(vec![0.0; weight.len()], |g| g.iter().zip(&weight).map(|(g, w)| (g * w).abs()).collect())));
    }
    let largest = flows.iter().flat_map(|(_, f)| f).copied().fold(0.0, f64::max);
    if !largest.is_finite() || largest == 0.0 {
        return Err(no_flow());
    }
    let scaled = |f: Vec<f64>| f.into_iter().map(|v| (v / largest * LARGEST) as f32).collect();
    Ok(flows.into_iter().map(|(id, f)| (id, scaled(f))).collect())
}

fn no_flow() -> PruneError {
    let what = "synflow finds no flow from the inputs to the outputs: the products of the weights vanish, or are not finite";
    Fault::new("criterion", what).hint("take another criterion").into()
}

/// The network of magnitudes in double precision, and its ends: weights and scales without their sign and under their masks, shifts zero,
/// rectifiers passed by, logits in place of probabilities.
fn magnitudes(model: &Model) -> Result<(Model, Vec<ValueId>)> {
    let roles = ops::Roles::of(model);
    let mut linear = Model { source: None, ..model.clone() };
    let mut done: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    let mut passed: HashMap<ValueId, ValueId> = HashMap::new();
    for (at, node) in model.graph.nodes.iter().enumerate() {
        let effect = ops::find(&node.domain, &node.op_type).map(|op| op.effect(node, model));
        if let (Some(Effect::Clips), Some(from), Some(to)) = (&effect, node.input(0), node.output(0)) {
            passed.insert(to, from);
            continue;
        }
        for (i, id) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
            let Some(tensor) = model.values.tensor(id).filter(|t| t.dtype() == DType::F32 && !done.contains_key(&id)) else { continue };
            let role = roles.role(node, i);
            // The mean of a normalization is its first statistic.
            let shifts = match role {
                Role::Bias | Role::NormBias => true,
                Role::Statistic => effect == Some(Effect::Normalizes) && i == 3,
                // A factor is a weight that is not trained, a summand a shift. Scales and sizes that other operators read stay.
                Role::Constant => match ops::operand(node) {
                    Some(operand) => operand == Operand::Summand,
                    None => continue,
                },
                _ => false,
            };
            let wrong = |source| PruneError::Tensor { weight: model.values[id].name.clone(), source };
            let wide = tensor.cast(DType::F64).map_err(wrong)?;
            let value = match (shifts, model.annotations.mask(id)) {
                (true, _) => wide.mul_scalar(0.0).map_err(wrong)?,
                (false, Some(mask)) => Tensor::where_(mask, &wide.abs().map_err(wrong)?, &Tensor::scalar(0f64)).map_err(wrong)?,
                (false, None) => wide.abs().map_err(wrong)?,
            };
            if role == Role::Constant {
                // Another operator may read the same constant otherwise.
                let name = linear.fresh_name(&model.values[id].name);
                let own = linear.values.add_constant(name, value);
                linear.graph.constants.push(own);
                linear.graph.nodes[at].inputs[i] = Some(own);
            } else {
                done.insert(id, value);
            }
        }
    }
    let ends: Vec<ValueId> = model.graph.outputs.iter().map(|end| ops::logits(model, *end).value).collect();
    linear.annotations = Default::default();
    for (id, tensor) in done {
        linear.values.set_tensor(id, tensor);
    }
    for id in linear.graph.inputs.clone() {
        if let ValueType::Tensor { dtype, .. } = &mut linear.values[id].ty
            && *dtype == DType::F32
        {
            *dtype = DType::F64;
        }
    }
    linear.graph.replace_all_uses(&passed);
    let through = |mut end: ValueId| {
        while let Some(from) = passed.get(&end) {
            end = *from;
        }
        end
    };
    Ok((linear, ends.into_iter().map(through).collect()))
}

/// An input of ones for a batch of one.
fn ones(model: &Model) -> Result<Named> {
    let mut inputs = Named::new();
    for id in model.free_inputs() {
        let value = &model.values[id];
        let refused = |what: &str| {
            let what = format!("synflow runs the network on ones, and input '{}' {what}", value.name);
            PruneError::from(Fault::new("criterion", what).hint("take another criterion"))
        };
        let ValueType::Tensor { dtype, shape: Some(dims) } = &value.ty else { return Err(refused("has no known shape")) };
        if *dtype != DType::F64 {
            return Err(refused("is not of f32"));
        }
        let size = |(axis, dim): (usize, &graph::Dim)| dim.known().or((axis == 0).then_some(1));
        let sizes: Option<Vec<usize>> = dims.iter().enumerate().map(size).collect();
        let sizes = sizes.ok_or_else(|| refused("has an open axis besides the batch"))?;
        inputs.insert(value.name.clone(), Tensor::full(1f64, sizes).map_err(TrainError::from)?);
    }
    Ok(inputs)
}
