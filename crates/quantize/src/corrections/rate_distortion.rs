//! Rate-distortion rounding: each weight takes the number that is cheapest in error and in bits of the packed file.
use super::compensate::{Compensation, LayerWeights, Rounded, Rounding, RoundingOrder, Step};
use super::points::Points;
use super::{Correction, CorrectionContext, Phase};
use crate::Result;
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Entry, Fault, Manual, Settings, member, within};

pub(super) const ENTRY: Entry<dyn Correction> = member!(
    RateDistortion as dyn Correction,
    Manual {
        name: "rate_distortion",
        summary: "Rounds each weight to the number that is cheapest in error and in bits of the packed file. No labels.",
        details: "\
What `espalier pack` writes has few bits for numbers that are frequent, small ones above all. For each layer, in the order of the graph,
with W [out, k] (a convolution's kernel flattened, each group by itself), X [k, n] what it multiplies in the simulation with the layers
before it rounded already, H = X X^T + damping * mean(diag H) * I, and U the upper triangular factor of the inverse of H (U^T U): for
each output and j = 1 .. k

  q_j = argmin over q of  (w_j - q)^2 / U_jj^2  +  lambda * step^2 * mean over i of 1 / U_ii^2 * bits(q)
  w_i <- w_i - (w_j - q_j) U_ji / U_jj  for all i > j

where q is the number nearest to w_j, the next one toward zero, or zero. The first term is what the error costs once the weights left
have made up for it, as in gptq; with lambda = 0 this is gptq. bits(q) is what an adaptive coder would need: -log2 of the share of
numbers of that magnitude in the layer, among weights whose row and column have magnitudes alike, and one for the sign. Shares are
those of rounding to nearest at first and follow what is chosen. lambda says what a bit is worth, in squared steps of the grid; at
0.1, error and bits change as they would with a grid a little coarser. Masked weights stay zero.

For weights on grids of integers and in codebooks, in convolutions and matrix products. The deployed file has the size
that it had; `espalier pack`, or pack = true in the deploy stage, makes it small.",
        source: "S. Wiedemann et al., DeepCABAC: A Universal Compression Algorithm for Deep Neural Networks (2020), arXiv:1907.11900, equation 13; \
             compensation: E. Frantar et al., GPTQ (2022), arXiv:2210.17323, algorithm 1",
        example: "weights = { bits = 6 }\ncorrections = [{ kind = \"rate_distortion\", lambda = 0.1 }]",
    }
);

/// Settings of `rate_distortion`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateDistortion {
    /// What a bit is worth, in squared steps of the grid.
    pub lambda: f64,
    /// Calibration samples, in whole batches.
    pub samples: usize,
    /// Share of the mean power of the inputs that is added to each.
    pub damping: f64,
    /// The order in which inputs are rounded.
    pub order: RoundingOrder,
}

impl Default for RateDistortion {
    fn default() -> Self {
        RateDistortion { lambda: 0.1, samples: 128, damping: 0.01, order: RoundingOrder::Power }
    }
}

impl RateDistortion {
    fn walk(&self) -> Compensation {
        Compensation { samples: self.samples, damping: self.damping, order: self.order }
    }
}

impl Settings for RateDistortion {
    fn check(&self) -> std::result::Result<(), Fault> {
        within("lambda", self.lambda, 0.0, 1e6, "it is what a bit is worth, in squared steps; 0: nothing")?;
        self.walk().check()
    }
}

impl Correction for RateDistortion {
    fn phase(&self) -> Phase {
        Phase::AfterFitting
    }

    fn samples(&self) -> usize {
        self.samples
    }

    fn apply(&self, model: &mut Model, cx: &CorrectionContext) -> Result<Vec<String>> {
        let mut cheapest = Cheapest { settings: self, rates: Rates::default(), tally: Tally::default() };
        let mut notes = self.walk().run(model, cx, &mut cheapest)?;
        if let Some(note) = cheapest.tally.note() {
            notes.insert(1, note);
        }
        Ok(notes)
    }
}

