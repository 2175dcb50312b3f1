//! Formats: how a lowered model is written. One file a format; each gives the file, what stays float in it, and what was done.
pub(crate) mod islands;
mod qdq;
mod qoperator;

pub use qdq::Qdq;
pub use qoperator::QOperator;

use crate::runtime::Source;
use crate::{DeployError, LowerOptions, Lowered, Result};
use graph::Model;
use technique::{Entry, Family, member};

/// A way to write a model to a file.
///
/// It is a type in a file of its own and a line in [`Formats::members`]. `qdq` for runtimes that read nothing below a version of
/// the operator set, whole but for its manual page:
/// ```
/// use espalier_deploy::format::{ExportOptions, Format};
/// use espalier_deploy::{LowerOptions, Lowered, Result, lower};
/// use graph::Model;
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Recent {
///     /// The version that the file has at least.
///     opset: i64,
/// }
/// impl technique::Settings for Recent {}
/// impl Format for Recent {
///     fn lower(&self, model: &Model, options: &LowerOptions) -> Result<Lowered> {
///         let opset = options.opset.unwrap_or(0).max(self.opset);
///         lower(model, &LowerOptions { opset: Some(opset), ..options.clone() })
///     }
/// }
/// let member =
///     technique::member!(Recent as dyn Format, technique::Manual { name: "recent", summary: "", details: "", source: "", example: "" });
/// let format = (member.build)(toml::from_str("opset = 19").unwrap()).unwrap();
/// let file = format.export(&Model::new(17), &ExportOptions::default()).unwrap();
/// assert_eq!(file.lowered.model.onnx_opset(), 19);
/// ```
pub trait Format: Send + Sync {
    /// The lowered model: annotations become operators.
    ///
    /// # Errors
    /// As [`crate::lower`].
    fn lower(&self, model: &Model, options: &LowerOptions) -> Result<Lowered>;

    /// True if its operators scale and round sums themselves, so that runtimes may differ where a result lies halfway between two
    /// integers. Such a file is proved in the reference interpreter, which rounds the exact quotient.
    fn rounds_itself(&self) -> bool {
        false
    }

    /// Writes the lowered model in this format.
    ///
    /// # Errors
    /// As [`Format::lower`]; [`crate::DeployError::Target`] for what the target cannot run; whatever writing the file reports.
    fn export(&self, model: &Model, options: &ExportOptions) -> Result<Artifact> {
        let mut lowered = self.lower(model, &options.lower)?;
        let target = &options.lower.target;
        target.check(&lowered.model, &lowered.float_parts).map_err(|what| DeployError::Target { target: target.kind(), what })?;
        let stripped = if options.exporter_notes { 0 } else { onnx::strip(&mut lowered.model) };
        let bytes = onnx::to_bytes(&lowered.model)?;
        Ok(Artifact { bytes, lowered, stripped })
    }
}

/// How a file is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportOptions {
    /// Target and operator set.
    pub lower: LowerOptions,
    /// Keep what the exporter of the original model noted for itself: stack traces, paths and other doc strings.
    pub exporter_notes: bool,
}

/// Writes a model in the default format for the default target.
///
/// # Errors
/// As [`Format::export`].
pub fn export(model: &Model) -> Result<Artifact> {
    technique::Choice::<Formats>::default().export(model, &ExportOptions::default())
}

/// A file that a runtime loads.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Contents of the deployed file.
    pub bytes: Vec<u8>,
    /// The model in it, with what stays float and what was done.
    pub lowered: Lowered,
    /// Bytes of the original exporter's notes that were left out.
    pub stripped: usize,
}

impl Artifact {
    /// The file as a source for [`crate::runtime::Runtime::load`].
    pub fn source(&self) -> Source<'_> {
        Source::Bytes(&self.bytes)
    }
}

/// The family of formats.
pub struct Formats;

impl Family for Formats {
    type Member = dyn Format;
    const NAME: &'static str = "format";
    const SUMMARY: &'static str = "How the deployed file is written.";
    const DEFAULT: Option<&'static str> = Some("qdq");

    fn members() -> &'static [Entry<dyn Format>] {
        static LIST: &[Entry<dyn Format>] = &[member!(Qdq as dyn Format, qdq::MANUAL), member!(QOperator as dyn Format, qoperator::MANUAL)];
        LIST
    }
}
