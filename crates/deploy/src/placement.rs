//! Which nodes of a runtime's optimized graph run on integers and which in float, and why.
//!
//! Lowering puts a quantizer on each side of an operator. Whether the runtime then uses an integer kernel is its own decision, so
//! it is read from the graph that the runtime wrote.
use crate::{FloatPart, Lowered};
use graph::{Graph, Links, Model, Node, ValueId};
use ops::Effect;
use std::collections::{BTreeMap, HashMap};
use target::{OnnxRuntime, QuantRule, Target, known_as, takes_integers};
use tensor::DType;

/// How many nodes of an operator run on integers and in float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// On integers.
    pub integer: usize,
    /// In float.
    pub float: usize,
}

/// Where the nodes of a runtime's graph run. Nodes that only move elements and arithmetic on shapes are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// By operator, under ONNX's name for it (`QLinearConv`, `FusedConv` and the like count as `Conv`).
    pub operators: BTreeMap<String, Count>,
    /// QuantizeLinear and DequantizeLinear nodes that are left, those of stored weights among them.
    pub conversions: usize,
    /// The nodes in float, each with its reason.
    pub float_parts: Vec<FloatPart>,
}

impl Placement {
    /// The placement of the graph that a runtime made of a lowered model.
    pub fn of(optimized: &Model, lowered: &Lowered) -> Placement {
        let mut walk = Walk { model: optimized, kinds: HashMap::new(), out: Placement::default(), reasons: Reasons::new(lowered) };
        walk.graph(&optimized.graph);
        walk.out
    }

    /// Nodes of all operators.
    pub fn total(&self) -> Count {
        self.operators.values().fold(Count::default(), |sum, c| Count { integer: sum.integer + c.integer, float: sum.float + c.float })
    }
}

/// What the elements of a value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ElementKind {
    /// Integers that stand for real numbers.
    Quantized,
    Float,
    /// Shapes, indices, truth values, integer sums that are not scaled yet.
    Other,
}

impl ElementKind {
    fn of(dtype: DType) -> ElementKind {
        match dtype {
            DType::I8 | DType::U8 | DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::I16 | DType::U16 => ElementKind::Quantized,
            other if other.is_float() => ElementKind::Float,
            _ => ElementKind::Other,
        }
    }
}

fn moves(model: &Model, node: &Node) -> bool {
    const OTHERS: &[&str] = &["ReorderInput", "ReorderOutput", "NhwcMaxPool"];
    ops::find(&node.domain, &node.op_type).is_some_and(|op| op.effect(node, model) == Effect::Moves)
        || OTHERS.contains(&node.op_type.as_str())
}

/// True for If, Loop, Scan: their bodies compute, the nodes themselves do not.
fn is_control_flow(node: &Node) -> bool {
    node.subgraphs().next().is_some()
}

struct Walk<'a> {
    model: &'a Model,
    kinds: HashMap<ValueId, ElementKind>,
    out: Placement,
    reasons: Reasons<'a>,
}

impl<'a> Walk<'a> {
    fn graph(&mut self, graph: &'a Graph) {
        let links = graph.links();
        for node in &graph.nodes {
            for sub in node.subgraphs() {
                self.graph(sub);
            }
            self.node((graph, &links), node);
        }
    }

    fn kind(&self, id: ValueId) -> Option<ElementKind> {
        let value = &self.model.values[id];
        self.kinds.get(&id).copied().or_else(|| {
            let stored = self.model.values.tensor(id).map(|t| t.dtype());
            Some(ElementKind::of(stored.or_else(|| value.dtype())?))
        })
    }

    /// Output `i` of a node with subgraphs, in its body: a Loop's body returns its condition first.
    fn handed_on(&self, node: &Node, i: usize) -> Option<ElementKind> {
        let first = usize::from(node.op_type == "Loop");
        node.subgraphs().find_map(|g| self.kind(*g.outputs.get(first + i)?))
    }