/// A layer's weights as `[outputs, row]`, a row in the order in which the layer multiplies it.
struct Rows<'a> {
    points: &'a Points,
    outputs: usize,
    row: usize,
    /// Rounded to nearest.
    nearest: &'a [f32],
}

/// To the number of least error and bits.
struct Cheapest<'a> {
    settings: &'a RateDistortion,
    rates: Rates,
    tally: Tally,
}

impl Rounding for Cheapest<'_> {
    fn round(&mut self, step: Step) -> Result<Rounded> {
        let LayerWeights { points, original, nearest, live } = step.weights;
        let (k, per_group) = (step.layer.row, step.layer.outputs / step.layer.groups);
        let rows = Rows { points: &points, outputs: step.layer.outputs, row: k, nearest: &nearest };
        self.rates = Rates::new(&rows);
        let mut out = Rounded { weights: nearest.clone(), scales: None, before: 0.0, after: 0.0 };
        for (group, h) in step.power.groups.into_iter().enumerate() {
            let Some(inputs) = self.settings.walk().inputs(h, k) else { continue };
            let mean = inputs.costs().iter().sum::<f64>() / k.max(1) as f64;
            for output in group * per_group..(group + 1) * per_group {
                let span = output * k..(output + 1) * k;
                let wide = |list: &[f32]| list[span.clone()].iter().map(|w| f64::from(*w)).collect::<Vec<f64>>();
                // The price of a bit, in squared errors of the result.
                let price = self.settings.lambda * points.step(output).powi(2) * mean;
                let (wanted, old_row) = (wide(&original), &nearest[span.clone()]);
                let choose = |input, w, cost| self.choose(&rows, (output, input), w, (cost, price));
                let found = inputs.compensate(&wanted, &live[span.clone()], choose);
                let row: Vec<f32> = found.iter().map(|v| *v as f32).collect();
                let (old, fresh) = (inputs.error(&wanted, &wide(&nearest)), inputs.error(&wanted, &found));
                let bits = |row: &[f32]| price * self.rates.row(&rows, output, row);
                let better = fresh + bits(&row) < old + bits(old_row);
                out.before += old;
                out.after += if better { fresh } else { old };
                let row = if better { row.as_slice() } else { old_row };
                out.weights[span.clone()].copy_from_slice(row);
                self.tally.add(&self.rates, &rows, output, row);
                self.rates.settle(&rows, output, row);
            }
        }
        Ok(out)
    }
}

impl Cheapest<'_> {
    /// The number for a live weight that would best be `w`. `cost` is by how much an error of one raises the squared error of the result, the
    /// inputs after it having made up for it; `price` that of a bit.
    fn choose(&self, rows: &Rows, (output, input): (usize, usize), w: f64, (cost, price): (f64, f64)) -> f64 {
        let context = self.rates.context(output, input);
        let all = |(number, place): (f64, i32)| (w - number).powi(2) * cost + price * self.rates.bits(context, place);
        let [nearest, others @ ..] = rows.points.toward_zero(output, input, w);
        let (mut best, mut least) = (nearest, all(nearest));
        for other in others.into_iter().filter(|other| other.1 != nearest.1) {
            let cost = all(other);
            if cost < least {
                (best, least) = (other, cost);
            }
        }
        best.0
    }
}

/// Before and after, over all layers.
#[derive(Default)]
struct Tally {
    weights: f64,
    bits: [f64; 2],
    zeros: [f64; 2],
}

impl Tally {
    fn add(&mut self, rates: &Rates, rows: &Rows, output: usize, row: &[f32]) {
        self.weights += row.len() as f64;
        let nearest = &rows.nearest[output * rows.row..][..rows.row];
        for (at, row) in [nearest, row].into_iter().enumerate() {
            self.bits[at] += rates.row(rows, output, row);
            self.zeros[at] += row.iter().filter(|v| **v == 0.0).count() as f64;
        }
    }

