//! Shape inference: types of all values, forward through the graph. The elements of small tensors are carried along, so that
//! arithmetic on shapes can be evaluated.
use crate::{EvalCx, Inputs, OpError, RunSubgraph, ShapeCx, Sums, find};
use graph::{Dim, Graph, Model, Node, ValueId, ValueType, Values};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use tensor::{DType, Tensor};

/// Larger tensors do not count as arithmetic on shapes; their elements are not carried along.
const MOST_ELEMENTS: usize = 1024;

/// Types by value: what the file declares, made more precise by what follows from the inputs. Values of subgraphs too.
/// The model stays as it is. A declaration that a value's computation contradicts loses against the computation.
///
/// # Errors
/// If the inputs of a node contradict the operator's schema, with the node's name.
pub fn infer_types(model: &Model) -> Result<HashMap<ValueId, ValueType>, OpError> {
    Ok(infer(model)?.types)
}

/// Facts about a model's values before it runs.
#[derive(Clone, Debug, Default)]
pub struct Inferred {
    /// Types by value, as [`infer_types`] gives them.
    pub types: HashMap<ValueId, ValueType>,
    /// Elements of small computed values that are the same in every run with inputs of the declared shapes.
    pub elements: HashMap<ValueId, Tensor>,
}

/// As [`infer_types`], with the elements of arithmetic on shapes and constants.
///
/// # Errors
/// As [`infer_types`].
pub fn infer(model: &Model) -> Result<Inferred, OpError> {
    let mut pass = Pass { model, types: HashMap::new(), known: HashMap::new() };
    pass.graph(&model.graph)?;
    Ok(Inferred { types: pass.types, elements: pass.known })
}

/// A copy of the model for inference from its inputs alone: declared types of computed values, which a file may have wrong, are left out, and
/// the inputs that must be fed have the shape that `input` gives for their name and declared shape.
pub fn bare(model: &Model, input: impl Fn(&str, Option<&[Dim]>) -> Option<Vec<Dim>>) -> Model {
    let mut bare = Model { source: None, ..model.clone() };
    for id in model.graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten()) {
        bare.values[*id].ty = ValueType::Unknown;
    }
    for id in model.free_inputs() {
        let value = &mut bare.values[id];
        if let ValueType::Tensor { shape, .. } = &mut value.ty {
            *shape = input(&value.name, shape.as_deref());
        }
    }
    bare
}

/// Writes the inferred types into the model, as declarations (`value_info`) of the values that nodes make. Returns how
/// many values have a more precise type than before.
///
/// # Errors
/// As [`infer_types`].
pub fn infer_shapes(model: &mut Model) -> Result<usize, OpError> {
    let types = infer_types(model)?;
    let mut changed = 0;
    let mut graph = std::mem::take(&mut model.graph);
    declare(&mut graph, &mut model.values, &types, &mut changed);
    model.graph = graph;
    Ok(changed)
}

fn declare(graph: &mut Graph, values: &mut Values, types: &HashMap<ValueId, ValueType>, changed: &mut usize) {
    let mut listed: HashSet<ValueId> = graph.outputs.iter().chain(&graph.value_info).copied().collect();
    for node in &mut graph.nodes {
        for sub in node.subgraphs_mut() {
            declare(sub, values, types, changed);
        }
        for id in node.outputs.iter().flatten() {
            let Some(ty) = types.get(id).filter(|t| **t != values[*id].ty) else { continue };
            values[*id].ty = ty.clone();
            *changed += 1;
            if listed.insert(*id) {
                graph.value_info.push(*id);
            }
        }
    }
}

struct Pass<'a> {
    model: &'a Model,
    types: HashMap<ValueId, ValueType>,
    /// Elements of small tensors that are the same in every run.
    known: HashMap<ValueId, Tensor>,
}

