//! Factors of channels, put into weights and other constants.
use super::groups::Layer;
use crate::Result;
use crate::error::named;
use graph::{Annotation, Model, ValueId};
use tensor::Tensor;

/// Shape and elements of a layer's weight, zero where a mask hides it; `None` if it is no constant.
pub(super) fn live(model: &Model, layer: &Layer) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
    let name = &model.values[layer.weight].name;
    let Some(weight) = model.values.tensor(layer.weight) else { return Ok(None) };
    let mask = Annotation { mask: model.annotations.mask(layer.weight).cloned(), encoding: None };
    let live = encodings::simulate(weight, &mask).map_err(named(name))?;
    Ok(Some((weight.shape().to_vec(), live.to_f32_vec().map_err(|e| named(name)(e.into()))?)))
}

/// Multiplies a layer's weight by the factors of its input channels, and divides weight and bias by those of its output channels.
pub(super) fn scale(model: &mut Model, layer: &Layer, gives: Option<&Vec<f64>>, reads: Option<(&Vec<f64>, usize)>) -> Result<()> {
    if gives.is_none() && reads.is_none() {
        return Ok(());
    }
    let name = model.values[layer.weight].name.clone();
    let fail = |e: tensor::TensorError| named(&name)(e.into());
    if let Some(weight) = model.values.tensor(layer.weight) {
        let mut x = weight.to_f32_vec().map_err(fail)?;
        layer.channels.each(weight.shape(), |at, i, o| {
            let factor = reads.map_or(1.0, |(list, run)| list[i / run]) / gives.map_or(1.0, |list| list[o]);
            x[at] = (f64::from(x[at]) * factor) as f32;
        });
        let scaled = Tensor::new(x, weight.shape()).map_err(fail)?;
        model.values.set_tensor(layer.weight, scaled);
    }
    match (layer.bias, gives) {
        (Some(bias), Some(gives)) => rescale(model, bias, |i| 1.0 / gives[i], gives.len()),
        _ => Ok(()),
    }
}

/// Multiplies a constant that has one element for each channel.
pub(super) fn rescale(model: &mut Model, id: ValueId, factor: impl Fn(usize) -> f64, channels: usize) -> Result<()> {
    let name = model.values[id].name.clone();
    let fail = |e: tensor::TensorError| named(&name)(e.into());
    let Some(tensor) = model.values.tensor(id).filter(|t| t.len() == channels) else { return Ok(()) };
    let x = tensor.to_f32_vec().map_err(fail)?;
    let x: Vec<f32> = x.iter().enumerate().map(|(i, v)| (f64::from(*v) * factor(i)) as f32).collect();
    let scaled = Tensor::new(x, tensor.shape()).map_err(fail)?;
    model.values.set_tensor(id, scaled);
    Ok(())
}
