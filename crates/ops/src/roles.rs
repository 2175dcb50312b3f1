//! Roles of inputs that depend on the graph around the node: a constant in an Add.
//!
//! After a layer it is the layer's bias (many exporters write a fully connected layer as MatMul and Add); after an embedding or
//! the patches of an image, with further layers after it, it is a table of positions. Everywhere else (a mask on attention
//! scores, anchors of a detector, an epsilon) it is a constant. All other roles are defined by the operators.
use crate::{Role, find};
use graph::{Graph, Model, Node, ValueId};
use std::collections::{HashMap, HashSet};
use tensor::DType;

/// How many nodes back the origin of the data is searched.
const FARTHEST: usize = 16;

/// The roles of a model's inputs.
pub struct Roles<'m> {
    model: &'m Model,
    makers: HashMap<ValueId, &'m Node>,
    /// Values that reach a later layer or normalization, directly or through other nodes.
    leads: HashSet<ValueId>,
}

impl<'m> Roles<'m> {
    /// For a model, subgraphs included. Its functions should have been inlined.
    pub fn of(model: &'m Model) -> Self {
        let mut roles = Roles { model, makers: HashMap::new(), leads: HashSet::new() };
        roles.collect(&model.graph);
        roles
    }

    fn collect(&mut self, graph: &'m Graph) {
        for node in &graph.nodes {
            node.subgraphs().for_each(|g| self.collect(g));
            self.makers.extend(node.outputs.iter().flatten().map(|v| (*v, node)));
        }
        for node in graph.nodes.iter().rev() {
            let reads = || node.inputs.iter().flatten().copied().chain(node.subgraphs().flat_map(|g| g.use_counts().into_keys()));
            if learns(node) || node.outputs.iter().flatten().any(|v| self.leads.contains(v)) {
                self.leads.extend(reads());
            }
        }
    }

    /// The role of input `i` of a node.
    pub fn role(&self, node: &Node, i: usize) -> Role {
        if let Some(role) = self.added(node, i) {
            return role;
        }
        find(&node.domain, &node.op_type).map_or(Role::Data, |op| op.role(node, i))
    }

    /// The layer whose bias a node adds: a MatMul, Gemm or convolution before an Add of a constant with one element for each of
    /// its output channels. Returns the layer and the Add's input that is the bias.
    pub fn bias_of(&self, node: &Node) -> Option<(&'m Node, usize)> {
        let (offset, source) = self.offset(node)?;
        let layer = self.maker(source)?;
        let shape = self.shape(node.input(offset)?)?;
        let weight = self.shape(layer.input(1)?)?;
        self.stored(layer.input(1)?)?;
        let flag = |name: &str| layer.int_or(name, 0).is_ok_and(|t| t != 0);
        // The number of channels, and the number of axes after the channel axis.
        let (channels, behind) = match (layer.op_type.as_str(), weight.as_slice()) {
            ("MatMul", [_, n]) => (*n, 0),
            ("Gemm", [n, k]) => (if flag("transB") { *n } else { *k }, 0),
            ("Conv", [n, _, rest @ ..]) => (*n, rest.len()),
            ("ConvTranspose", [_, n, rest @ ..]) => (n * usize::try_from(layer.int_or("group", 1).ok()?).ok()?, rest.len()),
            _ => return None,
        };
        let at = shape.len().checked_sub(behind + 1)?;
        let alone = shape.iter().enumerate().all(|(i, n)| *n == if i == at { channels } else { 1 });
        (layer.is_onnx() && alone).then_some((layer, offset))
    }

    /// The role of a constant in an Add; `None` if there is no constant, or a plain one.
    fn added(&self, node: &Node, i: usize) -> Option<Role> {
        let (offset, source) = self.offset(node)?;
        if offset != i {
            return None;
        }
        (self.bias_of(node).is_some() || self.positions(node, offset, source)).then_some(Role::Bias)
    }

    /// The constant of an Add, and its other input.
    fn offset(&self, node: &Node) -> Option<(usize, ValueId)> {
        if node.op_type != "Add" || !node.is_onnx() {
            return None;
        }
        let (a, b) = (node.input(0)?, node.input(1)?);
        match (self.stored(a).is_some(), self.stored(b).is_some()) {
            (true, false) => Some((0, b)),
            (false, true) => Some((1, a)),
            _ => None,
        }
    }

