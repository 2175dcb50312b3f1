//! Replaces float operators between quantizers by integer operators.
use crate::{FloatPart, Result};
use graph::{AttributeValue, Extra, Graph, Model, Names, Node, Opset, ValueId, Values};
use ops::{IntegerForm, Operator, Slot};
use std::collections::{HashMap, HashSet};
use target::{QuantRule, Target};
use tensor::{DType, Tensor};

/// How far a bias' scale may differ from the product of the scales of data and weight, as a share of it: the rounding of that
/// product.
const SAME_SCALE: f32 = 1e-6;

/// Replaces operators in the graph and its subgraphs. Returns how many operators that compute were replaced, and the nodes that
/// lowering meant for integers but that stay float, each with the reason.
///
/// # Errors
/// Whatever verifying the result reports.
pub(crate) fn merge(model: &mut Model, target: &dyn Target) -> Result<(usize, Vec<FloatPart>)> {
    let rules = rules(model, target);
    let opset = model.onnx_opset();
    let mut graph = std::mem::take(&mut model.graph);
    let names = Names::of(&model.values);
    let mut merging =
        Merging { values: &mut model.values, names, rules, target, opset, domains: HashSet::new(), left: vec![], replaced: 0 };
    merging.graph(&mut graph);
    let Merging { left, domains, replaced, .. } = merging;
    model.graph = graph;
    let missing: Vec<&str> = domains.into_iter().filter(|d| model.opset(d).is_none()).collect();
    model.opsets.extend(missing.into_iter().map(|d| Opset { domain: d.into(), version: 1, extra: Extra::default() }));
    model.remove_dead();
    model.verify()?;
    Ok((replaced, left))
}

/// How each node may be quantized, by its first output.
fn rules(model: &Model, target: &dyn Target) -> HashMap<ValueId, QuantRule> {
    let mut out = HashMap::new();
    model.graph.visit(&mut |node| {
        out.extend(node.output(0).map(|v| (v, target.rule(node, model))));
    });
    out
}

struct Merging<'a> {
    values: &'a mut Values,
    names: Names,
    rules: HashMap<ValueId, QuantRule>,
    target: &'a dyn Target,
    opset: i64,
    /// Domains of the new operators.
    domains: HashSet<&'static str>,
    left: Vec<FloatPart>,
    /// How many operators that compute were replaced.
    replaced: usize,
}

/// A value on a grid.
#[derive(Clone, Copy)]
struct Quantized {
    integers: ValueId,
    scale: ValueId,
    zero_point: Option<ValueId>,
    /// The axis of the scales, where there are several.
    axis: Option<i64>,
}

impl Quantized {
    /// The grid of a QuantizeLinear or DequantizeLinear.
    fn of(node: &Node, integers: ValueId) -> Option<Self> {
        Some(Quantized { integers, scale: node.input(1)?, zero_point: node.input(2), axis: node.int_or("axis", 1).ok() })
    }
}

/// A graph's nodes before the change, with the producer and the readers of each value.
struct Around {
    nodes: Vec<Node>,
    links: graph::Links,
    uses: HashMap<ValueId, usize>,
}

impl Around {
    /// Integers, scale and zero point that a value was dequantized from.
    fn dequantized(&self, value: ValueId) -> Option<Quantized> {
        let node = &self.nodes[self.links.producer(value)?];
        let from = Quantized::of(node, node.input(0)?)?;
        (is(node, "DequantizeLinear") && node.int_or("block_size", 0).ok()? == 0).then_some(from)
    }

    /// The QuantizeLinear that is the only reader of a value, and its output.
    fn quantizer(&self, value: ValueId) -> Option<(usize, Quantized)> {
        let [at] = self.links.consumers(value) else { return None };
        let node = &self.nodes[*at];
        let made = Quantized::of(node, node.output(0)?)?;
        (is(node, "QuantizeLinear") && node.input(0) == Some(value) && self.uses.get(&value) == Some(&1)).then_some((*at, made))
    }
}

fn is(node: &Node, op_type: &str) -> bool {
    node.op_type == op_type && node.is_onnx()
}

