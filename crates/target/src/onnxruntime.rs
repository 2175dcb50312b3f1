//! ONNX Runtime on the CPU.
use crate::Target;
use graph::Node;
use ops::Operator;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Manual, Settings};
use tensor::DType;

pub(crate) const MANUAL: Manual = Manual {
    name: "onnxruntime",
    summary: "ONNX Runtime on the processor.",
    details: "Unsigned activations, signed weights with a scale for each output channel. A Relu or Clip is fused into the layer before \
              it where the grid behind it ends at its bounds. What has no integer kernel computes in float and is listed with the reason.",
    source: "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
    example: "target = \"onnxruntime\"",
};

/// Settings of `onnxruntime`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnnxRuntime {}

impl Settings for OnnxRuntime {}

/// Operators that compute and have an integer kernel, or run between quantizers without loss (Pad, Concat).
const ON_INTEGERS: &[&str] = &[
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GlobalAveragePool",
    "LeakyRelu",
    "MatMul",
    "Mul",
    "Pad",
    "Sigmoid",
    "Softmax",
];

/// Reasons for operators that stay float, if there is more to say than that no kernel is known.
const IN_FLOAT: &[(&str, &[&str])] = &[
    ("ONNX Runtime has no static integer kernel for it", &["Attention"]),
    ("interpolation runs in float", &["Resize", "Upsample"]),
    ("its loop over time has no static integer kernel (ONNX Runtime offers dynamic quantization alone)", &["RNN", "GRU", "LSTM"]),
    (
        "statistics of the data are computed in float",
        &[
            "GroupNormalization",
            "InstanceNormalization",
            "LRN",
            "LayerNormalization",
            "LpNormalization",
            "MeanVarianceNormalization",
            "RMSNormalization",
        ],
    ),
];

/// Operators that move or select elements and have a kernel for 8-bit integers, each from a version of the operator set on (ONNX
/// Runtime 1.32, CPU).
const MOVES_INTEGERS: &[(&str, i64)] = &[
    ("DepthToSpace", 13),
    ("Expand", 8),
    ("Flatten", 9),
    ("Gather", 1),
    ("GatherElements", 11),
    ("GatherND", 11),
    ("Identity", 1),
    ("MaxPool", 12),
    ("Reshape", 5),
    ("Resize", 11),
    ("Slice", 10),
    ("Split", 2),
    ("Squeeze", 1),
    ("Tile", 6),
    ("Transpose", 1),
    ("Unsqueeze", 1),
];

/// ONNX Runtime's own operators that its optimizations add: their ONNX names, and whether they take quantized operands by
/// definition. Operators of ONNX, and those with an [`ops::IntegerForm`], are not listed.
const OWN: &[(&str, &str, bool)] = &[
    ("FusedConv", "Conv", false),
    ("NhwcFusedConv", "Conv", false),
    ("NhwcConv", "Conv", false),
    ("ConvInteger", "Conv", true),
    ("FusedGemm", "Gemm", false),
    ("MatMulInteger", "MatMul", true),
    ("MatMulIntegerToFloat", "MatMul", true),
    ("DynamicQuantizeMatMul", "MatMul", true),
    ("MatMulNBits", "MatMul", false),
    ("FusedMatMul", "MatMul", false),
    ("TransposeMatMul", "MatMul", false),
    ("QAttention", "Attention", true),
    ("DynamicQuantizeLSTM", "LSTM", true),
];

impl Target for OnnxRuntime {
    fn runtime(&self) -> &'static str {
        "onnxruntime"
    }

    fn why_float(&self, op: &dyn Operator, _node: &Node) -> Option<&'static str> {
        let name = op.op_type();
        if op.domain().is_empty() && ON_INTEGERS.contains(&name) {
            return None;
        }
        let listed = IN_FLOAT.iter().find(|(_, names)| op.domain().is_empty() && names.contains(&name));
        Some(listed.map_or("no integer kernel is expected for it", |(reason, _)| reason))
    }

    fn moves_integers(&self, op_type: &str, opset: i64) -> bool {
        MOVES_INTEGERS.iter().any(|(name, since)| *name == op_type && opset >= *since)
    }

    /// ONNX Runtime (1.32) makes a QLinearConv of a convolution with uint2 data, and then has no kernel for it.
    fn least_activation_bits(&self) -> u32 {
        4
    }

    /// ONNX Runtime (1.32) computes a Gemm in float if the zero point is left out, while it accepts Conv and MatMul either way.
    fn writes_zero_point(&self, op_type: &str) -> bool {
        op_type == "Gemm"
    }

    /// ONNX Runtime (1.32) computes Cast and Mul of constants when it loads a file, but DequantizeLinear in each run, to find layers on
    /// integers: in front of an LSTM of 256 cells that takes three quarters of the layer's own time. And a product of float data with a
    /// 2-bit weight behind DequantizeLinear becomes its MatMulNBits, whose results are wrong for some numbers of columns (10, for one).
    fn casts_weights(&self, integers: DType, layer: bool) -> bool {
        !layer || integers == DType::I2
    }

    fn sums_in_16_bits(&self) -> bool {
        true
    }

    /// ONNX Runtime (1.32) makes its MatMulNBits of such a product, which rounds the data to 8 bits.
    fn rounds_data(&self, op_type: &str) -> bool {
        op_type == "MatMul"
    }
}

/// The ONNX operator that a node of ONNX Runtime's optimized graph stands for.
pub fn known_as(op_type: &str) -> &str {
    if let Some((_, name, _)) = OWN.iter().find(|(own, ..)| *own == op_type) {
        return name;
    }
    if let Some(form) = ["", "com.microsoft"].iter().find_map(|domain| ops::find(domain, op_type)?.integer_form()) {
        return form.of;
    }
    ["QLinear", "Nhwc"].iter().find_map(|p| op_type.strip_prefix(p)).unwrap_or(op_type)
}

/// True for a node of its optimized graph that takes quantized operands by the operator's definition.
pub fn takes_integers(op_type: &str) -> bool {
    op_type.starts_with("QLinear") || op_type == "QGemm" || OWN.iter().any(|(own, _, integers)| *own == op_type && *integers)
}

/// All operators of ONNX in the tables above.
#[cfg(test)]
pub(crate) fn names() -> Vec<&'static str> {
    let of_reasons = IN_FLOAT.iter().flat_map(|(_, names)| names.iter().copied());
    ON_INTEGERS.iter().copied().chain(of_reasons).chain(MOVES_INTEGERS.iter().map(|(name, _)| *name)).collect()
}