    fn note(&self) -> Option<String> {
        let [nearest, chosen] = self.bits.map(|b| b / self.weights);
        let zeros = self.zeros.map(|z| 100.0 * z / self.weights);
        (self.weights > 0.0).then(|| {
            format!(
                "about {chosen:.2} bits a weight once packed, {nearest:.2} with rounding to nearest; {:.1} % zeros, {:.1} % with rounding to nearest",
                zeros[1], zeros[0]
            )
        })
    }
}

/// Magnitudes of a row and a column together that are told apart.
const CONTEXTS: usize = 16;
/// So many numbers of a context count as much as all of the layer.
const SHARED: f64 = 16.0;

/// Bits of an adaptive coder: how often each magnitude occurred, in the whole layer and by the magnitudes of row and column.
#[derive(Default)]
struct Rates {
    /// Numbers have a sign and a magnitude; else places among levels.
    signed: bool,
    /// Mean magnitudes of the rows, rounded to nearest, and of the columns as shares of the whole mean.
    rows: Vec<f64>,
    columns: Vec<f64>,
    counts: Vec<f64>,
    counted: f64,
    by_context: Vec<Vec<f64>>,
    counted_by_context: Vec<f64>,
}

impl Rates {
    /// Of a layer that is rounded to nearest.
    fn new(rows: &Rows) -> Rates {
        let signed = !matches!(rows.points, Points::Levels(_));
        let (outputs, k) = (rows.outputs, rows.row);
        let place = |i: usize| rows.points.place(i / k, i % k, rows.nearest[i]);
        let (mut of_rows, mut of_columns, mut counts) = (vec![0.0; outputs], vec![0.0; k], vec![]);
        for i in 0..outputs * k {
            let place = place(i);
            of_rows[i / k] += f64::from(place.abs()) / k as f64;
            of_columns[i % k] += f64::from(place.abs()) / outputs as f64;
            let bin = bin(signed, place).0;
            counts.resize(counts.len().max(bin + 1), 0.0);
            counts[bin] += 1.0;
        }
        let mean = of_rows.iter().sum::<f64>() / outputs.max(1) as f64;
        of_columns.iter_mut().for_each(|c| *c = if mean > 0.0 { *c / mean } else { 1.0 });
        let by_context = vec![vec![0.0; counts.len()]; CONTEXTS];
        let counted = (outputs * k) as f64;
        Rates { signed, rows: of_rows, columns: of_columns, counts, counted, by_context, counted_by_context: vec![0.0; CONTEXTS] }
    }

    fn context(&self, output: usize, input: usize) -> usize {
        if !self.signed {
            return 0;
        }
        let expected = self.rows[output] * self.columns[input];
        (2.0 * expected.max(1e-9).log2() + 4.0).clamp(0.0, (CONTEXTS - 1) as f64) as usize
    }

    /// The bits of a number at a place.
    fn bits(&self, context: usize, place: i32) -> f64 {
        let (bin, more) = bin(self.signed, place);
        let of = |counts: &[f64]| counts.get(bin).copied().unwrap_or(0.0);
        let layer = (of(&self.counts) + 0.5) / (self.counted + 0.5 * self.counts.len() as f64);
        let share = (of(&self.by_context[context]) + SHARED * layer) / (self.counted_by_context[context] + SHARED);
        more - share.log2()
    }

    /// The bits of a row.
    fn row(&self, rows: &Rows, output: usize, row: &[f32]) -> f64 {
        row.iter().enumerate().map(|(input, v)| self.bits(self.context(output, input), rows.points.place(output, input, *v))).sum()
    }

