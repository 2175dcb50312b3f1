//! Replaces integer operators by the float operators that they stand for, between quantizers: the inverse of the format
//! `qoperator`, so that such a file can be lifted. It goes by [`ops::IntegerForm`], whatever tool wrote the file.
use crate::Result;
use graph::{Attribute, AttributeValue, Graph, Model, Names, Node, ValueId, Values};
use ops::{Effect, IntegerForm, Operator, Slot};
use std::collections::HashMap;
use tensor::{DType, Tensor};

/// Rewrites the main graph. Returns how many operators were replaced. An operator with computed scales, or with an attribute that
/// the float operator does not have, stays.
///
/// # Errors
/// If the result has a cycle.
pub(crate) fn restore(model: &mut Model) -> Result<usize> {
    let forms = |node: &Node| ops::find(&node.domain, &node.op_type).and_then(|op| op.integer_form());
    if model.graph.nodes.iter().all(|node| forms(node).is_none()) {
        return Ok(0);
    }
    let mut graph = std::mem::take(&mut model.graph);
    let mut restoring = Restoring {
        names: Names::of(&model.values),
        nodes: Names::of_nodes(&graph),
        model,
        grids: HashMap::new(),
        dequantized: HashMap::new(),
        constants: vec![],
    };
    restoring.known(&graph);
    let mut restored = 0;
    let mut list = vec![];
    for node in std::mem::take(&mut graph.nodes) {
        let written = match forms(&node) {
            Some(form) => restoring.float_form(&node, form),
            None => restoring.moved(&node),
        };
        restored += usize::from(written.is_some() && forms(&node).is_some());
        list.extend(written.unwrap_or_else(|| vec![node]));
    }
    graph.nodes = list;
    graph.constants.append(&mut restoring.constants);
    model.graph = graph;
    model.graph.sort(&model.values)?;
    Ok(restored)
}

/// Scale and zero point.
type GridValues = (ValueId, Option<ValueId>);

struct Restoring<'a> {
    model: &'a mut Model,
    names: Names,
    nodes: Names,
    /// Grids of integers that a quantizer makes.
    grids: HashMap<ValueId, GridValues>,
    /// Float values by the integers and the grid that they are dequantized by.
    dequantized: HashMap<(ValueId, GridValues), ValueId>,
    constants: Vec<ValueId>,
}

