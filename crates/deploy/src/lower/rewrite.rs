//! The rewriting itself: walks a graph and its subgraphs and inserts QuantizeLinear and DequantizeLinear.
use super::constants::{Form, store};
use super::decode_nodes::{DecodeNodes, along};
use super::{blocks, strip, table};
use crate::grid::Grid;
use crate::{DeployError, Result};
use encodings::Decode;
use encodings::affine::{AffineSettings, Blocks};
use graph::{Annotations, AttributeValue, Graph, Names, Node, ValueId, ValueType, Values};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use target::Target;
use tensor::{DType, Tensor};

/// What was found in the graph before it is rewritten.
pub(super) struct Found {
    /// Outputs of Clip and Relu nodes that are left out.
    pub(super) covered: BTreeSet<ValueId>,
    /// Quotients that are their dividend on another scale.
    pub(super) divided: BTreeMap<ValueId, ValueId>,
    /// Values that are on their grid already, since they were only moved.
    pub(super) moved: BTreeSet<ValueId>,
    /// Weights of integers that are read in float alone.
    pub(super) in_float: BTreeSet<ValueId>,
}

/// The state of one lowering.
pub(super) struct Rewriter<'a> {
    values: &'a mut Values,
    annotations: &'a Annotations,
    /// Outputs of Clip and Relu nodes that are left out.
    covered: &'a BTreeSet<ValueId>,
    /// Quotients that are their dividend on another scale.
    divided: &'a BTreeMap<ValueId, ValueId>,
    /// Values that are on their grid already, since they were only moved.
    moved: &'a BTreeSet<ValueId>,
    /// Weights of integers that are read in float alone.
    in_float: &'a BTreeSet<ValueId>,
    target: &'a dyn Target,
    names: Names,
    nodes: Names,
    /// Weights that decode from a table so far.
    decoded: usize,
}

/// The integers that a value was dequantized from.
fn dequantized_from(nodes: &[Node], value: ValueId) -> Option<ValueId> {
    nodes.iter().rev().find(|n| n.output(0) == Some(value)).filter(|n| n.op_type == "DequantizeLinear")?.input(0)
}

impl<'a> Rewriter<'a> {
    pub(super) fn new(
        graph: &Graph,
        values: &'a mut Values,
        annotations: &'a Annotations,
        found: &'a Found,
        target: &'a dyn Target,
    ) -> Self {
        let (names, nodes) = (Names::of(values), Names::of_nodes(graph));
        let Found { covered, divided, moved, in_float } = found;
        Rewriter { values, annotations, covered, divided, moved, in_float, target, names, nodes, decoded: 0 }
    }

    /// Rewrites the main graph and the subgraphs of its nodes.
    pub(super) fn graph(&mut self, graph: &mut Graph) -> Result<()> {
        // Subgraph outputs are matched by order, those of the main graph by name.
        if let Some(input) = graph.inputs.iter().find(|v| graph.outputs.contains(v) && self.annotations.encoding(**v).is_some()) {
            return Err(
                self.error(*input, "is an input and an output at once, so its quantized form would have no name; remove its encoding")
            );
        }
        self.scope(graph)
    }

    fn scope(&mut self, graph: &mut Graph) -> Result<()> {
        let mut nodes = vec![];
        for input in graph.inputs.clone() {
            if self.values.tensor(input).is_none() {
                self.graph_input(graph, input, &mut nodes)?;
            }
        }
        let mut waiting = self.constants(graph, &mut nodes)?;
        for mut node in std::mem::take(&mut graph.nodes) {
            for read in reads(&node) {
                nodes.extend(waiting.remove(&read).unwrap_or_default());
            }
            for sub in node.subgraphs_mut() {
                self.scope(sub)?;
            }
            if let (Some(from), Some(to)) = (node.input(0), node.output(0).filter(|v| self.covered.contains(v)))
                && let Some(grid) = self.grid(to)?
            {
                nodes.extend(self.pair(graph, to, [from, to], &grid)?);
                continue;
            }
            if let Some(quotient) = node.output(0)
                && let Some(dividend) = self.divided.get(&quotient)
                && let Some(integers) = dequantized_from(&nodes, *dividend)
                && let Some(grid) = self.grid(quotient)?
            {
                nodes.push(self.read_again(graph, quotient, [integers, quotient], &grid));
                continue;
            }
            let behind = self.node_outputs(&mut node, graph)?;
            nodes.push(node);
            nodes.extend(behind);
        }
        // Values that only an output reads.
        nodes.extend(graph.outputs.iter().filter_map(|v| waiting.remove(v)).flatten());
        graph.nodes = nodes;
        Ok(())
    }

