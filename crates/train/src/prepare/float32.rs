//! Half and double precision to single: training, quantization and pruning here work on float32.
use crate::TrainError;
use graph::{AttributeValue, Graph, Model, Node, Origin, ValueType, Values};
use tensor::{DType, Tensor};

/// Attributes that hold an element type by its number.
const TYPES: &[&str] = &["to", "dtype", "output_dtype", "precision", "softmax_precision", "stash_type"];

/// Converts everything that is float16 or bfloat16 to float32: constants, declared types (also of inputs and outputs), casts and
/// other attributes that name the type. Also double, if inputs or weights have it; a few double operations among others (sizes,
/// as exporters write them) stay. Casts without effect are removed. Returns how many tensors the file had in such a type; a model
/// without any stays as it is.
///
/// Results are those of float32 arithmetic: more exact than before, and without float16's overflow beyond 65504.
///
/// # Errors
/// [`TrainError::Graph`] for functions that cannot be inlined, which is done first.
pub fn to_float32(model: &mut Model) -> Result<usize, TrainError> {
    let double = is_double(model);
    let other: Other = &|dtype| matches!(dtype, DType::F16 | DType::BF16) || double && dtype == DType::F64;
    let of_type = |v: &graph::Value| v.dtype().is_some_and(other);
    let in_functions = model.functions.iter().any(|f| f.values.iter().any(|(_, v)| of_type(v)) || names(&f.graph, other));
    if !in_functions && !model.values.iter().any(|(_, v)| of_type(v)) && !names(&model.graph, other) {
        return Ok(0);
    }
    if !model.functions.is_empty() {
        *model = graph::inline_functions(model)?;
    }
    let mut constants = 0;
    for id in model.values.iter().map(|(id, _)| id).collect::<Vec<_>>() {
        let value = &mut model.values[id];
        if let ValueType::Tensor { dtype, .. } = &mut value.ty
            && other(*dtype)
        {
            *dtype = DType::F32;
        }
        if let Some(constant) = &mut value.constant
            && let Some(single) = single(&constant.tensor, other)
        {
            constant.tensor = single;
            if !matches!(constant.origin, Origin::ConstantNode { .. }) {
                constant.origin = Origin::Initializer;
            }
            constants += 1;
        }
    }
    let mut graph = std::mem::take(&mut model.graph);
    attributes(&mut graph, other);
    model.graph = graph;
    let types = ops::infer_types(model).unwrap_or_default();
    let float = |values: &Values, v| match types.get(&v).unwrap_or(&values[v].ty) {
        ValueType::Tensor { dtype, .. } => *dtype == DType::F32,
        _ => values.tensor(v).is_some_and(|t| t.dtype() == DType::F32),
    };
    let mut graph = std::mem::take(&mut model.graph);
    casts(&mut graph, &|v| float(&model.values, v));
    model.graph = graph;
    ops::remove_identities(model);
    model.remove_dead();
    Ok(constants)
}

/// The types to convert.
type Other<'a> = &'a dyn Fn(DType) -> bool;

/// True if the model has inputs or weights in double precision.
pub fn is_double(model: &Model) -> bool {
    let weight = |v: &graph::ValueId| model.values.tensor(*v).is_some_and(|t| t.dtype() == DType::F64 && t.rank() > 1);
    model.graph.constants.iter().any(weight) || model.free_inputs().into_iter().any(|v| model.values[v].dtype() == Some(DType::F64))
}

fn single(t: &Tensor, other: Other) -> Option<Tensor> {
    if other(t.dtype()) { t.cast(DType::F32).ok() } else { None }
}

/// True for an attribute whose value is the number of such a type.
fn is_code(name: &str, value: &AttributeValue, other: Other) -> bool {
    matches!(value, AttributeValue::Int(code) if TYPES.contains(&name) && graph::dtype_of_code(*code).is_some_and(other))
}

fn names(graph: &Graph, other: Other) -> bool {
    let mut found = false;
    graph.visit(&mut |node| found |= node.attributes.list.iter().any(|a| is_code(&a.name, &a.value, other) || holds(&a.value, other)));
    found
}

fn holds(value: &AttributeValue, other: Other) -> bool {
    match value {
        AttributeValue::Tensor(t) => other(t.dtype()),
        AttributeValue::Tensors(list) => list.iter().any(|t| other(t.dtype())),
        _ => false,
    }
}

