//! Trains one unit's rounding, scales and biases.
use super::Reconstruction;
use super::rounding::Rounding;
use super::rows::{Piece, Rows};
use super::units::{RoundedLayer, Unit};
use crate::Result;
use crate::error::named;
use encodings::affine::Precision;
use graph::{Model, ValueId};
use ops::ChannelAxis;
use std::collections::BTreeMap;
use technique::Settings;
use tensor::{DType, Tensor, random};
use train::{AdamW, Executor, Mode, OptimizerState, Overrides, TrainError};

/// Samples in a batch where errors are measured.
const MEASURED: usize = 64;

/// Share of the steps after which learned scales return to their number of significant bits, so that the rounding can still
/// adapt.
const SCALES_UNTIL: f64 = 0.6;

/// Largest change of a scale in a step, as a share of it.
const SCALE_RATE: f64 = 1e-3;

/// Largest change of a bias in a step, as a share of the root mean square of the unit's result.
const BIAS_RATE: f64 = 1e-3;

/// Distance from a decision at which weights start that have been rounded before.
const UNDECIDED: f64 = 0.1;

/// The result of a unit. Errors are shares of the power of the float network's result.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// Error with each weight rounded to nearest, or as it was before.
    pub(super) nearest: f64,
    /// Error after learning; not larger.
    pub(super) learned: f64,
    /// Weights rounded to another point than the nearest.
    pub(super) turned: usize,
    /// Weights that could be rounded either way.
    pub(super) free: usize,
}

/// A weight whose rounding is learned.
struct Weight {
    id: ValueId,
    name: String,
    rounding: Rounding,
    start: Tensor,
    v: Tensor,
}

/// A scale or a bias that is learned.
struct Extra {
    id: ValueId,
    name: String,
    value: Tensor,
    start: Tensor,
    /// The largest step.
    rate: f64,
}

/// Gradients in the order of the learned variables; `None` where the unit's result does not depend on one.
struct Gradients {
    weights: Vec<Option<Tensor>>,
    scales: Vec<Option<Tensor>>,
    biases: Vec<Option<Tensor>>,
}

/// One unit with its learned variables.
pub(super) struct Fit<'a> {
    options: &'a Reconstruction,
    rows: &'a Rows,
    unit: &'a Unit,
    executor: Executor<'static>,
    label: String,
    weights: Vec<Weight>,
    scales: Vec<Extra>,
    biases: Vec<Extra>,
    /// The axis of the targets' channels.
    at: ChannelAxis,
    /// For each target the factor that makes its squared error a share of its power, summed over channels.
    factors: Vec<f64>,
}