impl Pass<'_> {
    fn graph(&mut self, graph: &Graph) -> Result<(), OpError> {
        for node in &graph.nodes {
            for sub in node.subgraphs() {
                self.graph(sub)?;
            }
            let cx = ShapeCx {
                node,
                opset: self.model.opset(&node.domain).unwrap_or(1),
                types: node.inputs.iter().map(|v| v.map_or(ValueType::Unknown, |v| self.type_of(v))).collect(),
                values: node.inputs.iter().map(|v| v.and_then(|v| self.value_of(v))).collect(),
            };
            let inferred = self.outputs(&cx).map_err(|e| named(node, &self.model.values, e))?;
            let elements = self.elements(&cx, &inferred);
            for (i, id) in node.outputs.iter().enumerate() {
                let Some(id) = id else { continue };
                let declared = self.model.values[*id].ty.clone();
                let ty = merge(inferred.get(i).cloned().unwrap_or_default(), declared);
                self.types.insert(*id, ty);
                if let Some(t) = elements.get(i) {
                    self.known.insert(*id, t.clone());
                }
            }
        }
        Ok(())
    }

    fn outputs(&self, cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
        let node = cx.node;
        if node.is_onnx() && node.op_type == "If" {
            let branches: Vec<&Graph> = node.subgraphs().collect();
            let result = |b: &Graph, i: usize| b.outputs.get(i).map_or(ValueType::Unknown, |v| self.type_of(*v));
            let joined = |i: usize| branches.iter().map(|b| result(b, i)).reduce(join).unwrap_or_default();
            return Ok((0..node.outputs.len()).map(joined).collect());
        }
        match find(&node.domain, &node.op_type) {
            Some(op) => op.infer(cx),
            None => Ok(vec![]),
        }
    }

    fn type_of(&self, id: ValueId) -> ValueType {
        let Some(value) = self.model.values.get(id) else { return ValueType::Unknown };
        match (&value.constant, self.types.get(&id)) {
            (Some(c), _) => {
                let shape = c.tensor.shape().iter().map(|d| Dim::Known(*d)).collect();
                ValueType::Tensor { dtype: c.tensor.dtype(), shape: Some(shape) }
            }
            (None, Some(inferred)) => inferred.clone(),
            (None, None) => value.ty.clone(),
        }
    }

    /// Elements of a value that are the same in every run: a constant that is no graph input, or arithmetic on such constants.
    fn value_of(&self, id: ValueId) -> Option<Tensor> {
        let constant = self.model.constant(id).filter(|t| t.len() <= MOST_ELEMENTS);
        constant.or_else(|| self.known.get(&id)).cloned()
    }

    /// The elements of a node's outputs, if all its inputs are known and small.
    fn elements(&self, cx: &ShapeCx, inferred: &[ValueType]) -> Vec<Tensor> {
        let node = cx.node;
        if let Some(of_shape) = elements_of_shape(cx) {
            return vec![of_shape];
        }
        let given = |(i, v): (usize, &Option<ValueId>)| v.is_none() || cx.values.get(i).is_some_and(Option::is_some);
        let small = |t: &ValueType| count(t).is_some_and(|n| n <= MOST_ELEMENTS);
        let foldable = !node.inputs.is_empty() && node.inputs.iter().enumerate().all(given) && inferred.iter().all(small);
        if !foldable || node.subgraphs().next().is_some() || draws(node) {
            return vec![];
        }
        let Some(op) = find(&node.domain, &node.op_type) else { return vec![] };
        let eval = EvalCx {
            node,
            opset: cx.opset,
            training: false,
            seed: 0,
            sums: Sums::Exact,
            subgraphs: &NoSubgraphs,
            updates: RefCell::new(vec![]),
        };
        // A failure to compute elements is an error of the run, not of the types.
        op.eval(&eval, Inputs::new(cx.values.clone())).unwrap_or_default()
    }
}

/// The elements of a Shape node, if all sizes of its input (or the requested ones) are known.
fn elements_of_shape(cx: &ShapeCx) -> Option<Tensor> {
    if cx.node.op_type != "Shape" || !cx.node.is_onnx() {
        return None;
    }
    let dims = cx.shape(0)?;
    let range = crate::layout::reported(cx.node, dims.len()).ok()?;
    let sizes: Option<Vec<i64>> = dims[range].iter().map(|d| d.known().and_then(|n| i64::try_from(n).ok())).collect();
    Some(Tensor::vector(sizes?))
}

