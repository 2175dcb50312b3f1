//! Replaces calls of model-local functions by their bodies, so that an executor needs to know operators only.
use crate::{Attribute, AttributeValue, Function, Graph, GraphError, Model, Node, ValueId, Values};
use std::collections::HashMap;

/// Functions that call functions deeper than this call themselves.
const DEEPEST: usize = 32;

/// The model with every call of one of its functions replaced by the function's body, also in subgraphs.
///
/// # Errors
/// [`GraphError::Node`] for a call with more arguments than the function has, an attribute that the call must give, or
/// functions that call each other without end; [`GraphError::Graph`] if a function was written for another version of
/// an operator set than the model imports.
pub fn inline_functions(model: &Model) -> Result<Model, GraphError> {
    let mut out = model.clone();
    let mut graph = std::mem::take(&mut out.graph);
    let mut inliner = Inliner { model, values: std::mem::take(&mut out.values), calls: 0 };
    inliner.graph(&mut graph, 0)?;
    out.values = inliner.values;
    out.graph = graph;
    out.functions.clear();
    Ok(out)
}

struct Inliner<'a> {
    model: &'a Model,
    values: Values,
    calls: usize,
}

impl Inliner<'_> {
    fn graph(&mut self, graph: &mut Graph, depth: usize) -> Result<(), GraphError> {
        let nodes = std::mem::take(&mut graph.nodes);
        for mut node in nodes {
            for sub in node.subgraphs_mut() {
                self.graph(sub, depth)?;
            }
            match self.model.functions.iter().find(|f| f.name == node.op_type && f.domain == node.domain && f.overload == node.overload) {
                None => graph.nodes.push(node),
                Some(function) => self.call(graph, function, &node, depth)?,
            }
        }
        Ok(())
    }

    fn call(&mut self, graph: &mut Graph, function: &Function, node: &Node, depth: usize) -> Result<(), GraphError> {
        if depth >= DEEPEST {
            return Err(node.error("functions call each other without end"));
        }
        if node.inputs.len() > function.graph.inputs.len() || node.outputs.len() > function.graph.outputs.len() {
            return Err(node.error(format!("passes more than function '{}' takes", function.name)));
        }
        for o in &function.opsets {
            if let Some(v) = self.model.opset(&o.domain)
                && v != o.version
            {
                let what = format!("is written for version {} of operator set '{}', the model imports {v}", o.version, o.domain);
                return Err(GraphError::Graph { graph: function.name.clone(), what });
            }
        }
        self.calls += 1;
        let prefix = format!("{}#{}/", function.name, self.calls);
        // Formal inputs stand for the actual ones; an omitted one stays omitted.
        let mut map: HashMap<ValueId, Option<ValueId>> = HashMap::new();
        for (i, formal) in function.graph.inputs.iter().enumerate() {
            map.insert(*formal, node.input(i));
        }
        for (i, formal) in function.graph.outputs.iter().enumerate() {
            // A constant stays a constant of the body: an Identity below hands it on.
            if let Some(actual) = node.output(i)
                && !map.contains_key(formal)
                && !function.graph.constants.contains(formal)
            {
                map.insert(*formal, Some(actual));
            }
        }
        let mut body = Graph::default();
        self.copy(function, &function.graph, &mut body, &mut map, node, &prefix)?;
        // An output that is also an input, a constant, or listed twice has no node of its own to make it.
        for (i, formal) in function.graph.outputs.iter().enumerate() {
            let (Some(actual), Some(Some(source))) = (node.output(i), map.get(formal)) else { continue };
            if *source != actual {
                body.nodes.push(Node::new("Identity", format!("{prefix}output{i}"), &[*source], &[actual]));
            }
        }
        self.graph(&mut body, depth + 1)?;
        graph.constants.append(&mut body.constants);
        graph.nodes.append(&mut body.nodes);
        Ok(())
    }

    /// Copies a body (or a subgraph of one) with fresh values and the call's attributes.
    fn copy(
        &mut self,
        f: &Function,
        from: &Graph,
        to: &mut Graph,
        map: &mut HashMap<ValueId, Option<ValueId>>,
        call: &Node,
        prefix: &str,
    ) -> Result<(), GraphError> {
        to.name.clone_from(&from.name);
        for v in &from.constants {
            let id = self.fresh(f, *v, map, prefix);
            to.constants.push(id);
        }
        for node in &from.nodes {
            let mut copy = Node { name: format!("{prefix}{}", node.name), attributes: Default::default(), ..node.clone() };
            copy.inputs = node.inputs.iter().map(|v| v.and_then(|v| map.get(&v).copied().flatten())).collect();
            copy.outputs = node.outputs.iter().map(|v| v.map(|v| self.fresh(f, v, map, prefix))).collect();
            for a in &node.attributes.list {
                let value = match &a.value {
                    AttributeValue::Reference(name) => match call.attributes.get(name).or_else(|| f.attribute_defaults.get(name)) {
                        Some(v) => v.clone(),
                        // An attribute that the caller leaves out is left out inside too.
                        None => continue,
                    },
                    AttributeValue::Graph(g) => AttributeValue::Graph(Box::new(self.subgraph(f, g, map, call, prefix)?)),
                    AttributeValue::Graphs(gs) => {
                        AttributeValue::Graphs(gs.iter().map(|g| self.subgraph(f, g, map, call, prefix)).collect::<Result<_, _>>()?)
                    }
                    other => other.clone(),
                };
                copy.attributes.list.push(Attribute { name: a.name.clone(), value, extra: a.extra.clone() });
            }
            to.nodes.push(copy);
        }
        Ok(())
    }

    fn subgraph(
        &mut self,
        f: &Function,
        g: &Graph,
        map: &mut HashMap<ValueId, Option<ValueId>>,
        call: &Node,
        prefix: &str,
    ) -> Result<Graph, GraphError> {
        let mut out = Graph::default();
        for v in &g.inputs {
            let id = self.fresh(f, *v, map, prefix);
            out.inputs.push(id);
        }
        self.copy(f, g, &mut out, map, call, prefix)?;
        out.outputs = g.outputs.iter().filter_map(|v| map.get(v).copied().flatten()).collect();
        Ok(out)
    }

    fn fresh(&mut self, f: &Function, v: ValueId, map: &mut HashMap<ValueId, Option<ValueId>>, prefix: &str) -> ValueId {
        if let Some(Some(known)) = map.get(&v) {
            return *known;
        }
        let mut value = f.values[v].clone();
        value.name = format!("{prefix}{}", value.name);
        let id = self.values.add(value);
        map.insert(v, Some(id));
        id
    }
}
