//! Raising a model to a newer version of ONNX's operator set, by the operators' own upgrades.
use crate::{OpError, find, infer_types};
use graph::{Annotations, Dim, Graph, Model, Names, Node, ValueId, ValueType, Values};
use std::collections::HashMap;
use tensor::Tensor;

/// Raises a model's use of ONNX's own operator set to version `to`, node by node through every version at which the
/// operator changed; subgraphs too. The model is left as it was if anything cannot be expressed. Operators of other
/// domains and model-local functions (which import their own operator sets) are not touched.
///
/// # Errors
/// [`OpError::Unsupported`] if `to` is older than the model's version, for an unknown operator, or one whose meaning cannot be
/// expressed in the newer version.
pub fn convert_opset(model: &mut Model, to: i64) -> Result<(), OpError> {
    let from = model.onnx_opset();
    let refused = |what: String| OpError::Unsupported { op_type: "opset conversion".into(), what };
    if to < from {
        return Err(refused(format!("the model uses operator set {from}, which cannot be lowered to {to}")));
    }
    let mut changed = model.clone();
    let types = infer_types(model)?;
    let (names, nodes) = (Names::of(&changed.values), Names::of_nodes(&changed.graph));
    let uses = changed.graph.use_counts();
    Upgrade { values: &mut changed.values, annotations: &mut changed.annotations, names, nodes, uses, types: &types, from, to }
        .graph(&mut changed.graph)?;
    match changed.opsets.iter_mut().find(|o| o.domain.is_empty() || o.domain == "ai.onnx") {
        Some(opset) => opset.version = to,
        None => changed.opsets.extend(Model::new(to).opsets),
    }
    changed.ir_version = changed.ir_version.max(Model::new(to).ir_version);
    *model = changed;
    Ok(())
}

struct Upgrade<'a> {
    values: &'a mut Values,
    annotations: &'a mut Annotations,
    names: Names,
    nodes: Names,
    uses: HashMap<ValueId, usize>,
    /// Types are inferred before anything changes: an upgrade changes no value.
    types: &'a HashMap<ValueId, ValueType>,
    from: i64,
    to: i64,
}

/// Creates constants, values and names for the nodes of an upgrade, all named after the old node and unique.
pub struct Parts<'a> {
    base: String,
    values: &'a mut Values,
    annotations: &'a mut Annotations,
    names: &'a mut Names,
    nodes: &'a mut Names,
    added: &'a mut Vec<ValueId>,
}

impl Parts<'_> {
    /// An initializer.
    pub fn constant(&mut self, suffix: &str, tensor: Tensor) -> ValueId {
        let name = self.names.fresh(&format!("{}_{suffix}", self.base));
        let id = self.values.add_constant(name, tensor);
        self.added.push(id);
        id
    }

    /// A new value for a node's output.
    pub fn value(&mut self, suffix: &str) -> ValueId {
        let name = self.names.fresh(&format!("{}_{suffix}", self.base));
        self.values.add_named(name)
    }

    /// A new value on the grid of another value of the node: for elements that only move between the two.
    pub fn value_stored_as(&mut self, suffix: &str, other: ValueId) -> ValueId {
        let id = self.value(suffix);
        if let Some(encoding) = self.annotations.encoding(other).cloned() {
            self.annotations.entry(id).encoding = Some(encoding);
        }
        id
    }

    /// The node's name for messages.
    pub fn label(&self) -> String {
        self.base.clone()
    }

    /// A new name for a node.
    pub fn node(&mut self, suffix: &str) -> String {
        self.nodes.fresh(&format!("{}_{suffix}", self.base))
    }
}