    /// True for a table that is added to an embedding or to an image's patches, with layers after it.
    fn positions(&self, node: &Node, offset: usize, source: ValueId) -> bool {
        let shape = node.input(offset).and_then(|v| self.shape(v)).unwrap_or_default();
        let leads = node.output(0).is_some_and(|v| self.leads.contains(&v));
        leads && shape.iter().filter(|n| **n > 1).count() >= 2 && self.embeds(source, false, FARTHEST)
    }

    /// True if a value is an embedding, or a layer's result in another layout (`laid` if a node on the way changed it).
    fn embeds(&self, value: ValueId, laid: bool, left: usize) -> bool {
        let Some(node) = self.makers.get(&value).filter(|n| n.is_onnx() && left > 0) else { return false };
        let before = |i: usize, laid: bool| node.input(i).is_some_and(|v| self.embeds(v, laid, left - 1));
        match node.op_type.as_str() {
            "Gather" => node.input(0).is_some_and(|v| self.stored(v).is_some()) && node.input(1).is_some_and(|v| self.stored(v).is_none()),
            "Conv" | "MatMul" | "Gemm" => laid && node.input(1).is_some_and(|v| self.stored(v).is_some()),
            "Transpose" | "Reshape" | "Flatten" => before(0, true),
            "Concat" => (0..node.inputs.len()).any(|i| before(i, true)),
            "Identity" | "Dropout" | "Cast" | "Unsqueeze" | "Squeeze" | "QuantizeLinear" | "DequantizeLinear" => before(0, laid),
            "Add" | "Mul" | "Div" => before(0, laid) || before(1, laid),
            _ => false,
        }
    }

    /// The producer of a value, with quantizers skipped.
    fn maker(&self, value: ValueId) -> Option<&'m Node> {
        let node = *self.makers.get(&value)?;
        match node.op_type.as_str() {
            "QuantizeLinear" | "DequantizeLinear" if node.is_onnx() => self.maker(node.input(0)?),
            _ => Some(node),
        }
    }

    /// The constant behind a value: itself, the integers that a DequantizeLinear reads, or a transposed constant.
    fn stored(&self, value: ValueId) -> Option<ValueId> {
        if let Some(tensor) = self.model.values.tensor(value) {
            return (tensor.dtype() == DType::F32 || tensor.dtype().is_int()).then_some(value);
        }
        let node = self.makers.get(&value).filter(|n| n.is_onnx())?;
        matches!(node.op_type.as_str(), "DequantizeLinear" | "QuantizeLinear" | "Transpose").then(|| self.stored(node.input(0)?))?
    }

    /// Shape of a stored constant, as its readers see it.
    fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        if let Some(tensor) = self.model.values.tensor(value) {
            return Some(tensor.shape().to_vec());
        }
        let node = self.makers.get(&value)?;
        let shape = self.shape(node.input(0)?)?;
        match node.op_type.as_str() {
            "DequantizeLinear" | "QuantizeLinear" => Some(shape),
            "Transpose" => {
                let reversed = (0..shape.len() as i64).rev().collect();
                let order = node.ints_or("perm", reversed).ok()?;
                order.iter().map(|i| shape.get(usize::try_from(*i).ok()?).copied()).collect()
            }
            _ => None,
        }
    }
}

