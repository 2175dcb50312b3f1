//! Corrections: changes without training that adapt a network to its grids, or reduce the errors of its grids. One file each.
//!
//! A correction states in which [`Phase`] it works and which statistics of the float network it [needs](Correction::wants).
//! Collectors of all corrections after the fitting share one pass over the data; before the fitting each has a pass of its own,
//! since an earlier correction may have changed the network.
mod adaround;
mod after_activation;
mod bias_correction;
mod block_reconstruction;
mod collect;
mod compensate;
mod equalize;
mod gptq;
mod groups;
mod input_products;
mod points;
mod rate_distortion;
mod reconstruct;
mod rescale;
mod smooth_quant;

pub use adaround::AdaRound;
pub use bias_correction::{BiasCorrection, Form};
pub use block_reconstruction::BlockReconstruction;
pub use collect::{ChannelMean, ChannelPeak, Collector, Want};
pub use compensate::RoundingOrder;
pub use equalize::Equalize;
pub use gptq::Gptq;
pub use rate_distortion::RateDistortion;
pub use smooth_quant::SmoothQuant;

use crate::{QuantizeError, QuantizeSettings, Result};
use collect::collect;
use graph::Model;
use technique::{Choice, Entry, Family};
use tensor::Tensor;
use train::{Batch, Layerwise, TrainError};

/// Batches of calibration data, from the first on at each call.
pub type Samples<'a> = &'a dyn Fn() -> Box<dyn Iterator<Item = std::result::Result<Batch, TrainError>> + 'a>;

/// The phase of a correction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// On the float network, before its activations are observed and its grids fitted.
    BeforeFitting,
    /// On the network with its grids.
    AfterFitting,
}

/// A correction.
///
/// It is a type that holds its settings, in a file of its own, and a line in [`Corrections::members`]. Outliers of weights cut
/// before grids are fitted, so that they do not make the steps of all others coarse, whole but for its manual page:
/// ```
/// use espalier_quantize::{Correction, CorrectionContext, Phase, Result};
/// use graph::{Model, ValueId};
/// use train::TrainError;
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct CutOutliers {
///     /// Standard deviations from zero, as far as a weight may be.
///     deviations: f64,
/// }
/// impl technique::Settings for CutOutliers {}
/// impl Correction for CutOutliers {
///     fn phase(&self) -> Phase {
///         Phase::BeforeFitting
///     }
///     fn apply(&self, model: &mut Model, _cx: &CorrectionContext) -> Result<Vec<String>> {
///         let weights: Vec<ValueId> = model.graph.constants.iter().copied().collect();
///         let mut cut = 0;
///         for id in weights {
///             let Some(weight) = model.values.tensor(id).filter(|t| t.rank() > 1 && t.dtype() == tensor::DType::F32) else { continue };
///             let squares = tensor::sum_squares(&[weight]).map_err(TrainError::from)?;
///             let bound = self.deviations * (squares / weight.len() as f64).sqrt();
///             let new = weight.clip(Some(-bound), Some(bound)).map_err(TrainError::from)?;
///             cut += usize::from(new != *weight);
///             model.values.set_tensor(id, new);
///         }
///         Ok(vec![format!("outliers cut in {cut} weights")])
///     }
/// }
/// let member = technique::member!(
///     CutOutliers as dyn Correction,
///     technique::Manual { name: "cut_outliers", summary: "", details: "", source: "", example: "" }
/// );
/// let correction = (member.build)(serde_json::from_str(r#"{ "deviations": 2.5 }"#).unwrap()).unwrap();
/// let mut model = Model::new(17);
/// let weight = tensor::Tensor::new([vec![0.1f32; 15], vec![2.0]].concat(), [4, 4]).unwrap();
/// let weight = model.values.add_constant("weight", weight);
/// model.graph.constants.push(weight);
/// let (samples, settings) = (&|| Box::new(std::iter::empty()) as _, &Default::default());
/// let cx = CorrectionContext { settings, collected: &[], samples, seed: 0, progress: &|_, _| {} };
/// assert_eq!(correction.apply(&mut model, &cx).unwrap(), ["outliers cut in 1 weights"]);
/// ```
pub trait Correction: Send + Sync {
    /// The phase in which it works.
    fn phase(&self) -> Phase;

    /// How many calibration samples it uses; 0: none.
    fn samples(&self) -> usize {
        0
    }

    /// How many samples it runs forward and backward through the network, over all steps; 0: it learns nothing. A correction that
    /// learns must not change the graph.
    fn learns_from(&self) -> usize {
        0
    }

    /// The statistics of the float network (with masks, no grids) that it needs. It may prepare the model, as long as the network
    /// computes the same.
    ///
    /// # Errors
    /// Errors of searching the graph.
    fn wants(&self, _model: &mut Model, _settings: &QuantizeSettings) -> Result<Vec<Want>> {
        Ok(vec![])
    }

    /// Changes the model. Returns sentences for the user: the changes, and what was left unchanged and why.
    ///
    /// # Errors
    /// [`QuantizeError`] with the value or node at fault.
    fn apply(&self, model: &mut Model, cx: &CorrectionContext) -> Result<Vec<String>>;
}

/// The context of a correction.
pub struct CorrectionContext<'c, 'a> {
    /// The settings of the quantization.
    pub settings: &'c QuantizeSettings,
    /// Results of the requested collectors, in their order.
    pub collected: &'c [Tensor],
    /// Calibration data.
    pub samples: Samples<'a>,
    /// Seed of random draws.
    pub seed: u64,
    /// Called with the steps done and in all, by corrections that take long.
    pub progress: &'c dyn Fn(u64, u64),
}

/// Data for all corrections of a phase, besides the model and its settings.
pub struct CorrectionInput<'a> {
    /// Calibration data.
    pub samples: Samples<'a>,
    /// Seed of random draws.
    pub seed: u64,
    /// Called with the steps done and in all, by corrections that take long.
    pub progress: &'a dyn Fn(u64, u64),
}

