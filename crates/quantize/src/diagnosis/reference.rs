//! The float network with the values of the quantized one.
use crate::Result;
use crate::bias::is_bias;
use graph::Model;
use std::collections::HashMap;
use tensor::{SignalToNoise, Tensor};
use train::{Batch, Executor, Mode, TrainError};

/// Signal to noise in decibels from which on two float networks compute the same: what other orders of sums differ by.
const SAME: f64 = 60.0;

/// A network without its encodings: float, with the weights that the quantized one has.
pub fn without_encodings(quantized: &Model) -> Model {
    let mut model = quantized.clone();
    model.annotations.iter_mut().for_each(|(_, a)| a.encoding = None);
    model
}

/// The graph of `quantized` with the constants of `float`, the network before its grids were fitted (prepared, normalizations folded),
/// which may have other value ids: constants go by their names. A bias that a correction added is zero. `None` if it does not compute on
/// `batch` what `float` computes: then the graph was changed, and only [`without_encodings`] has its values.
///
/// # Errors
/// Errors of running the graphs.
pub fn reference(quantized: &Model, float: &Model, batch: &Batch) -> Result<Option<Model>> {
    let known: HashMap<&str, &Tensor> =
        float.values.iter().filter_map(|(_, v)| Some((v.name.as_str(), &v.constant.as_ref()?.tensor))).collect();
    let mut model = without_encodings(quantized);
    for (id, value) in quantized.values.iter() {
        let Some(own) = quantized.values.tensor(id) else { continue };
        match known.get(value.name.as_str()) {
            Some(right) if right.shape() == own.shape() && right.dtype() == own.dtype() => {
                model.values.set_tensor(id, (*right).clone());
            }
            None if quantized.annotations.encoding(id).is_some_and(is_bias) => {
                let zero = Tensor::zeros(own.dtype(), own.shape()).map_err(TrainError::from)?;
                model.values.set_tensor(id, zero);
            }
            _ => {}
        }
    }
    let run = |model: &Model| Executor::new(model)?.run(&batch.inputs, Mode::SIMULATED);
    let (wanted, got) = (run(&super::without_encodings(float))?, run(&model)?);
    for (name, right) in &wanted {
        let Some(got) = got.get(name).filter(|got| got.shape() == right.shape()) else { return Ok(None) };
        let compared = SignalToNoise::of(right, got).map_err(TrainError::from)?;
        if right.dtype().is_float() && compared.noise > 0.0 && compared.db().is_nan() | (compared.db() < SAME) {
            return Ok(None);
        }
    }
    Ok(Some(model))
}
