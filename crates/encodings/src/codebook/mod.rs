//! Codebook: a weight is an index into a small table of centroids, found by k-means (Han et al. 2016, arXiv:1510.00149, section 3).
//!
//! An element `w` of channel `c` is stored as `i = argmin_j |w / s[c] - table[c / group][j]|` and reads back as
//! `table[c / group][i] * s[c]`; the scale `s` is left out where `channel_scale` is off or each channel has a table of its own.
//! In training the assignment is made anew in each step; the weight's gradient passes straight through.
pub(crate) mod form;
mod kmeans;
#[cfg(test)]
mod tests;

pub use kmeans::Start;

use crate::{Codec, EncodingError, Granularity, Parameters, Result, Slot, WeightEncoding};
use form::Form;
use graph::{Encoding, Setting};
use kmeans::Points;
use std::collections::BTreeMap;
use std::sync::Arc;
use technique::{Fault, Settings, within};
use tensor::Tensor;

/// The encoding's name.
pub const KIND: &str = "codebook";

/// How often centroids and channel scales are fitted to each other.
const ROUNDS: usize = 4;

/// Weights as indices into a table of centroids.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Codebook {
    /// Bits a weight, 2 to 8: the table has 2^bits centroids.
    pub bits: u32,
    /// What shares a table: "tensor", "channel", or { group = N } for N output channels in a row. A table takes 32 * 2^bits bits.
    pub granularity: Granularity,
    /// A scale for each output channel, 32 bits each, so that channels of different range can share a table.
    pub channel_scale: bool,
    /// How centroids are found: "optimal", or Lloyd's iterations from "linear", "density" or "kmeans_plus_plus".
    pub init: Start,
    /// Lloyd's iterations at most.
    pub iterations: usize,
    /// One centroid of each table is exactly zero, so that the weight can be pruned. Masked weights always have it.
    pub zero: bool,
}

impl Default for Codebook {
    fn default() -> Self {
        let granularity = Granularity::Tensor;
        Codebook { bits: 4, granularity, channel_scale: true, init: Start::Optimal, iterations: 100, zero: true }
    }
}

impl Settings for Codebook {
    fn check(&self) -> Result<(), Fault> {
        within("bits", f64::from(self.bits), 2.0, 8.0, "a table has 4 to 256 centroids")?;
        match self.granularity {
            Granularity::Group(0) => Err(Fault::new("granularity.group", "group = 0: at least one channel shares a table")),
            _ => Ok(()),
        }
    }
}

impl WeightEncoding for Codebook {
    fn bits(&self) -> u32 {
        self.bits
    }

    fn granularity(&self) -> Granularity {
        self.granularity
    }

    fn fit(&self, weight: &Tensor, slot: Slot) -> Result<Encoding> {
        let x = weight.to_f32_vec()?;
        if let Some(bad) = x.iter().find(|v| !v.is_finite()) {
            return Err(EncodingError::Value { kind: KIND, what: format!("a weight of {bad} has no centroid") });
        }
        let mask = slot.mask.map(|m| m.as_slice::<bool>().map(<[bool]>::to_vec)).transpose()?;
        let zero = self.zero || mask.as_ref().is_some_and(|m| m.contains(&false));
        let (group, scaled) = match self.granularity {
            Granularity::Tensor => (usize::MAX, self.channel_scale),
            Granularity::Channel => (1, false),
            Granularity::Group(n) => (n, self.channel_scale && n > 1),
        };
        let axis = slot.axis.filter(|_| scaled || group != usize::MAX);
        let mut form = Form { bits: self.bits, axis, group };
        let (run, channels) = form.layout(weight.shape())?;
        if axis.is_none() || group >= channels {
            form.group = usize::MAX;
        }
        let mut live: Vec<Vec<f32>> = vec![vec![]; channels];
        for (i, piece) in x.chunks(run).enumerate() {
            let lives = |k: &usize| mask.as_ref().is_none_or(|m| m[i * run + k]);
            live[i % channels].extend((0..piece.len()).filter(lives).map(|k| piece[k]));
        }
        let mut scales = if axis.is_some() && scaled { magnitudes(&live) } else { vec![1.0; channels] };
        let mut centroids: Vec<f32> = vec![];
        for round in 0..if axis.is_some() && scaled { ROUNDS } else { 1 } {
            let before = std::mem::take(&mut centroids);
            for (g, members) in live.chunks(form.group.min(channels)).enumerate() {
                let pairs = members.iter().enumerate().flat_map(|(k, x)| {
                    let s = f64::from(scales[g * form.group.min(channels) + k]);
                    // Errors count in the weight's units: times the square of the scale.
                    x.iter().map(move |x| (f64::from(*x) / s, s * s))
                });
                let points = Points::new(pairs.collect());
                let found = match round {
                    0 => points.fit(form.entries(), self.init, self.iterations, zero),
                    _ => {
                        let own = before[g * form.entries()..][..form.entries()].iter().map(|c| f64::from(*c)).collect();
                        points.lloyd(own, self.iterations, zero)
                    }
                };
                centroids.extend(found.into_iter().map(|c| c as f32 + 0.0));
            }
            if axis.is_some() && scaled {
                rescale(&form, &live, &centroids, &mut scales)?;
            }
        }
        let table = Tensor::new(centroids, [channels.div_ceil(form.group), form.entries()])?;
        Ok(form.encoding(table, (axis.is_some() && scaled).then(|| Tensor::vector(scales))))
    }

