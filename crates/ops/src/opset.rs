//! Raising a model to a newer version of ONNX's operator set, by the operators' own upgrades.
use crate::{OpError, find, infer_types};
use graph::{Dim, Graph, Model, ValueId, ValueType, Values};
use std::collections::{HashMap, HashSet};
use tensor::Tensor;

/// Raises a model's use of ONNX's own operator set to version `to`, node by node through every version at which the
/// operator changed; subgraphs too. The model is left as it was if anything cannot be expressed. Operators of other
/// domains and model-local functions (which import their own operator sets) are not touched.
///
/// # Errors
/// [`OpError::Unsupported`] if `to` is older than what the model uses, for an operator we do not know, or one whose
/// meaning cannot be expressed in the newer version.
pub fn convert_opset(model: &mut Model, to: i64) -> Result<(), OpError> {
    let from = model.onnx_opset();
    let refused = |what: String| OpError::Unsupported { op_type: "opset conversion".into(), what };
    if to < from {
        return Err(refused(format!("the model uses operator set {from}, which cannot be lowered to {to}")));
    }
    let mut changed = model.clone();
    let types = infer_types(model)?;
    let mut names: HashSet<String> = changed.values.iter().map(|(_, v)| v.name.clone()).collect();
    Upgrade { values: &mut changed.values, names: &mut names, types: &types, from, to }.graph(&mut changed.graph)?;
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
    names: &'a mut HashSet<String>,
    /// Inferred before anything changes: an upgrade changes no value.
    types: &'a HashMap<ValueId, ValueType>,
    from: i64,
    to: i64,
}

impl Upgrade<'_> {
    fn graph(&mut self, graph: &mut Graph) -> Result<(), OpError> {
        let (from, to) = (self.from, self.to);
        let mut added = vec![];
        for node in &mut graph.nodes {
            for sub in node.subgraphs_mut() {
                self.graph(sub)?;
            }
            if !node.is_onnx() {
                continue;
            }
            let Some(op) = find("", &node.op_type) else {
                let what = format!("an operator we do not know cannot be raised from operator set {from} to {to}");
                return Err(OpError::unsupported(node, what));
            };
            let mut at = op.versions().iter().copied().filter(|v| *v <= from).max().unwrap_or(from);
            for next in op.versions().iter().copied().filter(|v| *v > from && *v <= to) {
                let base = node.label(self.values);
                let types: Vec<ValueType> = node.inputs.iter().map(|v| v.map_or(ValueType::Unknown, |v| self.type_of(v))).collect();
                let mut constant = |suffix: &str, tensor: Tensor| {
                    let mut name = format!("{base}_{suffix}");
                    while !self.names.insert(name.clone()) {
                        name.push('_');
                    }
                    let id = self.values.add_constant(name, tensor);
                    added.push(id);
                    id
                };
                op.upgrade_typed(node, &types, at, next, &mut constant)?;
                at = next;
            }
        }
        graph.constants.extend(added);
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
}
