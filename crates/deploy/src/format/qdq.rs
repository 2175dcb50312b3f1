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
              optimizations a runtime replaces each operator between quantizers by its own kernel on integers, where it has one.",
    source: "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#onnx-quantization-representation-format",
    example: "format = \"qdq\"",
};

/// The format `qdq`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Qdq {}

impl Settings for Qdq {}

impl Format for Qdq {
    fn lower(&self, model: &Model, options: &LowerOptions) -> Result<Lowered> {
        crate::lower(model, options)
    }
}
