//! Candidates that a removal of channels was chosen among.
use crate::text;
use serde::{Deserialize, Serialize};

/// A network with fewer channels, as the file that it would be deployed as.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CutRecord {
    /// Share of the multiply-accumulates that is gone, 0..1.
    pub macs: f64,
    /// Share of the parameters that is gone, 0..1.
    pub parameters: f64,
    /// Channels that are gone.
    pub channels: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes of the uncut network's file.
    pub whole_bytes: u64,
    /// Milliseconds of one run of its file, the median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
    /// Milliseconds of one run of the uncut network's file, run in turn with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_ms: Option<f64>,
    /// The runtime that ran them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// It meets what was asked for.
    pub meets: bool,
    /// It was taken.
    pub chosen: bool,
}

impl CutRecord {
    /// Its figures, as the end of a sentence.
    pub fn told(&self) -> String {
        let Self { channels, bytes, whole_bytes, .. } = self;
        let (macs, parameters) = (text::percent(self.macs), text::percent(self.parameters));
        let size = format!("a file of {} in place of {}", text::bytes(*bytes), text::bytes(*whole_bytes));
        let time = match (self.ms, self.whole_ms, &self.runtime) {
            (Some(ms), Some(whole), Some(runtime)) => {
                format!(", {ms:.3} ms a run in {runtime} in place of {whole:.3} ms ({} less)", text::percent(1.0 - ms / whole))
            }
            _ => String::new(),
        };
        format!("{channels} channels less, {macs} of the MACs and {parameters} of the parameters; {size}{time}")
    }
}
