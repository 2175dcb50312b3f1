//! Chooses which values are quantized and fits their grids: [`plan`] walks the graph by its operators' rules, observers
//! watch activations on calibration data in bounded memory, and [`quantize`] writes the annotations.
mod activations;
mod auto;
mod bias;
mod calibrate;
mod division;
mod earlier;
mod error;
mod keep;
mod masks;
pub mod observer;
mod plan;
mod rules;
mod scales;
mod settings;
mod shared;
mod sums;
mod tail;
mod weights;

pub use activations::{ActivationKind, ActivationSettings};
pub use auto::{AUTO, Choice, choose};
pub use bias::{BiasPart, refresh_biases};
pub use calibrate::{ActivationRange, Calibration, CalibrationReport, fit, observe, prepare, quantize};
pub use earlier::{Earlier, keep_earlier};
pub use error::{QuantizeError, Result};
pub use keep::{fold_kept, keep_norms};
pub use plan::{FloatPart, QuantPlan, StoredConstant, plan};
pub use rules::{Position, Rule, check_skip};
pub use settings::{ObserverSettings, QuantizeSettings};
pub use sums::SumPart;
pub use weights::refit_weights;