impl<'a> Fit<'a> {
    /// For a unit of `model`. Its weights start between two grid points, as they are in `float`, or with `decided` on the grid
    /// points that they have in `model`. `learnable`: activations whose scale may be learned.
    pub(super) fn new(
        (model, float): (&Model, &Model),
        unit: &'a Unit,
        layers: &BTreeMap<usize, RoundedLayer>,
        rows: &'a Rows,
        options: &'a Reconstruction,
        decided: bool,
        learnable: &dyn Fn(ValueId) -> bool,
    ) -> Result<Fit<'a>> {
        let label = unit.label(model);
        let mut piece = unit.piece(model);
        let (mut weights, mut biases, mut scales) = (vec![], vec![], vec![]);
        let (factors, magnitude) = powers(rows, unit).map_err(|e| named(&label)(e.into()))?;
        for layer in unit.layers.iter().filter_map(|at| layers.get(at)) {
            let name = model.values[layer.weight].name.clone();
            let (Some(tensor), Some(annotation)) = (float.values.tensor(layer.weight), model.annotations.get(layer.weight)) else {
                continue;
            };
            let (rounding, mut v) = Rounding::new(tensor, annotation).map_err(|e| named(&name)(e.into()))?;
            if let Some(present) = model.values.tensor(layer.weight).filter(|_| decided) {
                v = rounding.decided(present, UNDECIDED).map_err(|e| named(&name)(e.into()))?;
            }
            weights.push(Weight { id: layer.weight, name, rounding, start: v.clone(), v });
            piece.annotations.remove(layer.weight);
            let Some(bias) = layer.bias else { continue };
            piece.annotations.remove(bias);
            if let Some(value) = model.values.tensor(bias).filter(|t| options.learn_biases && t.dtype() == DType::F32) {
                let (name, value) = (model.values[bias].name.clone(), value.clone());
                biases.push(Extra { id: bias, name, start: value.clone(), value, rate: BIAS_RATE * magnitude });
            }
        }
        if options.learn_scales {
            let made = piece.graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied());
            for id in made.filter(|v| learnable(*v)) {
                let Some(scale) = model.annotations.encoding(id).and_then(|e| e.parameters.get("scale")).filter(|s| s.len() == 1) else {
                    continue;
                };
                let rate = SCALE_RATE * f64::from(scale.item::<f32>().unwrap_or(1.0));
                scales.push(Extra {
                    id,
                    name: format!("{}/scale", model.values[id].name),
                    start: scale.clone(),
                    value: scale.clone(),
                    rate,
                });
            }
        } else {
            // Without the error of its own grid, which no rounding of the weights changes.
            unit.targets.iter().for_each(|v| drop(piece.annotations.remove(*v)));
        }
        let executor = Executor::owned(piece)?;
        let at = last_layer(unit, layers).map_or(ChannelAxis::Second, |l| l.channels.at);
        Ok(Fit { options, rows, unit, executor, label, weights, scales, biases, at, factors })
    }

    /// Learns, and writes the result into `model`, unless rounding to nearest is better. `tick` is called after each step.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] if the user stops; errors of running the unit.
    pub(super) fn run(mut self, model: &mut Model, exact: bool, tick: &mut dyn FnMut()) -> Result<Outcome> {
        let nearest = self.error(true)?;
        self.learn(exact, tick)?;
        let learned = self.error(false)?;
        let mut outcome = Outcome { nearest, learned, ..Outcome::default() };
        let better = learned < nearest;
        for weight in &self.weights {
            let fail = |e: tensor::TensorError| named(&weight.name)(e.into());
            let v = if better { &weight.v } else { &weight.start };
            let (turned, free) = weight.rounding.turned(v, &weight.start).map_err(fail)?;
            outcome.turned += turned;
            outcome.free += free;
            model.values.set_tensor(weight.id, weight.rounding.hard(v).map_err(fail)?);
        }
        if !better {
            outcome.learned = nearest;
            return Ok(outcome);
        }
        for bias in self.biases {
            model.values.set_tensor(bias.id, bias.value);
        }
        for scale in self.scales {
            if let Some(encoding) = &mut model.annotations.entry(scale.id).encoding {
                encoding.parameters.insert("scale".into(), scale.value);
            }
        }
        Ok(outcome)
    }

    fn learn(&mut self, exact: bool, tick: &mut dyn FnMut()) -> Result<()> {
        let options = self.options;
        let adam = |lr: f64| AdamW { lr, ..AdamW::default() }.choice().map(OptimizerState::new);
        let (mut rounding, mut others) = (adam(options.rate)?, adam(1.0)?);
        let (steps, warm) = (options.iterations as f64, options.warm_up * options.iterations as f64);
        let until = if exact { (SCALES_UNTIL * steps) as usize } else { options.iterations };
        for step in 0..options.iterations {
            if train::stopped() {
                return Err(TrainError::Interrupted.into());
            }
            let annealed = ((step as f64 - warm) / (steps - warm).max(1.0)).max(0.0);
            let beta = (step as f64 >= warm).then(|| options.beta[0] + (options.beta[1] - options.beta[0]) * annealed);
            if step == until {
                self.scales.iter_mut().for_each(Extra::shorten);
            }
            let scales_learn = step < until;
            let seed = random::derive(options.seed, step as u64);
            let piece = self.rows.draw(step, options.batch, options.seed).map_err(|e| self.fail(e))?;
            let gradients = self.gradients(&piece, beta, scales_learn, seed)?;
            rounding.begin_step();
            others.begin_step();
            for (weight, gradient) in self.weights.iter_mut().zip(gradients.weights) {
                if let Some(gradient) = gradient {
                    rounding.update(&weight.name, false, &mut weight.v, &gradient, 1.0)?;
                }
            }
            let done = step as f64 / steps;
            if scales_learn {
                update(&mut self.scales, gradients.scales, &mut others, falling(done * steps / until as f64))?;
                self.scales.iter_mut().try_for_each(Extra::hold_above_zero)?;
            }
            update(&mut self.biases, gradients.biases, &mut others, falling(done))?;
            tick();
        }
        Ok(())
    }

    /// Gradients by each weight's `v`, each scale and each bias.
    fn gradients(&self, piece: &Piece, beta: Option<f64>, scales_learn: bool, seed: u64) -> Result<Gradients> {
        let fail = |e| self.fail(e);
        let leaf = |t: &Tensor| t.tracked().map_err(fail);
        let vs: Vec<Tensor> = self.weights.iter().map(|w| leaf(&w.v)).collect::<Result<_>>()?;
        let scales: Vec<Tensor> =
            self.scales.iter().map(|s| if scales_learn { leaf(&s.value) } else { Ok(s.value.clone()) }).collect::<Result<_>>()?;
        let biases: Vec<Tensor> = self.biases.iter().map(|b| leaf(&b.value)).collect::<Result<_>>()?;
        let mut overrides = Overrides { unencoded: self.options.drop, ..Overrides::default() };
        let mut undecided = Tensor::scalar(0f32);
        for (weight, v) in self.weights.iter().zip(&vs) {
            overrides.constants.insert(weight.id, weight.rounding.soft(v).map_err(fail)?);
            if let Some(beta) = beta {
                undecided = undecided.add(&weight.rounding.undecided(v, beta).map_err(fail)?).map_err(fail)?;
            }
        }
        overrides.constants.extend(self.biases.iter().zip(&biases).map(|(b, t)| (b.id, t.clone())));
        overrides.encodings.extend(self.scales.iter().zip(&scales).map(|(s, t)| ((s.id, "scale".to_string()), t.clone())));
        let feed = self.rows.feed(piece, self.options.drop, random::derive(seed, 1)).map_err(fail)?;
        let ran = self.executor.run_with(&feed, &overrides, Mode { seed, ..Mode::SIMULATED }, None)?;
        let mut loss = undecided.mul_scalar(self.options.regularization).map_err(fail)?;
        for (i, target) in self.unit.targets.iter().enumerate() {
            let Some(got) = ran.values.get(target) else { continue };
            let error = self.squared(i, got, &piece.targets[i]).map_err(fail)?;
            loss = loss.add(&error).map_err(fail)?;
        }
        drop(overrides);
        let mut found = loss.backward().map_err(fail)?;
        let mut take = |list: &[Tensor]| list.iter().map(|leaf| found.take(leaf)).collect::<Vec<_>>();
        Ok(Gradients { weights: take(&vs), scales: take(&scales), biases: take(&biases) })
    }

    /// The squared error of a target, summed over its channels and averaged over all other axes, as a share of its power.
    fn squared(&self, i: usize, got: &Tensor, wanted: &Tensor) -> tensor::Result<Tensor> {
        let off = got.sub(wanted)?;
        let positions = wanted.len().max(1) as f64 / channels(wanted, self.at) as f64;
        off.mul(&off)?.sum_all()?.mul_scalar(self.factors[i] / positions)
    }

    /// The mean squared error of the unit's result, as a share of the power of the wanted result: rounded to nearest with the
    /// initial scales and biases, or with the learned ones.
    fn error(&self, nearest: bool) -> Result<f64> {
        let fail = |e| self.fail(e);
        let mut overrides = Overrides::default();
        for w in &self.weights {
            overrides.constants.insert(w.id, w.rounding.hard(if nearest { &w.start } else { &w.v }).map_err(fail)?);
        }
        let of = |e: &Extra| if nearest { e.start.clone() } else { e.value.clone() };
        overrides.constants.extend(self.biases.iter().map(|b| (b.id, of(b))));
        overrides.encodings.extend(self.scales.iter().map(|s| ((s.id, "scale".to_string()), of(s))));
        let (mut total, mut count) = (0.0, 0usize);
        for piece in self.rows.all(MEASURED) {
            let piece = piece.map_err(fail)?;
            let feed = self.rows.feed(&piece, 0.0, 0).map_err(fail)?;
            let ran = self.executor.run_with(&feed, &overrides, Mode::SIMULATED, None)?;
            let samples = piece.targets.first().and_then(|t| t.shape().first().copied()).unwrap_or(1);
            for (i, target) in self.unit.targets.iter().enumerate() {
                let Some(got) = ran.values.get(target) else { continue };
                let error = self.squared(i, got, &piece.targets[i]).and_then(|e| e.item::<f32>()).map_err(fail)?;
                total += f64::from(error) / channels(&piece.targets[i], self.at) as f64 * samples as f64;
            }
            count += samples * self.unit.targets.len();
        }
        Ok(total / count.max(1) as f64)
    }

    fn fail(&self, e: tensor::TensorError) -> crate::QuantizeError {
        named(&self.label)(e.into())
    }
}