impl Restoring<'_> {
    /// The quantizers of the graph, by input and grid.
    fn known(&mut self, graph: &Graph) {
        for node in graph.nodes.iter().filter(|n| n.is_onnx()) {
            let (Some(from), Some(scale), Some(to)) = (node.input(0), node.input(1), node.output(0)) else { continue };
            match node.op_type.as_str() {
                "QuantizeLinear" => drop(self.grids.insert(to, (scale, node.input(2)))),
                "DequantizeLinear" => drop(self.dequantized.insert((from, (scale, node.input(2))), to)),
                _ => {}
            }
        }
    }

    /// Nodes in the place of an operator on integers.
    fn float_form(&mut self, node: &Node, form: &IntegerForm) -> Option<Vec<Node>> {
        let [Some(made)] = node.outputs[..] else { return None };
        let neutral = |v: &AttributeValue| matches!(v, AttributeValue::Int(0)) || *v == AttributeValue::Float(1.0);
        let meant = |a: &Attribute| form.opset && a.name == "opset" && self.means_the_same(&a.value);
        let kept = |a: &Attribute| form.attributes.contains(&a.name.as_str());
        if !node.attributes.list.iter().all(|a| kept(a) || meant(a) || neutral(&a.value)) {
            return None;
        }
        let input = |slot: Slot| form.position(slot).and_then(|at| node.input(at));
        let mut read: Vec<(usize, ValueId, GridValues)> = vec![];
        let mut inputs: Vec<Option<ValueId>> = vec![];
        for (at, slot) in form.slots.iter().enumerate() {
            match slot {
                Slot::Integers(i) => read.push((*i, node.input(at)?, (input(Slot::Scale(*i))?, input(Slot::ZeroPoint(*i))))),
                Slot::EachInput => {
                    for (i, from) in (at..node.inputs.len()).step_by(3).enumerate() {
                        read.push((i, node.input(from)?, (node.input(from + 1)?, node.input(from + 2))));
                    }
                }
                Slot::Plain(i) => put(&mut inputs, *i, node.input(at)?),
                _ => {}
            }
        }
        // Scales along an axis are for constants, which are lifted; other values would need a newer operator set.
        let fixed = |(_, integers, grid): &(usize, ValueId, GridValues)| {
            self.model.values.tensor(grid.0).is_some_and(|s| s.len() == 1 || self.model.values.tensor(*integers).is_some())
        };
        if !read.iter().all(fixed) {
            return None;
        }
        let bias = form.slots.iter().find_map(|s| if let Slot::Bias(i) = s { Some((*i, input(*s)?)) } else { None });
        let scale = match bias {
            Some(_) => Some(self.accumulator(&read)?),
            None => None,
        };
        // All checks are done: the graph may change from here on.
        let mut float = node.clone();
        float.op_type = form.of.into();
        float.domain = String::new();
        float.attributes.list.retain(|a| form.attributes.contains(&a.name.as_str()));
        let mut out = vec![];
        for (i, integers, grid) in read {
            let axis = if form.weight == Some(i) { self.weight_axis(&float, integers, i) } else { None };
            let value = self.dequantize(integers, grid, axis, &mut out);
            put(&mut inputs, i, value);
        }
        if let (Some((i, integers)), Some(scale)) = (bias, scale) {
            let base = self.model.values[integers].name.clone();
            let along = scale.len() > 1;
            let scale = self.constant(&format!("{base}_scale"), scale);
            let value = self.dequantize(integers, (scale, None), along.then_some(0), &mut out);
            put(&mut inputs, i, value);
        }
        float.inputs = inputs;
        match input(Slot::OutputScale) {
            Some(scale) => out.extend(self.quantized(float, made, (scale, input(Slot::OutputZeroPoint)))),
            // QGemm without an output grid returns floats.
            None => out.push(float),
        }
        Some(out)
    }

    /// A node that moves integers of a known grid becomes one that moves floats.
    fn moved(&mut self, node: &Node) -> Option<Vec<Node>> {
        let op: &dyn Operator = ops::find(&node.domain, &node.op_type)?;
        let (from, grid) = node.input(0).and_then(|v| Some((v, *self.grids.get(&v)?)))?;
        if op.effect(node, self.model) != Effect::Moves || node.outputs.iter().skip(op.outputs_on_grid(node)).any(Option::is_some) {
            return None;
        }
        let mut out = vec![];
        let mut float = node.clone();
        float.inputs[0] = Some(self.dequantize(from, grid, None, &mut out));
        let made: Vec<ValueId> = node.outputs.iter().flatten().copied().collect();
        let mut behind = vec![];
        for (slot, made) in float.outputs.iter_mut().flatten().zip(made) {
            *slot = self.like(made);
            behind.push(self.quantizer("QuantizeLinear", *slot, grid, made));
            self.grids.insert(made, grid);
        }
        out.push(float);
        out.extend(behind);
        Some(out)
    }

    /// A node and the quantizer behind it.
    fn quantized(&mut self, mut node: Node, made: ValueId, grid: GridValues) -> [Node; 2] {
        let raw = self.like(made);
        node.outputs = vec![Some(raw)];
        self.grids.insert(made, grid);
        let quantize = self.quantizer("QuantizeLinear", raw, grid, made);
        [node, quantize]
    }

    /// The floats of quantized integers, dequantized once for all readers.
    fn dequantize(&mut self, integers: ValueId, grid: GridValues, axis: Option<usize>, out: &mut Vec<Node>) -> ValueId {
        if let Some(there) = self.dequantized.get(&(integers, grid)) {
            return *there;
        }
        let value = self.like(integers);
        let node = self.quantizer("DequantizeLinear", integers, grid, value);
        out.push(match axis.filter(|_| self.model.values.tensor(grid.0).is_some_and(|s| s.len() > 1)) {
            Some(axis) => node.with("axis", AttributeValue::Int(axis as i64)),
            None => node,
        });
        self.dequantized.insert((integers, grid), value);
        value
    }

    fn quantizer(&mut self, op_type: &str, from: ValueId, grid: GridValues, to: ValueId) -> Node {
        let name = self.nodes.fresh(&format!("{}_{op_type}", self.model.values[to].name));
        let mut node = Node::new(op_type, name, &[from, grid.0], &[to]);
        node.inputs.extend(grid.1.map(Some));
        node
    }

    /// True if the operator set of the model and the operator's version are on the same side of 13, where Softmax changed.
    fn means_the_same(&self, version: &AttributeValue) -> bool {
        matches!(version, AttributeValue::Int(v) if (*v >= 13) == (self.model.onnx_opset() >= 13))
    }

    /// The axis of output channels of a layer's weight, as the float operator has it.
    fn weight_axis(&self, float: &Node, weight: ValueId, input: usize) -> Option<usize> {
        let mut node = float.clone();
        node.inputs = vec![None; input + 1];
        node.inputs[input] = Some(weight);
        match ops::find("", &node.op_type)?.effect(&node, self.model) {
            Effect::Computes { weight: Some(rule), .. } => rule.axis,
            _ => None,
        }
    }

    /// The scale of a bias: that of the data times that of the weight.
    fn accumulator(&self, read: &[(usize, ValueId, GridValues)]) -> Option<Tensor> {
        let scale = |i: usize| read.iter().find(|(at, ..)| *at == i).and_then(|(_, _, grid)| self.model.values.tensor(grid.0));
        let (data, weight) = (scale(0)?, scale(1)?);
        let flat = |t: &Tensor| if t.len() == 1 { t.reshape([]) } else { Ok(t.clone()) };
        flat(data).and_then(|d| d.mul(&flat(weight)?)).ok()
    }

    fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.model.values.add_constant(self.names.fresh(name), tensor);
        self.constants.push(id);
        id
    }

    /// A float value of the shape of another.
    fn like(&mut self, of: ValueId) -> ValueId {
        let values: &mut Values = &mut self.model.values;
        let id = values.add_named(self.names.fresh(&format!("{}_float", values[of].name)));
        values[id].ty = values[of].ty.clone();
        if let graph::ValueType::Tensor { dtype, .. } = &mut values[id].ty {
            *dtype = DType::F32;
        }
        id
    }
}

fn put(inputs: &mut Vec<Option<ValueId>>, at: usize, value: ValueId) {
    inputs.resize(inputs.len().max(at + 1), None);
    inputs[at] = Some(value);
}
