//! Statistics of a network's values for corrections, collected in one pass.
use super::{Samples, first_batches};
use crate::{QuantizeError, Result};
use graph::{Model, ValueId};
use tensor::Tensor;
use train::{Executor, Mode};

/// A statistic of one value over a stream of tensors.
pub trait Collector: Send {
    /// Adds the value's tensor of one batch.
    ///
    /// # Errors
    /// A sentence for a tensor of another shape or type than the statistic is of.
    fn update(&mut self, tensor: &Tensor) -> Result<(), String>;

    /// The statistic over all samples seen.
    ///
    /// # Errors
    /// A sentence if the statistic cannot be computed from the samples seen.
    fn finish(&mut self) -> Result<Tensor, String>;
}

/// A requested statistic.
pub struct Want {
    /// The value, before it is quantized.
    pub value: ValueId,
    /// Number of samples, in whole batches.
    pub samples: usize,
    /// Computes the statistic.
    pub collector: Box<dyn Collector>,
}

/// The mean of each channel: f64 `[channels]` of tensors `[.., channels, ..]`.
pub struct ChannelMean {
    /// The channels' axis, from the first (0..) or the last (-1..).
    axis: i64,
    sums: Vec<f64>,
    count: u64,
}

impl ChannelMean {
    /// For tensors whose channels lie along `axis`; a negative axis counts from the last.
    pub fn new(axis: i64) -> Self {
        ChannelMean { axis, sums: vec![], count: 0 }
    }
}

impl Collector for ChannelMean {
    fn update(&mut self, tensor: &Tensor) -> Result<(), String> {
        let mut seen = 0;
        by_channel(tensor, self.axis, &mut self.sums, |sum, piece| {
            *sum += piece.iter().map(|v| f64::from(*v)).sum::<f64>();
            seen += piece.len();
        })?;
        self.count += (seen / self.sums.len().max(1)) as u64;
        Ok(())
    }

    fn finish(&mut self) -> Result<Tensor, String> {
        if self.count == 0 {
            return Err("was not computed".into());
        }
        let count = self.count as f64;
        let means: Vec<f64> = self.sums.iter().map(|s| s / count).collect();
        match means.iter().position(|m| !m.is_finite()) {
            Some(at) => Err(format!("channel {at} has a mean of {}", means[at])),
            None => Ok(Tensor::vector(means)),
        }
    }
}

/// The largest magnitude of each channel: f64 `[channels]` of tensors `[.., channels, ..]`.
pub struct ChannelPeak {
    /// The channels' axis, from the first (0..) or the last (-1..).
    axis: i64,
    peaks: Vec<f64>,
}

impl ChannelPeak {
    /// For tensors whose channels lie along `axis`; a negative axis counts from the last.
    pub fn new(axis: i64) -> Self {
        ChannelPeak { axis, peaks: vec![] }
    }
}

impl Collector for ChannelPeak {
    fn update(&mut self, tensor: &Tensor) -> Result<(), String> {
        by_channel(tensor, self.axis, &mut self.peaks, |peak, piece| {
            // NaN is not lost, as it would be in a maximum.
            *peak = piece.iter().map(|v| f64::from(v.abs())).fold(*peak, |m, v| if v > m || v.is_nan() { v } else { m });
        })
    }

    fn finish(&mut self) -> Result<Tensor, String> {
        match self.peaks.iter().position(|p| !p.is_finite()) {
            _ if self.peaks.is_empty() => Err("was not computed".into()),
            Some(at) => Err(format!("channel {at} has a largest magnitude of {}", self.peaks[at])),
            None => Ok(Tensor::vector(self.peaks.clone())),
        }
    }
}

/// Calls `add` with the statistic of a channel and neighbouring elements of it, for all elements of a tensor.
pub(super) fn by_channel<T: Clone + Default>(
    tensor: &Tensor,
    axis: i64,
    statistics: &mut Vec<T>,
    mut add: impl FnMut(&mut T, &[f32]),
) -> Result<(), String> {
    let x = tensor.to_f32_vec().map_err(|e| e.to_string())?;
    let axis = tensor::shape::axis("channels", axis, tensor.rank()).map_err(|e| e.to_string())?;
    let (channels, run) = (tensor.shape()[axis], tensor.shape()[axis + 1..].iter().product::<usize>().max(1));
    if channels == 0 {
        return Ok(());
    }
    if statistics.is_empty() {
        *statistics = vec![T::default(); channels];
    }
    if statistics.len() != channels {
        return Err(format!("has {channels} channels and had {} before", statistics.len()));
    }
    for (i, piece) in x.chunks(run).enumerate() {
        add(&mut statistics[i % channels], piece);
    }
    Ok(())
}

/// Runs the float network once (with masks, no grids) and returns the results for each list of requests. Nothing runs without
/// requests.
pub(super) fn collect(model: &Model, mut wants: Vec<Vec<Want>>, samples: Samples) -> Result<Vec<Vec<Tensor>>> {
    let most = wants.iter().flatten().map(|w| w.samples).max().unwrap_or(0);
    if most > 0 {
        let mut float = model.clone();
        float.annotations.iter_mut().for_each(|(_, a)| a.encoding = None);
        let executor = Executor::unfused(&float)?;
        let mut seen = 0;
        for batch in first_batches(samples, most)? {
            let batch = batch?;
            let mut failure = None;
            let mut watch = |id: ValueId, tensor: &Tensor| {
                for want in wants.iter_mut().flatten().filter(|w| w.value == id && seen < w.samples) {
                    if let Err(what) = want.collector.update(tensor) {
                        failure.get_or_insert(what_of(model, id, what));
                    }
                }
            };
            executor.run_observed(&batch.inputs, Mode::SIMULATED, &mut watch)?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            seen += batch.len();
        }
        tensor::release_kept();
    }
    let finish = |want: &mut Want| want.collector.finish().map_err(|what| what_of(model, want.value, what));
    wants.iter_mut().map(|list| list.iter_mut().map(finish).collect()).collect()
}

pub(super) fn what_of(model: &Model, id: ValueId, what: String) -> QuantizeError {
    QuantizeError::Value { value: model.values[id].name.clone(), what }
}