    /// The row of an output is this.
    fn settle(&mut self, rows: &Rows, output: usize, row: &[f32]) {
        let nearest = &rows.nearest[output * rows.row..][..rows.row];
        for (input, (old, new)) in nearest.iter().zip(row).enumerate() {
            let at = |v: f32| bin(self.signed, rows.points.place(output, input, v)).0;
            let (old, new, context) = (at(*old), at(*new), self.context(output, input));
            // Numbers that were made up for may be larger than any before.
            self.counts.resize(self.counts.len().max(new + 1), 0.0);
            self.counts[old] -= 1.0;
            self.counts[new] += 1.0;
            let own = &mut self.by_context[context];
            own.resize(own.len().max(new + 1), 0.0);
            own[new] += 1.0;
            self.counted_by_context[context] += 1.0;
        }
    }
}

/// The class of a number that is counted together, and the bits that tell it from others of the class: magnitudes from 8 on fall into four
/// classes for each power of two, and a sign is a bit.
fn bin(signed: bool, place: i32) -> (usize, f64) {
    let magnitude = place.unsigned_abs() as usize;
    if !signed {
        return (magnitude, 0.0);
    }
    let sign = if magnitude > 0 { 1.0 } else { 0.0 };
    if magnitude < 8 {
        return (magnitude, sign);
    }
    let length = magnitude.ilog2() as usize;
    (8 + (length - 3) * 4 + (magnitude >> (length - 2) & 3), (length - 2) as f64 + sign)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{quantized, residual, sqnr, with};
    use super::*;
    use crate::QuantizeSettings;
    use encodings::affine::Grid;
    use std::collections::BTreeMap;
    use tensor::Tensor;

    fn settings(corrections: &str, bits: u32) -> QuantizeSettings {
        let mut settings = with(corrections);
        settings.weights = technique::Choice::with("affine", &serde_json::json!({ "bits": bits })).unwrap();
        settings
    }

    fn of(lambda: f64) -> String {
        format!(r#"[{{"kind": "rate_distortion", "samples": 32, "lambda": {lambda}}}]"#)
    }

    const WEIGHTS: [&str; 4] = ["w0", "w2", "w4", "w7"];

    fn integers(model: &Model, name: &str) -> Vec<i32> {
        let id = model.find(name).unwrap();
        let scale = Grid::of(model.annotations.encoding(id).unwrap()).unwrap().scale().to_f32_vec().unwrap();
        let weight = model.values.tensor(id).unwrap();
        let row = weight.len() / scale.len();
        weight.to_f32_vec().unwrap().iter().enumerate().map(|(i, w)| (w / scale[i / row]).round() as i32).collect()
    }

    /// Bits by the shares of all numbers of a layer.
    fn entropy(model: &Model) -> f64 {
        let bits = |numbers: Vec<i32>| {
            let mut counts = BTreeMap::new();
            numbers.iter().for_each(|n| *counts.entry(*n).or_insert(0.0) += 1.0);
            counts.values().map(|c| -c * f64::log2(c / numbers.len() as f64)).sum::<f64>()
        };
        WEIGHTS.iter().map(|name| bits(integers(model, name))).sum()
    }

    #[test]
    fn classes_cover_all_magnitudes_once() {
        // Of each class the first magnitude, and so many others.
        let mut mass = BTreeMap::new();
        for magnitude in 0..256 {
            let (class, bits) = bin(true, magnitude);
            *mass.entry(class).or_insert(0.0) += f64::exp2(-bits) * if magnitude > 0 { 2.0 } else { 1.0 };
            assert_eq!(bin(true, -magnitude), bin(true, magnitude));
        }
        assert_eq!(mass.len(), 28);
        assert!(mass.values().all(|m| *m == 1.0), "{mass:?}");
        assert_eq!([8, 9, 10, 16, 19, 20, 128, 255].map(|m| bin(true, m).0), [8, 8, 9, 12, 12, 13, 24, 27]);
        assert_eq!(bin(false, 200), (200, 0.0));
    }

    #[test]
    fn bits_are_those_of_the_shares() {
        // Ten weights, six of them zero and four one: half a count is added to each of two classes.
        let points = Points::Integers { scale: vec![1.0], precision: None, zero_point: vec![0.0], ends: (-8.0, 7.0) };
        let nearest = [0.0, 1.0, 0.0, -1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0];
        let rows = Rows { points: &points, outputs: 1, row: 10, nearest: &nearest };
        let mut rates = Rates::new(&rows);
        let bits = |share: f64| -share.log2();
        for context in 0..CONTEXTS {
            assert!((rates.bits(context, 0) - bits(6.5 / 11.0)).abs() < 1e-12);
            assert!((rates.bits(context, -1) - bits(4.5 / 11.0) - 1.0).abs() < 1e-12);
        }
        let whole = 6.0 * bits(6.5 / 11.0) + 4.0 * (bits(4.5 / 11.0) + 1.0);
        assert!((rates.row(&rows, 0, &nearest) - whole).abs() < 1e-9);
        // All become zero: the column of a zero has the least context, the others one of their own.
        rates.settle(&rows, 0, &[0.0; 10]);
        let layer = 10.5 / 11.0;
        assert!((rates.bits(rates.context(0, 0), 0) - bits((6.0 + SHARED * layer) / (6.0 + SHARED))).abs() < 1e-12);
        assert_ne!(rates.context(0, 0), rates.context(0, 1));
        assert!((rates.bits(rates.context(0, 1), 0) - bits((4.0 + SHARED * layer) / (4.0 + SHARED))).abs() < 1e-12);
    }

    #[test]
    fn without_a_price_of_bits_it_is_gptq_and_a_higher_price_gives_fewer() {
        let float = residual();
        let (by_gptq, _) = quantized(float.clone(), &settings(r#"[{"kind": "gptq", "samples": 32}]"#, 4));
        let run = |lambda| quantized(float.clone(), &settings(&of(lambda), 4)).0;
        let (free, dear, dearest) = (run(0.0), run(0.5), run(4.0));
        WEIGHTS.iter().for_each(|name| assert_eq!(integers(&free, name), integers(&by_gptq, name), "{name}"));
        let [all, fewer, fewest] = [&free, &dear, &dearest].map(entropy);
        assert!(fewest < fewer * 0.9 && fewer < all, "{all:.0}, {fewer:.0} and {fewest:.0} bits");
        let [all, fewer, fewest] = [&free, &dear, &dearest].map(|m| sqnr(&float, m));
        assert!(all > fewest && fewer > fewest, "{all:.2}, {fewer:.2} and {fewest:.2} dB");
    }

    #[test]
    fn weights_lie_on_their_grids_masked_ones_stay_zero_and_codebooks_are_rounded() {
        for kind in ["affine", "codebook"] {
            let mut model = residual();
            let id = model.find("w2").unwrap();
            let shape = model.values.tensor(id).unwrap().shape().to_vec();
            let live: Vec<bool> = (0..shape.iter().product()).map(|i| i % 3 != 0).collect();
            model.annotations.entry(id).mask = Some(Tensor::new(live.clone(), shape).unwrap());
            let mut settings = with(&of(0.3));
            settings.weights = technique::Choice::with(kind, &serde_json::json!({ "bits": 4 })).unwrap();
            let (model, report) = quantized(model, &settings);
            let notes = &report.corrections[0].notes;
            assert!(notes[0].starts_with("4 layers: ") && notes[1].contains("bits a weight once packed"), "{notes:?}");
            for name in WEIGHTS {
                let id = model.find(name).unwrap();
                let (weight, annotation) = (model.values.tensor(id).unwrap(), model.annotations.get(id).unwrap());
                assert_eq!(&encodings::simulate(weight, annotation).unwrap(), weight, "{kind} {name}");
            }
            let stored = model.values.tensor(id).unwrap().to_f32_vec().unwrap();
            assert!(stored.iter().zip(&live).all(|(v, live)| *live || *v == 0.0));
        }
    }
}
