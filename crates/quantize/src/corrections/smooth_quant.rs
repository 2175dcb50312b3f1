//! SmoothQuant: outliers of a product's input channels become part of its weights.
use super::collect::what_of;
use super::groups::{Groups, Reach};
use super::rescale::{live, rescale, scale};
use super::{ChannelPeak, Correction, CorrectionContext, Phase, Want};
use crate::error::named;
use crate::{QuantizeSettings, Result};
use graph::{Model, Node, ValueId};
use ops::ChannelAxis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use technique::{Entry, Fault, Manual, Settings, member, within};
use tensor::Tensor;

pub(super) const ENTRY: Entry<dyn Correction> = member!(
    SmoothQuant as dyn Correction,
    Manual {
        name: "smooth_quant",
        summary: "Divides outlier channels of what matrix products read, and multiplies the weights instead.",
        details: "\
A layer y = X W with X [.., channels] and W [channels, out] gets Y = (X diag(s)^-1) (diag(s) W), with

  s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)

for each input channel j: X_j over the samples, W_j over the weights of all layers that read the same X (Q, K and V). alpha = 0 gives
every channel's weights the same range, 1 every channel of X; larger values suit stronger outliers. The float network computes the same
function.

X is divided without a further node where its maker can take the factor: a LayerNormalization or RMSNormalization (scale and shift), a Mul
by a constant for each channel (norms written by hand), a layer (output channels and bias), with only Relu, LeakyRelu, additions of a
bias and moves that keep the channels in between, and no other reader. Where nothing can take it (behind Gelu, Softmax, a residual sum),
the layer is left alone and listed; insert_mul = true puts a Mul there. Where the target multiplies on integers, what the Mul reads is
rounded with one scale before it is smoothed, so this seldom gains.

For transformers with one scale per tensor for activations, whose normalizations make some channels 10 to 100 times larger than others.
Convolutions are smoothed in the same way.",
        source: "G. Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models (2022), arXiv:2211.10438, \
             equations 3 and 4",
        example: "corrections = [{ kind = \"smooth_quant\", alpha = 0.5 }]",
    }
);

/// Farthest factor from the geometric mean of a layer's factors, either way.
const MOST: f64 = 1e4;

/// Settings of `smooth_quant`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SmoothQuant {
    /// How much of the range of an input channel goes into the weights, 0..1.
    pub alpha: f64,
    /// Calibration samples for the largest magnitudes, in whole batches.
    pub samples: usize,
    /// Puts a Mul in front of layers whose input has no maker that can take the factor.
    pub insert_mul: bool,
}

impl Default for SmoothQuant {
    fn default() -> Self {
        SmoothQuant { alpha: 0.5, samples: 128, insert_mul: false }
    }
}

impl Settings for SmoothQuant {
    fn check(&self) -> Result<(), Fault> {
        within("alpha", self.alpha, 0.0, 1.0, "it is a share of a range")?;
        within("samples", self.samples as f64, 1.0, 1e9, "largest magnitudes are taken over at least one sample")
    }
}

/// Layers that get one factor for each input channel.
struct Smoothed {
    /// The group that takes the factors; `None`: a Mul does, behind the value that the layers read.
    group: Option<usize>,
    channels: usize,
    layers: Vec<usize>,
    /// What the layers read.
    values: BTreeSet<(ValueId, bool)>,
}

/// What is smoothed, and what is left alone.
struct Work {
    found: Groups,
    smoothed: Vec<Smoothed>,
    /// Names by reason.
    left: BTreeMap<String, Vec<String>>,
}

