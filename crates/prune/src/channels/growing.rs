//! Growing regularization: the channels that will go are pushed towards zero while the network trains.
use super::choose::choose;
use super::groups::{ChannelPlace, groups};
use super::settings::ChannelSettings;
use crate::{ImportanceContext, PruneError, candidates};
use graph::{Model, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use technique::{Fault, within};
use tensor::Tensor;
use train::{GradientSource, Participant, ParticipantState, StepContext, TrainError};

/// Settings of a growing regularization of the channels that a later stage removes.
///
/// # Source
/// Wang et al. 2021 (GReg-1), arXiv:2012.09243, section 3.2.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrowingSettings {
    /// Which channels are pushed: the settings of the prune_channels stage that removes them.
    pub channels: ChannelSettings,
    /// Steps between two rises of the factor.
    #[serde(default = "every")]
    pub every: u64,
    /// The largest factor.
    #[serde(default = "largest")]
    pub largest: f64,
    /// Share of the stage's steps at which it is reached, 0..1.
    #[serde(default = "end")]
    pub end: f64,
}

fn every() -> u64 {
    10
}

fn largest() -> f64 {
    10.0
}

fn end() -> f64 {
    0.8
}

impl GrowingSettings {
    /// For the channels of these settings, with the default of every other setting.
    pub fn new(channels: ChannelSettings) -> Self {
        GrowingSettings { channels, every: every(), largest: largest(), end: end() }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// A [`Fault`] at the key that is wrong.
    pub fn check(&self) -> Result<(), Fault> {
        self.channels.check().map_err(|fault| fault.under("channels"))?;
        if self.channels.remove.latency.is_some() {
            let what = "a time is measured where channels are removed: name a share of the macs here";
            return Err(Fault::new("latency", what).under("remove").under("channels"));
        }
        if !self.channels.remove.has_share() {
            let fault =
                Fault::new("remove", "remove names no share, so no channel is pushed: those that masks have emptied are zero already");
            return Err(fault.under("channels").hint("write remove = { macs = 0.5 }"));
        }
        if self.every == 0 {
            return Err(Fault::new("every", "every = 0: at least one step lies between two rises"));
        }
        if !(self.largest > 0.0 && self.largest.is_finite()) {
            return Err(Fault::new("largest", format!("largest = {}: it must be above 0", self.largest)));
        }
        within("end", self.end, 0.0, 1.0, "it is a share of the stage's steps")
    }

    /// The factor after `step` of `steps`.
    fn factor(&self, step: u64, steps: u64) -> f64 {
        let last = self.end * steps as f64;
        let risen = ((step / self.every + 1) * self.every) as f64;
        self.largest * if last > 0.0 { (risen / last).min(1.0) } else { 1.0 }
    }
}

/// A participant that pulls all parameters of the channels that will go towards zero, ever more: after each step with the learning rate `lr`
///
/// ```text
/// w <- w / (1 + lr * factor),  factor from 0 to `largest` in equal rises, `every` so many steps, up to the share `end` of the steps
/// ```
///
/// which to first order is the paper's gradient of `factor / 2 * |w|^2`, whatever the optimizer, and cannot overshoot. The channels are
/// chosen before the first step, as [`choose`] does; the others learn to do without them.
#[derive(Clone, Debug)]
pub struct GrowingPenalty {
    settings: GrowingSettings,
    /// What is pushed: by parameter and axis, the indices.
    pushed: BTreeMap<(ValueId, usize), Vec<usize>>,
    /// Norm of what is pushed, before the first step.
    before: f64,
}

impl GrowingPenalty {
    /// With settings that can be.
    ///
    /// # Errors
    /// A [`Fault`] for others.
    pub fn new(settings: &GrowingSettings) -> Result<Self, Fault> {
        settings.check()?;
        Ok(GrowingPenalty { settings: settings.clone(), pushed: BTreeMap::new(), before: 0.0 })
    }

    /// Chooses the channels.
    fn begin(&mut self, cx: &StepContext) -> Result<(), PruneError> {
        let source = GradientSource { data: cx.data, epoch: cx.settings.epochs, objective: cx.objective, simulate: cx.settings.simulate };
        let sample = cx.data.epoch(0).next().transpose()?.ok_or_else(|| TrainError::Data("there is no batch".into()))?;
        let shapes: BTreeMap<String, Vec<usize>> = sample.inputs.iter().map(|(name, t)| (name.clone(), t.shape().to_vec())).collect();
        let (found, model) = (groups(cx.model, &shapes)?, &*cx.model);
        let context = ImportanceContext::gather(model, &self.settings.channels.criterion, &candidates(model, &[])?, Some(&source))?;
        let chosen = choose(&context, &found, &self.settings.channels)?;
        let parameters: BTreeSet<ValueId> = cx.parameters.iter().map(|p| p.id.value).collect();
        for ChannelPlace { value, axis, index } in chosen.removed.iter().flat_map(|c| &c.places) {
            if parameters.contains(value) && model.values.tensor(*value).is_some() {
                self.pushed.entry((*value, *axis)).or_default().push(*index);
            }
        }
        self.before = self.norm(model)?;
        Ok(())
    }

