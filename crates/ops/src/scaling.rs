//! How a positive factor for each channel of a value passes through nodes: which layers can take it into their weights, and which
//! nodes pass it on.
use crate::{Effect, Role, clip_bounds, find};
use graph::{Dim, Model, Node, ValueId, ValueType};
use std::collections::HashMap;
use tensor::{DType, Tensor};

/// The axis of a value's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelAxis {
    /// The second: convolutions.
    Second,
    /// The last: matrix products.
    Last,
}

/// A layer whose weight's elements each belong to one input channel and one output channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerChannels {
    /// Input index of the weight.
    pub weight: usize,
    /// Input index of the bias, if the operator takes one, also where it is omitted.
    pub bias: Option<usize>,
    /// The axis of the channels of data and result.
    pub at: ChannelAxis,
    /// The weight's axis that counts output channels (of one group, if `groups_by_input`).
    pub(crate) output: usize,
    /// The weight's axis that counts input channels (of one group, unless `groups_by_input`).
    input: usize,
    groups: usize,
    pub(crate) groups_by_input: bool,
}

impl LayerChannels {
    /// For a node of ONNX's convolutions and matrix products, with a weight of this shape; `None` for other nodes, and if the
    /// shape or the attributes do not fit the operator.
    pub fn of(node: &Node, weight: &[usize]) -> Option<LayerChannels> {
        let groups = || usize::try_from(node.int_or("group", 1).ok()?).ok().filter(|g| *g > 0);
        let flag = |name: &str| node.int_or(name, 0).is_ok_and(|v| v != 0);
        let plain =
            LayerChannels { weight: 1, bias: Some(2), at: ChannelAxis::Second, output: 0, input: 1, groups: 1, groups_by_input: false };
        let (layer, ranks) = match node.op_type.as_str() {
            _ if !node.is_onnx() => return None,
            "Conv" => (LayerChannels { groups: groups()?, ..plain }, 3..=usize::MAX),
            "ConvTranspose" => (LayerChannels { groups: groups()?, output: 1, input: 0, groups_by_input: true, ..plain }, 3..=usize::MAX),
            "Gemm" if flag("transA") => return None,
            "Gemm" if flag("transB") => (LayerChannels { at: ChannelAxis::Last, ..plain }, 2..=2),
            "Gemm" => (LayerChannels { at: ChannelAxis::Last, output: 1, input: 0, ..plain }, 2..=2),
            "MatMul" => (LayerChannels { at: ChannelAxis::Last, output: 1, input: 0, bias: None, ..plain }, 2..=2),
            _ => return None,
        };
        let grouped = if layer.groups_by_input { layer.input } else { layer.output };
        (ranks.contains(&weight.len()) && weight[grouped].is_multiple_of(layer.groups)).then_some(layer)
    }

    /// The weight's axis that counts output channels; `None` where it counts those of one group only.
    pub fn output_axis(&self) -> Option<usize> {
        (!self.groups_by_input || self.groups == 1).then_some(self.output)
    }

    /// The weight's axis that counts input channels (of one group, except in a transposed convolution).
    pub fn input_axis(&self) -> usize {
        self.input
    }

    /// Number of groups of channels that are computed by themselves.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Number of input and output channels of a weight of this shape.
    pub fn counts(&self, weight: &[usize]) -> (usize, usize) {
        let (inputs, outputs) = (weight[self.input], weight[self.output]);
        if self.groups_by_input { (inputs, outputs * self.groups) } else { (inputs * self.groups, outputs) }
    }

    /// Calls `f` with position, input channel and output channel of each element of a weight of this shape, in order.
    pub fn each(&self, weight: &[usize], mut f: impl FnMut(usize, usize, usize)) {
        let stride = |axis: usize| weight[axis + 1..].iter().product::<usize>().max(1);
        let (of_input, of_output) = (stride(self.input), stride(self.output));
        let group = |i: usize, axis: usize| i / (weight[axis] / self.groups).max(1);
        for at in 0..weight.iter().product() {
            let (i, o) = (at / of_input % weight[self.input], at / of_output % weight[self.output]);
            match self.groups_by_input {
                true => f(at, i, group(i, self.input) * weight[self.output] + o),
                false => f(at, group(o, self.output) * weight[self.input] + i, o),
            }
        }
    }
}