    fn node(&mut self, around: (&'a Graph, &Links), node: &'a Node) {
        let read: Vec<ElementKind> = node.inputs.iter().flatten().filter_map(|v| self.kind(*v)).collect();
        let computed = |v: &&ValueId| self.model.values.tensor(**v).is_none();
        let fed: Vec<ElementKind> = node.inputs.iter().flatten().filter(computed).filter_map(|v| self.kind(*v)).collect();
        let made = self.made(node, &read, &fed);
        for (i, output) in node.outputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
            let declared = self.model.values[output].dtype().map(ElementKind::of);
            self.kinds.insert(output, declared.or_else(|| self.handed_on(node, i)).unwrap_or(made));
        }
        match node.op_type.as_str() {
            "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear" => self.out.conversions += 1,
            "Cast" | "CastLike" => {}
            _ if moves(self.model, node) || is_control_flow(node) => {}
            op if takes_integers(op) => self.count(op).integer += 1,
            // A node that reads only constants does no work in a run.
            op if made == ElementKind::Float && fed.contains(&ElementKind::Float) => {
                self.count(op).float += 1;
                let part = self.reasons.of(self.model, around, node);
                self.out.float_parts.push(part);
            }
            op if made == ElementKind::Quantized && fed.contains(&ElementKind::Quantized) => self.count(op).integer += 1,
            _ => {}
        }
    }

    fn count(&mut self, op_type: &str) -> &mut Count {
        self.out.operators.entry(known_as(op_type).to_string()).or_default()
    }

    /// The output's type where the file does not declare it.
    fn made(&self, node: &Node, read: &[ElementKind], fed: &[ElementKind]) -> ElementKind {
        match node.op_type.as_str() {
            "QuantizeLinear" | "DynamicQuantizeLinear" => ElementKind::Quantized,
            "MatMulIntegerToFloat" | "DynamicQuantizeMatMul" | "DynamicQuantizeLSTM" | "DequantizeLinear" | "MatMulNBits" => {
                ElementKind::Float
            }
            // A scale of the output is there only where it is quantized again.
            "QGemm" => node.input(7).map_or(ElementKind::Float, |_| ElementKind::Quantized),
            "QAttention" => ElementKind::Float,
            "MatMulInteger" | "ConvInteger" | "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => ElementKind::Other,
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Not" | "And" | "Or" | "Xor" | "IsNaN" | "IsInf" => {
                ElementKind::Other
            }
            "Cast" => match node.int_or("to", 1) {
                Ok(1 | 10 | 11 | 16) => ElementKind::Float,
                _ => ElementKind::Other,
            },
            op if op.starts_with("QLinear") => ElementKind::Quantized,
            _ => [fed, read]
                .iter()
                .find_map(|k| [ElementKind::Float, ElementKind::Quantized].into_iter().find(|of| k.contains(of)))
                .unwrap_or(ElementKind::Other),
        }
    }
}

/// Finds the node of the lowered model for a runtime's node, and why it does not run on integers.
struct Reasons<'a> {
    lowered: &'a Lowered,
    /// Nodes by the names of their outputs, and by their own names.
    makers: HashMap<&'a str, (&'a Graph, &'a Node)>,
    /// Nodes by their outputs and by their inputs.
    made: HashMap<ValueId, (&'a Graph, &'a Node)>,
    readers: HashMap<ValueId, Vec<(&'a Graph, &'a Node)>>,
    labels: HashMap<String, (&'a Graph, &'a Node)>,
}

impl<'a> Reasons<'a> {
    fn new(lowered: &'a Lowered) -> Self {
        let mut reasons =
            Reasons { lowered, makers: HashMap::new(), made: HashMap::new(), readers: HashMap::new(), labels: HashMap::new() };
        reasons.index(&lowered.model.graph);
        reasons
    }

    fn index(&mut self, graph: &'a Graph) {
        for node in &graph.nodes {
            for sub in node.subgraphs() {
                self.index(sub);
            }
            for output in node.outputs.iter().flatten() {
                self.made.insert(*output, (graph, node));
                self.makers.insert(&self.lowered.model.values[*output].name, (graph, node));
            }
            let mut read: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
            read.sort();
            read.dedup();
            read.into_iter().for_each(|v| self.readers.entry(v).or_default().push((graph, node)));
            self.labels.insert(node.label(&self.lowered.model.values), (graph, node));
        }
    }

