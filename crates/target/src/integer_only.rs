//! Microcontrollers without floating point: TensorFlow Lite Micro, CMSIS-NN and their like.
use crate::{FloatPart, OnnxRuntime, QuantRule, Target};
use graph::{Model, Node, ValueId};
use ops::{Operator, WeightRule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use technique::{Manual, Settings};
use tensor::DType;

pub(crate) const MANUAL: Manual = Manual {
    name: "integer_only",
    summary: "For microcontrollers: signed int8 throughout, nothing in float but the input's quantizer and the output's dequantizer.",
    details: "Activations: int8 in -128..127, one scale and zero point a tensor. Weights: int8 in -127..127, zero point 0; a scale for each \
              output channel in convolutions, one scale in fully connected layers (Gemm, MatMul). Biases: int32, scale = that of the data \
              times that of the weight. Softmax and Sigmoid give 0..255/256 (scale 1/256, zero point -128), Tanh -1..127/128. Also what \
              follows the last layer is quantized. What has no int8 kernel is refused before anything is trained. The file is measured in \
              ONNX Runtime.",
    source: "TensorFlow Lite 8-bit quantization specification, https://www.tensorflow.org/lite/performance/quantization_spec",
    example: "target = \"integer_only\"",
};

/// Settings of `integer_only`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IntegerOnly {}

impl Settings for IntegerOnly {}

/// Operators that compute and have an int8 kernel.
const ON_INTEGERS: &[&str] = &[
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GlobalAveragePool",
    "HardSwish",
    "LeakyRelu",
    "MatMul",
    "Mul",
    "Pad",
    "Sigmoid",
    "Softmax",
    "Sub",
    "Tanh",
];

/// Layers whose kernels take one scale for the whole weight.
const FULLY_CONNECTED: &[&str] = &["Gemm", "MatMul"];

/// Most float nodes to name in the error.
const NAMED: usize = 3;

impl IntegerOnly {
    /// A layer whose weight is decoded by other nodes than DequantizeLinear (a table), and that weight.
    fn decoded(&self, model: &Model) -> Option<(String, String)> {
        let mut made_by: HashMap<ValueId, &Node> = HashMap::new();
        model.graph.visit(&mut |node| made_by.extend(node.outputs.iter().flatten().map(|v| (*v, node))));
        // Back through nodes that only move elements.
        let source = |value: ValueId| {
            let mut node = *made_by.get(&value)?;
            while self.rule(node, model) == QuantRule::SameGrid {
                node = made_by.get(&node.input(0)?)?;
            }
            Some(node.op_type.as_str())
        };
        let mut found = None;
        model.graph.visit(&mut |node| {
            let QuantRule::Integer { weight: Some(rule), .. } = self.rule(node, model) else { return };
            let Some(weight) = node.input(rule.input) else { return };
            if source(weight) != Some("DequantizeLinear") {
                found.get_or_insert_with(|| (node.label(&model.values), model.values[weight].name.clone()));
            }
        });
        found
    }
}

impl Target for IntegerOnly {
    fn runtime(&self) -> &'static str {
        "onnxruntime"
    }

    fn why_float(&self, op: &dyn Operator, node: &Node) -> Option<&'static str> {
        if !op.domain().is_empty() || !ON_INTEGERS.contains(&op.op_type()) {
            return Some("there is no int8 kernel for it");
        }
        let axes = node.ints_or("kernel_shape", vec![]).map_or(0, |k| k.len());
        (axes > 2).then_some("there is an int8 kernel for one and two spatial axes alone")
    }

    fn moves_integers(&self, op_type: &str, opset: i64) -> bool {
        OnnxRuntime {}.moves_integers(op_type, opset)
    }

    fn signed_activations(&self) -> bool {
        true
    }

    fn weight_axis(&self, node: &Node, rule: &WeightRule) -> Option<usize> {
        rule.axis.filter(|_| !FULLY_CONNECTED.contains(&node.op_type.as_str()))
    }

    fn float_tail(&self) -> bool {
        false
    }

    fn fixed_range(&self, node: &Node) -> Option<(f32, f32)> {
        match node.op_type.as_str() {
            "Softmax" | "Sigmoid" if node.is_onnx() => Some((0.0, 255.0 / 256.0)),
            "Tanh" if node.is_onnx() => Some((-1.0, 127.0 / 128.0)),
            _ => None,
        }
    }

    /// All operators: converters then need not know what an absent zero point means, and ONNX Runtime turns MatMul and Add into a
    /// Gemm.
    fn writes_zero_point(&self, _op_type: &str) -> bool {
        true
    }

    fn adds_bias_on_integers(&self) -> bool {
        true
    }

    fn check(&self, model: &Model, float_parts: &[FloatPart]) -> Result<(), String> {
        let mut wide = None;
        let mut quantizers = 0;
        model.graph.visit(&mut |node| {
            let Some(stored) = node.input(0).filter(|_| node.is_onnx() && node.op_type == "DequantizeLinear") else { return };
            quantizers += 1;
            let tensor = |v| model.values.tensor(v).map(|t| t.dtype());
            let dtype = node.input(2).and_then(tensor).or_else(|| tensor(stored)).or_else(|| model.values[stored].dtype());
            if let Some(dtype) = dtype.filter(|d| !matches!(d, DType::I8 | DType::I32)) {
                wide.get_or_insert_with(|| (node.output(0).map(|v| model.values[v].name.clone()).unwrap_or_default(), dtype));
            }
        });
        if quantizers == 0 {
            return Err("nothing in the model is quantized, and this target computes nothing in float: put a quantize stage before".into());
        }
        if !float_parts.is_empty() {
            let list: Vec<String> = float_parts.iter().take(NAMED).map(|p| format!("{} '{}' ({})", p.op_type, p.node, p.reason)).collect();
            let more = if float_parts.len() > NAMED { format!(" and {} more", float_parts.len() - NAMED) } else { String::new() };
            return Err(format!(
                "it computes nothing in float, and these nodes would: {}{more}; use operators that it has int8 kernels for ({}), take \
                 them out of skip, or choose target = \"onnxruntime\"",
                list.join("; "),
                ON_INTEGERS.join(", ")
            ));
        }
        if let Some((node, weight)) = self.decoded(model) {
            return Err(format!(
                "the weight '{weight}' of '{node}' is decoded to floats by other operators than DequantizeLinear, and it takes int8 \
                 alone: store it on a uniform grid of 8 bits"
            ));
        }
        match wide {
            Some((value, dtype)) => Err(format!(
                "'{value}' is stored as {dtype}, and it takes int8 alone: set bits = 8 for weights and activations, and name this target \
                 in the deploy stage before the model is quantized"
            )),
            None => Ok(()),
        }
    }
}

/// All operators of ONNX in the table above.
#[cfg(test)]
pub(crate) fn names() -> Vec<&'static str> {
    ON_INTEGERS.to_vec()
}
