//! What to try, from the measured causes. No rule asks for the name of a network or of an operator: each weighs a cause by what its
//! layers cost at the outputs, and says which setting takes it away.
use super::Change;
use crate::recipe::{BatchNorm, QuantizeStage};
use encodings::{Encodings, Granularity};
use quantize::Rule;
use quantize::diagnosis::{Diagnosis, LayerDiagnosis};
use serde_json::json;
use technique::Choice;

/// Least share of the changes of the outputs for which something is worth trying.
const LEAST: f64 = 0.03;

/// Share of the error of rounded weights that learning to round, or rounding one input after the other, usually takes away:
/// `recipes/cifar10-resnet20-gptq-w4a8.toml` leaves 0.30 of a layer's error.
const LEARNED: [(&str, f64, &str); 2] = [
    ("adaround", 0.75, "adaround learns for each weight whether it is rounded up or down"),
    ("gptq", 0.7, "gptq rounds the weights one input after the other, those left making up for the error"),
];

/// Corrections that decide on the rounding of weights, of which one is enough.
const ROUNDING: &[&str] = &["adaround", "gptq", "block_reconstruction"];

/// Most bits at which the rounding of weights is worth learning.
const FEW_BITS: u32 = 4;

/// Most layers that get a setting of their own.
const LAYERS: usize = 3;

/// Times the calibration samples that are suggested where ranges are too short although nothing is cut off.
const MORE_SAMPLES: usize = 4;

/// Epochs that are suggested.
const EPOCHS: u64 = 3;

/// A change with its reason.
pub(super) struct Advice {
    pub(super) change: Change,
    /// A sentence.
    pub(super) why: String,
    /// The share of the changes of the outputs that should go; `None`: not known.
    pub(super) expected: Option<f64>,
}

/// Layers with the share of each in the changes of the outputs.
pub(super) struct Shared<'d> {
    layers: Vec<(&'d LayerDiagnosis, f64)>,
}