impl Upgrade<'_> {
    fn graph(&mut self, graph: &mut Graph) -> Result<(), OpError> {
        let mut added = vec![];
        for mut node in std::mem::take(&mut graph.nodes) {
            for sub in node.subgraphs_mut() {
                self.graph(sub)?;
            }
            self.drop_unread(&mut node)?;
            self.node(node, self.from, &mut graph.nodes, &mut added)?;
        }
        graph.constants.extend(added);
        Ok(())
    }

    /// Removes outputs without readers whose meaning changes between versions. (Below operator set 7, a BatchNormalization with
    /// such outputs is in training form.)
    fn drop_unread(&self, node: &mut Node) -> Result<(), OpError> {
        let optional = match node.op_type.as_str() {
            "Dropout" => true,
            "BatchNormalization" => self.from >= 7 && node.int_or("training_mode", 0)? == 0,
            _ => false,
        };
        while optional && node.is_onnx() && node.outputs.len() > 1 {
            match node.outputs.last() {
                Some(Some(last)) if self.uses.contains_key(last) => break,
                _ => node.outputs.pop(),
            };
        }
        Ok(())
    }

    /// Raises one node from version `from`, and appends the resulting nodes.
    fn node(&mut self, mut node: Node, from: i64, into: &mut Vec<Node>, added: &mut Vec<ValueId>) -> Result<(), OpError> {
        if !node.is_onnx() {
            into.push(node);
            return Ok(());
        }
        let to = self.to;
        let Some(op) = find("", &node.op_type) else {
            let what = format!("an unknown operator cannot be raised from operator set {} to {to}", self.from);
            return Err(OpError::unsupported(&node, what));
        };
        let mut at = op.versions().iter().copied().filter(|v| *v <= from).max().unwrap_or(from);
        for next in op.versions().iter().copied().filter(|v| *v > from && *v <= to) {
            let types: Vec<ValueType> = node.inputs.iter().map(|v| v.map_or(ValueType::Unknown, |v| self.type_of(v))).collect();
            let base = node.label(self.values);
            let mut parts =
                Parts { base, values: self.values, annotations: self.annotations, names: &mut self.names, nodes: &mut self.nodes, added };
            if let Some(nodes) = op.rewrite(&node, &types, next, &mut parts)? {
                return nodes.into_iter().try_for_each(|node| self.node(node, next, into, added));
            }
            op.upgrade_typed(&mut node, &types, at, next, &mut |suffix, tensor| parts.constant(suffix, tensor))?;
            at = next;
        }
        into.push(node);
        Ok(())
    }

    /// A constant's own type, else the inferred or declared one.
    fn type_of(&self, id: ValueId) -> ValueType {
        match (self.values.tensor(id), self.types.get(&id), self.values.get(id)) {
            (Some(t), ..) => ValueType::Tensor { dtype: t.dtype(), shape: Some(t.shape().iter().map(|d| Dim::Known(*d)).collect()) },
            (None, Some(inferred), _) => inferred.clone(),
            (None, None, Some(v)) => v.ty.clone(),
            (None, None, None) => ValueType::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::Node;

    fn model(op_type: &str) -> Model {
        let mut m = Model::new(11);
        let ty = ValueType::Tensor { dtype: tensor::DType::F32, shape: None };
        let x = m.values.add(graph::Value { name: "x".into(), ty, ..graph::Value::default() });
        let y = m.values.add_named("y");
        m.graph.inputs.push(x);
        m.graph.outputs.push(y);
        m.graph.nodes.push(Node::new(op_type, "n", &[x], &[y]));
        m
    }

    #[test]
    fn versions_rise_with_the_format_and_never_fall() {
        let mut m = model("Identity");
        convert_opset(&mut m, 21).unwrap();
        assert_eq!((m.onnx_opset(), m.ir_version), (21, 10));
        let error = convert_opset(&mut m, 13).unwrap_err().to_string();
        assert!(error.contains("cannot be lowered to 13"), "{error}");
    }

    #[test]
    fn an_unknown_operator_is_refused_by_name_and_the_model_stays() {
        let mut m = model("Frobnicate");
        let before = m.clone();
        let error = convert_opset(&mut m, 13).unwrap_err().to_string();
        assert!(error.contains("Frobnicate"), "{error}");
        assert_eq!(m, before);
    }

    #[test]
    fn a_softmax_over_several_axes_is_written_out() {
        for (axis, rank) in [(1, Some(4)), (-3, Some(4)), (1, None), (0, None)] {
            let mut m = model("Softmax");
            m.graph.nodes[0].attributes.set("axis", graph::AttributeValue::Int(axis));
            let x = m.find("x").unwrap();
            let shape = rank.map(|r| vec![Dim::Unknown; r]);
            m.values[x].ty = ValueType::Tensor { dtype: tensor::DType::F32, shape };
            convert_opset(&mut m, 21).unwrap();
            m.verify().unwrap();
            let ops: Vec<&str> = m.graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
            assert_eq!(ops, ["Shape", "Reshape", "Softmax", "Reshape"]);
            assert_eq!(m.graph.nodes[2].int("axis").unwrap(), Some(-1));
            let target = m.values.tensor(m.graph.nodes[1].input(1).unwrap()).unwrap().to_i64_vec().unwrap();
            assert_eq!(target, if axis == 0 { vec![-1] } else { vec![0, -1] });
        }
        let mut m = model("Softmax");
        m.graph.nodes[0].attributes.set("axis", graph::AttributeValue::Int(-2));
        assert!(convert_opset(&mut m, 13).unwrap_err().to_string().contains("rank must be known"));
    }

    #[test]
    fn a_mask_that_nobody_reads_goes_and_one_that_is_read_is_cast_back() {
        let dropout = |read: bool| {
            let mut m = Model::new(7);
            let [x, y, mask] = ["x", "y", "mask"].map(|n| m.values.add_named(n));
            m.graph.inputs.push(x);
            m.graph.outputs = if read { vec![y, mask] } else { vec![y] };
            m.graph.nodes.push(Node::new("Dropout", "mask_kept", &[x], &[y, mask]));
            convert_opset(&mut m, 13).unwrap();
            m.verify().unwrap();
            m
        };
        assert_eq!(dropout(false).graph.nodes[0].outputs.len(), 1);
        let m = dropout(true);
        let names: Vec<(&str, &str)> = m.graph.nodes.iter().map(|n| (n.op_type.as_str(), n.name.as_str())).collect();
        assert_eq!(names, [("Dropout", "mask_kept"), ("Cast", "mask_kept_kept")]);
        assert_eq!(m.values[m.graph.outputs[1]].name, "mask");
    }

    #[test]
    fn statistics_that_nobody_reads_are_no_obstacle() {
        let mut m = Model::new(9);
        let ids: Vec<ValueId> = ["x", "s", "b", "m", "v", "y", "m2", "v2"].map(|n| m.values.add_named(n)).to_vec();
        m.graph.inputs = ids[..5].to_vec();
        m.graph.outputs = vec![ids[5]];
        m.graph.nodes.push(Node::new("BatchNormalization", "n", &ids[..5], &ids[5..]));
        let mut read = m.clone();
        read.graph.outputs.push(ids[6]);
        assert!(convert_opset(&mut read, 15).unwrap_err().to_string().contains("saved statistics"));
        convert_opset(&mut m, 15).unwrap();
        assert_eq!(m.graph.nodes[0].outputs.len(), 1);
    }
}
