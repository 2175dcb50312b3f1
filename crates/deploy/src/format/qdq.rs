//! `qdq`: float operators between QuantizeLinear and DequantizeLinear.
use super::Format;
use crate::{LowerOptions, Lowered, Result};
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Manual, Settings};

pub(crate) const MANUAL: Manual = Manual {
    name: "qdq",
    summary: "Float operators between QuantizeLinear and DequantizeLinear; the runtime fuses them into integer kernels.",
    details: "The form that most runtimes read. In literal arithmetic it computes what the simulation computed; with its default \
              optimizations a runtime replaces each operator between quantizers by its own kernel on integers, where it has one.\n\
              Where weights alone are stored (activations = false), decode_once = true makes the file as fast as the float one: the \
              weights are decoded when the file is loaded, and take the memory of floats from then on.",
    source: "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#onnx-quantization-representation-format",
    example: "format = \"qdq\"\n# or: format = { kind = \"qdq\", decode_once = true }",
};

/// The format `qdq`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Qdq {
    /// Stores integer weights that are read in float behind Cast and Mul, which the runtime computes when it loads the file; false: layers
    /// with float data have theirs behind DequantizeLinear, which ONNX Runtime computes in each run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decode_once: bool,
}

impl Settings for Qdq {}

impl Format for Qdq {
    fn lower(&self, model: &Model, options: &LowerOptions) -> Result<Lowered> {
        crate::lower(model, &LowerOptions { decode_once: options.decode_once || self.decode_once, ..options.clone() })
    }
}