/// What a node does with a positive factor for each channel of its input.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// A layer: its weight can absorb the factor, and its result can get another one.
    Layer(LayerChannels),
    /// The result has the factor of all of these inputs, which must be the same. Other inputs are constants without influence on
    /// it.
    Passes {
        /// Inputs that must have the same factors.
        data: Vec<usize>,
        /// True if the node needs channels along the second axis.
        second: bool,
    },
    /// A constant is added, which must have the factor too.
    Offset {
        /// Index of the other input.
        data: usize,
        /// Value of the constant operand.
        constant: ValueId,
    },
    /// The axes from the second on become one: each channel becomes a run of neighbouring elements.
    Flattens,
    /// Clips each element between zero and this bound: a factor passes only if the bound is scaled too.
    Clips(f32),
    /// Another function: no factor passes.
    Stops,
}

/// What a node of this model does with a positive factor for each channel. An initializer counts as a constant here, also if the
/// graph has an input of its name.
pub fn scaling(model: &Model, node: &Node) -> Scaling {
    if !node.is_onnx() {
        return Scaling::Stops;
    }
    let constant = |i: usize| node.input(i).filter(|v| model.values.tensor(*v).is_some_and(|t| t.dtype() == DType::F32));
    let passes = |data: &[usize], second: bool| Scaling::Passes { data: data.to_vec(), second };
    match node.op_type.as_str() {
        "Conv" | "ConvTranspose" | "Gemm" | "MatMul" => {
            let shape = constant(1).and_then(|w| model.values.tensor(w)).map(|t| t.shape().to_vec());
            shape.and_then(|shape| LayerChannels::of(node, &shape)).map_or(Scaling::Stops, Scaling::Layer)
        }
        "Relu" | "LeakyRelu" | "Identity" | "Dropout" => passes(&[0], false),
        "PRelu" if constant(1).is_some() => passes(&[0], false),
        "MaxPool" if node.output(1).is_none() => passes(&[0], true),
        "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" => passes(&[0], true),
        "Flatten" if node.int_or("axis", 1) == Ok(1) => Scaling::Flattens,
        "Add" | "Mul" => match (constant(0), constant(1)) {
            (None, None) if node.op_type == "Add" => passes(&[0, 1], false),
            (None, Some(_)) if node.op_type == "Mul" => passes(&[0], false),
            (Some(_), None) if node.op_type == "Mul" => passes(&[1], false),
            (None, Some(constant)) => Scaling::Offset { data: 0, constant },
            (Some(constant), None) => Scaling::Offset { data: 1, constant },
            _ => Scaling::Stops,
        },
        "Clip" => match clip_bounds(model, node) {
            Some((0.0, high)) if high > 0.0 => Scaling::Clips(high),
            _ => Scaling::Stops,
        },
        _ => Scaling::Stops,
    }
}

/// Constants by which a node multiplies and shifts each channel of its first output: the node can take a factor for each channel into
/// them, whatever it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelConstants {
    /// The factors, one for each channel.
    pub scale: ValueId,
    /// The shifts, as many.
    pub shift: Option<ValueId>,
    /// The axis of the channels.
    pub at: ChannelAxis,
}

