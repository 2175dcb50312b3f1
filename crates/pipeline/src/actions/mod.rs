//! The work of each kind of stage as functions from data and model to model and measurements. The run takes care of stored
//! results, records and the order of stages.
mod calibrate;
mod channels;
mod compress;
mod counted;
mod deploy;
mod diagnose;
mod fit;
mod measure;
mod memory;
mod original;
mod prune;
mod quantize;
mod sources;
mod student;
mod task;
mod widths;

pub use self::prune::{prune_notes, prune_weights};
pub use calibrate::{Calibrated, calibrate};
pub use channels::remove_channels;
pub use compress::{CompressOn, Compressed, Compression};
pub use counted::Tick;
pub use deploy::{DeployOn, Deployment, deploy, export_options, exported};
pub use diagnose::{Apply, Change, Diagnose, Diagnosed, TryBudget};
pub use fit::{FitOptions, fit};
pub use measure::{figures, keep, layers, score, weigh};
pub use memory::MemoryProbe;
pub use original::Original;
pub use quantize::{settle_biases, settle_norms, stay_float};
pub use sources::{Rows, Sources};
pub use student::student;
pub use task::{metric_record, task_record};
pub use widths::{FoundPlan, sensitivities};
