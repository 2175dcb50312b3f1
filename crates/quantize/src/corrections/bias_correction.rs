//! Bias correction: subtracts from a layer's bias the mean error that quantization causes in each channel.
use super::after_activation::{Span, Spread};
use super::collect::{by_channel, what_of};
use super::{ChannelMean, Collector, Correction, CorrectionContext, Phase, Want, layerwise};
use crate::bias::{fit_biases, is_bias};
use crate::error::named;
use crate::{QuantPlan, QuantizeSettings, Result};
use graph::{Annotation, Model, Node, ValueId};
use ops::{ChannelAxis, LayerChannels, Roles};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Fault, Manual, Settings, member, within};
use tensor::{DType, Tensor};
use train::Layerwise;

pub(super) const ENTRY: Entry<dyn Correction> = member!(
    BiasCorrection as dyn Correction,
    Manual {
        name: "bias_correction",
        summary: "Subtracts from each layer's bias the mean error that quantization causes in each channel.",
        details: "\
Empirical: layer by layer in the order of the graph, b <- b - (E[y_quantized] - E[y_float]), with y a layer's result [.., channels, ..]
before it is rounded, and the layers before it corrected already. The float means come from one pass over the samples, the quantized
ones from a simulation that runs each node about twice.

Analytic: b <- b - sum over the input channels of (W_quantized - W) E[x], with E[x] the mean of the layer's input in the float network.
It needs that one pass alone, and corrects the error of the weights only.

form = \"after_activation\": as empirical, but b is chosen so that the mean of each channel behind the Relu or Clip that
follows the layer, E[act(y_quantized - shift)], is that of the float network. Where rounding to few bits has made a channel's signal much
weaker, its mean in front of the activation can be right while nothing passes any more: with 4-bit weights the other two forms can
silence a layer. Without such an activation it is the empirical form.

For few bits, or one scale per tensor, where errors of a channel's weights do not cancel. It needs no labels. A layer without a bias
gets one; where an operator takes none (MatMul without an Add behind it), the layer is left alone and listed.",
        source: "M. Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (2019), arXiv:1906.04721, section 4.2 and \
             appendix D",
        example: "corrections = [{ kind = \"bias_correction\", samples = 128 }]",
    }
);

/// Most corrections of one layer.
const TRIES: usize = 3;

/// How the mean error is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// From the layer's results in the float network and in the simulation.
    #[default]
    Empirical,
    /// From the errors of its weights and the mean of its input.
    Analytic,
    /// From the results of the activation behind the layer, in the float network and in the simulation.
    AfterActivation,
}

/// Settings of `bias_correction`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BiasCorrection {
    /// Calibration samples for the means, in whole batches.
    pub samples: usize,
    /// How the mean error is computed.
    pub form: Form,
}

impl Default for BiasCorrection {
    fn default() -> Self {
        BiasCorrection { samples: 128, form: Form::Empirical }
    }
}

impl Settings for BiasCorrection {
    fn check(&self) -> Result<(), Fault> {
        within("samples", self.samples as f64, 1.0, 1e9, "means are taken over at least one sample")
    }
}