/// One step of a variable with its own learning rate; `factor` is the schedule's.
fn update(list: &mut [Extra], gradients: Vec<Option<Tensor>>, optimizer: &mut OptimizerState, factor: f64) -> Result<()> {
    for (extra, gradient) in list.iter_mut().zip(gradients) {
        if let Some(gradient) = gradient {
            optimizer.update(&extra.name, false, &mut extra.value, &gradient, extra.rate * factor)?;
        }
    }
    Ok(())
}

/// From 1 to 0 along half a cosine, so that variables without a final state of their own stop changing.
fn falling(done: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * done).cos())
}

impl Extra {
    /// A scale stays positive.
    fn hold_above_zero(&mut self) -> Result<()> {
        let held = self.start.mul_scalar(0.1).and_then(|least| self.value.max(&least));
        self.value = held.map_err(|e| named(&self.name)(e.into()))?;
        Ok(())
    }

    /// Rounds a scale to its former number of significant bits: sums of a layer stay exact.
    fn shorten(&mut self) {
        let precision = |t: &Tensor| t.to_f32_vec().map(|s| Precision::of(&s).max(Precision::ACTIVATION));
        if let (Ok(precision), Ok(scale)) = (precision(&self.start), self.value.item::<f32>()) {
            let (low, high) = (precision.down(scale), precision.up(scale));
            self.value = Tensor::full(if scale - low < high - scale { low } else { high }, self.start.shape())
                .unwrap_or_else(|_| self.start.clone());
        }
    }
}