/// True for operators whose result is drawn anew in each run.
fn draws(node: &Node) -> bool {
    crate::random::OPERATORS.iter().any(|op| op.op_type() == node.op_type)
}

fn count(ty: &ValueType) -> Option<usize> {
    match ty {
        ValueType::Tensor { shape: Some(dims), dtype } if *dtype != DType::String => {
            dims.iter().try_fold(1usize, |n, d| n.checked_mul(d.known()?))
        }
        _ => None,
    }
}

/// The computed type, made more precise by the declared one if the two agree.
fn merge(computed: ValueType, declared: ValueType) -> ValueType {
    match (computed, declared) {
        (ValueType::Unknown, declared) => declared,
        (ValueType::Tensor { dtype, shape: Some(computed) }, ValueType::Tensor { shape: Some(declared), .. })
            if computed.len() == declared.len() =>
        {
            let dim = |(c, d): (Dim, Dim)| match (&c, &d) {
                (Dim::Known(_), _) | (Dim::Symbol(_), Dim::Symbol(_) | Dim::Unknown) => c,
                _ => d,
            };
            ValueType::Tensor { dtype, shape: Some(computed.into_iter().zip(declared).map(dim).collect()) }
        }
        (ValueType::Tensor { dtype, shape: None }, ValueType::Tensor { shape, .. }) => ValueType::Tensor { dtype, shape },
        (computed, _) => computed,
    }
}

/// The type that holds for both branches of an If.
fn join(a: ValueType, b: ValueType) -> ValueType {
    let (ValueType::Tensor { dtype, shape: left }, ValueType::Tensor { dtype: other, shape: right }) = (a, b) else {
        return ValueType::Unknown;
    };
    if dtype != other {
        return ValueType::Unknown;
    }
    let shape = left.zip(right).filter(|(l, r)| l.len() == r.len());
    let same = |(l, r): (Dim, Dim)| if l == r { l } else { Dim::Unknown };
    ValueType::Tensor { dtype, shape: shape.map(|(l, r)| l.into_iter().zip(r).map(same).collect()) }
}

fn named(node: &Node, values: &Values, e: OpError) -> OpError {
    OpError::Inner(format!("node '{}' ({}): {e}", node.label(values), node.op_type))
}

