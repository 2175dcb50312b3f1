//! Values of an early step, to which a training goes back.
use graph::Model;
use std::collections::BTreeMap;
use tensor::{DType, Tensor};

/// Floats of a model by name: parameters and running statistics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Early(pub(crate) BTreeMap<String, Tensor>);

impl Early {
    /// The present values.
    pub(crate) fn of(model: &Model) -> Early {
        let floats = model.values.iter().filter_map(|(id, value)| Some((value.name.clone(), model.values.tensor(id)?.clone())));
        Early(floats.filter(|(_, t)| t.dtype() == DType::F32).collect())
    }

    /// Puts the values back. What has another shape by now stays.
    pub(crate) fn put(&self, model: &mut Model) {
        for (name, tensor) in &self.0 {
            let Some(id) = model.find(name) else { continue };
            if model.values.tensor(id).is_some_and(|t| t.shape() == tensor.shape() && t.dtype() == tensor.dtype()) {
                model.values.set_tensor(id, tensor.clone());
            }
        }
    }
}
