//! Half precision to single: what trains, is quantized and is pruned here is float32.
use crate::TrainError;
use graph::{AttributeValue, Graph, Model, Node, Origin, ValueType, Values};
use tensor::{DType, Tensor};

/// Attributes that hold an element type by its number.
const TYPES: &[&str] = &["to", "dtype", "output_dtype", "precision", "softmax_precision", "stash_type"];

/// Makes everything that is float16 or bfloat16 float32: constants, declared types (those of inputs and outputs too), casts and other
/// attributes that name the type. Casts that say nothing any more go. Returns how many tensors the file held in such a type; a model
/// without any stays as it is.
///
/// Results are those of float32 arithmetic: more exact than before, and without float16's overflow beyond 65504.
///
/// # Errors
/// [`TrainError::Graph`] for functions that cannot be inlined, which is done first.
pub fn to_float32(model: &mut Model) -> Result<usize, TrainError> {
    let half_type = |v: &graph::Value| v.dtype().is_some_and(is_half);
    let in_functions = model.functions.iter().any(|f| f.values.iter().any(|(_, v)| half_type(v)) || names_half(&f.graph));
    if !in_functions && !model.values.iter().any(|(_, v)| half_type(v)) && !names_half(&model.graph) {
        return Ok(0);
    }
    if !model.functions.is_empty() {
        *model = graph::inline_functions(model)?;
    }
    let mut constants = 0;
    for id in model.values.iter().map(|(id, _)| id).collect::<Vec<_>>() {
        let value = &mut model.values[id];
        if let ValueType::Tensor { dtype, .. } = &mut value.ty
            && is_half(*dtype)
        {
            *dtype = DType::F32;
        }
        if let Some(constant) = &mut value.constant
            && let Some(wide) = widened(&constant.tensor)
        {
            constant.tensor = wide;
            if !matches!(constant.origin, Origin::ConstantNode { .. }) {
                constant.origin = Origin::Initializer;
            }
            constants += 1;
        }
    }
    let mut graph = std::mem::take(&mut model.graph);
    attributes(&mut graph);
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

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

fn widened(t: &Tensor) -> Option<Tensor> {
    if is_half(t.dtype()) { t.cast(DType::F32).ok() } else { None }
}

/// True for an attribute whose value is the number of a half precision type.
fn is_half_code(name: &str, value: &AttributeValue) -> bool {
    matches!(value, AttributeValue::Int(code) if TYPES.contains(&name) && graph::dtype_of_code(*code).is_some_and(is_half))
}

fn names_half(graph: &Graph) -> bool {
    let mut found = false;
    graph.visit(&mut |node| found |= node.attributes.list.iter().any(|a| is_half_code(&a.name, &a.value) || holds_half(&a.value)));
    found
}

fn holds_half(value: &AttributeValue) -> bool {
    match value {
        AttributeValue::Tensor(t) => is_half(t.dtype()),
        AttributeValue::Tensors(list) => list.iter().any(|t| is_half(t.dtype())),
        _ => false,
    }
}

fn attributes(graph: &mut Graph) {
    for node in &mut graph.nodes {
        for a in &mut node.attributes.list {
            if is_half_code(&a.name, &a.value) {
                a.value = AttributeValue::Int(graph::code_of_dtype(DType::F32));
            }
            match &mut a.value {
                AttributeValue::Tensor(t) => *t = widened(t).unwrap_or_else(|| t.clone()),
                AttributeValue::Tensors(list) => list.iter_mut().for_each(|t| *t = widened(t).unwrap_or_else(|| t.clone())),
                _ => {}
            }
        }
        node.subgraphs_mut().for_each(attributes);
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
        let w = m.values.add_constant("w", Tensor::new(vec![1f32, 2.0, 3.0, 4.0], [2, 2]).unwrap().cast(DType::F16).unwrap());
        let [narrow, product] = ["narrow", "product"].map(|n| m.values.add_named(n));
        m.graph.inputs.push(x);
        m.graph.outputs.push(y);
        m.graph.constants.push(w);
        let to = |code| AttributeValue::Int(code);
        m.graph.nodes = vec![
            Node::new("Cast", "", &[x], &[narrow]).with("to", to(10)),
            Node::new("MatMul", "", &[narrow, w], &[product]),
            Node::new("Cast", "", &[product], &[y]).with("to", to(1)),
        ];
        m
    }

    #[test]
    fn constants_types_and_casts_become_float32() {
        for input in [DType::F32, DType::F16] {
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
}