/// Nodes with subgraphs are not evaluated here.
struct NoSubgraphs;
impl RunSubgraph for NoSubgraphs {
    fn run_subgraph(&self, graph: &Graph, _: Vec<Tensor>) -> Result<Vec<Tensor>, OpError> {
        Err(OpError::Inner(format!("subgraph '{}' is not run by shape inference", graph.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{AttributeValue, Value};

    fn dims(sizes: &[usize]) -> Vec<Dim> {
        std::iter::once(Dim::Symbol("n".into())).chain(sizes.iter().map(|d| Dim::Known(*d))).collect()
    }

    /// x [n, 3, 4] → Shape of the last two → the second, 4 → Concat with -1 → Reshape.
    fn flattened_by_arithmetic() -> (Model, ValueId) {
        let mut m = Model::new(17);
        let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(dims(&[3, 4])) };
        let x = m.values.add(Value { name: "x".into(), ty, ..Value::default() });
        let one = m.values.add_constant("one", Tensor::vector(vec![1i64]));
        let open = m.values.add_constant("open", Tensor::vector(vec![-1i64]));
        let two = m.values.add_constant("two", Tensor::vector(vec![2i64]));
        let zero = m.values.add_constant("zero", Tensor::vector(vec![0i64]));
        m.graph.constants.extend([one, open, two, zero]);
        let [shape, part, target, y] = ["shape", "part", "target", "y"].map(|n| m.values.add_named(n));
        m.graph.inputs.push(x);
        m.graph.outputs.push(y);
        m.graph.nodes = vec![
            Node::new("Shape", "", &[x], &[shape]).with("start", AttributeValue::Int(1)),
            Node::new("Slice", "", &[shape, one, two, zero, one], &[part]),
            Node::new("Concat", "", &[open, part], &[target]).with("axis", AttributeValue::Int(0)),
            Node::new("Reshape", "", &[x, target], &[y]),
        ];
        (m, y)
    }

    #[test]
    fn arithmetic_on_shapes_is_seen_through() {
        let (mut m, y) = flattened_by_arithmetic();
        let before = m.clone();
        let types = infer_types(&m).unwrap();
        assert_eq!(m, before);
        let ValueType::Tensor { shape: Some(shape), dtype } = &types[&y] else { panic!("{:?}", types[&y]) };
        assert_eq!((*dtype, shape.len(), &shape[1]), (DType::F32, 2, &Dim::Known(4)));
        assert!(infer_shapes(&mut m).unwrap() > 0);
        assert_eq!(m.values[y].shape().unwrap().len(), 2);
        assert_eq!(m.graph.value_info.len(), 3);
    }

    #[test]
    fn both_branches_of_an_if_decide_its_type() {
        let mut m = Model::new(17);
        let branch = |m: &mut Model, n: &str, shape: &[usize]| {
            let c = m.values.add_constant(format!("{n}_c"), Tensor::full(1f32, shape.to_vec()).unwrap());
            let out = m.values.add_named(n);
            let nodes = vec![Node::new("Relu", "", &[c], &[out])];
            Graph { nodes, outputs: vec![out], constants: vec![c], ..Graph::default() }
        };
        let (then, other) = (branch(&mut m, "a", &[2, 3]), branch(&mut m, "b", &[2, 5]));
        let ty = ValueType::Tensor { dtype: DType::Bool, shape: Some(vec![]) };
        let condition = m.values.add(Value { name: "c".into(), ty, ..Value::default() });
        let y = m.values.add_named("y");
        m.graph.inputs.push(condition);
        let node = Node::new("If", "", &[condition], &[y]).with("then_branch", AttributeValue::Graph(Box::new(then)));
        m.graph.nodes.push(node.with("else_branch", AttributeValue::Graph(Box::new(other))));
        let shape = Some(vec![Dim::Known(2), Dim::Unknown]);
        assert_eq!(infer_types(&m).unwrap()[&y], ValueType::Tensor { dtype: DType::F32, shape });
    }

    #[test]
    fn a_shape_of_more_axes_than_there_are_is_unknown() {
        for op in ["ConstantOfShape", "Reshape", "Expand", "AffineGrid", "Col2Im"] {
            let mut m = Model::new(20);
            let input = |m: &mut Model, name: &str, dtype, dim| {
                let ty = ValueType::Tensor { dtype, shape: Some(vec![dim]) };
                let id = m.values.add(Value { name: name.into(), ty, ..Value::default() });
                m.graph.inputs.push(id);
                id
            };
            let x = input(&mut m, "x", DType::F32, Dim::Known(6));
            let shape = input(&mut m, "shape", DType::I64, Dim::Known(i64::MAX as usize));
            let y = m.values.add_named("y");
            let inputs = if op == "ConstantOfShape" { vec![shape] } else { vec![x, shape] };
            m.graph.nodes.push(Node::new(op, "", &inputs, &[y]));
            // There must be no panic, whether the model is refused or the type left open.
            if let Ok(types) = infer_types(&m) {
                assert!(!matches!(types.get(&y), Some(ValueType::Tensor { shape: Some(_), .. })), "{op}");
            }
        }
    }

    #[test]
    fn a_contradiction_names_its_node() {
        let mut m = Model::new(17);
        let a = m.values.add_constant("a", Tensor::full(1f32, [2, 3]).unwrap());
        let b = m.values.add_constant("b", Tensor::full(1f32, [4, 5]).unwrap());
        m.graph.constants.extend([a, b]);
        let y = m.values.add_named("y");
        m.graph.nodes.push(Node::new("Add", "sum", &[a, b], &[y]));
        let error = infer_types(&m).unwrap_err().to_string();
        assert!(error.contains("'sum' (Add)"), "{error}");
    }
}
