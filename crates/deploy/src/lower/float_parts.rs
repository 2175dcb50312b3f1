//! The nodes that stay in float, and why.
use encodings::Decode;
use graph::{Graph, Linked, Model, Node, ValueId, ValueType};
use ops::Roles;
use std::collections::{HashMap, HashSet};
use target::{FloatPart, QuantRule, Target};

/// Lists the nodes that compute on floats although something in the model is quantized; none for a model without
/// encodings. Nodes on integers (shape arithmetic), nodes that only move elements and those that make `divided` (a change of scale) are no
/// arithmetic and not listed.
pub(super) fn list(model: &Model, divided: &[ValueId], target: &dyn Target) -> Vec<FloatPart> {
    let mut out = vec![];
    if model.annotations.iter().any(|(_, a)| a.encoding.is_some()) {
        // Types that cannot be inferred are taken as declared.
        let types = ops::infer_types(model).unwrap_or_default();
        let around = Around { model, roles: &Roles::of(model), types: &types, target };
        around.in_graph(&model.graph, &mut out);
        let linked = model.graph.linked();
        let divided: HashSet<String> = divided.iter().flat_map(|v| linked.maker(*v)).map(|node| node.label(&model.values)).collect();
        out.retain(|p| !divided.contains(&p.node));
    }
    out
}

/// Data about the model outside the graph.
struct Around<'a> {
    model: &'a Model,
    roles: &'a Roles<'a>,
    types: &'a HashMap<ValueId, ValueType>,
    target: &'a dyn Target,
}

impl Around<'_> {
    fn in_graph(&self, graph: &Graph, out: &mut Vec<FloatPart>) {
        let here = graph.linked();
        for node in &graph.nodes {
            for sub in node.subgraphs() {
                self.in_graph(sub, out);
            }
            if let Some(reason) = self.reason(&here, node).filter(|_| self.may_be_float(node)) {
                out.push(FloatPart { node: node.label(&self.model.values), op_type: node.op_type.clone(), reason });
            }
        }
    }

    fn encoded(&self, value: ValueId) -> bool {
        self.model.annotations.encoding(value).is_some()
    }

    fn reason(&self, here: &Linked, node: &Node) -> Option<String> {
        let name = |v: ValueId| &self.model.values[v].name;
        if ops::find(&node.domain, &node.op_type).is_none() {
            return Some("the operator is not known".into());
        }
        match self.target.rule(node, self.model) {
            QuantRule::Float(reason) => ops::float_reason(self.model, here.graph(), node, reason),
            QuantRule::SameGrid => None,
            QuantRule::Integer { data, weight } => {
                let stored = weight.as_ref().and_then(|w| self.model.annotations.encoding(node.input(w.input)?));
                if let Some(how) = stored.filter(|e| matches!(encodings::decode(e), Ok(Decode::Table { .. }))) {
                    return Some(format!("its weight is decoded from a table ({})", encodings::describe(how)));
                }
                let mut read = data.into_iter().chain(weight.map(|w| w.input)).filter_map(|i| node.input(i));
                let plain = read.find(|v| !self.encoded(*v));
                match plain {
                    Some(_) if self.adds_bias(node).is_some() => {
                        let stored = || node.inputs.iter().flatten().all(|v| self.encoded(*v) || self.adds_bias(node) == Some(*v));
                        let fused = self.target.adds_bias_on_integers() && stored() && node.output(0).is_some_and(|v| self.encoded(v));
                        (!fused).then(|| "it adds a bias to a layer's result before that is rounded".into())
                    }
                    Some(plain) => Some(format!("its input '{}' is not quantized", name(plain))),
                    None => {
                        let output = node.output(0)?;
                        let quantized = self.encoded(output) || self.fused_behind(here, output);
                        (!quantized).then(|| format!("its output '{}' is not quantized", name(output)))
                    }
                }
            }
            QuantRule::FusedActivation => {
                let output = node.output(0)?;
                (!self.encoded(output)).then(|| format!("its output '{}' is not quantized", name(output)))
            }
        }
    }

    /// The layer's result to which a node adds a bias, if that result is not rounded before.
    fn adds_bias(&self, node: &Node) -> Option<ValueId> {
        let (layer, _) = self.roles.bias_of(node)?;
        layer.output(0).filter(|v| node.inputs.contains(&Some(*v)) && !self.encoded(*v))
    }

    /// True if the only reader of the value is an activation whose output is quantized, or the Add of a bias before such an
    /// activation.
    fn fused_behind(&self, here: &Linked, value: ValueId) -> bool {
        let mut readers = here.readers(value);
        let (Some(node), None) = (readers.next(), readers.next()) else { return false };
        if self.adds_bias(node) == Some(value) {
            return node.output(0).is_some_and(|v| self.encoded(v) || self.fused_behind(here, v));
        }
        ops::clips(self.model, node) && node.output(0).is_some_and(|v| self.encoded(v))
    }

    /// False where every output is known to be something else than a float tensor.
    fn may_be_float(&self, node: &Node) -> bool {
        let dtype = |v: &ValueId| match self.types.get(v) {
            Some(ValueType::Tensor { dtype, .. }) => Some(*dtype),
            _ => self.model.values[*v].dtype(),
        };
        node.outputs.iter().flatten().any(|v| dtype(v).is_none_or(|d| d.is_float()))
    }
}