    /// An encoded graph input keeps its name; its readers get the dequantized value.
    fn graph_input(&mut self, graph: &mut Graph, input: ValueId, nodes: &mut Vec<Node>) -> Result<()> {
        let levels = self.two_levels(input)?;
        if let Some(levels) = levels {
            let read = self.value_like(input, "read");
            graph.replace_uses(input, read);
            nodes.extend(self.choose(graph, input, [input, read], levels));
            return Ok(());
        }
        let Some(grid) = self.grid(input)? else { return Ok(()) };
        let read = self.value_like(input, "dequantized");
        graph.replace_uses(input, read);
        nodes.extend(self.pair(graph, input, [input, read], &grid)?);
        Ok(())
    }

    /// An encoded node output keeps its id and name for its readers; the node writes a new value instead.
    fn node_outputs(&mut self, node: &mut Node, graph: &mut Graph) -> Result<Vec<Node>> {
        let mut behind = vec![];
        for i in 0..node.outputs.len() {
            let Some(output) = node.output(i) else { continue };
            let levels = self.two_levels(output)?;
            let grid = if levels.is_none() { self.grid(output)? } else { None };
            if levels.is_none() && grid.is_none() {
                continue;
            }
            let raw = self.value_like(output, "float");
            node.outputs[i] = Some(raw);
            if let Some(levels) = levels {
                behind.extend(self.choose(graph, output, [raw, output], levels));
            }
            let Some(grid) = grid else { continue };
            behind.extend(self.pair(graph, output, [raw, output], &grid)?);
        }
        Ok(behind)
    }

    /// The lower level, the higher one and the least value that becomes the higher one, of an activation of two levels.
    fn two_levels(&self, id: ValueId) -> Result<Option<[f32; 3]>> {
        let Some(encoding) = self.annotations.encoding(id) else { return Ok(None) };
        encodings::binary::activation_levels(encoding).map_err(|e| self.error(id, &e.to_string()))
    }

    /// The choice between two levels: `Where(from < threshold, low, high)`. Sign, which gives zero for zero, would have three.
    fn choose(&mut self, graph: &mut Graph, named: ValueId, [from, to]: [ValueId; 2], [low, high, threshold]: [f32; 3]) -> [Node; 2] {
        let base = self.values[named].name.clone();
        let constants = [("threshold", threshold), ("low", low), ("high", high)];
        let [threshold, low, high] = constants.map(|(suffix, v)| self.constant(graph, &base, suffix, Tensor::scalar(v)));
        let below = self.value_like(named, "below");
        if let ValueType::Tensor { dtype, .. } = &mut self.values[below].ty {
            *dtype = DType::Bool;
        }
        [self.node("Less", &base, &[from, threshold], below), self.node("Where", &base, &[below, low, high], to)]
    }

    /// QuantizeLinear and DequantizeLinear from one value to another; new values get names derived from `named`. QuantizeLinear
    /// saturates at the ends of the stored type: for a grid that ends before them (3 bits in uint4), Max and Min in front clip to
    /// the grid's ends.
    fn pair(&mut self, graph: &mut Graph, named: ValueId, [from, to]: [ValueId; 2], grid: &Grid) -> Result<Vec<Node>> {
        let base = self.values[named].name.clone();
        let mut nodes = vec![];
        let mut from = from;
        for (op, suffix, end) in self.inner_ends(named)? {
            let held = self.value_like(named, suffix);
            let end = self.constant(graph, &base, &format!("{suffix}_end"), Tensor::scalar(end));
            nodes.push(self.node(op, &base, &[from, end], held));
            from = held;
        }
        let [scale, zero_point] = self.parameters(graph, &base, grid);
        let quantized = self.value_like(named, "quantized");
        if let ValueType::Tensor { dtype, .. } = &mut self.values[quantized].ty {
            *dtype = grid.dtype();
        }
        let mut node = |op: &str, from: &[ValueId], to| Node::new(op, self.nodes.fresh(&format!("{base}_{op}")), from, &[to]);
        let quantize = node("QuantizeLinear", &[from, scale, zero_point], quantized);
        let dequantize = node("DequantizeLinear", &[quantized, scale, zero_point], to);
        nodes.extend([quantize, dequantize].map(|node| with_axis(node, grid.axis)));
        Ok(nodes)
    }