    /// The L2 norm of what is pushed.
    fn norm(&self, model: &Model) -> Result<f64, TrainError> {
        let mut sum = 0.0;
        for ((value, axis), indices) in &self.pushed {
            each(model, (*value, *axis), indices, &mut |w| sum += f64::from(*w).powi(2))?;
        }
        Ok(sum.sqrt())
    }
}

/// Calls `f` with each element of a parameter at some indices of an axis; returns the tensor that results.
fn each(
    model: &Model,
    (value, axis): (ValueId, usize),
    indices: &[usize],
    f: &mut dyn FnMut(&mut f32),
) -> Result<Option<Tensor>, TrainError> {
    let Some(tensor) = model.values.tensor(value).filter(|t| axis < t.rank()) else { return Ok(None) };
    let (shape, mut list) = (tensor.shape().to_vec(), tensor.to_f32_vec()?);
    let (size, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>().max(1));
    for (i, run) in list.chunks_mut(inner).enumerate() {
        if indices.contains(&(i % size)) {
            run.iter_mut().for_each(&mut *f);
        }
    }
    Ok(Some(Tensor::new(list, shape)?))
}

impl Participant for GrowingPenalty {
    fn name(&self) -> &'static str {
        "growing_penalty"
    }

    fn before_step(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        if cx.step == 0 {
            self.begin(cx)?;
        }
        Ok(())
    }

    fn after_update(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        let lr = cx.settings.optimizer.lr() * cx.factor;
        let kept = (1.0 / (1.0 + lr * self.settings.factor(cx.step, cx.steps))) as f32;
        for (place, indices) in &self.pushed {
            if let Some(pushed) = each(cx.model, *place, indices, &mut |w| *w *= kept)? {
                cx.model.values.set_tensor(place.0, pushed);
            }
        }
        Ok(())
    }

    fn finish(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        let after = self.norm(cx.model)?;
        let text = format!(
            "the channels that are to go were pushed towards zero: the norm of their parameters fell from {:.3} to {after:.3}",
            self.before
        );
        cx.watch.note(&text);
        Ok(())
    }

    fn settled(&self, cx: &StepContext) -> bool {
        cx.step as f64 >= self.settings.end * cx.steps as f64
    }

    fn state(&self, model: &Model) -> ParticipantState {
        let place =
            |((value, axis), indices): (&(ValueId, usize), &Vec<usize>)| (model.values[*value].name.clone(), *axis, indices.clone());
        let pushed: Vec<(String, usize, Vec<usize>)> = self.pushed.iter().map(place).collect();
        ParticipantState { tensors: BTreeMap::new(), values: serde_json::json!([self.before, pushed]) }
    }

