//! Cross-layer equalization: each channel of a layer gets the same share of its weight's range, by factors that the next layers
//! undo.
use super::groups::{Group, Groups, Layer, Reach};
use super::rescale::{live, rescale, scale};
use super::{Correction, CorrectionContext, Phase};
use crate::Result;
use graph::{Model, Node, ValueId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use technique::{Entry, Fault, Manual, Settings, member, within};

pub(super) const ENTRY: Entry<dyn Correction> = member!(
    Equalize as dyn Correction,
    Manual {
        name: "equalize",
        summary: "Scales channels between layers so that each uses the same share of its weight's range.",
        details: "\
Between two layers y = W2 f(W1 x + b1) with f(s x) = s f(x) for s > 0 (none, Relu, LeakyRelu, PRelu, pooling), channel i of the first
may be divided by any s_i > 0 if the second's input channel is multiplied by it: W1 <- W1 / s, b1 <- b1 / s, W2 <- W2 s. With r1_i and
r2_i the largest magnitudes of channel i on either side, s_i = sqrt(r1_i r2_i) / r2_i makes both sqrt(r1_i r2_i), which is best for one
scale per tensor. Pairs share layers, so it is repeated until nothing moves. The float network computes the same function.

For weights with one scale per tensor (granularity = \"tensor\"), depthwise convolutions above all, and for networks whose
normalizations have been folded. With a scale per channel it gains little and may widen activations.

A bound (Clip, ReLU6) has no factor: such a pair is left alone and listed, or, with replace_clips, the bound is taken away as the paper
does, which changes the function where an activation exceeded it.",
        source: "M. Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (2019), arXiv:1906.04721, section \
             4.1, equations 9 to 11",
        example: "weights = { granularity = \"tensor\" }\ncorrections = [\"equalize\"]",
    }
);

/// Settings of `equalize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Equalize {
    /// Most repetitions.
    pub iterations: usize,
    /// Also equalizes groups of more than two layers: residual branches and results that several layers read, with one factor for
    /// each channel. `false`: pairs only, as in the paper.
    pub residual: bool,
    /// Removes an upper bound (ReLU6) between two layers, so that they can be equalized.
    pub replace_clips: bool,
    /// How much of a channel's bias counts as part of its range, 0..1. Above 0, channels with small weights and a large bias are
    /// not scaled up.
    pub bias: f64,
}

impl Default for Equalize {
    fn default() -> Self {
        Equalize { iterations: 50, residual: false, replace_clips: false, bias: 0.0 }
    }
}

impl Settings for Equalize {
    fn check(&self) -> Result<(), Fault> {
        within("iterations", self.iterations as f64, 1.0, 10_000.0, "repetitions at most")?;
        within("bias", self.bias, 0.0, 1.0, "it is a share of the bias")
    }
}

/// Repetitions end when no logarithm of a factor changes by more than this.
const SETTLED: f64 = 1e-4;

/// Largest factor, and the inverse of the smallest: beyond it a channel has practically no effect, and its bias would overflow
/// f32.
const MOST: f64 = 1e4;

impl Correction for Equalize {
    fn phase(&self) -> Phase {
        Phase::BeforeFitting
    }

    fn apply(&self, model: &mut Model, cx: &CorrectionContext) -> Result<Vec<String>> {
        let found = Groups::of(model, cx.settings, Reach { open_clips: self.replace_clips, ..Reach::default() })?;
        let linked = |g: &&Group| !g.producers.is_empty() && !g.consumers.is_empty();
        let chosen: Vec<usize> =
            (0..found.groups.len()).filter(|i| self.refused(&found.groups[*i]).is_none() && linked(&&found.groups[*i])).collect();
        let mut ranges = found.layers.iter().map(|layer| Ranges::of(model, layer)).collect::<Result<Vec<_>>>()?;
        let factors = self.factors(&found, &chosen, &mut ranges);
        for layer in &found.layers {
            scale(model, layer, factors.get(&layer.gives), layer.reads.and_then(|(group, run)| Some((factors.get(&group)?, run))))?;
        }
        let mut clips = vec![];
        for group in &chosen {
            for offset in &found.groups[*group].offsets {
                rescale(model, *offset, |i| 1.0 / factors[group][i], found.groups[*group].channels)?;
            }
            clips.extend(found.groups[*group].clips.iter().copied());
        }
        let replaced = without_bounds(model, &clips);
        let mut notes = vec![match chosen.len() {
            0 => "no two layers could be equalized".to_string(),
            n => format!("{n} pairs or groups of layers equalized"),
        }];
        if replaced > 0 {
            notes.push(format!(
                "{replaced} bounds (Clip) were replaced by Relu, so the float network computes another function where an activation exceeded \
                 its bound"
            ));
        }
        let mut refused: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for group in found.groups.iter().filter(linked) {
            if let Some(why) = self.refused(group) {
                refused.entry(why).or_default().push(found.names(group));
            }
        }
        notes.extend(refused.into_iter().map(|(why, names)| format!("{} left alone, {why}: {}", names.len(), names.join("; "))));
        Ok(notes)
    }
}

impl Equalize {
    /// Why a group is left unchanged.
    fn refused(&self, group: &Group) -> Option<String> {
        match &group.stopped {
            Some(why) => Some(why.clone()),
            None if !self.residual && (group.producers.len() > 1 || group.consumers.len() > 1) => {
                Some("since more than two layers share their channels (residual = true scales them together)".into())
            }
            None => None,
        }
    }

    /// The divisors of each chosen group's channels.
    fn factors(&self, found: &Groups, chosen: &[usize], ranges: &mut [Ranges]) -> BTreeMap<usize, Vec<f64>> {
        let mut factors: BTreeMap<usize, Vec<f64>> = chosen.iter().map(|g| (*g, vec![1.0; found.groups[*g].channels])).collect();
        for _ in 0..self.iterations {
            let mut moved = 0f64;
            for id in chosen {
                let group = &found.groups[*id];
                let Some(now) = factors.get(id).cloned() else { continue };
                let (mut given, mut read) = (vec![0f64; group.channels], vec![0f64; group.channels]);
                for layer in &group.producers {
                    let inputs = inputs_of(&found.layers[*layer], &factors);
                    ranges[*layer].given(&inputs, &now, self.bias, &mut given);
                }
                for layer in &group.consumers {
                    let outputs = factors.get(&found.layers[*layer].gives).map_or(&[][..], Vec::as_slice);
                    let run = found.layers[*layer].reads.map_or(1, |r| r.1);
                    ranges[*layer].read(&now, run, outputs, &mut read);
                }
                let next: Vec<f64> = now
                    .iter()
                    .zip(given.iter().zip(&read))
                    .map(|(s, (r1, r2))| if *r1 > 0.0 && *r2 > 0.0 { (s * (r1 / r2).sqrt()).clamp(1.0 / MOST, MOST) } else { *s })
                    .collect();
                moved = next.iter().zip(&now).fold(moved, |m, (a, b)| m.max((a / b).ln().abs()));
                factors.insert(*id, next);
            }
            if moved < SETTLED {
                break;
            }
        }
        factors
    }
}

/// The factor of each of a layer's input channels; empty where there is none.
fn inputs_of(layer: &Layer, factors: &BTreeMap<usize, Vec<f64>>) -> Vec<f64> {
    let Some((group, run)) = layer.reads else { return vec![] };
    factors.get(&group).map_or(vec![], |list| list.iter().flat_map(|f| std::iter::repeat_n(*f, run)).collect())
}

/// The largest magnitude of a layer's weight for each pair of channels, with masks, and of its bias.
struct Ranges {
    /// Input channel, output channel, largest magnitude.
    pairs: Vec<(usize, usize, f64)>,
    bias: Vec<f64>,
}

impl Ranges {
    fn of(model: &Model, layer: &Layer) -> Result<Ranges> {
        let Some((shape, x)) = live(model, layer)? else { return Ok(Ranges { pairs: vec![], bias: vec![] }) };
        let mut largest: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        layer.channels.each(&shape, |at, i, o| {
            let held = largest.entry((o, i)).or_default();
            *held = held.max(f64::from(x[at].abs()));
        });
        let bias = layer.bias.and_then(|b| model.values.tensor(b)).and_then(|b| b.to_f64_vec().ok()).unwrap_or_default();
        Ok(Ranges { pairs: largest.into_iter().map(|((o, i), v)| (i, o, v)).collect(), bias })
    }

    /// Raises `into` to the largest magnitude of each output channel, with the factors of the input channels and its own.
    fn given(&self, inputs: &[f64], own: &[f64], bias: f64, into: &mut [f64]) {
        for (i, o, v) in &self.pairs {
            into[*o] = into[*o].max(v * inputs.get(*i).unwrap_or(&1.0) / own[*o]);
        }
        if bias > 0.0 {
            into.iter_mut().zip(&self.bias).zip(own).for_each(|((r, b), s)| *r = r.max(bias * b.abs() / s));
        }
    }

    /// Raises `into` to the largest magnitude of each of the group's channels where this layer reads them.
    fn read(&self, own: &[f64], run: usize, outputs: &[f64], into: &mut [f64]) {
        for (i, o, v) in &self.pairs {
            let channel = i / run;
            into[channel] = into[channel].max(v * own[channel] / outputs.get(*o).unwrap_or(&1.0));
        }
    }
}

/// Replaces each Clip whose first output is listed by a Relu. Returns how many.
fn without_bounds(model: &mut Model, clips: &[ValueId]) -> usize {
    let mut replaced = 0;
    for node in &mut model.graph.nodes {
        if node.output(0).is_some_and(|v| clips.contains(&v)) {
            let (Some(x), Some(y)) = (node.input(0), node.output(0)) else { continue };
            *node =
                Node { doc_string: node.doc_string.clone(), extra: node.extra.clone(), ..Node::new("Relu", node.name.clone(), &[x], &[y]) };
            replaced += 1;
        }
    }
    replaced
}