    /// The ends of an activation's grid that lie inside its stored type, as real numbers, each with the operator that clips there.
    fn inner_ends(&self, id: ValueId) -> Result<Vec<(&'static str, &'static str, f32)>> {
        let Some(encoding) = self.annotations.encoding(id).filter(|_| !self.moved.contains(&id)) else { return Ok(vec![]) };
        let fail = |e: String| self.error(id, &e);
        let grid = encodings::affine::Grid::of(encoding).map_err(|e| fail(e.to_string()))?;
        let settings = *grid.settings();
        let whole = AffineSettings {
            bits: wide_enough(settings.dtype(), self.target).bits() as u32,
            narrow_range: false,
            reduce_range: false,
            ..settings
        };
        if grid.scale().len() != 1 {
            return Ok(vec![]);
        }
        let scale = grid.scale().item::<f32>().map_err(|e| fail(e.to_string()))?;
        let zero_point = grid.zero_point().and_then(|z| Ok(z.to_i64_vec()?)).map_err(|e| fail(e.to_string()))?;
        let zero_point = zero_point.first().copied().unwrap_or(0);
        let end = |q: i64| (q - zero_point) as f32 * scale;
        let low = (settings.qmin() > whole.qmin()).then(|| ("Max", "least", end(settings.qmin())));
        let high = (settings.qmax() < whole.qmax()).then(|| ("Min", "largest", end(settings.qmax())));
        Ok(low.into_iter().chain(high).collect())
    }

    /// The grid's scale and zero point as constants.
    fn parameters(&mut self, graph: &mut Graph, base: &str, grid: &Grid) -> [ValueId; 2] {
        [("scale", &grid.scale), ("zero_point", &grid.zero_point)].map(|(suffix, t)| self.constant(graph, base, suffix, t.clone()))
    }

    /// DequantizeLinear from existing integers.
    fn read_again(&mut self, graph: &mut Graph, named: ValueId, [from, to]: [ValueId; 2], grid: &Grid) -> Node {
        let base = self.values[named].name.clone();
        let [scale, zero_point] = self.parameters(graph, &base, grid);
        let name = self.nodes.fresh(&format!("{base}_DequantizeLinear"));
        with_axis(Node::new("DequantizeLinear", name, &[from, scale, zero_point], &[to]), grid.axis)
    }

    /// Replaces the annotated constants of a graph by their stored forms. Returns the nodes that decode them, still to be placed
    /// before the first reader of each value; nodes that several constants share go into `first`.
    fn constants(&mut self, graph: &mut Graph, first: &mut Vec<Node>) -> Result<BTreeMap<ValueId, Vec<Node>>> {
        let (mut waiting, mut tables) = (BTreeMap::new(), vec![]);
        let writes_zero_point = |n: &&Node| n.is_onnx() && self.target.writes_zero_point(&n.op_type);
        let with_zero_point: HashSet<ValueId> = graph.nodes.iter().filter(writes_zero_point).filter_map(|n| n.input(1)).collect();
        for id in graph.constants.clone() {
            let Some(annotation) = self.annotations.get(id).filter(|a| !a.is_empty()) else { continue };
            let Some(tensor) = self.values.tensor(id).cloned() else { continue };
            match store(&self.values[id].name, &tensor, annotation)? {
                Form::Float(tensor) => {
                    self.values.set_tensor(id, tensor);
                }
                Form::Data(stored) => {
                    self.values[id].constant = None;
                    graph.constants.retain(|v| *v != id);
                    graph.inputs.retain(|v| *v != id);
                    match &stored.decode {
                        Decode::Affine { scale, zero_point, axis, blocks } => {
                            let grid = Grid { scale: scale.clone(), zero_point: zero_point.clone(), axis: *axis, blocks: *blocks };
                            let nodes = match blocks {
                                Some(blocks) => self.in_blocks(graph, id, stored.data, (&grid, blocks))?,
                                None => match grid.is_symmetric() && self.in_float.contains(&id) {
                                    true => self.cast_and_scale(graph, id, stored.data, &grid)?,
                                    false => vec![self.dequantize(graph, id, stored.data, &grid, with_zero_point.contains(&id))],
                                },
                            };
                            waiting.insert(id, nodes);
                        }
                        Decode::Table { .. } => tables.push((id, stored)),
                    }
                }
            }
        }
        let (strips, others) = strip::decode(self, graph, tables)?;
        first.extend(strips.first);
        waiting.extend(strips.each);
        for (id, stored) in others {
            waiting.insert(id, table::decode(self, graph, id, &stored)?);
        }
        Ok(waiting)
    }

    /// The nodes that decode a former float constant with a scale for each block.
    fn in_blocks(&mut self, graph: &mut Graph, id: ValueId, data: Tensor, (grid, of): (&Grid, &Blocks)) -> Result<Vec<Node>> {
        let cast = grid.is_symmetric() && self.in_float.contains(&id);
        let base = self.values[id].name.clone();
        let work = DecodeNodes::new(self, graph, base);
        if cast { blocks::cast_and_scale(work, id, &data, (grid, of)) } else { blocks::dequantize(work, id, &data, (grid, of)) }
    }