impl Correction for SmoothQuant {
    fn phase(&self) -> Phase {
        Phase::BeforeFitting
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn wants(&self, model: &mut Model, settings: &QuantizeSettings) -> Result<Vec<Want>> {
        let work = self.work(model, settings)?;
        let want = |(value, last): &(ValueId, bool)| {
            let collector = Box::new(ChannelPeak::new(if *last { -1 } else { 1 }));
            Want { value: *value, samples: self.samples, collector }
        };
        Ok(work.smoothed.iter().flat_map(|s| s.values.iter().map(want)).collect())
    }

    fn apply(&self, model: &mut Model, cx: &CorrectionContext) -> Result<Vec<String>> {
        let Work { found, smoothed, left } = self.work(model, cx.settings)?;
        let mut collected = cx.collected.iter();
        let (mut layers, mut inserted, mut before, mut after) = (0, 0, vec![], vec![]);
        let (mut given, mut read): (BTreeMap<usize, Vec<f64>>, BTreeMap<usize, (Vec<f64>, usize)>) = Default::default();
        for one in &smoothed {
            let mut peaks = vec![0f64; one.channels];
            for ((value, _), seen) in one.values.iter().zip(collected.by_ref()) {
                let seen = seen.to_f64_vec().map_err(|e| named(&model.values[*value].name)(e.into()))?;
                let run = (seen.len() / one.channels).max(1);
                seen.chunks(run).zip(&mut peaks).for_each(|(seen, peak)| *peak = seen.iter().fold(*peak, |m, v| m.max(*v)));
            }
            let mut weights = vec![0f64; one.channels];
            for layer in &one.layers {
                let layer = &found.layers[*layer];
                let Some((shape, x)) = live(model, layer)? else { continue };
                let run = layer.channels.counts(&shape).0 / one.channels;
                layer.channels.each(&shape, |at, i, _| weights[i / run] = weights[i / run].max(f64::from(x[at].abs())));
            }
            let factors = self.factors(&peaks, &weights);
            before.extend(outlier(&peaks));
            after.extend(outlier(&peaks.iter().zip(&factors).map(|(p, s)| p / s).collect::<Vec<_>>()));
            layers += one.layers.len();
            for layer in &one.layers {
                let run = one.group.and(found.layers[*layer].reads).map_or(1, |(_, run)| run);
                read.insert(*layer, (factors.clone(), run));
            }
            match one.group {
                Some(group) => {
                    for constant in found.groups[group].scales.iter().chain(&found.groups[group].offsets) {
                        rescale(model, *constant, |i| 1.0 / factors[i], one.channels)?;
                    }
                    given.insert(group, factors);
                }
                None => {
                    inserted += 1;
                    insert(model, &found, one, &factors)?;
                }
            }
        }
        for (at, layer) in found.layers.iter().enumerate() {
            scale(model, layer, given.get(&layer.gives), read.get(&at).map(|(factors, run)| (factors, *run)))?;
        }
        let mut notes = vec![match layers {
            0 => "no layer could be smoothed".to_string(),
            _ => format!(
                "what {layers} layers read is smoothed: the largest channel is {:.1} times the median channel, {:.1} before (geometric means)",
                geometric(&after),
                geometric(&before)
            ),
        }];
        if inserted > 0 {
            notes.push(format!("{inserted} Mul inserted"));
        }
        notes.extend(left.into_iter().map(|(why, names)| format!("{} left alone, {why}: {}", names.len(), names.join("; "))));
        Ok(notes)
    }
}

impl SmoothQuant {
    fn work(&self, model: &Model, settings: &QuantizeSettings) -> Result<Work> {
        let found = Groups::of(model, settings, Reach { scalers: true, ..Reach::default() })?;
        let mut of_group: BTreeMap<usize, Smoothed> = BTreeMap::new();
        let mut behind: BTreeMap<ValueId, Smoothed> = BTreeMap::new();
        let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (at, layer) in found.layers.iter().enumerate() {
            let Some(weight) = model.values.tensor(layer.weight) else { continue };
            let group = layer.reads.map(|(group, _)| group);
            let stopped = group.map_or(Some("since no layer and no constant of a normalization makes what they read"), |group| {
                found.groups[group].stopped.as_deref()
            });
            let inputs = layer.channels.counts(weight.shape()).0;
            let one = match (group, stopped) {
                (Some(group), None) => of_group.entry(group).or_insert_with(|| Smoothed::new(Some(group), found.groups[group].channels)),
                _ if self.insert_mul => behind.entry(layer.data).or_insert_with(|| Smoothed::new(None, inputs)),
                (_, why) => {
                    left.entry(why.unwrap_or_default().to_string()).or_default().push(layer.name.clone());
                    continue;
                }
            };
            let value = (layer.data, layer.channels.at == ChannelAxis::Last);
            // Behind a Mul all read along one axis.
            if one.group.is_none() && (inputs != one.channels || one.values.iter().any(|v| *v != value)) {
                left.entry("since other layers read the same along another axis".into()).or_default().push(layer.name.clone());
                continue;
            }
            one.values.insert(value);
            one.layers.push(at);
        }
        Ok(Work { found, smoothed: of_group.into_values().chain(behind.into_values()).collect(), left })
    }

