//! Example inputs with a graph's declared shapes.
use crate::{Error, Result};
use graph::{Dim, Model, ValueType};
use std::collections::BTreeMap;
use tensor::{DType, Tensor};

/// Zeros for every input that must be fed; a dimension that is not known becomes 1. `shapes` has inputs' shapes by name
/// where the declared one does not serve.
///
/// # Errors
/// [`Error::Input`] for an input of unknown rank without a given shape, or that is no tensor.
pub fn example_inputs(model: &Model, shapes: &BTreeMap<String, Vec<usize>>) -> Result<BTreeMap<String, Tensor>> {
    batch_inputs(model, shapes, 1)
}

/// Seeded uniform noise in `[0, 1)` for every float input, zeros for the others. An open first dimension of the first
/// input, and every dimension of the same name, becomes `batch`; other open dimensions become 1.
///
/// # Errors
/// As [`example_inputs`].
pub fn random_inputs(model: &Model, shapes: &BTreeMap<String, Vec<usize>>, batch: usize, seed: u64) -> Result<BTreeMap<String, Tensor>> {
    let mut inputs = batch_inputs(model, shapes, batch)?;
    for (i, (name, t)) in inputs.iter_mut().enumerate().filter(|(_, (_, t))| t.dtype().is_float()) {
        let key = tensor::random::derive(seed, i as u64);
        let noise = tensor::random::uniform(key, t.shape(), 0.0, 1.0).and_then(|noise| noise.cast(t.dtype()));
        *t = noise.map_err(|e| Error::Input(format!("input '{name}': {e}")))?;
    }
    Ok(inputs)
}

fn batch_inputs(model: &Model, shapes: &BTreeMap<String, Vec<usize>>, batch: usize) -> Result<BTreeMap<String, Tensor>> {
    let mut batch_dim = None;
    let mut inputs = BTreeMap::new();
    for (i, id) in model.free_inputs().into_iter().enumerate() {
        let value = &model.values[id];
        let ValueType::Tensor { dtype, shape: declared } = &value.ty else {
            return Err(Error::Input(format!("input '{}' is not a tensor of a known type", value.name)));
        };
        if i == 0 {
            batch_dim = declared.as_ref().and_then(|dims| dims.first()).filter(|d| d.known().is_none()).cloned();
        }
        let size = |(axis, d): (usize, &Dim)| match d {
            Dim::Known(n) => *n,
            Dim::Symbol(_) if batch_dim.as_ref() == Some(d) => batch,
            Dim::Unknown if batch_dim.is_some() && axis == 0 => batch,
            _ => 1,
        };
        let declared = || declared.as_ref().map(|dims| dims.iter().enumerate().map(size).collect::<Vec<_>>());
        let Some(shape) = shapes.get(&value.name).cloned().or_else(declared) else {
            return Err(Error::Input(format!("input '{}' has no declared shape: give one with --shape {0}=1,3,224,224", value.name)));
        };
        let made = zeros(*dtype, shape).map_err(|e| Error::Input(format!("input '{}': {e}", value.name)))?;
        inputs.insert(value.name.clone(), made);
    }
    Ok(inputs)
}

fn zeros(dtype: DType, shape: Vec<usize>) -> Result<Tensor> {
    if dtype == DType::String {
        return Ok(Tensor::full(String::new(), shape)?);
    }
    Ok(Tensor::full(0f32, shape)?.cast(dtype)?)
}

/// A type as text: `float[N, 3, 32, 32]`.
pub(super) fn type_text(ty: &ValueType) -> String {
    let ValueType::Tensor { dtype, shape } = ty else { return "?".to_string() };
    let dim = |d: &Dim| match d {
        Dim::Known(n) => n.to_string(),
        Dim::Symbol(s) => s.clone(),
        Dim::Unknown => "?".to_string(),
    };
    let dims = shape.as_ref().map_or("...".to_string(), |s| s.iter().map(dim).collect::<Vec<_>>().join(", "));
    format!("{dtype}[{dims}]")
}

/// How samples are laid out in each input; empty for a model without inputs.
pub(super) fn takes(model: &Model) -> Vec<(String, String)> {
    train::Feeding::of(model, &train::InputRules::new()).map_or(vec![], |feeding| feeding.describe())
}

/// The same as lines; nothing for the plain case of one input with any number of samples along its first axis.
pub(super) fn takes_text(inputs: &[(&str, &str)]) -> String {
    if let [(_, takes)] = inputs
        && takes.starts_with("any number of samples, along axis 0")
    {
        return String::new();
    }
    let line = |(i, (name, takes)): (usize, &(&str, &str))| {
        format!("{:13}{}\n", if i == 0 { "samples:" } else { "" }, report::text::line(&format!("{name}: {takes}")))
    };
    inputs.iter().enumerate().map(line).collect()
}