/// The constants of a normalization, or the constant along the last axis of a Mul; `None` for other nodes, and where a constant is
/// missing or has not one f32 for each channel.
pub fn channel_constants(model: &Model, node: &Node) -> Option<ChannelConstants> {
    let float = |i: usize| {
        let value = node.input(i)?;
        Some((value, model.values.tensor(value).filter(|t| t.dtype() == DType::F32)?))
    };
    let op = find(&node.domain, &node.op_type)?;
    if op.role(node, 1) == Role::NormScale && op.role(node, 2) == Role::NormBias {
        let at = match node.op_type.as_str() {
            "LayerNormalization" | "RMSNormalization" => ChannelAxis::Last,
            _ => ChannelAxis::Second,
        };
        let (scale, factors) = float(1).filter(|(_, t)| t.rank() == 1)?;
        let shift = match node.input(2) {
            Some(_) => Some(float(2).filter(|(_, t)| t.shape() == factors.shape())?.0),
            None => None,
        };
        return Some(ChannelConstants { scale, shift, at });
    }
    if node.op_type != "Mul" || !node.is_onnx() {
        return None;
    }
    let along_last = |t: &Tensor| t.len() > 1 && t.shape().last() == Some(&t.len());
    match (float(0), float(1)) {
        (None, Some((scale, t))) | (Some((scale, t)), None) if along_last(t) => {
            Some(ChannelConstants { scale, shift: None, at: ChannelAxis::Last })
        }
        _ => None,
    }
}