    /// The divisors of the input channels. A channel that is always zero, or has no weights, gets the geometric mean of the others.
    fn factors(&self, peaks: &[f64], weights: &[f64]) -> Vec<f64> {
        let live = |(x, w): (&f64, &f64)| (*x > 0.0 && *w > 0.0).then(|| x.powf(self.alpha) / w.powf(1.0 - self.alpha));
        let factors: Vec<Option<f64>> = peaks.iter().zip(weights).map(live).collect();
        let mean = geometric(&factors.iter().flatten().copied().collect::<Vec<_>>());
        factors.into_iter().map(|s| s.unwrap_or(mean).clamp(mean / MOST, mean * MOST)).collect()
    }
}

impl Smoothed {
    fn new(group: Option<usize>, channels: usize) -> Smoothed {
        Smoothed { group, channels, layers: vec![], values: BTreeSet::new() }
    }
}

/// The geometric mean; 1 of none.
fn geometric(list: &[f64]) -> f64 {
    (list.iter().map(|v| v.ln()).sum::<f64>() / list.len().max(1) as f64).exp()
}

/// The largest over the median of the channels that are not zero.
fn outlier(peaks: &[f64]) -> Option<f64> {
    let mut live: Vec<f64> = peaks.iter().copied().filter(|p| *p > 0.0).collect();
    live.sort_by(f64::total_cmp);
    Some(live.last()? / live[live.len() / 2])
}

/// Puts a Mul by the inverse of the factors between a value and the layers that read it.
///
/// # Errors
/// If no layer of the main graph reads the value.
fn insert(model: &mut Model, found: &Groups, one: &Smoothed, factors: &[f64]) -> Result<()> {
    let Some((value, last)) = one.values.first().copied() else { return Ok(()) };
    let weights: BTreeSet<ValueId> = one.layers.iter().map(|l| found.layers[*l].weight).collect();
    let reads = |n: &Node| n.inputs.contains(&Some(value)) && n.inputs.iter().flatten().any(|v| weights.contains(v));
    let first = model.graph.nodes.iter().position(reads);
    let first = first.ok_or_else(|| what_of(model, value, "is read by no layer that could be smoothed".into()))?;
    let weight = model.graph.nodes[first].inputs.iter().flatten().copied().find(|v| weights.contains(v));
    let rank = weight.and_then(|w| model.values.tensor(w)).map_or(2, Tensor::rank);
    let inverse: Vec<f32> = factors.iter().map(|s| (1.0 / s) as f32).collect();
    // Channels along the second axis: ones for those behind it, as many as the weight has.
    let shape: Vec<usize> = std::iter::once(factors.len()).chain(if last { vec![] } else { vec![1; rank - 2] }).collect();
    let inverse = Tensor::new(inverse, shape).map_err(|e| named(&model.values[value].name)(e.into()))?;
    let mut names = model.names();
    let base = model.values[value].name.clone();
    let (name, constant) = (names.fresh(&format!("{base}.smooth")), names.fresh(&format!("{base}.smooth_scale")));
    let constant = model.values.add_constant(constant, inverse);
    let output = model.values.add_named(name.clone());
    model.graph.constants.push(constant);
    for node in model.graph.nodes.iter_mut().filter(|n| reads(n)) {
        node.inputs.iter_mut().filter(|i| **i == Some(value)).for_each(|i| *i = Some(output));
    }
    model.graph.nodes.insert(first, Node::new("Mul", name, &[value, constant], &[output]));
    Ok(())
}

#[cfg(test)]
mod tests;