    /// The DequantizeLinear that decodes a former float constant. A zero point of zero may be left out, unless the target needs
    /// it.
    fn dequantize(&mut self, graph: &mut Graph, id: ValueId, data: Tensor, grid: &Grid, with_zero_point: bool) -> Node {
        let base = self.values[id].name.clone();
        let mut inputs = vec![self.constant(graph, &base, "quantized", data), self.constant(graph, &base, "scale", grid.scale.clone())];
        if with_zero_point || !grid.is_symmetric() {
            inputs.push(self.constant(graph, &base, "zero_point", grid.zero_point.clone()));
        }
        let name = self.nodes.fresh(&format!("{base}_DequantizeLinear"));
        with_axis(Node::new("DequantizeLinear", name, &inputs, &[id]), grid.axis)
    }

    /// Cast and Mul that decode a former float constant: what DequantizeLinear computes.
    fn cast_and_scale(&mut self, graph: &mut Graph, id: ValueId, data: Tensor, grid: &Grid) -> Result<Vec<Node>> {
        let base = self.values[id].name.clone();
        let scale = match grid.axis {
            Some(axis) => grid.scale.reshape(along(data.shape(), axis))?,
            None => grid.scale.reshape([])?,
        };
        let mut work = DecodeNodes::new(self, graph, base);
        let (data, scale) = (work.constant("quantized", data), work.constant("scale", scale));
        let float = work.cast(data, graph::code_of_dtype(DType::F32));
        work.last("Mul", &[float, scale], id);
        Ok(work.nodes)
    }

    fn grid(&self, id: ValueId) -> Result<Option<Grid>> {
        let Some(encoding) = self.annotations.encoding(id) else { return Ok(None) };
        let mut grid = Grid::of(&self.values[id].name, encoding)?;
        grid.zero_point = grid.zero_point.cast(wide_enough(grid.dtype(), self.target))?;
        Ok(Some(grid))
    }

    /// The name of a value.
    pub(super) fn name(&self, id: ValueId) -> String {
        self.values[id].name.clone()
    }

    /// The beginning of the names of what decodes the next weight.
    pub(super) fn short(&mut self) -> String {
        self.decoded += 1;
        format!("w{}", self.decoded)
    }

    /// A node under a name of its own.
    pub(super) fn node(&mut self, op: &str, base: &str, inputs: &[ValueId], output: ValueId) -> Node {
        Node::new(op, self.nodes.fresh(&format!("{base}_{op}")), inputs, &[output])
    }

    /// A new value between two nodes.
    pub(super) fn inner(&mut self, base: &str, suffix: &str) -> ValueId {
        let name = self.fresh(base, suffix);
        self.values.add_named(name)
    }

    pub(super) fn constant(&mut self, graph: &mut Graph, base: &str, suffix: &str, tensor: Tensor) -> ValueId {
        let name = self.fresh(base, suffix);
        let id = self.values.add_constant(name, tensor);
        graph.constants.push(id);
        id
    }

    fn value_like(&mut self, id: ValueId, suffix: &str) -> ValueId {
        let name = self.fresh(&self.values[id].name.clone(), suffix);
        let new = self.values.add_named(name);
        self.values[new].ty = self.values[id].ty.clone();
        new
    }

    fn fresh(&mut self, base: &str, suffix: &str) -> String {
        self.names.fresh(&format!("{base}_{suffix}"))
    }

    fn error(&self, id: ValueId, what: &str) -> DeployError {
        DeployError::Lower { value: self.values[id].name.clone(), what: what.to_string() }
    }
}

/// The type in which an activation is stored: the given one, or a wider one that the target's layers can read.
pub(super) fn wide_enough(integers: DType, target: &dyn Target) -> DType {
    match integers {
        DType::U2 if target.least_activation_bits() > 2 => DType::U4,
        DType::I2 if target.least_activation_bits() > 2 => DType::I4,
        other => other,
    }
}

fn with_axis(node: Node, axis: Option<usize>) -> Node {
    match axis {
        Some(axis) => node.with("axis", AttributeValue::Int(axis as i64)),
        None => node,
    }
}

/// All values that a node reads, also in its subgraphs.
fn reads(node: &Node) -> Vec<ValueId> {
    let mut all: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
    for sub in node.subgraphs() {
        let mut inner: Vec<ValueId> = sub.use_counts().into_keys().collect();
        inner.sort();
        all.extend(inner);
    }
    all
}
