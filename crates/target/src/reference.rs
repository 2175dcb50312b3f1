//! The reference interpreter.
use crate::{OnnxRuntime, Target};
use graph::Node;
use ops::Operator;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use technique::{Manual, Settings};
use tensor::DType;

pub(crate) const MANUAL: Manual = Manual {
    name: "reference",
    summary: "Espalier's own interpreter, which runs everything literally.",
    details: "The file is the one for ONNX Runtime; only the runtime that measures it is another. For widths that ONNX Runtime does not \
              take (2-bit weights), and where it is not installed.",
    source: "",
    example: "target = \"reference\"",
};

/// Settings of `reference`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reference {}

impl Settings for Reference {}

impl Target for Reference {
    fn runtime(&self) -> &'static str {
        "reference"
    }

    fn why_float(&self, op: &dyn Operator, node: &Node) -> Option<&'static str> {
        OnnxRuntime {}.why_float(op, node)
    }

    fn moves_integers(&self, op_type: &str, opset: i64) -> bool {
        OnnxRuntime {}.moves_integers(op_type, opset)
    }

    fn writes_zero_point(&self, op_type: &str) -> bool {
        OnnxRuntime {}.writes_zero_point(op_type)
    }

    fn casts_weights(&self, integers: DType, layer: bool) -> bool {
        OnnxRuntime {}.casts_weights(integers, layer)
    }
}