    fn open(&self, settings: &BTreeMap<String, Setting>) -> Result<Arc<dyn Codec>> {
        Ok(Arc::new(Form::of(settings)?))
    }
}

/// Root mean square of each channel; of one without elements or of zeros alone 1.
fn magnitudes(channels: &[Vec<f32>]) -> Vec<f32> {
    let root = |x: &Vec<f32>| (x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len().max(1) as f64).sqrt() as f32;
    channels.iter().map(root).map(|r| if r.is_normal() { r } else { 1.0 }).collect()
}

/// The scales of least squared error for the present assignment of each channel's elements: `<x, t> / <t, t>`.
fn rescale(form: &Form, channels: &[Vec<f32>], centroids: &[f32], scales: &mut [f32]) -> Result<()> {
    let alone = Form { axis: None, group: usize::MAX, ..*form };
    for (c, x) in channels.iter().enumerate() {
        let at = c / form.group * form.entries();
        let table = &centroids[at..at + form.entries()];
        let parameters = Parameters::from([("codebook".to_string(), Tensor::vector(table.to_vec()))]);
        let divided = Tensor::vector(x.iter().map(|v| v / scales[c]).collect::<Vec<f32>>());
        let indices = alone.indices(&divided, &parameters)?;
        let (mut xt, mut tt) = (0f64, 0f64);
        for (x, i) in x.iter().zip(indices) {
            let t = f64::from(table[usize::from(i)]);
            (xt, tt) = (xt + f64::from(*x) * t, tt + t * t);
        }
        let scale = (xt / tt) as f32;
        if scale.is_normal() && scale > 0.0 {
            scales[c] = scale;
        }
    }
    Ok(())
}

/// Fits a weight again with the settings of its present encoding.
fn refit(form: &Form, weight: &Tensor, slot: Slot, parameters: &Parameters) -> Result<Encoding> {
    let granularity = match (form.axis, form.group) {
        (None, _) | (_, usize::MAX) => Granularity::Tensor,
        (_, 1) => Granularity::Channel,
        (_, n) => Granularity::Group(n),
    };
    let (channel_scale, zero) = (parameters.contains_key("channel_scale"), form.keeps_zero(parameters));
    Codebook { bits: form.bits, granularity, channel_scale, zero, ..Codebook::default() }.fit(weight, slot)
}

/// The encoding of a table that was read from a file.
pub(crate) fn encoding(table: &Tensor, bits: u32, axis: Option<usize>, group: usize, scale: Option<&Tensor>) -> Result<Encoding> {
    let form = Form { bits, axis, group };
    Ok(form.encoding(table.reshape([table.len() / form.entries(), form.entries()])?, scale.cloned()))
}