impl Merging<'_> {
    fn graph(&mut self, graph: &mut Graph) {
        for sub in graph.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
            self.graph(sub);
        }
        let around = Around { links: graph.links(), uses: graph.use_counts(), nodes: graph.nodes.clone() };
        let mut gone = HashSet::new();
        for (at, node) in around.nodes.iter().enumerate() {
            let made = match node.output(0).and_then(|v| self.rules.get(&v)).cloned() {
                Some(QuantRule::Integer { .. }) => self.computes(graph, &around, node),
                Some(QuantRule::SameGrid) => Ok(self.moves(&around, node)),
                _ => continue,
            };
            match made {
                Ok(Some((node, quantizers))) => {
                    graph.nodes[at] = node;
                    gone.extend(quantizers);
                }
                Ok(None) => {}
                Err(why) => self.left.push(FloatPart {
                    node: node.label(self.values),
                    op_type: node.op_type.clone(),
                    reason: format!("the format qoperator cannot express it: {why}"),
                }),
            }
        }
        let mut at = 0..;
        graph.nodes.retain(|_| at.next().is_none_or(|i| !gone.contains(&i)));
    }

    /// Replaces an operator that moves elements by the same operator on integers; its input and output share one grid.
    fn moves(&self, around: &Around, node: &Node) -> Option<(Node, Vec<usize>)> {
        let op = ops::find(&node.domain, &node.op_type).filter(|op| self.target.moves_integers(op.op_type(), self.opset))?;
        let from = around.dequantized(node.input(0)?)?;
        let (mut moved, mut quantizers) = (node.clone(), vec![]);
        self.bits8(from)?;
        moved.inputs[0] = Some(from.integers);
        for output in moved.outputs.iter_mut().take(op.outputs_on_grid(node)) {
            let Some(value) = *output else { continue };
            let (at, to) = around.quantizer(value)?;
            if !self.same(from, to) {
                return None;
            }
            *output = Some(to.integers);
            quantizers.push(at);
        }
        Some((moved, quantizers))
    }

    /// The integer counterpart of an operator that computes; `None` for an operator that does not lie between quantizers, so that
    /// lowering did not mean it for integers.
    fn computes(&mut self, graph: &mut Graph, around: &Around, node: &Node) -> Result<Option<(Node, Vec<usize>)>, String> {
        let Some((at, to)) = node.output(0).and_then(|v| around.quantizer(v)) else { return Ok(None) };
        let Some(QuantRule::Integer { data, weight }) = node.output(0).and_then(|v| self.rules.get(&v)).cloned() else { return Ok(None) };
        let mut read = data.into_iter().chain(weight.as_ref().map(|w| w.input)).filter_map(|i| node.input(i));
        if !read.all(|v| around.dequantized(v).is_some()) {
            return Ok(None);
        }
        let forms: Vec<_> = ops::integer_forms_of(&node.op_type).filter(|_| node.is_onnx()).collect();
        let mut why = format!("there is no integer operator for {}", node.op_type);
        for (op, form) in forms {
            match self.formed(graph, around, node, (op, form), (to, weight.as_ref().and_then(|w| w.axis))) {
                Ok(made) => {
                    self.replaced += 1;
                    self.domains.extend(Some(op.domain()).filter(|d| !d.is_empty()));
                    return Ok(Some((made, vec![at])));
                }
                Err(what) => why = what,
            }
        }
        Err(why)
    }

    fn formed(
        &mut self,
        graph: &mut Graph,
        around: &Around,
        node: &Node,
        (op, form): (&dyn Operator, &IntegerForm),
        (to, channels): (Quantized, Option<usize>),
    ) -> Result<Node, String> {
        let name = op.op_type();
        if let Some(other) = node.attributes.list.iter().find(|a| !form.attributes.contains(&a.name.as_str()) && !is_one(&a.value)) {
            return Err(format!("{name} has no attribute {}", other.name));
        }
        let kind = self.bits8(to).ok_or_else(|| format!("its output is not stored in 8 bits, and {name} returns only 8 bits"))?;
        // All checks come before any change.
        let mut given = HashMap::new();
        for (i, value) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
            if form.slots.contains(&Slot::Bias(i)) || form.slots.contains(&Slot::Plain(i)) {
                continue;
            }
            let label = &self.values[value].name;
            let from = around.dequantized(value).ok_or_else(|| format!("its input '{label}' is not quantized"))?;
            let dtype =
                self.bits8(from).ok_or_else(|| format!("its input '{label}' is not stored in 8 bits, and {name} takes only 8 bits"))?;
            let weight = form.weight == Some(i);
            if !weight && dtype != kind {
                return Err(format!(
                    "its input '{label}' is stored as {dtype} and its output as {kind}, and {name} needs one type for both"
                ));
            }
            if self.elements(from.scale)? > 1 && !(weight && channels.is_some() && self.axis(from) == channels) {
                return Err(format!("its input '{label}' has more than one scale, not along its output channels"));
            }
            given.insert(i, from);
        }
        let of = |i: &usize| given.get(i).copied().ok_or_else(|| format!("{name} needs input {i}"));
        let bias = |i: usize| node.input(i).map(|v| self.bias(around, v, (of(&0)?, of(&1)?)).map(|b| (i, b))).transpose();
        let biases = form.slots.iter().filter_map(|s| if let Slot::Bias(i) = s { bias(*i).transpose() } else { None });
        let biases = biases.collect::<Result<HashMap<usize, ValueId>, String>>()?;
        let given_in_order: Vec<Quantized> = (0..node.inputs.len()).filter_map(|i| given.get(&i).copied()).collect();
        let mut inputs = vec![];
        for slot in form.slots {
            match slot {
                Slot::Integers(i) => inputs.push(Some(of(i)?.integers)),
                Slot::Scale(i) => inputs.push(Some(of(i)?.scale)),
                Slot::ZeroPoint(i) => inputs.push(Some(self.zero_point(graph, of(i)?)?)),
                Slot::EachInput => {
                    for one in &given_in_order {
                        inputs.extend([Some(one.integers), Some(one.scale), Some(self.zero_point(graph, *one)?)]);
                    }
                }
                Slot::OutputScale => inputs.push(Some(to.scale)),
                Slot::OutputZeroPoint => inputs.push(Some(self.zero_point(graph, to)?)),
                Slot::Bias(i) => inputs.push(biases.get(i).copied()),
                Slot::Plain(i) => inputs.push(node.input(*i)),
            }
        }
        while inputs.last() == Some(&None) {
            inputs.pop();
        }
        let mut made = Node { inputs, outputs: vec![Some(to.integers)], op_type: name.into(), domain: op.domain().into(), ..node.clone() };
        made.attributes.list.retain(|a| form.attributes.contains(&a.name.as_str()));
        if form.opset {
            made.attributes.set("opset", AttributeValue::Int(self.opset));
        }
        Ok(made)
    }

    /// The int32 of a bias on the grid of the accumulator.
    fn bias(&self, around: &Around, value: ValueId, (data, weight): (Quantized, Quantized)) -> Result<ValueId, String> {
        let label = &self.values[value].name;
        let from = around.dequantized(value).ok_or_else(|| format!("its bias '{label}' is not quantized"))?;
        let floats = |v: ValueId| self.values.tensor(v).and_then(|t| t.to_f32_vec().ok()).unwrap_or_default();
        let (own, x, w) = (floats(from.scale), floats(data.scale), floats(weight.scale));
        let int32 = self.values.tensor(from.integers).is_some_and(|t| t.dtype() == DType::I32);
        let zero = from.zero_point.is_none_or(|z| floats(z).iter().all(|v| *v == 0.0));
        let of = |list: &[f32], i: usize| list.get(i).or(list.first()).copied().unwrap_or(f32::NAN);
        let near = |i: usize| (of(&own, i) - of(&x, 0) * of(&w, i)).abs() <= SAME_SCALE * of(&own, i).abs();
        if int32 && zero && (0..own.len().max(w.len())).all(near) {
            return Ok(from.integers);
        }
        Err(format!("its bias '{label}' does not lie on the grid of the accumulator, the product of the scales of data and weight"))
    }

    /// The zero point of a grid; zeros where the file leaves it out.
    fn zero_point(&mut self, graph: &mut Graph, of: Quantized) -> Result<ValueId, String> {
        if let Some(there) = of.zero_point {
            return Ok(there);
        }
        let scale = self.values.tensor(of.scale).cloned().ok_or("a scale that is computed")?;
        let dtype = self.dtype(of).ok_or("integers of unknown type")?;
        let zeros = Tensor::full(0f32, scale.shape()).and_then(|z| z.cast(dtype)).map_err(|e| e.to_string())?;
        let base = self.values[of.integers].name.clone();
        let id = self.values.add_constant(self.names.fresh(&format!("{base}_zero_point")), zeros);
        graph.constants.push(id);
        Ok(id)
    }

    /// The axis of a grid on a constant, counted from the first.
    fn axis(&self, of: Quantized) -> Option<usize> {
        let rank = self.values.tensor(of.integers)?.rank();
        tensor::shape::axis("DequantizeLinear", of.axis?, rank).ok()
    }

    fn elements(&self, scale: ValueId) -> Result<usize, String> {
        self.values.tensor(scale).map(|t| t.len()).ok_or_else(|| "a scale is computed".to_string())
    }

    /// The type of the stored integers.
    fn dtype(&self, of: Quantized) -> Option<DType> {
        let tensor = |v: ValueId| self.values.tensor(v).map(|t| t.dtype());
        of.zero_point.and_then(tensor).or_else(|| tensor(of.integers)).or_else(|| self.values[of.integers].dtype())
    }

    /// The same, if it has 8 bits.
    fn bits8(&self, of: Quantized) -> Option<DType> {
        self.dtype(of).filter(|d| matches!(d, DType::I8 | DType::U8))
    }

    fn same(&self, a: Quantized, b: Quantized) -> bool {
        let constant = |v: ValueId| self.values.tensor(v);
        let zero = |q: Quantized| q.zero_point.map(|z| constant(z).and_then(|t| t.to_i64_vec().ok()));
        constant(a.scale).is_some_and(|t| t.len() == 1)
            && constant(a.scale).map(Tensor::to_f32_vec) == constant(b.scale).map(Tensor::to_f32_vec)
            && zero(a) == zero(b)
            && self.dtype(a) == self.dtype(b)
    }
}

/// True for an attribute that changes nothing where it is 1.
fn is_one(value: &AttributeValue) -> bool {
    match value {
        AttributeValue::Float(v) => *v == 1.0,
        AttributeValue::Ints(list) => list.iter().all(|v| *v == 1),
        _ => false,
    }
}