fn attributes(graph: &mut Graph, other: Other) {
    for node in &mut graph.nodes {
        for a in &mut node.attributes.list {
            if is_code(&a.name, &a.value, other) {
                a.value = AttributeValue::Int(graph::code_of_dtype(DType::F32));
            }
            match &mut a.value {
                AttributeValue::Tensor(t) => *t = single(t, other).unwrap_or_else(|| t.clone()),
                AttributeValue::Tensors(list) => list.iter_mut().for_each(|t| *t = single(t, other).unwrap_or_else(|| t.clone())),
                _ => {}
            }
        }
        node.subgraphs_mut().for_each(|sub| attributes(sub, other));
    }
}

/// Casts from float32 to itself become Identity.
fn casts(graph: &mut Graph, float: &dyn Fn(graph::ValueId) -> bool) {
    let code = graph::code_of_dtype(DType::F32);
    for node in &mut graph.nodes {
        node.subgraphs_mut().for_each(|g| casts(g, float));
        if node.op_type == "Cast" && node.is_onnx() && node.int_or("to", 0).is_ok_and(|to| to == code) && node.input(0).is_some_and(float) {
            *node = Node { attributes: Default::default(), op_type: "Identity".into(), ..std::mem::take(node) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Executor, Mode, Named};
    use graph::{Dim, Value};

    /// x (f32) -> Cast to f16 -> times w (f16) -> Cast to f32 -> y.
    fn model(input: DType) -> Model {
        let mut m = Model::new(17);
        let ty = |dtype| ValueType::Tensor { dtype, shape: Some(vec![Dim::Symbol("N".into()), Dim::Known(2)]) };
        let x = m.values.add(Value { name: "x".into(), ty: ty(input), ..Value::default() });
        let y = m.values.add(Value { name: "y".into(), ty: ty(DType::F32), ..Value::default() });
        let stored = if input == DType::F64 { DType::F64 } else { DType::F16 };
        let w = m.values.add_constant("w", Tensor::new(vec![1f32, 2.0, 3.0, 4.0], [2, 2]).unwrap().cast(stored).unwrap());
        let [narrow, product] = ["narrow", "product"].map(|n| m.values.add_named(n));
        m.graph.inputs.push(x);
        m.graph.outputs.push(y);
        m.graph.constants.push(w);
        let to = |code| AttributeValue::Int(code);
        m.graph.nodes = vec![
            Node::new("Cast", "", &[x], &[narrow]).with("to", to(graph::code_of_dtype(stored))),
            Node::new("MatMul", "", &[narrow, w], &[product]),
            Node::new("Cast", "", &[product], &[y]).with("to", to(1)),
        ];
        m
    }

    #[test]
    fn constants_types_and_casts_become_float32() {
        for input in [DType::F32, DType::F16, DType::F64] {
            let mut m = model(input);
            assert_eq!(to_float32(&mut m).unwrap(), 1);
            m.verify().unwrap();
            let kinds: Vec<&str> = m.graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
            assert_eq!(kinds, ["MatMul"]);
            assert_eq!(m.values[m.graph.inputs[0]].dtype(), Some(DType::F32));
            let x = Tensor::new(vec![0.1f32, 1e5], [1, 2]).unwrap();
            let y = Executor::new(&m).unwrap().run(&Named::from([("x".into(), x)]), Mode::FLOAT).unwrap()["y"].clone();
            assert_eq!(y.as_slice::<f32>().unwrap(), [0.1 + 3e5, 0.2 + 4e5]);
            assert_eq!(to_float32(&mut m).unwrap(), 0);
        }
    }

    #[test]
    fn a_step_in_double_among_others_stays() {
        let mut m = model(DType::F32);
        m.values.set_tensor(m.graph.constants[0], Tensor::new(vec![1f32; 4], [2, 2]).unwrap());
        for (node, code) in m.graph.nodes.iter_mut().filter(|n| n.op_type == "Cast").zip([11, 1]) {
            node.attributes.set("to", AttributeValue::Int(code));
        }
        let before = m.clone();
        assert_eq!(to_float32(&mut m).unwrap(), 0);
        assert_eq!(m.graph, before.graph);
    }
}
