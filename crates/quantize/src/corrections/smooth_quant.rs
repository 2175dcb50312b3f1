//! SmoothQuant: outliers of a product's input channels become part of its weights.
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
                    insert(model, &found, one, &factors);
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
fn insert(model: &mut Model, found: &Groups, one: &Smoothed, factors: &[f64]) {
    let Some((value, last)) = one.values.first().copied() else { return };
    let weights: BTreeSet<ValueId> = one.layers.iter().map(|l| found.layers[*l].weight).collect();
    let reads = |n: &Node| n.inputs.contains(&Some(value)) && n.inputs.iter().flatten().any(|v| weights.contains(v));
    let Some(first) = model.graph.nodes.iter().position(reads) else { return };
    let weight = model.graph.nodes[first].inputs.iter().flatten().copied().find(|v| weights.contains(v));
    let rank = weight.and_then(|w| model.values.tensor(w)).map_or(2, Tensor::rank);
    let inverse: Vec<f32> = factors.iter().map(|s| (1.0 / s) as f32).collect();
    // Channels along the second axis: ones for those behind it, as many as the weight has.
    let shape: Vec<usize> = std::iter::once(factors.len()).chain(if last { vec![] } else { vec![1; rank - 2] }).collect();
    let Ok(inverse) = Tensor::new(inverse, shape) else { return };
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
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use super::super::transformer::{CHANNELS, block};
    use super::super::{CorrectionInput, correct};
    use super::*;
    use crate::quantize;
    use tensor::{SignalToNoise, random};
    use train::{Batch, Executor, Mode};

    const SMOOTH: &str = r#"[{ "kind": "smooth_quant", "samples": 32 }]"#;
    const INSERT: &str = r#"[{ "kind": "smooth_quant", "samples": 32, "insert_mul": true }]"#;

    fn batch(seed: u64) -> Batch {
        let x = random::normal(seed, &[8, 6, CHANNELS], 0.0, 1.0).unwrap();
        Batch { inputs: BTreeMap::from([("input".to_string(), x)]), ..Batch::default() }
    }

    fn smoothed(model: &Model, settings: &QuantizeSettings) -> (Model, Vec<String>) {
        let mut model = model.clone();
        let samples = || Box::new((0..4).map(|i| Ok(batch(i)))) as Box<dyn Iterator<Item = _>>;
        let report = correct(&mut model, settings, Phase::BeforeFitting, &CorrectionInput::new(&samples)).unwrap();
        (model, report.into_iter().flat_map(|r| r.notes).collect())
    }

    fn outputs(model: &Model, mode: Mode) -> Vec<f32> {
        let executor = Executor::new(model).unwrap();
        (100..103).flat_map(|seed| executor.run(&batch(seed).inputs, mode).unwrap()["out"].to_f32_vec().unwrap()).collect()
    }

    /// Signal to noise ratio against a network's outputs, in dB.
    fn ratio(float: &Model, model: &Model, mode: Mode) -> f64 {
        let mut sum = SignalToNoise::default();
        sum.add_all(&outputs(float, Mode::FLOAT), &outputs(model, mode));
        sum.db()
    }

    fn peak(model: &Model, value: &str, channel: usize) -> f64 {
        let id = model.find(value).unwrap();
        let mut peak = ChannelPeak::new(-1);
        let mut see = |seen: ValueId, t: &Tensor| {
            if seen == id {
                super::super::Collector::update(&mut peak, t).unwrap();
            }
        };
        let executor = Executor::unfused(model).unwrap();
        (0..4).for_each(|i| executor.run_observed(&batch(i).inputs, Mode::FLOAT, &mut see).unwrap());
        super::super::Collector::finish(&mut peak).unwrap().to_f64_vec().unwrap()[channel]
    }

    fn row(model: &Model, weight: &str, channel: usize) -> f64 {
        let weight = model.values.tensor(model.find(weight).unwrap()).unwrap();
        let row = weight.narrow(0, channel, 1).unwrap().to_f32_vec().unwrap();
        row.iter().fold(0.0, |m, v| f64::from(v.abs()).max(m))
    }

    #[test]
    fn the_float_network_stays_the_same_function_and_gets_no_node() {
        let model = block(30.0).unwrap();
        let (smooth, notes) = smoothed(&model, &with(SMOOTH));
        assert!(ratio(&model, &smooth, Mode::FLOAT) > 110.0);
        assert_eq!(smooth.graph.nodes.len(), model.graph.nodes.len());
        assert!(notes[0].starts_with("what 4 layers read is smoothed"), "{notes:?}");
        // What reads the attention's result and the Gelu's is listed.
        assert!(notes[1].starts_with("2 left alone, ") && notes[1].ends_with(": projection; down"), "{notes:?}");
        assert_ne!(smooth.values.tensor(smooth.find("norm1.shift").unwrap()), model.values.tensor(model.find("norm1.shift").unwrap()));
    }

    #[test]
    fn factors_are_those_of_equation_4_over_all_layers_that_read_the_same() {
        let model = block(30.0).unwrap();
        for alpha in [0.0, 0.3, 0.5, 1.0] {
            let (smooth, _) = smoothed(&model, &with(&format!(r#"[{{ "kind": "smooth_quant", "alpha": {alpha} }}]"#)));
            for channel in [0, 3, 29] {
                let weights = ["q.weight", "k.weight", "v.weight"].map(|w| row(&model, w, channel));
                let x = peak(&model, "norm1.out", channel);
                let s = x.powf(alpha) / weights.iter().fold(0f64, |m, w| m.max(*w)).powf(1.0 - alpha);
                assert!((peak(&smooth, "norm1.out", channel) / (x / s) - 1.0).abs() < 1e-4, "alpha {alpha}, channel {channel}");
                for (name, before) in ["q.weight", "k.weight", "v.weight"].iter().zip(weights) {
                    assert!((row(&smooth, name, channel) / (before * s) - 1.0).abs() < 1e-5, "alpha {alpha}, {name}, channel {channel}");
                }
            }
        }
    }

    #[test]
    fn int8_with_one_scale_per_tensor_gets_nearer_to_float() {
        let model = block(30.0).unwrap();
        let measure = |corrections: &str| {
            let mut quantized = model.clone();
            quantize(&mut quantized, &with(corrections), (0..4).map(|i| Ok(batch(i)))).unwrap();
            ratio(&model, &quantized, Mode::SIMULATED)
        };
        let (plain, smooth) = (measure("[]"), measure(SMOOTH));
        assert!(smooth > plain + 3.0, "{plain:.2} dB, smoothed {smooth:.2} dB");
    }

    #[test]
    fn a_mul_takes_the_factors_where_nothing_else_can() {
        let model = block(30.0).unwrap();
        let (smooth, notes) = smoothed(&model, &with(INSERT));
        assert_eq!(smooth.graph.nodes.len(), model.graph.nodes.len() + 2);
        assert!(notes[0].starts_with("what 6 layers read is smoothed") && notes[1..] == ["2 Mul inserted"], "{notes:?}");
        assert!(ratio(&model, &smooth, Mode::FLOAT) > 110.0);
        smooth.verify().unwrap();
    }

    /// `input` -> what `nodes` make of it -> a MatMul. Nodes: operator, constants behind the data.
    fn line(nodes: &[(&str, Vec<Tensor>)]) -> Model {
        let mut model = block(1.0).unwrap();
        let x = model.graph.inputs[0];
        model.graph.nodes.clear();
        let weight = model.find("q.weight").unwrap();
        let mut last = x;
        for (at, (op, constants)) in nodes.iter().chain(&[("MatMul", vec![])]).enumerate() {
            let mut inputs = vec![last];
            for (i, constant) in constants.iter().enumerate() {
                inputs.push(model.values.add_constant(format!("c{at}.{i}"), constant.clone()));
                model.graph.constants.push(inputs[i + 1]);
            }
            inputs.extend((at == nodes.len()).then_some(weight));
            last = model.values.add_named(if at == nodes.len() { "result".to_string() } else { format!("v{at}") });
            model.graph.nodes.push(Node::new(op, format!("{op}{at}"), &inputs, &[last]));
        }
        model.values[model.graph.outputs[0]].name = "unused".into();
        model.values[last].name = "out".into();
        model.graph.outputs = vec![last];
        let read = model.graph.use_counts();
        model.graph.constants.retain(|c| read.contains_key(c));
        model.verify().unwrap();
        model
    }

    fn noise(seed: u64, shape: &[usize]) -> Tensor {
        random::uniform(seed, shape, 0.1, 3.0).unwrap()
    }

    #[test]
    fn factors_go_into_what_makes_the_data_through_nodes_that_keep_channels() {
        let (vector, square) = (|seed| noise(seed, &[CHANNELS]), |seed| noise(seed, &[CHANNELS, CHANNELS]));
        let flat = Tensor::vector(vec![-1i64, CHANNELS as i64]);
        let first = Tensor::scalar(0i64);
        for (nodes, takes) in [
            (vec![("RMSNormalization", vec![vector(1)])], true),
            (vec![("LpNormalization", vec![]), ("Mul", vec![vector(1)]), ("Add", vec![vector(2)])], true),
            (vec![("LayerNormalization", vec![vector(1)]), ("Relu", vec![]), ("Reshape", vec![flat.clone()])], true),
            (vec![("LayerNormalization", vec![vector(1), vector(2)]), ("Gather", vec![first])], true),
            (vec![("MatMul", vec![square(1)]), ("Add", vec![vector(2)]), ("LeakyRelu", vec![])], true),
            (vec![("Gemm", vec![square(1), vector(2)])], true),
            (vec![("LayerNormalization", vec![vector(1)]), ("Sigmoid", vec![])], false),
            (vec![("Mul", vec![Tensor::scalar(2f32)])], false),
            (vec![("Mul", vec![noise(3, &[6, 1])])], false),
            (vec![], false),
        ] {
            let mut nodes = nodes;
            // Gemm reads a matrix.
            if nodes.first().is_some_and(|n| n.0 == "Gemm") {
                nodes.insert(0, ("Reshape", vec![flat.clone()]));
            }
            let mut model = line(&nodes);
            model.opsets[0].version = 24;
            let (smooth, notes) = smoothed(&model, &with(SMOOTH));
            assert_eq!(smooth.graph.nodes, model.graph.nodes, "{nodes:?}");
            let expected = if takes { "what 1 layers read is smoothed" } else { "no layer could be smoothed" };
            assert!(notes[0].starts_with(expected), "{nodes:?}: {notes:?}");
            // A layer that reads the input is left alone itself.
            let left = usize::from(!takes || nodes.iter().any(|n| matches!(n.0, "MatMul" | "Gemm")));
            assert_eq!(notes.len(), 1 + left, "{notes:?}");
            assert!(ratio(&model, &smooth, Mode::FLOAT) > 110.0, "{nodes:?}");
            assert_eq!(row(&smooth, "q.weight", 5) != row(&model, "q.weight", 5), takes, "{nodes:?}");
        }
    }

    #[test]
    fn a_channel_that_is_always_zero_keeps_the_scale_of_the_others() {
        let mut scale = noise(1, &[CHANNELS]).to_f32_vec().unwrap();
        scale[7] = 0.0;
        let model = line(&[("LayerNormalization", vec![Tensor::vector(scale)])]);
        let (smooth, _) = smoothed(&model, &with(SMOOTH));
        let factor = |c: usize| row(&smooth, "q.weight", c) / row(&model, "q.weight", c);
        let logarithms: f64 = (0..CHANNELS).filter(|c| *c != 7).map(|c| factor(c).ln()).sum();
        assert!((factor(7).ln() - logarithms / (CHANNELS - 1) as f64).abs() < 1e-4);
        assert!(smooth.values.tensor(smooth.find("c0.0").unwrap()).unwrap().to_f32_vec().unwrap().iter().all(|v| v.is_finite()));
    }

    #[test]
    fn masked_weights_do_not_count_and_shared_constants_stop_it() {
        let mut model = block(30.0).unwrap();
        let id = model.find("up.weight").unwrap();
        let shape = model.values.tensor(id).unwrap().shape().to_vec();
        let live: Vec<bool> = (0..shape[0] * shape[1]).map(|i| i % shape[1] == 0).collect();
        let tensor = Tensor::new(live, shape).unwrap();
        let zeroed = encodings::live(model.values.tensor(id).unwrap(), Some(&tensor)).unwrap();
        model.annotations.entry(id).mask = Some(tensor);
        let (masked, _) = smoothed(&model, &with(SMOOTH));
        let mut zeros = model.clone();
        zeros.annotations.entry(id).mask = None;
        zeros.values.set_tensor(id, zeroed);
        let (zeros, _) = smoothed(&zeros, &with(SMOOTH));
        let scale = |m: &Model| m.values.tensor(m.find("norm2.scale").unwrap()).unwrap().clone();
        assert_eq!(scale(&masked), scale(&zeros));
        assert_ne!(scale(&masked), scale(&model));
        // Both normalizations with the same scale.
        let mut shared = block(30.0).unwrap();
        let scale = shared.find("norm1.scale").unwrap();
        let second = shared.graph.nodes.iter_mut().find(|n| n.name == "norm2").unwrap();
        second.inputs[1] = Some(scale);
        let (_, notes) = smoothed(&shared, &with(SMOOTH));
        assert_eq!(notes[0], "no layer could be smoothed");
    }
}