impl<'a> CorrectionInput<'a> {
    /// Calibration data, with seed 0 and without progress.
    pub fn new(samples: Samples<'a>) -> Self {
        CorrectionInput { samples, seed: 0, progress: &|_, _| {} }
    }
}

/// The family: corrections after training, in the order in which a recipe lists them within each phase.
pub struct Corrections;

impl Family for Corrections {
    type Member = dyn Correction;
    const NAME: &'static str = "correction";
    const SUMMARY: &'static str = "What is corrected in a network before or after its grids are fitted, without training.";
    const DEFAULT: Option<&'static str> = None;
    fn members() -> &'static [Entry<dyn Correction>] {
        static LIST: &[Entry<dyn Correction>] = &[
            equalize::ENTRY,
            smooth_quant::ENTRY,
            gptq::ENTRY,
            rate_distortion::ENTRY,
            adaround::ENTRY,
            block_reconstruction::ENTRY,
            bias_correction::ENTRY,
        ];
        LIST
    }
}

/// The report of one correction.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CorrectionReport {
    /// Its name in recipes.
    pub kind: String,
    /// The changes, and what was left unchanged and why.
    pub notes: Vec<String>,
}

/// Applies the corrections of a phase that the settings list. BatchNormalization should have been folded. Samples are requested
/// only if a correction needs them.
///
/// # Errors
/// [`QuantizeError::NoData`] if a correction needs data and there are none; as [`Correction::apply`].
pub fn correct(model: &mut Model, settings: &QuantizeSettings, phase: Phase, input: &CorrectionInput) -> Result<Vec<CorrectionReport>> {
    let CorrectionInput { samples, seed, progress } = *input;
    let chosen: Vec<&Choice<Corrections>> = settings.corrections.iter().filter(|c| c.phase() == phase).collect();
    let mut reports = vec![];
    let at_once = if phase == Phase::AfterFitting { chosen.len().max(1) } else { 1 };
    for together in chosen.chunks(at_once) {
        let wants = together.iter().map(|c| c.wants(model, settings)).collect::<Result<Vec<_>>>()?;
        for (correction, collected) in together.iter().zip(collect(model, wants, samples)?) {
            let cx = CorrectionContext { settings, collected: &collected, samples, seed, progress };
            reports.push(CorrectionReport { kind: correction.kind().to_string(), notes: correction.apply(model, &cx)? });
        }
    }
    if !reports.is_empty() {
        model.verify()?;
    }
    Ok(reports)
}

/// Most samples that any of the listed corrections uses.
pub(crate) fn samples_wanted(settings: &QuantizeSettings) -> usize {
    settings.corrections.iter().map(|c| c.samples()).max().unwrap_or(0)
}

/// The simulation stopped before its first node, on the first batches with at least this many samples.
///
/// # Errors
/// As [`first_batches`].
pub(crate) fn layerwise(model: &Model, samples: Samples, wanted: usize) -> Result<Layerwise> {
    let batches = first_batches(samples, wanted)?.map(|batch| Ok(batch?.inputs)).collect::<Result<Vec<_>>>()?;
    Ok(Layerwise::new(model, batches))
}

/// The first batches with at least this many samples; all if there are fewer.
///
/// # Errors
/// [`QuantizeError::NoData`] without a batch; errors of the batches.
pub(crate) fn first_batches<'a>(samples: Samples<'a>, wanted: usize) -> Result<impl Iterator<Item = Result<Batch>> + 'a> {
    let mut batches = samples().peekable();
    if batches.peek().is_none() {
        return Err(QuantizeError::NoData);
    }
    let mut given = 0;
    Ok(std::iter::from_fn(move || {
        let next = if given < wanted { batches.next()? } else { return None };
        given += next.as_ref().map_or(0, Batch::len);
        Some(next.map_err(QuantizeError::from))
    }))
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod transformer;
