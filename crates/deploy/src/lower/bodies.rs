//! Bodies of control flow that read a value dequantized outside of them: a runtime fuses within one graph only.
use graph::{Graph, Names, Node, Value, ValueId, Values};
use std::collections::{BTreeMap, HashMap};

/// Adds a DequantizeLinear to each body with a layer that reads a dequantized value of the outer graph.
pub(super) fn dequantize_inside(graph: &mut Graph, values: &mut Values) {
    if graph.nodes.iter().all(|n| n.subgraphs().next().is_none()) {
        return;
    }
    let mut names = (Names::of(values), Names::of_nodes(graph));
    in_graph(graph, values, &mut names, &HashMap::new());
}

/// True for a layer that has an integer counterpart.
fn is_layer(node: &Node) -> bool {
    node.is_onnx() && ops::integer_forms_of(&node.op_type).any(|(_, form)| form.weight.is_some())
}

fn in_graph(graph: &mut Graph, values: &mut Values, names: &mut (Names, Names), outer: &HashMap<ValueId, Node>) {
    let mut own: BTreeMap<ValueId, Node> = BTreeMap::new();
    for node in graph.nodes.iter_mut().filter(|n| is_layer(n)) {
        for input in node.inputs.iter_mut().flatten() {
            let Some(from) = outer.get(input) else { continue };
            let inside = own.entry(*input).or_insert_with(|| {
                let value = Value { name: names.0.fresh(&values[*input].name), ty: values[*input].ty.clone(), ..Value::default() };
                Node { outputs: vec![Some(values.add(value))], name: names.1.fresh(&from.name), ..from.clone() }
            });
            *input = inside.output(0).unwrap_or(*input);
        }
    }
    graph.nodes.splice(0..0, own.into_values());
    let mut seen = outer.clone();
    let dequantized = graph.nodes.iter().filter(|n| n.op_type == "DequantizeLinear" && n.is_onnx());
    seen.extend(dequantized.filter_map(|n| Some((n.output(0)?, n.clone()))));
    for sub in graph.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
        in_graph(sub, values, names, &seen);
    }
}