/// True for an operator with a weight or a learned scale.
fn learns(node: &Node) -> bool {
    let op = find(&node.domain, &node.op_type);
    op.is_some_and(|op| (0..node.inputs.len()).any(|i| matches!(op.role(node, i), Role::Weight | Role::NormScale)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::AttributeValue;
    use tensor::Tensor;

    struct Build(Model);

    impl Build {
        fn constant(&mut self, name: &str, shape: &[usize]) -> ValueId {
            let id = self.0.values.add_constant(name, Tensor::full(0.5f32, shape.to_vec()).unwrap());
            self.0.graph.constants.push(id);
            id
        }
        fn value(&mut self, name: &str) -> ValueId {
            self.0.values.add_named(name)
        }
        fn node(&mut self, op: &str, inputs: &[ValueId]) -> ValueId {
            let out = self.value(&format!("{op}{}", self.0.graph.nodes.len()));
            self.0.graph.nodes.push(Node::new(op, "", inputs, &[out]));
            out
        }
        /// Role of the second input of the last Add in the graph.
        fn added(&self) -> Role {
            let node = self.0.graph.nodes.iter().rev().find(|n| n.op_type == "Add").unwrap();
            Roles::of(&self.0).role(node, 1)
        }
    }

    #[test]
    fn behind_a_layer_it_is_the_layers_bias() {
        for (op, weight, offset, expected) in [
            ("MatMul", &[8, 3][..], &[3][..], Role::Bias),
            ("MatMul", &[8, 3], &[1, 1, 3], Role::Bias),
            ("MatMul", &[8, 3], &[5, 1], Role::Constant),
            ("MatMul", &[8, 3], &[1], Role::Constant),
            ("Gemm", &[8, 3], &[3], Role::Bias),
            ("Conv", &[4, 3, 3, 3], &[4, 1, 1], Role::Bias),
            ("Conv", &[4, 3, 3, 3], &[1, 4, 1, 1], Role::Bias),
            ("Conv", &[4, 3, 3, 3], &[4], Role::Constant),
        ] {
            let mut b = Build(Model::new(17));
            let (x, w, c) = (b.value("x"), b.constant("w", weight), b.constant("c", offset));
            let layer = b.node(op, &[x, w]);
            b.node("Add", &[layer, c]);
            let plain = find("", "Add").unwrap().role(&b.0.graph.nodes[1], 1);
            assert_eq!(b.added(), if expected == Role::Bias { Role::Bias } else { plain }, "{op} {weight:?} + {offset:?}");
        }
    }

    #[test]
    fn behind_an_embedding_or_patches_it_is_a_table_and_trains() {
        let mut b = Build(Model::new(17));
        let (ids, table, p, w) = (b.value("ids"), b.constant("t", &[9, 4]), b.constant("p", &[1, 6, 4]), b.constant("w", &[4, 2]));
        let rows = b.node("Gather", &[table, ids]);
        let sum = b.node("Add", &[rows, p]);
        assert_ne!(b.added(), Role::Bias, "nothing learns from it");
        b.node("MatMul", &[sum, w]);
        assert_eq!(b.added(), Role::Bias);

        let mut b = Build(Model::new(17));
        let (x, k, p, w) = (b.value("x"), b.constant("k", &[4, 3, 2, 2]), b.constant("p", &[1, 9, 4]), b.constant("w", &[4, 2]));
        let patches = b.node("Conv", &[x, k]);
        let tokens = b.node("Transpose", &[patches]);
        let sum = b.node("Add", &[tokens, p]);
        assert_ne!(b.added(), Role::Bias, "as the anchors of a detector");
        b.node("MatMul", &[sum, w]);
        assert_eq!(b.added(), Role::Bias);
    }

    #[test]
    fn on_attention_scores_it_is_a_mask() {
        let mut b = Build(Model::new(17));
        let (q, k, mask, w) = (b.value("q"), b.value("k"), b.constant("mask", &[6, 6]), b.constant("w", &[6, 2]));
        let scores = b.node("MatMul", &[q, k]);
        let masked = b.node("Add", &[scores, mask]);
        b.node("MatMul", &[masked, w]);
        assert_ne!(b.added(), Role::Bias);
    }

    #[test]
    fn quantizers_and_a_transpose_in_between_change_nothing() {
        let mut b = Build(Model::new(17));
        let (x, w, c, s) = (b.value("x"), b.constant("w", &[3, 8]), b.constant("c", &[3]), b.constant("s", &[]));
        let real = b.node("DequantizeLinear", &[w, s]);
        let turned = b.node("Transpose", &[real]);
        b.0.graph.nodes[1].attributes.set("perm", AttributeValue::Ints(vec![1, 0]));
        let layer = b.node("MatMul", &[x, turned]);
        let coarse = b.node("QuantizeLinear", &[layer, s]);
        let layer = b.node("DequantizeLinear", &[coarse, s]);
        let bias = b.node("DequantizeLinear", &[c, s]);
        b.node("Add", &[layer, bias]);
        assert_eq!(b.added(), Role::Bias);
    }
}
