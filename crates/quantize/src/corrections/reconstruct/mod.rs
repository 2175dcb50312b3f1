//! Reconstruction: weights are rounded so that the result of a layer, or a block of layers, on quantized data is close to the
//! float network's result on float data. No labels are needed. Learned are the direction in which each weight is rounded
//! ([`rounding`]), and optionally the scales of activations and the biases ([`fit`]).
mod fit;
mod rounding;
mod rows;
mod units;

use super::{CorrectionContext, layerwise};
use crate::bias::fit_biases;
use crate::{QuantizeError, Result};
use fit::{Fit, Outcome};
use graph::{Model, ValueId};
use rows::Sides;
use std::collections::BTreeSet;
use technique::{Fault, within};
use units::Unit;

/// The unit of reconstruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// A layer with its bias and activation.
    Layer,
    /// A block: the layers between two places where only one value passes.
    Block,
}

/// The graph's layers with an encoded weight that nothing else reads: their nodes' places and weights; and the labels of the other
/// layers.
pub(super) fn encoded_layers(model: &Model) -> (Vec<(usize, ValueId)>, Vec<String>) {
    let (found, left) = units::layers_with(model, |_| true);
    (found.into_iter().map(|(at, layer)| (at, layer.weight)).collect(), left)
}

/// Settings of the learning. Rates are those of Adam.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reconstruction {
    pub(super) extent: Extent,
    pub(super) samples: usize,
    pub(super) iterations: usize,
    pub(super) batch: usize,
    /// Learning rate of the variables of rounding.
    pub(super) rate: f64,
    /// Factor of the regularization relative to the error, which is a share of the result's power, summed over channels.
    pub(super) regularization: f64,
    /// First and last exponent of the regularization.
    pub(super) beta: [f64; 2],
    /// Share of the steps without regularization.
    pub(super) warm_up: f64,
    /// Probability that an element of an activation stays in float.
    pub(super) drop: f64,
    pub(super) learn_scales: bool,
    pub(super) learn_biases: bool,
    /// Steps over the whole network after those of the units.
    pub(super) network_iterations: usize,
    pub(super) seed: u64,
}

impl Reconstruction {
    /// Checks ranges. `unit` is what is fitted at once, as a word.
    ///
    /// # Errors
    /// A [`Fault`] at the setting.
    pub(super) fn check(&self, unit: &str) -> std::result::Result<(), Fault> {
        within("samples", self.samples as f64, 1.0, 1e9, &format!("a {unit} is fitted to at least one sample"))?;
        within("iterations", self.iterations as f64, 1.0, 1e7, "at least one step is needed")?;
        within("batch", self.batch as f64, 1.0, 1e6, "a step takes at least one sample")?;
        within("rate", self.rate, 1e-8, 1.0, "it is a learning rate of Adam")?;
        within("regularization", self.regularization, 0.0, 1e6, "it is a factor of the loss")?;
        within("warm_up", self.warm_up, 0.0, 0.95, "it is a share of the steps, of which some must be left")?;
        within("drop", self.drop, 0.0, 1.0, "it is a probability")
    }

    /// Samples that run forward and backward, over all steps.
    pub(super) fn learns_from(&self) -> usize {
        self.iterations.saturating_add(self.network_iterations).saturating_mul(self.batch)
    }
}