impl Correction for BiasCorrection {
    fn phase(&self) -> Phase {
        Phase::AfterFitting
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn wants(&self, model: &mut Model, _settings: &QuantizeSettings) -> Result<Vec<Want>> {
        add_missing_biases(model);
        let (targets, _) = targets(model);
        let want = |value, axis| Want { value, samples: self.samples, collector: Box::new(ChannelMean::new(axis)) };
        Ok(targets
            .iter()
            .map(|t| match self.form {
                Form::Empirical => want(t.output, axis(t.channels.at)),
                Form::Analytic => want(t.input, axis(t.channels.at)),
                Form::AfterActivation => want(t.activated.map_or(t.output, |(v, _)| v), axis(t.channels.at)),
            })
            .collect())
    }

    fn apply(&self, model: &mut Model, cx: &CorrectionContext) -> Result<Vec<String>> {
        let (targets, left) = targets(model);
        let plan = crate::plan(model, cx.settings)?;
        let mut layers = match self.form {
            Form::Empirical | Form::AfterActivation => Some(layerwise(model, cx.samples, self.samples)?),
            Form::Analytic => None,
        };
        let mut largest = 0f64;
        for (target, float) in targets.iter().zip(cx.collected) {
            largest = largest.max(self.correct(model, target, layers.as_mut(), float, (&plan, cx.settings.exact))?);
        }
        tensor::release_kept();
        let mut notes = vec![format!("the biases of {} layers corrected, by at most {largest:.3}", targets.len())];
        if !left.is_empty() {
            notes.push(format!("left alone, since they have no bias of their own: {}", left.join(", ")));
        }
        Ok(notes)
    }
}

impl BiasCorrection {
    /// Corrects one bias; `float` is the statistic of the float network that [`Correction::wants`] asks for. Returns the largest correction.
    pub(super) fn correct(
        &self,
        model: &mut Model,
        target: &BiasTarget,
        mut layers: Option<&mut Layerwise>,
        float: &Tensor,
        (plan, exact): (&QuantPlan, bool),
    ) -> Result<f64> {
        let float = float.to_f64_vec().map_err(|e| named(&model.values[target.bias].name)(e.into()))?;
        let mut largest = 0f64;
        // A bias that exceeds its grid makes the weight's grid coarser, which changes the error.
        for _ in 0..TRIES {
            let weight = model.annotations.encoding(target.weight).cloned();
            let errors = match &mut layers {
                Some(layers) => match target.activated.filter(|_| self.form == Form::AfterActivation) {
                    Some((_, bounds)) => activated_errors(model, target, layers, &float, bounds)?,
                    None => result_errors(model, target, layers, &float)?,
                },
                None => weight_errors(model, target, &float)?,
            };
            largest = errors.iter().fold(largest, |a, e| a.max(e.abs()));
            subtract(model, target, &errors, layers.is_some())?;
            fit_biases(model, plan, exact)?;
            if layers.is_none() || model.annotations.encoding(target.weight) == weight.as_ref() {
                break;
            }
        }
        Ok(largest)
    }
}

/// For each output channel the mean of the layer's result in the simulation minus that in the float network.
fn result_errors(model: &Model, target: &BiasTarget, layers: &mut Layerwise, float: &[f64]) -> Result<Vec<f64>> {
    let mut mean = ChannelMean::new(axis(target.channels.at));
    let mut failure = None;
    layers.run(model, target.node, &mut |tensor| {
        if let Err(what) = mean.update(tensor) {
            failure.get_or_insert(what);
        }
    })?;
    let means = failure.map_or_else(|| mean.finish(), Err).map_err(|what| what_of(model, target.output, what))?;
    let means = means.to_f64_vec().map_err(|e| named(&model.values[target.output].name)(e.into()))?;
    Ok(means.iter().zip(float).map(|(q, f)| q - f).collect())
}

/// For each output channel what to subtract from the layer's result in the simulation for its activation to have the mean that it has in
/// the float network.
fn activated_errors(model: &Model, target: &BiasTarget, layers: &mut Layerwise, float: &[f64], (min, max): (f32, f32)) -> Result<Vec<f64>> {
    let axis = axis(target.channels.at);
    let mut failure = None;
    let mut spans: Vec<Span> = vec![];
    layers.run(model, target.node, &mut |tensor| {
        failure = failure.take().or(by_channel(tensor, axis, &mut spans, Span::add).err());
    })?;
    let mut spreads: Vec<Spread> = spans.into_iter().map(Spread::within).collect();
    layers.run(model, target.node, &mut |tensor| {
        failure = failure.take().or(by_channel(tensor, axis, &mut spreads, Spread::add).err());
    })?;
    if let Some(what) = failure {
        return Err(what_of(model, target.output, what));
    }
    let bounds = (f64::from(min), f64::from(max));
    Ok(spreads.iter().zip(float).map(|(spread, wanted)| spread.shift(bounds, *wanted)).collect())
}

/// Subtracts errors from a bias; from the bias as stored, if the errors were measured with it.
fn subtract(model: &mut Model, target: &BiasTarget, errors: &[f64], stored: bool) -> Result<()> {
    let name = model.values[target.bias].name.clone();
    let fail = |e: tensor::TensorError| named(&name)(e.into());
    let Some(bias) = model.values.tensor(target.bias) else { return Ok(()) };
    let annotation = model.annotations.get(target.bias).filter(|_| stored).cloned().unwrap_or_default();
    let old = encodings::simulate(bias, &annotation).map_err(named(&name))?.to_f64_vec().map_err(fail)?;
    let new: Vec<f32> = old.iter().zip(errors).map(|(b, e)| (b - e) as f32).collect();
    let new = Tensor::new(new, bias.shape()).map_err(fail)?;
    model.values.set_tensor(target.bias, new);
    Ok(())
}

fn axis(at: ChannelAxis) -> i64 {
    match at {
        ChannelAxis::Second => 1,
        ChannelAxis::Last => -1,
    }
}

/// A bias to correct.
pub(super) struct BiasTarget {
    /// The node that adds it.
    pub(super) node: usize,
    /// The output of that node.
    output: ValueId,
    /// The input of the layer.
    input: ValueId,
    pub(super) weight: ValueId,
    bias: ValueId,
    channels: LayerChannels,
    /// The result of the Relu or Clip that alone reads the output, and its bounds.
    activated: Option<(ValueId, (f32, f32))>,
}

impl BiasTarget {
    /// Those of a model, in the order in which [`Correction::wants`] asks for their statistics.
    pub(super) fn all(model: &Model) -> Vec<BiasTarget> {
        targets(model).0
    }
}

/// A layer of the main graph whose constant weight has a grid.
fn quantized_layer(model: &Model, node: &Node) -> Option<(LayerChannels, ValueId)> {
    let weight = node.input(1)?;
    let channels = LayerChannels::of(node, model.values.tensor(weight)?.shape())?;
    model.annotations.encoding(weight)?;
    Some((channels, weight))
}

/// Adds a bias of zeros to each quantized layer without one, if its operator takes a bias.
fn add_missing_biases(model: &mut Model) {
    let (linked, roles) = (model.graph.linked(), Roles::of(model));
    let missing = |(at, node): (usize, &Node)| {
        let (channels, weight) = quantized_layer(model, node)?;
        let slot = channels.bias.filter(|i| node.input(*i).is_none())?;
        let outputs = channels.counts(model.values.tensor(weight)?.shape()).1;
        // Its bias may be in an Add behind it.
        let reader = node.output(0).and_then(|out| linked.readers(out).next());
        reader.is_none_or(|n| roles.bias_of(n).is_none()).then_some((at, slot, outputs))
    };
    let missing: Vec<(usize, usize, usize)> = model.graph.nodes.iter().enumerate().filter_map(missing).collect();
    let mut names = model.names();
    for (at, slot, outputs) in missing {
        let name = names.fresh(&format!("{}.bias", model.graph.nodes[at].label(&model.values)));
        let id = model.values.add_constant(name, Tensor::vector(vec![0f32; outputs]));
        model.graph.constants.push(id);
        let node = &mut model.graph.nodes[at];
        node.inputs.resize(slot + 1, None);
        node.inputs[slot] = Some(id);
    }
}

/// The biases that can be corrected, in the order of their nodes, and the layers without a bias.
fn targets(model: &Model) -> (Vec<BiasTarget>, Vec<String>) {
    let (uses, links, roles, linked) = (model.graph.use_counts(), model.graph.links(), Roles::of(model), model.graph.linked());
    // A constant on a grid fitted to its own elements is not changed as a bias.
    let free = |v: ValueId| model.annotations.encoding(v).is_none_or(is_bias);
    let own = |v: ValueId| uses.get(&v) == Some(&1) && free(v) && model.values.tensor(v).is_some_and(|t| t.dtype() == DType::F32);
    let (mut found, mut left) = (vec![], vec![]);
    for (at, node) in model.graph.nodes.iter().enumerate() {
        let Some((channels, weight)) = quantized_layer(model, node) else { continue };
        let Some(input) = node.input(0) else { continue };
        let direct = channels.bias.and_then(|i| node.input(i)).map(|bias| (at, bias));
        let added = || {
            let behind = *links.consumers(node.output(0)?).first()?;
            let add = &model.graph.nodes[behind];
            let (layer, i) = roles.bias_of(add)?;
            (layer.output(0) == node.output(0) && uses.get(&node.output(0)?) == Some(&1)).then_some(())?;
            Some((behind, add.input(i)?))
        };
        let outputs = model.values.tensor(weight).map_or(0, |t| channels.counts(t.shape()).1);
        let whole = |bias: ValueId| model.values.tensor(bias).is_some_and(|t| t.len() == outputs);
        match direct.or_else(added).filter(|(_, bias)| own(*bias) && whole(*bias)) {
            Some((node, bias)) => {
                let Some(output) = model.graph.nodes[node].output(0) else { continue };
                let behind = ops::activation_behind((model, &linked), &uses, output);
                let activated = behind.and_then(|n| Some((n.output(0)?, ops::clip_bounds(model, n).filter(|(a, b)| a <= b)?)));
                found.push(BiasTarget { node, output, input, weight, bias, channels, activated });
            }
            None => left.push(node.label(&model.values)),
        }
    }
    found.sort_by_key(|t| t.node);
    (found, left)
}

/// For each output channel the mean change of the result from the errors of the layer's weights, for an input with these means.
fn weight_errors(model: &Model, target: &BiasTarget, means: &[f64]) -> Result<Vec<f64>> {
    let name = &model.values[target.weight].name;
    let fail = |e: tensor::TensorError| named(name)(e.into());
    let (Some(weight), Some(stored)) = (model.values.tensor(target.weight), model.annotations.get(target.weight)) else {
        return Ok(vec![]);
    };
    let mask = Annotation { mask: stored.mask.clone(), encoding: None };
    let float = encodings::simulate(weight, &mask).map_err(named(name))?.to_f32_vec().map_err(fail)?;
    let rounded = encodings::simulate(weight, stored).map_err(named(name))?.to_f32_vec().map_err(fail)?;
    let (inputs, outputs) = target.channels.counts(weight.shape());
    if means.len() != inputs {
        return Err(what_of(model, target.input, format!("has {} channels, the layer's weight has {inputs}", means.len())));
    }
    let mut errors = vec![0f64; outputs];
    target.channels.each(weight.shape(), |at, i, o| errors[o] += f64::from(rounded[at] - float[at]) * means[i]);
    Ok(errors)
}
