//! `qoperator`: operators on integers (QLinearConv, QLinearMatMul and their kin).
use super::{Format, islands};
use crate::{LowerOptions, Lowered, Result};
use graph::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Manual, Settings};

pub(crate) const MANUAL: Manual = Manual {
    name: "qoperator",
    summary: "Operators on integers (QLinearConv, QLinearMatMul and their kin), where there are such; the rest between quantizers.",
    details: "An operator whose inputs and output lie on 8-bit grids becomes its counterpart on integers: y = clip(round(acc * sx * sw / \
              sy) + zy), acc the exact int32 sum, bias included. What has no counterpart in ONNX or com.microsoft, or does not fit it \
              (weights of 4 bits, an activation that the grid does not cover), stays a float operator between DequantizeLinear and \
              QuantizeLinear, and is listed. For runtimes that do not fuse quantizers, and where nothing should be left to fusion. It \
              rounds halves after a product of scales, so single elements may be a step away from the simulation.",
    source: "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#onnx-quantization-representation-format",
    example: "format = \"qoperator\"",
};

/// The oldest operator set that is written: scales along an axis, and MaxPool on integers.
const OPSET: i64 = 13;

/// The format `qoperator`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QOperator {}

impl Settings for QOperator {}

impl Format for QOperator {
    fn rounds_itself(&self) -> bool {
        true
    }

    fn lower(&self, model: &Model, options: &LowerOptions) -> Result<Lowered> {
        let quantized = model.annotations.iter().any(|(_, a)| a.encoding.is_some());
        let raised = quantized && options.opset.unwrap_or(model.onnx_opset()) < OPSET;
        let opset = if raised { Some(OPSET) } else { options.opset };
        let mut lowered = crate::lower(model, &LowerOptions { opset, ..options.clone() })?;
        let (replaced, left) = islands::merge(&mut lowered.model, &**options.target.member())?;
        if quantized {
            lowered.notes.push(format!("format qoperator: {replaced} operators are written as operators on integers"));
        }
        for part in left {
            if lowered.float_parts.iter().all(|known| known.node != part.node) {
                lowered.float_parts.push(part);
            }
        }
        Ok(lowered)
    }
}
