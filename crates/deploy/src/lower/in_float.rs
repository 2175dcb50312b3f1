//! Weights of integers that are read in float alone.
use super::LowerOptions;
use encodings::Decode;
use encodings::affine::AffineSettings;
use graph::{Model, Node, ValueId};
use ops::Role;
use std::collections::BTreeSet;
use target::{QuantRule, Target};
use tensor::DType;

/// The encoded weights that the target or the options want behind Cast and Mul, as all their readers compute in float: operators without
/// a kernel on integers, embeddings whose rows have a scale each, and layers whose data are float.
pub(super) fn find(model: &Model, options: &LowerOptions) -> BTreeSet<ValueId> {
    let target = &**options.target.member();
    let (mut float, mut other) = (BTreeSet::new(), BTreeSet::new());
    model.graph.visit(&mut |node| {
        for (i, id) in node.inputs.iter().enumerate().filter_map(|(i, id)| Some((i, (*id)?))) {
            if let Some((integers, blocks)) = integers(model, id) {
                let layer = reader(model, node, i, target, blocks);
                let product = target.rounds_data(&node.op_type);
                let once = |(layer, kept): (bool, bool)| match kept {
                    true => product && target.casts_weights(integers, layer),
                    false => options.decode_once || target.casts_weights(integers, layer),
                };
                if layer.is_some_and(once) { &mut float } else { &mut other }.insert(id);
            }
        }
    });
    &float - &other
}

/// The type of a constant's stored integers, and whether blocks of them have a scale each.
fn integers(model: &Model, id: ValueId) -> Option<(DType, bool)> {
    model.values.tensor(id)?;
    match encodings::decode(model.annotations.encoding(id)?) {
        Ok(Decode::Affine { zero_point, blocks, .. }) => Some((zero_point.dtype(), blocks.is_some())),
        _ => None,
    }
}

/// Whether the node that reads a weight in float is a layer with a kernel on integers, and whether its data are quantized; `None` if it does
/// not read it as a weight in float. With a scale for each block no kernel sums up integers, so such a weight is always read in float; but in
/// front of quantized data ONNX Runtime would quantize its decoded form anew, so there it stays behind DequantizeLinear.
fn reader(model: &Model, node: &Node, input: usize, target: &dyn Target, blocks: bool) -> Option<(bool, bool)> {
    let weight = ops::find(&node.domain, &node.op_type).is_some_and(|op| op.role(node, input) == Role::Weight);
    let encoding = |v| model.annotations.encoding(v);
    match target.rule(node, model) {
        _ if !weight => None,
        QuantRule::Float(_) => Some((false, false)),
        QuantRule::SameGrid => {
            let by_row = node.input(input).and_then(encoding).is_some_and(|e| e.settings.contains_key("axis"));
            (blocks || by_row).then_some((false, false))
        }
        QuantRule::Integer { data, .. } => {
            let data: Vec<_> = data.iter().filter(|i| **i != input).filter_map(|i| node.input(*i)).filter_map(encoding).collect();
            let wide = data.iter().any(|e| AffineSettings::of(e).is_ok_and(|s| s.bits > 8));
            // Wide data that the runtime's product would round to 8 bits.
            if wide && target.rounds_data(&node.op_type) {
                return Some((false, false));
            }
            (blocks || data.is_empty()).then_some((true, !data.is_empty()))
        }
        QuantRule::FusedActivation => None,
    }
}
