//! What 16-bit sums take from a layer's result on processors that saturate them (x86 with AVX2 alone).
use super::causes::Values;
use super::parts::Part;
use crate::error::named;
use crate::{QuantizeError, Result};
use encodings::affine::{Grid, quantize_to_int};
use graph::{Encoding, Model, Node, ValueId};
use ops::{Products, taken_by_saturation};
use tensor::{DType, Tensor};
use train::TrainError;

/// Adds up what saturation takes from the sums of one layer.
pub(super) struct Saturation {
    node: Node,
    /// The data, and their grid.
    input: (ValueId, String),
    grid: Encoding,
    zero_point: Tensor,
    /// The weight as integers.
    weight: Tensor,
    /// The value of a unit of the sums, for each output channel or for all.
    units: Vec<f64>,
    /// Whether the channels lie along the last axis of the result, else along the second.
    last: bool,
    power: f64,
}

impl Saturation {
    /// For a layer with 8-bit weights on 8-bit data whose kernel sums products in pairs; `None` for others.
    pub(super) fn of(part: &Part, quantized: &Model) -> Result<Option<Saturation>> {
        let node = &quantized.graph.nodes[part.at];
        let (Some(input), Some(id)) = (node.input(0), node.input(1)) else { return Ok(None) };
        let carrier = part.data.iter().find(|(v, _)| *v == input).map(|(_, carrier)| *carrier);
        let (Some(carrier), Some(tensor), true) = (carrier, quantized.values.tensor(id), part.weights.contains(&id)) else {
            return Ok(None);
        };
        let (Some(grid), Some(stored)) = (quantized.annotations.encoding(carrier), quantized.annotations.encoding(id)) else {
            return Ok(None);
        };
        let (Ok(data), Ok(weights)) = (Grid::of(grid), Grid::of(stored)) else { return Ok(None) };
        let bytes = weights.settings().dtype() == DType::I8 && matches!(data.settings().dtype(), DType::U8 | DType::I8);
        let Some(products) = Products::of(node, tensor.shape()).filter(|p| bytes && p.in_pairs(tensor.shape())) else { return Ok(None) };
        let fail = named(&quantized.values[id].name);
        let live = encodings::live(tensor, quantized.annotations.mask(id)).map_err(&fail)?;
        let weight = quantize_to_int(&live, stored).map_err(&fail)?;
        let read = || Ok((data.scale().to_f64_vec()?, weights.scale().to_f64_vec()?, data.zero_point()?));
        let (step, steps, zero_point) = read().map_err(&fail)?;
        let units = steps.iter().map(|s| s * step.first().copied().unwrap_or(1.0)).collect();
        Ok(Some(Saturation {
            node: node.clone(),
            input: (input, quantized.values[input].name.clone()),
            grid: grid.clone(),
            zero_point,
            weight,
            units,
            last: products != Products::Kernel,
            power: 0.0,
        }))
    }

    /// Adds a batch of the layer's data.
    pub(super) fn add(&mut self, values: &Values) -> Result<()> {
        let Some(x) = values.get(&self.input.0) else { return Ok(()) };
        let x = quantize_to_int(x, &self.grid).map_err(named(&self.input.1))?;
        let Some(taken) = taken_by_saturation(&self.node, &x, Some(&self.zero_point), &self.weight).map_err(QuantizeError::Op)? else {
            return Ok(());
        };
        let shape = taken.shape();
        let axis = if self.last { shape.len() - 1 } else { 1 };
        let run = shape[axis + 1..].iter().product::<usize>().max(1);
        let taken = taken.to_f64_vec().map_err(TrainError::from)?;
        let channels = self.units.len();
        for (i, piece) in taken.chunks(run).enumerate() {
            let unit = self.units[i % channels];
            self.power += piece.iter().map(|t| (t * unit).powi(2)).sum::<f64>();
        }
        Ok(())
    }

    /// The power of what was taken, over that of `noise`.
    pub(super) fn over(&self, noise: f64) -> Option<f64> {
        (self.power > 0.0 && noise > 0.0).then(|| self.power / noise)
    }
}