impl<'d> Shared<'d> {
    pub(super) fn of(found: &'d Diagnosis) -> Shared<'d> {
        let finite = |noise: f64| if noise.is_finite() { noise } else { 0.0 };
        let all: f64 = found.layers.iter().map(|l| finite(l.alone.noise)).sum();
        let share = |l: &LayerDiagnosis| if all > 0.0 { finite(l.alone.noise) / all } else { 0.0 };
        Shared { layers: found.layers.iter().map(|l| (l, share(l))).collect() }
    }

    /// Shares in the order of the layers.
    pub(super) fn shares(&self) -> impl Iterator<Item = f64> {
        self.layers.iter().map(|(_, share)| *share)
    }

    /// What a cause is of all changes of the outputs, and the layers that have most of it.
    fn weigh(&self, cause: impl Fn(&LayerDiagnosis) -> f64) -> (f64, String) {
        let mut parts: Vec<(f64, &str)> = self.layers.iter().map(|(l, share)| (share * cause(l).max(0.0), l.node.as_str())).collect();
        let sum: f64 = parts.iter().map(|p| p.0).sum();
        parts.sort_by(|a, b| b.0.total_cmp(&a.0));
        let most: Vec<&str> = parts.iter().take(2).filter(|p| p.0 > 0.0).map(|p| p.1).collect();
        (sum, format!("most of it in {}", most.join(" and ")))
    }
}

/// What to try, the most promising first.
pub(super) fn advice(found: &Diagnosis, stage: &QuantizeStage, epochs: u64) -> Vec<Advice> {
    let shared = Shared::of(found);
    let mut out = vec![];
    out.extend(shift(&shared, stage));
    out.extend(ranges(&shared, stage));
    out.extend(weights(&shared, stage));
    out.extend(worst(&shared, stage));
    out.extend(saturation(&shared, stage));
    out.retain(|a| a.expected.is_some_and(|e| e >= LEAST));
    out.sort_by(|a, b| b.expected.unwrap_or(0.0).total_cmp(&a.expected.unwrap_or(0.0)));
    if epochs == 0 && !found.layers.is_empty() {
        let why = format!("if nothing else helps: {EPOCHS} epochs with the quantizers active (this trains, and needs labels or a teacher)");
        out.push(Advice { change: Change::Epochs(EPOCHS), why, expected: None });
    }
    out
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn corrects(stage: &QuantizeStage, kinds: &[&str]) -> bool {
    stage.corrections.iter().any(|c| kinds.contains(&c.kind()))
}

/// True if corrections are possible.
fn correctable(stage: &QuantizeStage) -> bool {
    stage.batch_norm == BatchNorm::Fold
}

/// Means of channels that are shifted.
fn shift(shared: &Shared, stage: &QuantizeStage) -> Option<Advice> {
    const KIND: &str = "bias_correction";
    let (gain, most) = shared.weigh(|l| l.causes.shift);
    let why = format!("{} of the change of the outputs are shifted means of channels, {most}: {KIND} subtracts them", percent(gain));
    let possible = correctable(stage) && !corrects(stage, &[KIND]);
    possible.then(|| Advice { change: Change::Correction(Choice::known(KIND), &[KIND]), why, expected: Some(gain) })
}

/// Sums that saturate on some processors.
fn saturation(shared: &Shared, stage: &QuantizeStage) -> Option<Advice> {
    let (taken, _) = shared.weigh(|l| l.saturated.unwrap_or(0.0));
    let of = |(l, share): &(&LayerDiagnosis, f64)| share * l.saturated.unwrap_or(0.0);
    let (most, _) = shared.layers.iter().max_by(|a, b| of(a).total_cmp(&of(b)))?;
    let there = most.own.db() - 10.0 * (1.0 + most.saturated?).log10();
    let why = format!(
        "on x86 processors with AVX2 alone sums saturate at 16 bits, most in {} ({:.1} dB alone, {there:.1} dB there): take scales with which they \
         do not (a trial computes exact sums and would not see it; espalier evaluate --arithmetic avx2 does)",
        most.node,
        most.own.db()
    );
    (stage.processor_safe != Some(true)).then(|| Advice { change: Change::ProcessorSafe, why, expected: Some(taken / (1.0 + taken)) })
}

/// Ranges of data that are too wide, or too short.
fn ranges(shared: &Shared, stage: &QuantizeStage) -> Vec<Advice> {
    let of_data = |l: &LayerDiagnosis| l.causes.data_clipped.max(0.0) + l.causes.data_rounded.max(0.0);
    let gain = |l: &LayerDiagnosis, short: bool| {
        let range = l.range.filter(|r| (r.factor > 1.0) == short);
        range.map_or(0.0, |r| of_data(l) * (1.0 - r.leaves))
    };
    let present = stage.calibration.observer();
    let mut out = vec![];
    let (short, most) = shared.weigh(|l| gain(l, true));
    let (clipped, _) = shared.weigh(|l| l.causes.data_clipped);
    let cut = format!("{} of the change of the outputs come from data beyond their ranges, {most}", percent(clipped));
    const COVERS: &str = "min_max";
    if present.kind() != COVERS {
        let why = format!("{cut}: {COVERS} covers all that calibration sees");
        out.push(Advice { change: Change::Observer(Choice::known(COVERS)), why, expected: Some(short) });
    } else {
        let images = stage.calibration.images * MORE_SAMPLES;
        let why = format!("{cut}, although ranges cover all that calibration saw: {images} samples show more");
        out.push(Advice { change: Change::Images(images), why, expected: Some(short) });
    }
    let (wide, most) = shared.weigh(|l| gain(l, false));
    let (rounded, _) = shared.weigh(|l| l.causes.data_rounded);
    let coarse = format!(
        "{} of the change of the outputs come from rounded data, {} of it from ranges that are wider than most data need, {most}",
        percent(rounded),
        percent((wide / rounded.max(f64::MIN_POSITIVE)).min(1.0))
    );
    // The first takes the range of least squared error, as the gain was estimated.
    for (kind, part, does) in [
        ("mse", 1.0, "takes the ranges of least squared error"),
        ("percentile", 0.8, "leaves the rarest values out"),
        ("entropy", 0.6, "takes the ranges that keep the distribution"),
    ] {
        if present.kind() != kind {
            let why = format!("{coarse}: {kind} {does}");
            out.push(Advice { change: Change::Observer(Choice::known(kind)), why, expected: Some(wide * part) });
        }
    }
    out
}

/// Weights rounded to their levels.
fn weights(shared: &Shared, stage: &QuantizeStage) -> Vec<Advice> {
    let mut out = vec![];
    let rounded = |l: &LayerDiagnosis| l.causes.weights_rounded.max(0.0) + l.causes.weights_clipped.max(0.0);
    let (all, _) = shared.weigh(rounded);
    let (gain, most) = shared.weigh(|l| l.by_channel.map_or(0.0, |leaves| rounded(l) * (1.0 - leaves)));
    let one_scale = format!(
        "{} of the change of the outputs come from rounded weights, {} of it because channels of different size have one scale, {most}",
        percent(all),
        percent((gain / all.max(f64::MIN_POSITIVE)).min(1.0))
    );
    if gain > 0.0 && stage.weights.granularity() == Granularity::Tensor {
        let mut settings = stage.weights.settings().clone();
        settings.remove("per_channel");
        settings.insert("granularity".into(), json!("channel"));
        if let Ok(by_channel) = Choice::<Encodings>::new(stage.weights.kind(), settings) {
            let why = format!("{one_scale}: give each channel a scale of its own");
            out.push(Advice { change: Change::Weights(by_channel), why, expected: Some(gain) });
        }
        const KIND: &str = "equalize";
        if correctable(stage) && !corrects(stage, &[KIND]) {
            let why = format!("{one_scale}: {KIND} makes channels of neighbouring layers alike, where a target demands one scale");
            out.push(Advice { change: Change::Correction(Choice::known(KIND), &[KIND]), why, expected: Some(gain / 2.0) });
        }
    }
    let few = |l: &LayerDiagnosis| l.weight_bits.is_some_and(|bits| bits <= FEW_BITS);
    let (gain, most) = shared.weigh(|l| if few(l) { rounded(l) } else { 0.0 });
    if correctable(stage) && !corrects(stage, ROUNDING) {
        for (kind, part, does) in LEARNED {
            let why = format!(
                "{} of the change of the outputs come from weights rounded to {FEW_BITS} bits or fewer, {most}: {does}",
                percent(gain)
            );
            out.push(Advice { change: Change::Correction(Choice::known(kind), ROUNDING), why, expected: Some(gain * part) });
        }
    }
    let few_data = |l: &LayerDiagnosis| few(l) && l.data_bits.is_some_and(|bits| bits <= FEW_BITS);
    let (gain, most) = shared.weigh(|l| if few_data(l) { rounded(l) + l.causes.data_rounded.max(0.0) } else { 0.0 });
    const BLOCKS: &str = "block_reconstruction";
    if correctable(stage) && !corrects(stage, &[BLOCKS]) {
        let why = format!(
            "{} of the change of the outputs come from weights and data of {FEW_BITS} bits or fewer, {most}: {BLOCKS} learns the rounding of \
             weights and the scales of data together",
            percent(gain)
        );
        out.push(Advice { change: Change::Correction(Choice::known(BLOCKS), ROUNDING), why, expected: Some(gain * 0.6) });
    }
    out
}

/// Bits of a layer that gets more.
const MORE_BITS: u32 = 8;

/// The layers that cost most.
fn worst(shared: &Shared, stage: &QuantizeStage) -> Vec<Advice> {
    let mut layers = shared.layers.clone();
    layers.sort_by(|a, b| b.1.total_cmp(&a.1));
    // Twice its part at least.
    let least = 2.0 / layers.len().max(1) as f64;
    layers.into_iter().take(LAYERS).filter(|(_, share)| *share >= least).filter_map(|(l, share)| more_bits(l, share, stage)).collect()
}

/// More bits for what a layer's error comes from; none are left: float.
fn more_bits(l: &LayerDiagnosis, share: f64, stage: &QuantizeStage) -> Option<Advice> {
    let c = &l.causes;
    let of_weights = c.weights_rounded.max(0.0) + c.weights_clipped.max(0.0);
    let of_data = c.data_clipped.max(0.0) + c.data_rounded.max(0.0);
    // A shift comes from either.
    let split = c.shift.max(0.0) / (of_weights + of_data).max(f64::MIN_POSITIVE);
    let parts = [(of_weights, l.weight_bits), (of_data, l.data_bits)].map(|(part, bits)| {
        let narrow = bits.filter(|bits| *bits < MORE_BITS)?;
        let gain = part * (1.0 + split) * (1.0 - 0.25f64.powi((MORE_BITS - narrow) as i32));
        (gain > 0.25).then_some(gain.min(1.0))
    });
    let told = format!("'{}' makes {} of the change of the outputs that all layers make alone", l.node, percent(share));
    if let [None, None] = parts {
        let whole = l.weight_bits.is_some_and(|bits| bits >= MORE_BITS) || l.data_bits.is_some_and(|bits| bits >= MORE_BITS);
        let known = stage.skip.contains(&l.node);
        let advice = || Advice { change: Change::Skip(l.node.clone()), why: format!("{told}: leave it in float"), expected: Some(share) };
        return (whole && !known).then(advice);
    }
    let weights = parts[0]
        .map(|_| Choice::new(Choice::<Encodings>::default().kind(), [("bits".to_string(), json!(MORE_BITS))].into_iter().collect()));
    let weights = weights.transpose().ok()?;
    let reads = parts[1].map(|_| quantize::ActivationSettings { bits: MORE_BITS, ..Default::default() });
    let what = match (&weights, &reads) {
        (Some(_), Some(_)) => "weights and data",
        (Some(_), None) => "weights",
        _ => "data",
    };
    let rule = Rule { pattern: Some(l.node.clone()), weights, reads, ..Rule::default() };
    let gain = share * parts.iter().flatten().sum::<f64>().min(1.0);
    Some(Advice { change: Change::Rule(Box::new(rule)), why: format!("{told}: {what} in {MORE_BITS} bits there"), expected: Some(gain) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantize::diagnosis::{BetterRange, Causes};
    use quantize::mixed::Effect;

    fn layer(node: &str, noise: f64, causes: Causes) -> LayerDiagnosis {
        let alone = Effect { noise, ..Effect::default() };
        LayerDiagnosis { node: node.into(), weight_bits: Some(8), data_bits: Some(8), causes, alone, ..LayerDiagnosis::default() }
    }

    fn stage(text: &str) -> QuantizeStage {
        toml::from_str(text).unwrap()
    }

    /// The lines of what is suggested, in order, without the last resort.
    fn lines(layers: Vec<LayerDiagnosis>, text: &str) -> Vec<String> {
        let stage = stage(text);
        let found = Diagnosis { layers, ..Diagnosis::default() };
        let all = advice(&found, &stage, 0);
        assert_eq!(all.last().unwrap().change, Change::Epochs(EPOCHS));
        all[..all.len() - 1].iter().map(|a| a.change.line(&stage).unwrap()).collect()
    }

    /// Ten layers alike, so that none is the worst.
    fn alike(of: impl Fn(LayerDiagnosis) -> LayerDiagnosis, causes: Causes) -> Vec<LayerDiagnosis> {
        (0..10).map(|i| of(layer(&format!("conv{i}"), 0.1, causes))).collect()
    }

    #[test]
    fn each_cause_leads_to_the_setting_that_takes_it_away() {
        let shifted = Causes { shift: 0.9, weights_rounded: 0.1, ..Causes::default() };
        assert_eq!(lines(alike(|l| l, shifted), ""), ["corrections = [\"bias_correction\"]"]);
        assert_eq!(lines(alike(|l| l, shifted), "corrections = [\"bias_correction\"]"), [""; 0]);

        let cut = Causes { data_clipped: 0.9, data_rounded: 0.1, ..Causes::default() };
        let short = |l| LayerDiagnosis { range: Some(BetterRange { factor: 2.0, leaves: 0.1 }), ..l };
        let calibration = "calibration = { observer = \"percentile\", images = 100 }";
        assert_eq!(lines(alike(short, cut), calibration), ["calibration = { observer = \"min_max\", images = 100 }"]);
        let calibration = "calibration = { observer = \"min_max\", images = 100 }";
        assert_eq!(lines(alike(short, cut), calibration), ["calibration = { observer = \"min_max\", images = 400 }"]);

        let coarse = Causes { data_rounded: 1.0, ..Causes::default() };
        let wide = |l| LayerDiagnosis { range: Some(BetterRange { factor: 0.5, leaves: 0.3 }), ..l };
        let told = lines(alike(wide, coarse), calibration);
        assert_eq!((told.len(), told[0].as_str()), (3, "calibration = { observer = \"mse\", images = 100 }"));
        // A range that suits the data leaves nothing to gain.
        let suits = |l| LayerDiagnosis { range: Some(BetterRange { factor: 1.0, leaves: 1.0 }), ..l };
        assert_eq!(lines(alike(suits, coarse), calibration), [""; 0]);

        let rounded = Causes { weights_rounded: 0.95, data_rounded: 0.05, ..Causes::default() };
        assert_eq!(lines(alike(|l| l, rounded), ""), [""; 0]);
        let four = |l| LayerDiagnosis { weight_bits: Some(4), ..l };
        let told = lines(alike(four, rounded), "weights = { bits = 4 }");
        assert_eq!(told, ["corrections = [\"adaround\"]", "corrections = [\"gptq\"]"]);
        let both = |l| LayerDiagnosis { weight_bits: Some(4), data_bits: Some(4), ..l };
        let told = lines(alike(both, rounded), "weights = { bits = 4 }\ncorrections = [\"bias_correction\", \"gptq\"]");
        assert_eq!(told, ["corrections = [\"bias_correction\", \"block_reconstruction\"]"]);
        let spread = |l| LayerDiagnosis { by_channel: Some(0.1), ..l };
        let told = lines(alike(spread, rounded), "weights = { bits = 8, granularity = \"tensor\" }");
        assert!(told[0].contains("granularity = \"channel\"") && told[1] == "corrections = [\"equalize\"]", "{told:?}");
    }

    #[test]
    fn sums_that_saturate_ask_for_scales_that_keep_them_from_it() {
        let saturated = |l| LayerDiagnosis { saturated: Some(0.5), ..l };
        let rounded = Causes { weights_rounded: 1.0, ..Causes::default() };
        assert_eq!(lines(alike(saturated, rounded), ""), ["processor_safe = true"]);
        assert_eq!(lines(alike(saturated, rounded), "processor_safe = true"), [""; 0]);
        assert!(!Change::ProcessorSafe.can_be_tried() && !Change::Epochs(1).can_be_tried() && Change::Images(1).can_be_tried());
    }

    #[test]
    fn the_worst_layer_gets_more_bits_for_what_its_error_comes_from_or_stays_float() {
        let with = |worst: LayerDiagnosis| {
            let mut layers = alike(|l| l, Causes { weights_rounded: 0.5, data_rounded: 0.5, ..Causes::default() });
            layers.push(worst);
            lines(layers, "skip = [\"a\"]")
        };
        let rounded = Causes { weights_rounded: 1.0, ..Causes::default() };
        let coarse = Causes { data_rounded: 1.0, ..Causes::default() };
        let (weights, data) = (layer("worst", 3.0, rounded), layer("worst", 3.0, coarse));
        let narrow = LayerDiagnosis { weight_bits: Some(5), ..weights.clone() };
        assert_eq!(with(narrow), ["[[stages.rules]]\nmatch = \"worst\"\nweights = { kind = \"affine\", bits = 8 }"]);
        let narrow = LayerDiagnosis { data_bits: Some(4), ..data };
        assert_eq!(with(narrow), ["[[stages.rules]]\nmatch = \"worst\"\nreads = { bits = 8 }"]);
        assert_eq!(with(weights), ["skip = [\"a\", \"worst\"]"]);
        assert_eq!(with(layer("worst", 0.1, rounded)), [""; 0]);
    }

    #[test]
    fn the_most_promising_is_first_and_its_setting_is_read() {
        let mut layers =
            alike(|l| LayerDiagnosis { weight_bits: Some(4), ..l }, Causes { weights_rounded: 0.6, shift: 0.4, ..Causes::default() });
        layers.push(layer("worst", f64::NAN, Causes::default()));
        let quantize = stage("weights = { bits = 4 }");
        let found = Diagnosis { layers, ..Diagnosis::default() };
        let all = advice(&found, &quantize, 1);
        let expected: Vec<f64> = all.iter().map(|a| a.expected.unwrap()).collect();
        assert!(expected.len() == 3 && expected.is_sorted_by(|a, b| a >= b), "{expected:?}");
        let text = "name = \"n\"\n[model]\narch = \"mlp\"\n[data]\ntrain = \"d\"\n[[stages]]\nkind = \"quantize\"\nname = \"q\"\n";
        for advice in &all {
            let setting = advice.change.setting("q", &quantize).unwrap();
            let recipe = crate::recipe::parse(text, &[setting]).unwrap();
            assert_eq!(recipe.stages[0].get::<QuantizeStage>().unwrap().corrections.len(), 1);
        }
    }
}
