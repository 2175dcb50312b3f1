//! Inputs of a graph's declared shapes.
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
    let mut inputs = BTreeMap::new();
    for id in model.free_inputs() {
        let value = &model.values[id];
        let ValueType::Tensor { dtype, shape } = &value.ty else {
            return Err(Error::Input(format!("input '{}' is not a tensor of a known type", value.name)));
        };
        let declared = || shape.as_ref().map(|dims| dims.iter().map(|d| d.known().unwrap_or(1)).collect::<Vec<_>>());
        let Some(shape) = shapes.get(&value.name).cloned().or_else(declared) else {
            return Err(Error::Input(format!("input '{}' has no declared shape: give one with --shape {0}=1,3,224,224", value.name)));
        };
        inputs.insert(value.name.clone(), zeros(*dtype, shape)?);
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