    fn of(&self, optimized: &Model, around: (&Graph, &Links), node: &Node) -> FloatPart {
        let op_type = known_as(&node.op_type).to_string();
        let by_name = |node: &Node| node.output(0).and_then(|v| self.makers.get(optimized.values[v].name.as_str())).copied();
        let label = node.label(&optimized.values);
        let own = by_name(node).or_else(|| self.labels.get(original_name(&label)).copied());
        let Some((graph, own)) = own.or_else(|| self.part_of(&by_name, around, node)) else {
            let reason = "the runtime added this node, or fused several nodes into it".to_string();
            return FloatPart { node: label, op_type, reason };
        };
        // Nodes fused into a layer count as the layer.
        let own = self.layer(graph, own, &op_type).unwrap_or(own);
        let name = own.label(&self.lowered.model.values);
        let told = self.lowered.float_parts.iter().find(|p| p.node == name).map(|p| p.reason.clone());
        let reason = told.unwrap_or_else(|| self.why(graph, own));
        FloatPart { node: name, op_type, reason }
    }

    /// The node that the runtime split into several, of which `node` is one: their last output still has its name.
    fn part_of(
        &self,
        by_name: &dyn Fn(&Node) -> Option<(&'a Graph, &'a Node)>,
        (graph, links): (&Graph, &Links),
        node: &Node,
    ) -> Option<(&'a Graph, &'a Node)> {
        let mut at = node;
        for _ in 0..4 {
            at = &graph.nodes[*links.consumers(at.output(0)?).first()?];
            if let Some(found) = by_name(at) {
                return Some(found).filter(|(_, own)| own.op_type != at.op_type);
            }
        }
        None
    }

    /// The layer of that operator before an activation.
    fn layer(&self, graph: &'a Graph, node: &'a Node, op_type: &str) -> Option<&'a Node> {
        let mut at = node;
        for _ in 0..3 {
            if at.op_type == op_type {
                return Some(at);
            }
            at = self.made.get(&at.input(0)?).filter(|(other, _)| std::ptr::eq(*other, graph))?.1;
        }
        None
    }

    /// Why the runtime did not use an integer kernel for a node that lowering meant for integers.
    fn why(&self, graph: &Graph, node: &Node) -> String {
        let values = &self.lowered.model.values;
        let producer = |v: ValueId| self.makers.get(values[v].name.as_str());
        let rule = |n: &Node| ops::find(&n.domain, &n.op_type).map(|_| OnnxRuntime {}.rule(n, &self.lowered.model));
        if let Some(QuantRule::Float(reason)) = rule(node) {
            return reason.to_string();
        }
        let Some(QuantRule::Integer { data, weight }) = rule(node) else { return "the runtime computes it in float".into() };
        for v in data.into_iter().chain(weight.map(|w| w.input)).filter_map(|i| node.input(i)) {
            let Some((made_in, from)) = producer(v).filter(|(_, n)| n.op_type == "DequantizeLinear") else {
                return format!("its input '{}' is not quantized", values[v].name);
            };
            if !std::ptr::eq(*made_in, graph) {
                return format!(
                    "'{}' is dequantized outside the subgraph of this node, and the runtime fuses only within one subgraph",
                    values[v].name
                );
            }
            let stored = from.input(0).and_then(|q| values.tensor(q).map(|t| t.dtype()).or_else(|| values[q].dtype()));
            if let Some(narrow) = stored.filter(|d| !matches!(d, DType::I8 | DType::U8)) {
                return format!(
                    "its input '{}' is stored as {narrow}, for which the runtime has no kernel of this operator",
                    values[v].name
                );
            }
        }
        let Some(output) = node.output(0) else { return "it has no output".into() };
        let readers = self.readers.get(&output).into_iter().flatten().filter(|(other, _)| std::ptr::eq(*other, graph));
        let readers: Vec<&Node> = readers.map(|(_, node)| *node).collect();
        match readers.as_slice() {
            [one] if one.op_type == "QuantizeLinear" => {
                "quantized on both sides, but the runtime has no integer kernel for it in this form".into()
            }
            [one] if rule(one) == Some(QuantRule::FusedActivation) => format!(
                "{} '{}' lies between it and its quantizer; the runtime removes it only where the quantizer's range ends exactly at its \
                 bounds",
                one.op_type,
                one.label(values)
            ),
            [] => "its output is the model's own, in float".into(),
            many => {
                let names: Vec<String> = many.iter().filter(|n| n.op_type != "QuantizeLinear").map(|n| n.label(values)).collect();
                format!("its output is read in float by '{}'", names.join("', '"))
            }
        }
    }
}

/// A node's name without the suffixes that the runtime appends to nodes it derives from others.
fn original_name(name: &str) -> &str {
    let cut = name.find("_token_").or_else(|| name.find("_nchwc")).unwrap_or(name.len());
    &name[..cut]
}