fn last_layer<'l>(unit: &Unit, layers: &'l BTreeMap<usize, RoundedLayer>) -> Option<&'l RoundedLayer> {
    unit.layers.last().and_then(|at| layers.get(at))
}

/// How many channels a unit's result has.
fn channels(t: &Tensor, at: ChannelAxis) -> usize {
    let axis = match at {
        ChannelAxis::Second => t.shape().get(1),
        ChannelAxis::Last => t.shape().last(),
    };
    axis.copied().filter(|n| *n > 0).unwrap_or(1)
}

/// For each target a factor from its mean square in the float network, and the root of the first one's mean square.
fn powers(rows: &Rows, unit: &Unit) -> tensor::Result<(Vec<f64>, f64)> {
    let mut sums = vec![(0f64, 0usize); unit.targets.len()];
    for piece in rows.all(MEASURED) {
        for (sum, target) in sums.iter_mut().zip(&piece?.targets) {
            sum.0 += tensor::sum_squares(&[target])?;
            sum.1 += target.len();
        }
    }
    let mean = |(sum, count): &(f64, usize)| sum / (*count).max(1) as f64;
    let factors = sums.iter().map(|s| 1.0 / mean(s).max(f64::from(f32::MIN_POSITIVE))).collect();
    Ok((factors, sums.first().map_or(1.0, mean).sqrt()))
}
