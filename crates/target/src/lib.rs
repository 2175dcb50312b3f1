//! Targets: the abilities of the runtimes that files are made for. One file a target.
//!
//! An operator (crate `ops`) describes ONNX: its inputs and their roles, whether it computes, moves or clips elements. A target
//! describes its runtime: what runs on integers, what is fused, which signs and granularities it takes. Quantization plans for
//! the target of the recipe's deploy stage; lowering, and the report of what stays float, use the same one.
mod integer_only;
mod onnxruntime;
mod reference;
mod rule;

pub use integer_only::IntegerOnly;
pub use onnxruntime::{OnnxRuntime, known_as, takes_integers};
pub use reference::Reference;
pub use rule::{FloatPart, QuantRule};

use graph::{Model, Node};
use ops::{Effect, Operator, WeightRule};
use technique::{Entry, Family, member};
use tensor::DType;

/// A runtime that files are made for.
///
/// It is a type in a file of its own and a line in [`Targets::members`]. An accelerator that has int8 kernels for layers and sums
/// alone, whole but for its manual page:
/// ```
/// use espalier_target::{QuantRule, Target};
/// use graph::{Model, Node};
/// use ops::Operator;
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Accelerator {}
/// impl technique::Settings for Accelerator {}
/// impl Target for Accelerator {
///     fn runtime(&self) -> &'static str {
///         "reference"
///     }
///     fn why_float(&self, op: &dyn Operator, _node: &Node) -> Option<&'static str> {
///         let kernel = ["Conv", "Gemm", "MatMul", "Add"].contains(&op.op_type());
///         (!kernel).then_some("the accelerator has no kernel for it")
///     }
///     fn moves_integers(&self, _op_type: &str, _opset: i64) -> bool {
///         true
///     }
///     fn signed_activations(&self) -> bool {
///         true
///     }
/// }
/// let member = technique::member!(
///     Accelerator as dyn Target,
///     technique::Manual { name: "accelerator", summary: "", details: "", source: "", example: "" }
/// );
/// let target = (member.build)(Default::default()).unwrap();
/// let mut model = Model::new(17);
/// let [x, y] = ["x", "y"].map(|name| model.values.add_named(name));
/// let rule = |op_type: &str| target.rule(&Node::new(op_type, "n", &[x], &[y]), &model);
/// assert_eq!(rule("Sigmoid"), QuantRule::Float("the accelerator has no kernel for it"));
/// assert_eq!((rule("Relu"), rule("Transpose")), (QuantRule::FusedActivation, QuantRule::SameGrid));
/// ```
pub trait Target: Send + Sync {
    /// The runtime in which a file for this target is measured, by its name in `deploy::runtime`.
    fn runtime(&self) -> &'static str;

    /// Why a node that computes new numbers stays float; `None` if there is an integer kernel for it.
    fn why_float(&self, op: &dyn Operator, node: &Node) -> Option<&'static str>;

    /// True if its kernel of this operator, which moves or selects elements, also takes 8-bit integers in this version of ONNX's
    /// operator set. Otherwise such a node lies between DequantizeLinear and QuantizeLinear.
    fn moves_integers(&self, op_type: &str, opset: i64) -> bool;

    /// What it does with a node. The same for all targets, except for [`Target::why_float`].
    fn rule(&self, node: &Node, model: &Model) -> QuantRule {
        let Some(op) = ops::find(&node.domain, &node.op_type) else { return QuantRule::Float("the operator is not known") };
        match op.effect(node, model) {
            Effect::Computes { data, weight } => match self.why_float(op, node) {
                None => QuantRule::Integer { data, weight },
                Some(reason) => QuantRule::Float(reason),
            },
            Effect::Moves => QuantRule::SameGrid,
            Effect::Clips => QuantRule::FusedActivation,
            Effect::Normalizes => QuantRule::Float("no runtime has an integer kernel for it"),
            Effect::AlreadyQuantized(reason) | Effect::NotQuantizable(reason) => QuantRule::Float(reason),
        }
    }

    /// True if activations are stored as signed integers.
    fn signed_activations(&self) -> bool {
        false
    }

    /// True if a file may meet processors that add two products of bytes in 16 bits, which saturate: x86 without VNNI.
    fn sums_in_16_bits(&self) -> bool {
        false
    }

    /// Bits of the narrowest integers that layers can read as their data. What has fewer is stored in these, clipped to its own range.
    fn least_activation_bits(&self) -> u32 {
        2
    }

    /// The axis along which a node's weight may have a scale for each index; `None`: one scale for the whole weight.
    fn weight_axis(&self, _node: &Node, rule: &WeightRule) -> Option<usize> {
        rule.axis
    }