/// True for a node with one result that only moves elements, and leaves those along the last axis of its first input together and in
/// their order. `types`: those of [`crate::infer_types`]; `channels`: size of that axis.
pub fn keeps_last_axis(model: &Model, node: &Node, types: &HashMap<ValueId, ValueType>, channels: usize) -> bool {
    let moves = find(&node.domain, &node.op_type).is_some_and(|op| op.effect(node, model) == Effect::Moves);
    if !moves || node.outputs.iter().flatten().count() != 1 {
        return false;
    }
    let shape = |value: Option<ValueId>| match types.get(&value?) {
        Some(ValueType::Tensor { shape: Some(shape), .. }) => Some(shape),
        _ => None,
    };
    match node.op_type.as_str() {
        // The order of all elements stays.
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
            shape(node.output(0)).is_some_and(|s| s.last().and_then(Dim::known) == Some(channels))
        }
        "Transpose" => node.ints_or("perm", vec![]).is_ok_and(|perm| perm.last() == Some(&(perm.len() as i64 - 1))),
        "Gather" => {
            let last = |rank: usize, axis: i64| axis == -1 || axis == rank as i64 - 1;
            shape(node.input(0)).zip(node.int_or("axis", 0).ok()).is_some_and(|(s, axis)| !last(s.len(), axis))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::AttributeValue;

    fn pairs(node: &Node, shape: &[usize]) -> Vec<(usize, usize)> {
        let layer = LayerChannels::of(node, shape).unwrap();
        let mut out = vec![];
        layer.each(shape, |at, i, o| {
            assert_eq!(at, out.len());
            out.push((i, o));
        });
        out
    }

    #[test]
    fn each_element_of_a_weight_belongs_to_one_channel_of_either_side() {
        let conv = Node::new("Conv", "", &[], &[]);
        assert_eq!(pairs(&conv, &[2, 2, 1]), [(0, 0), (1, 0), (0, 1), (1, 1)]);
        let grouped = |op: &str| Node::new(op, "", &[], &[]).with("group", AttributeValue::Int(2));
        // Two filters for each of two channels.
        assert_eq!(pairs(&grouped("Conv"), &[4, 1, 1]), [(0, 0), (0, 1), (1, 2), (1, 3)]);
        assert_eq!(pairs(&grouped("ConvTranspose"), &[2, 2, 1]), [(0, 0), (0, 1), (1, 2), (1, 3)]);
        assert_eq!(LayerChannels::of(&grouped("Conv"), &[4, 3, 1]).unwrap().counts(&[4, 3, 1]), (6, 4));
        assert_eq!(LayerChannels::of(&grouped("ConvTranspose"), &[4, 3, 1]).unwrap().counts(&[4, 3, 1]), (4, 6));
        let gemm = Node::new("Gemm", "", &[], &[]);
        assert_eq!(pairs(&gemm, &[2, 3])[..4], [(0, 0), (0, 1), (0, 2), (1, 0)]);
        let turned = gemm.with("transB", AttributeValue::Int(1));
        assert_eq!(pairs(&turned, &[2, 3])[..4], [(0, 0), (1, 0), (2, 0), (0, 1)]);
        assert_eq!(LayerChannels::of(&conv, &[2, 2]), None);
        assert_eq!(LayerChannels::of(&grouped("Conv"), &[3, 1, 1]), None);
    }

    #[test]
    fn only_moves_that_leave_the_last_axis_whole_keep_it() {
        let mut m = Model::new(17);
        let typed = |m: &mut Model, name: &str, dims: &[usize]| {
            let v = m.values.add_named(name);
            let shape = Some(dims.iter().map(|d| Dim::Known(*d)).collect());
            m.values[v].ty = ValueType::Tensor { dtype: DType::F32, shape };
            v
        };
        let (x, joined, heads, one) = (
            typed(&mut m, "x", &[2, 6, 8]),
            typed(&mut m, "joined", &[12, 8]),
            typed(&mut m, "heads", &[2, 6, 4, 2]),
            typed(&mut m, "one", &[2, 8]),
        );
        let types: HashMap<ValueId, ValueType> = m.values.iter().map(|(id, v)| (id, v.ty.clone())).collect();
        let turned = |perm: &[i64]| Node::new("Transpose", "", &[x], &[joined]).with("perm", AttributeValue::Ints(perm.to_vec()));
        let taken = |axis: i64| Node::new("Gather", "", &[x, one], &[one]).with("axis", AttributeValue::Int(axis));
        for (node, keeps) in [
            (Node::new("Reshape", "", &[x], &[joined]), true),
            (Node::new("Reshape", "", &[x], &[heads]), false),
            (turned(&[1, 0, 2]), true),
            (turned(&[0, 2, 1]), false),
            (Node::new("Transpose", "", &[x], &[joined]), false),
            (taken(1), true),
            (taken(2), false),
            (taken(-1), false),
            (Node::new("Relu", "", &[x], &[joined]), false),
            (Node::new("Split", "", &[x], &[joined, one]), false),
        ] {
            assert_eq!(keeps_last_axis(&m, &node, &types, 8), keeps, "{node:?}");
        }
    }

    #[test]
    fn constants_of_channels_are_those_of_normalizations_and_of_products_along_the_last_axis() {
        let mut m = Model::new(17);
        let x = m.values.add_named("x");
        let mut constant = |name: &str, shape: &[usize]| m.values.add_constant(name, Tensor::full(1f32, shape.to_vec()).unwrap());
        let (scale, shift, short, row, column, one) = (
            constant("scale", &[8]),
            constant("shift", &[8]),
            constant("short", &[4]),
            constant("row", &[1, 1, 8]),
            constant("column", &[8, 1]),
            constant("one", &[1]),
        );
        let at = |op: &str, inputs: &[ValueId]| channel_constants(&m, &Node::new(op, "", inputs, &[])).map(|c| (c.scale, c.shift, c.at));
        assert_eq!(at("LayerNormalization", &[x, scale, shift]), Some((scale, Some(shift), ChannelAxis::Last)));
        assert_eq!(at("RMSNormalization", &[x, scale]), Some((scale, None, ChannelAxis::Last)));
        assert_eq!(at("InstanceNormalization", &[x, scale, shift]), Some((scale, Some(shift), ChannelAxis::Second)));
        assert_eq!(at("LayerNormalization", &[x, scale, short]), None);
        assert_eq!(at("LayerNormalization", &[x, x]), None);
        assert_eq!(at("Mul", &[row, x]), Some((row, None, ChannelAxis::Last)));
        for other in [column, one] {
            assert_eq!(at("Mul", &[x, other]), None);
        }
        assert_eq!((at("PRelu", &[x, scale]), at("Add", &[x, scale])), (None, None));
    }
}
