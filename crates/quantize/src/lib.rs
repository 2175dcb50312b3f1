//! Chooses which values are quantized and fits their grids: [`plan`] walks the graph by its operators' rules, observers
//! watch activations on calibration data in bounded memory, and [`quantize`] writes the annotations.
mod activations;
mod bias;
mod calibrate;
mod corrections;
pub mod diagnosis;
mod division;
mod earlier;
mod error;
mod keep;
mod layers;
mod masks;
pub mod mixed;
pub mod observer;
mod plan;
mod processor_safe;
mod reads;
mod rules;
mod scales;
mod settings;
mod shared;
mod sums;
mod tail;
mod weights;

pub use activations::{ActivationKind, ActivationSettings};
pub use bias::{BiasPart, refresh_biases};
pub use calibrate::{ActivationRange, CalibrationReport, Observations, fit, observe, prepare, quantize};
pub use corrections::{
    AdaRound, BiasCorrection, BlockReconstruction, ChannelMean, ChannelPeak, Collector, Correction, CorrectionContext, CorrectionInput,
    CorrectionReport, Corrections, Equalize, Form, Gptq, Phase, RateDistortion, RoundingOrder, Samples, SmoothQuant, Want, correct,
};
pub use earlier::{Earlier, keep_earlier};
pub use error::{QuantizeError, Result};
pub use keep::{fold_kept, keep_norms};
pub use layers::{Decider, LayerPart};
pub use observer::{Chosen, Observer, Observers, choose};
pub use plan::{QuantPlan, StoredConstant, plan};
pub use rules::{Position, Rule, check_skip};
pub use settings::QuantizeSettings;
pub use sums::SumPart;
pub use target::FloatPart;
