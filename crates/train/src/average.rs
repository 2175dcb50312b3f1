//! Averaging of weights over epochs: stochastic weight averaging.
use crate::{Participant, ParticipantState, StepContext, TrainError, measure_norm_statistics, parameters};
use graph::Model;
use std::collections::BTreeMap;
use tensor::Tensor;

/// Ends a training with the mean of the weights at the ends of its last epochs, and measures the running statistics of batch
/// normalizations again, on training batches, for the averaged weights.
///
/// For each trained parameter `w`: `mean = (w_from + ... + w_last) / n` over the ends of the epochs `from..`. Masks are part of the
/// model and not averaged: an element that a mask holds at zero stays exactly zero. Learned scales of encodings are averaged too
/// and then projected onto what their encoding allows.
///
/// Averages help most with a learning rate that stays well above zero over the averaged epochs, such as a constant one; with a
/// rate that falls to zero the last epochs hardly differ. The average replaces the epoch that [`crate::Keep`] selects.
///
/// # Source
/// Izmailov et al. 2018, arXiv:1803.05407, algorithm 1, with one model an epoch (`c` = one epoch).
#[derive(Clone, Debug)]
pub struct WeightAverage {
    /// First epoch whose weights are averaged, from 0.
    from: u64,
    /// Batches to measure statistics on.
    batches: u64,
    /// Epochs averaged so far.
    count: u64,
    mean: BTreeMap<String, Tensor>,
}

impl WeightAverage {
    /// Averages from the end of epoch `from` (from 0) on, and measures statistics on `batches` training batches.
    pub fn new(from: u64, batches: u64) -> Self {
        WeightAverage { from, batches, count: 0, mean: BTreeMap::new() }
    }

    /// Epochs averaged so far.
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl Participant for WeightAverage {
    fn name(&self) -> &'static str {
        "weight_average"
    }

    fn after_epoch(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        if cx.epoch < self.from {
            return Ok(());
        }
        self.count += 1;
        for p in cx.parameters {
            let wrong = |e: tensor::TensorError| TrainError::Value { value: p.name.clone(), what: e.to_string() };
            let now = parameters::get(cx.model, &p.id)?;
            let mean = match self.mean.get(&p.name) {
                Some(mean) => {
                    let share = 1.0 / self.count as f32;
                    let pairs = mean.to_f32_vec().map_err(wrong)?.into_iter().zip(now.to_f32_vec().map_err(wrong)?);
                    Tensor::new(pairs.map(|(m, w)| m + (w - m) * share).collect(), now.shape()).map_err(wrong)?
                }
                None => now,
            };
            self.mean.insert(p.name.clone(), mean);
        }
        Ok(())
    }

    fn replaces_weights(&self) -> bool {
        true
    }

    fn settled(&self, cx: &StepContext) -> bool {
        cx.epoch >= self.from
    }

    fn finish(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        if self.count == 0 {
            cx.watch.note("the training ended before the first epoch that was to be averaged: the weights stay as they are");
            return Ok(());
        }
        for p in cx.parameters {
            let Some(mean) = self.mean.get(&p.name) else { continue };
            let before = parameters::get(cx.model, &p.id)?;
            let value = parameters::projected(cx.model, p, &before, mean.clone())?;
            parameters::put(cx.model, &p.id, value);
        }
        // An epoch number of its own: the training has not used this order of batches.
        let (epoch, seed) = (cx.settings.epochs, cx.settings.seed);
        let samples = measure_norm_statistics(cx.model, cx.data, epoch, self.batches, cx.settings.simulate, seed)?;
        let statistics = match samples {
            0 => String::new(),
            n => format!("; statistics of batch normalizations were measured again on {n} training samples"),
        };
        cx.watch.note(&format!("weights are the mean over the last {} epochs{statistics}", self.count));
        Ok(())
    }

    fn state(&self, _model: &Model) -> ParticipantState {
        ParticipantState { tensors: self.mean.clone(), values: self.count.into() }
    }

    fn restore(&mut self, _model: &mut Model, state: &ParticipantState) -> Result<(), TrainError> {
        self.count = state.values.as_u64().unwrap_or(0);
        self.mean = state.tensors.clone();
        Ok(())
    }
}