    fn restore(&mut self, model: &mut Model, state: &ParticipantState) -> Result<(), TrainError> {
        let wrong = |what: String| TrainError::Value { value: "growing_penalty".into(), what };
        let read: Result<(f64, Vec<(String, usize, Vec<usize>)>), _> = serde_json::from_value(state.values.clone());
        let (before, pushed) = read.map_err(|e| wrong(e.to_string()))?;
        self.before = before;
        for (name, axis, indices) in pushed {
            let id = model.find(&name).ok_or_else(|| wrong(format!("pushes '{name}', which the model does not have")))?;
            self.pushed.insert((id, axis), indices);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Remove;
    use super::*;
    use graph::{Dim, Node, Value, ValueType};
    use tensor::{DType, random};
    use train::{Batch, Batches, MeanSquaredError, TrainContext, TrainSettings};

    /// Two matrix products with four channels between them.
    fn net() -> Model {
        let mut m = Model::new(17);
        let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Symbol("n".into()), Dim::Known(3)]) };
        let x = m.values.add(Value { name: "x".into(), ty, ..Value::default() });
        let [h, y] = ["h", "y"].map(|n| m.values.add_named(n));
        let a = random::normal(1, &[3, 4], 0.0, 1.0).unwrap().to_f32_vec().unwrap();
        // The third channel is the least.
        let a: Vec<f32> = a.iter().enumerate().map(|(i, v)| if i % 4 == 2 { v * 0.1 } else { *v }).collect();
        let a = m.values.add_constant("a", Tensor::new(a, [3, 4]).unwrap());
        let b = m.values.add_constant("b", Tensor::full(1f32, [4, 2]).unwrap());
        m.graph.inputs.push(x);
        m.graph.constants.extend([a, b]);
        m.graph.nodes.push(Node::new("MatMul", "one", &[x, a], &[h]));
        m.graph.nodes.push(Node::new("MatMul", "two", &[h, b], &[y]));
        m.graph.outputs.push(y);
        m
    }

    struct Noise;
    impl Batches for Noise {
        fn batches(&self) -> u64 {
            5
        }
        fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
            Box::new((0..5).map(move |i| {
                let draw = |seed, width| random::normal(random::derive(epoch + seed, i), &[8, width], 0.0, 1.0);
                let (inputs, targets) = ([("x".to_string(), draw(1, 3)?)].into(), [("y".to_string(), draw(9, 2)?)].into());
                Ok(Batch { inputs, targets, ..Batch::default() })
            }))
        }
    }

    #[test]
    fn the_factor_rises_in_equal_steps_to_the_largest() {
        let settings =
            GrowingSettings { every: 10, largest: 4.0, end: 0.5, ..GrowingSettings::new(ChannelSettings::new(Remove::default())) };
        let factors = [0, 9, 10, 39, 40, 99].map(|step| settings.factor(step, 100));
        let wanted = [0.8, 0.8, 1.6, 3.2, 4.0, 4.0];
        assert!(factors.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{factors:?}");
    }

    #[test]
    fn all_parameters_of_the_chosen_channels_shrink_and_no_others_do_by_it() {
        let channels = ChannelSettings::new(Remove { channels: Some(0.25), ..Remove::default() });
        // Without gradients worth mentioning, each step multiplies by 1 / (1 + lr * factor).
        let optimizer = serde_json::from_str(r#"{ "kind": "sgd", "lr": 1e-6, "momentum": 0.0, "nesterov": false, "weight_decay": 0.0 }"#);
        let settings = TrainSettings {
            epochs: 2,
            optimizer: optimizer.unwrap(),
            schedule: serde_json::from_str("\"constant\"").unwrap(),
            ..TrainSettings::default()
        };
        let growing = GrowingSettings { every: 1, largest: 1e5, end: 0.0, ..GrowingSettings::new(channels) };
        let run = |penalty: Option<&mut GrowingPenalty>| {
            let mut m = net();
            let loss = MeanSquaredError::of(&m).unwrap();
            let participants = penalty.into_iter().map(|p| p as &mut dyn Participant).collect();
            let mut context = TrainContext { participants, ..TrainContext::default() };
            train::train(&mut m, &Noise, &loss, &settings, &mut context).unwrap();
            ["a", "b"].map(|n| m.values.tensor(m.find(n).unwrap()).unwrap().to_f32_vec().unwrap())
        };
        let mut penalty = GrowingPenalty::new(&growing).unwrap();
        let (pushed, free) = (run(Some(&mut penalty)), run(None));
        // Ten steps, each by 1 / 1.1.
        let kept = 1.1f32.powi(-10);
        for (i, (p, f)) in pushed[0].iter().zip(&free[0]).enumerate() {
            let wanted = if i % 4 == 2 { kept * f } else { *f };
            assert!((p - wanted).abs() < 1e-4, "a {i}: {p} {wanted}");
        }
        for (i, (p, f)) in pushed[1].iter().zip(&free[1]).enumerate() {
            let wanted = if i / 2 == 2 { kept * f } else { *f };
            assert!((p - wanted).abs() < 1e-4, "b {i}: {p} {wanted}");
        }
        // What was chosen survives a checkpoint.
        let mut m = net();
        let mut again = GrowingPenalty::new(&growing).unwrap();
        let state = penalty.state(&m);
        again.restore(&mut m, &state).unwrap();
        assert_eq!((&again.pushed, again.before), (&penalty.pushed, penalty.before));
    }

    #[test]
    fn settings_that_cannot_be_are_refused_at_their_key() {
        let new = || GrowingSettings::new(ChannelSettings::new(Remove { macs: Some(0.5), ..Remove::default() }));
        let at = |s: GrowingSettings| s.check().unwrap_err().path;
        assert_eq!(new().check(), Ok(()));
        assert_eq!(at(GrowingSettings { every: 0, ..new() }), ["every"]);
        assert_eq!(at(GrowingSettings { largest: 0.0, ..new() }), ["largest"]);
        assert_eq!(at(GrowingSettings { end: 1.5, ..new() }), ["end"]);
        let timed = ChannelSettings::new(Remove { latency: Some(0.5), ..Remove::default() });
        assert_eq!(at(GrowingSettings::new(timed)), ["channels", "remove", "latency"]);
        for dead in [false, true] {
            let shareless = ChannelSettings::new(Remove { dead, ..Remove::default() });
            assert_eq!(at(GrowingSettings::new(shareless)), ["channels", "remove"]);
        }
    }
}
