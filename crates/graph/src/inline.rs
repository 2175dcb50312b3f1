//! Replaces calls of model-local functions by their bodies, so that an executor needs to know operators only.
use crate::{Attribute, AttributeValue, Function, Graph, GraphError, Model, Node, ValueId, Values};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Deeper nesting of calls counts as recursion.
const DEEPEST: usize = 32;

/// Most nodes after inlining: ten functions that each call the previous one twice repeat its nodes a thousand times.
const MOST_NODES: usize = 1_000_000;

/// The model with every call of one of its functions replaced by the function's body, also in subgraphs.
///
/// # Errors
/// [`GraphError::Node`] for a call with more arguments than the function has, an attribute that the call must give, or
/// functions that call each other without end or unfold to too many nodes; [`GraphError::Graph`] if a function was written for
/// another version of an operator set than the model imports.
pub fn inline_functions(model: &Model) -> Result<Model, GraphError> {
    let mut out = model.clone();
    let mut graph = std::mem::take(&mut out.graph);
    // Of several functions with one name the first one counts.
    let functions = model.functions.iter().rev().map(|f| (key(&f.domain, &f.name, &f.overload), Callee::of(f))).collect();
    let mut inliner = Inliner { model, functions, values: std::mem::take(&mut out.values), calls: 0, made: 0 };
    inliner.graph(&mut graph, 0)?;
    out.values = inliner.values;
    out.graph = graph;
    out.functions.clear();
    Ok(out)
}

type Key<'a> = (&'a str, &'a str, &'a str);

fn key<'a>(domain: &'a str, name: &'a str, overload: &'a str) -> Key<'a> {
    (domain, name, overload)
}

/// A function, with the data needed at each call.
#[derive(Clone)]
struct Callee<'a> {
    function: &'a Function,
    constants: Rc<HashSet<ValueId>>,
}

impl<'a> Callee<'a> {
    fn of(function: &'a Function) -> Self {
        Callee { function, constants: Rc::new(function.graph.constants.iter().copied().collect()) }
    }
}

struct Inliner<'a> {
    model: &'a Model,
    functions: HashMap<Key<'a>, Callee<'a>>,
    values: Values,
    calls: usize,
    /// Nodes and values inlined so far.
    made: usize,
}

impl Inliner<'_> {
    fn graph(&mut self, graph: &mut Graph, depth: usize) -> Result<(), GraphError> {
        let nodes = std::mem::take(&mut graph.nodes);
        for mut node in nodes {
            for sub in node.subgraphs_mut() {
                self.graph(sub, depth)?;
            }
            match self.functions.get(&key(&node.domain, &node.op_type, &node.overload)).cloned() {
                None => graph.nodes.push(node),
                Some(callee) => self.call(graph, &callee, &node, depth)?,
            }
        }
        Ok(())
    }

    fn call(&mut self, graph: &mut Graph, callee: &Callee, node: &Node, depth: usize) -> Result<(), GraphError> {
        let function = callee.function;
        if depth >= DEEPEST {
            return Err(node.error("functions call each other endlessly"));
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
        // Formal inputs are replaced by the actual ones; an omitted input stays omitted.
        let mut map: HashMap<ValueId, Option<ValueId>> = HashMap::new();
        for (i, formal) in function.graph.inputs.iter().enumerate() {
            map.insert(*formal, node.input(i));
        }
        for (i, formal) in function.graph.outputs.iter().enumerate() {
            // A constant stays a constant of the body: an Identity below passes it on.
            if let Some(actual) = node.output(i)
                && !map.contains_key(formal)
                && !callee.constants.contains(formal)
            {
                map.insert(*formal, Some(actual));
            }
        }
        let mut body = Graph::default();
        self.copy(function, &function.graph, &mut body, &mut map, node, &prefix)?;
        // An output that is also an input or a constant, or is listed twice, has no node of its own that computes it.
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
        self.made = self.made.saturating_add(from.nodes.len() + from.constants.len());
        if self.made > MOST_NODES {
            return Err(call.error(format!("the calls of functions unfold to more than {MOST_NODES} nodes")));
        }
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
                        // An attribute that the caller omits is omitted inside too.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_unfold_to_too_many_nodes_are_refused() {
        let mut m = Model::new(17);
        // f0 is a Relu, each f(i+1) calls f(i) four times: 4^12 Relus.
        for i in 0..13 {
            let mut f = Function { domain: "d".into(), name: format!("f{i}"), ..Function::default() };
            let x = f.values.add_named("x");
            f.graph.inputs.push(x);
            let mut last = x;
            for k in 0..if i == 0 { 1 } else { 4 } {
                let out = f.values.add_named(format!("y{k}"));
                let callee = if i == 0 { "Relu".to_string() } else { format!("f{}", i - 1) };
                let domain = if i == 0 { "" } else { "d" };
                f.graph.nodes.push(Node { domain: domain.into(), ..Node::new(&callee, "", &[last], &[out]) });
                last = out;
            }
            f.graph.outputs.push(last);
            m.functions.push(f);
        }
        let (x, y) = (m.values.add_named("x"), m.values.add_named("y"));
        m.graph.inputs.push(x);
        m.graph.outputs.push(y);
        let call = |name: &str| Node { domain: "d".into(), ..Node::new(name, "call", &[x], &[y]) };
        m.graph.nodes = vec![call("f4")];
        assert_eq!(inline_functions(&m).unwrap().graph.nodes.len(), 256);
        m.graph.nodes = vec![call("f12")];
        let refused = inline_functions(&m).unwrap_err().to_string();
        assert!(refused.contains("unfold to more than 1000000 nodes"), "{refused}");
    }
}