/// Reconstructs a model unit by unit, in the order of the graph, each on the data that the earlier units compute.
///
/// # Errors
/// [`QuantizeError::NoData`] without a batch; [`train::TrainError::Interrupted`] if the user stops; errors of running the graph.
pub(super) fn reconstruct(model: &mut Model, cx: &CorrectionContext, options: &Reconstruction) -> Result<Vec<String>> {
    let mut float_model = model.clone();
    float_model.annotations.iter_mut().for_each(|(_, a)| a.encoding = None);
    let (layers, left) = units::layers(model);
    let units = match options.extent {
        Extent::Layer => units::by_layer(model, &layers),
        Extent::Block => units::by_block(model, &layers),
    };
    let plan = crate::plan(model, cx.settings)?;
    let tied = tied(model);
    let learnable = |v: ValueId| {
        plan.activations.contains_key(&v) && !plan.two_levels.contains_key(&v) && !plan.fixed.contains_key(&v) && !tied.contains(&v)
    };
    let mut sides = Sides {
        float_model: &float_model,
        float: layerwise(&float_model, cx.samples, options.samples)?,
        quantized: layerwise(model, cx.samples, options.samples)?,
    };
    let whole = units::whole(model, &layers).filter(|_| options.network_iterations > 0);
    let (mut step, steps) = (0, (units.len() * options.iterations + whole.as_ref().map_or(0, |_| options.network_iterations)) as u64);
    let mut tick = || {
        step += 1;
        (cx.progress)(step, steps);
    };
    let mut summary = Summary::default();
    for unit in &units {
        let rows = sides.rows(model, unit)?;
        if rows.len() == 0 {
            return Err(QuantizeError::NoData);
        }
        let fit = Fit::new((model, &float_model), unit, &layers, &rows, options, false, &learnable)?;
        summary.add(&unit.label(model), fit.run(model, cx.settings.exact, &mut tick)?);
        fit_biases(model, &plan, cx.settings.exact)?;
        tensor::release_kept();
    }
    let mut notes = summary.notes(&units);
    if let Some(unit) = whole {
        let options = Reconstruction { iterations: options.network_iterations, ..options.clone() };
        let mut sides = Sides {
            float_model: &float_model,
            float: layerwise(&float_model, cx.samples, options.samples)?,
            quantized: layerwise(model, cx.samples, options.samples)?,
        };
        let rows = sides.rows(model, &unit)?;
        let fit = Fit::new((model, &float_model), &unit, &layers, &rows, &options, true, &learnable)?;
        let Outcome { nearest, learned, turned, free } = fit.run(model, cx.settings.exact, &mut tick)?;
        fit_biases(model, &plan, cx.settings.exact)?;
        notes.push(format!(
            "the whole network: error of its outputs {:.2} % of their power before, {:.2} % after; {:.0} % of {free} weights rounded anew",
            100.0 * nearest,
            100.0 * learned,
            100.0 * turned as f64 / free.max(1) as f64
        ));
        tensor::release_kept();
    }
    if !left.is_empty() {
        notes.push(format!("left alone, since their weights are shared, fed or on no grid of integers: {}", left.join(", ")));
    }
    Ok(notes)
}

/// Values whose grid depends on another's.
fn tied(model: &Model) -> BTreeSet<ValueId> {
    ops::divisions(model).into_iter().flat_map(|d| [d.dividend, d.quotient]).collect()
}

/// The results of all units.
#[derive(Default)]
struct Summary {
    all: Vec<(String, Outcome)>,
}

impl Summary {
    fn add(&mut self, unit: &str, outcome: Outcome) {
        self.all.push((unit.to_string(), outcome));
    }

    fn notes(&self, units: &[Unit]) -> Vec<String> {
        let layers: usize = units.iter().map(|u| u.layers.len()).sum();
        let (turned, free) = self.all.iter().fold((0, 0), |(t, f), (_, o)| (t + o.turned, f + o.free));
        let percent = 100.0 * turned as f64 / free.max(1) as f64;
        let ratios = self.all.iter().filter(|(_, o)| o.nearest > 0.0 && o.learned > 0.0).map(|(_, o)| (o.learned / o.nearest).ln());
        let ratios: Vec<f64> = ratios.collect();
        let mean = (ratios.iter().sum::<f64>() / ratios.len().max(1) as f64).exp();
        let mut notes = vec![format!(
            "{layers} layers in {} units: {percent:.0} % of {free} weights rounded to the farther point; error of a unit's result {mean:.2} \
             times that of rounding to nearest (geometric mean)",
            units.len()
        )];
        if let Some((unit, worst)) = self.all.iter().max_by(|a, b| a.1.learned.total_cmp(&b.1.learned)) {
            notes.push(format!("largest error left: {:.2} % of the result's power, in {unit}", 100.0 * worst.learned));
        }
        notes
    }
}

#[cfg(test)]
mod tests;