    /// True if nodes after the last layer with weights stay float, where quantization saves nothing.
    fn float_tail(&self) -> bool {
        true
    }

    /// The fixed output range of this node's kernel, independent of the data.
    fn fixed_range(&self, _node: &Node) -> Option<(f32, f32)> {
        None
    }

    /// True if an integer weight of this operator needs an explicit zero point, though it is zero.
    fn writes_zero_point(&self, _op_type: &str) -> bool {
        false
    }

    /// True if a weight of these integers that is read in float is better stored behind Cast and Mul than behind DequantizeLinear: the
    /// values are the same. `layer` says that its reader has a kernel on integers, but float data.
    fn casts_weights(&self, _integers: DType, _layer: bool) -> bool {
        false
    }

    /// True if the runtime rounds float data of this operator to 8 bits where its weight of 8 bits and fewer stands behind DequantizeLinear.
    fn rounds_data(&self, _op_type: &str) -> bool {
        false
    }

    /// True if a bias in an Add behind a layer is added to the layer's integer sums.
    fn adds_bias_on_integers(&self) -> bool {
        false
    }

    /// Refuses a model that it cannot run: because of nodes in float, or of a width.
    ///
    /// # Errors
    /// A sentence that names the node or value, the reason and a remedy.
    fn check(&self, _model: &Model, _float_parts: &[FloatPart]) -> Result<(), String> {
        Ok(())
    }
}

/// The family of targets.
pub struct Targets;

impl Family for Targets {
    type Member = dyn Target;
    const NAME: &'static str = "target";
    const SUMMARY: &'static str = "The runtime a file is made for and measured in.";
    const DEFAULT: Option<&'static str> = Some("onnxruntime");

    fn members() -> &'static [Entry<dyn Target>] {
        static LIST: &[Entry<dyn Target>] = &[
            member!(OnnxRuntime as dyn Target, onnxruntime::MANUAL),
            member!(IntegerOnly as dyn Target, integer_only::MANUAL),
            member!(Reference as dyn Target, reference::MANUAL),
        ];
        LIST
    }
}

/// The target that a recipe chose.
pub type Choice = technique::Choice<Targets>;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(target: &dyn Target, op_type: &str) -> QuantRule {
        let mut model = Model::new(17);
        let values: Vec<_> = ["x", "y"].iter().map(|n| model.values.add_named(*n)).collect();
        let node = Node::new(op_type, "n", &values[..1], &values[1..]);
        target.rule(&node, &model)
    }

    #[test]
    fn targets_differ_in_what_they_have_kernels_for() {
        for target in [&OnnxRuntime {} as &dyn Target, &Reference {}] {
            assert_eq!(rule(target, "HardSwish"), QuantRule::Float("no integer kernel is expected for it"));
            assert_eq!(rule(target, "Sigmoid"), QuantRule::Integer { data: vec![0], weight: None });
            let float =
                QuantRule::Float("its loop over time has no static integer kernel (ONNX Runtime offers dynamic quantization alone)");
            assert_eq!(rule(target, "LSTM"), float);
        }
        let target = IntegerOnly {};
        assert_eq!(rule(&target, "HardSwish"), QuantRule::Integer { data: vec![0], weight: None });
        assert_eq!(rule(&target, "LSTM"), QuantRule::Float("there is no int8 kernel for it"));
        assert_eq!((rule(&target, "Relu"), rule(&target, "Transpose")), (QuantRule::FusedActivation, QuantRule::SameGrid));
        assert_eq!(rule(&target, "Nothing"), QuantRule::Float("the operator is not known"));
    }

    /// A misspelt name in a target's table would silently match nothing.
    #[test]
    fn targets_name_known_operators() {
        for (name, known) in onnxruntime::names().into_iter().chain(integer_only::names()).map(|n| (n, ops::find("", n).is_some())) {
            assert!(known, "{name}");
        }
    }

    #[test]
    fn nodes_that_onnx_runtime_puts_in_are_known_by_their_onnx_names() {
        let known: Vec<&str> = ["QLinearConv", "FusedConv", "QGemm", "MatMulIntegerToFloat", "NhwcMaxPool", "Softmax"].map(known_as).into();
        assert_eq!(known, ["Conv", "Conv", "Gemm", "MatMul", "MaxPool", "Softmax"]);
        assert!(takes_integers("QLinearSoftmax") && takes_integers("QGemm") && takes_integers("DynamicQuantizeLSTM"));
        assert!(!takes_integers("FusedConv") && !takes_integers("DynamicQuantizeLinear") && !takes_integers("MatMulNBits"));
    }
}
