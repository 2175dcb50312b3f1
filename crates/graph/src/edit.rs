//! Edits that keep a graph well formed.
use crate::{Graph, GraphError, Model, Node, ValueId, Values};
use std::collections::{HashMap, HashSet};

impl Graph {
    /// How often each value is read in this graph and its subgraphs (a graph output counts as one read).
    pub fn use_counts(&self) -> HashMap<ValueId, usize> {
        let mut counts = HashMap::new();
        fn add(g: &Graph, counts: &mut HashMap<ValueId, usize>) {
            for node in &g.nodes {
                for v in node.inputs.iter().flatten() {
                    *counts.entry(*v).or_insert(0) += 1;
                }
                for sub in node.subgraphs() {
                    add(sub, counts);
                }
            }
            for v in &g.outputs {
                *counts.entry(*v).or_insert(0) += 1;
            }
        }
        add(self, &mut counts);
        counts
    }

    /// Index of the node that computes a value. Searches all nodes: for many values use [`Graph::linked`].
    pub fn producer(&self, id: ValueId) -> Option<usize> {
        self.nodes.iter().position(|n| n.outputs.contains(&Some(id)))
    }

    /// Indices of the nodes of this graph that read a value directly. Searches all nodes, as [`Graph::producer`] does.
    pub fn consumers(&self, id: ValueId) -> Vec<usize> {
        self.nodes.iter().enumerate().filter(|(_, n)| n.inputs.contains(&Some(id))).map(|(i, _)| i).collect()
    }

    /// Makes every reader of `from` (nodes here and in subgraphs, outputs) read `to`.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        self.replace_all_uses(&HashMap::from([(from, to)]));
    }

    /// As [`Graph::replace_uses`] for many values at once. A replacement may be replaced itself; values of a circle stay.
    pub fn replace_all_uses(&mut self, replaced: &HashMap<ValueId, ValueId>) {
        let mut resolved: HashMap<ValueId, ValueId> = HashMap::new();
        for start in replaced.keys() {
            let (mut path, mut at) = (vec![], *start);
            while let (None, Some(next)) = (resolved.get(&at), replaced.get(&at)) {
                path.push(at);
                resolved.insert(at, at);
                at = *next;
            }
            if !path.contains(&at) {
                let end = resolved.get(&at).copied().unwrap_or(at);
                resolved.extend(path.into_iter().map(|v| (v, end)));
            }
        }
        self.read_instead(&resolved);
    }

    fn read_instead(&mut self, replaced: &HashMap<ValueId, ValueId>) {
        let nodes = self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().flatten());
        nodes.chain(&mut self.outputs).for_each(|v| *v = replaced.get(v).copied().unwrap_or(*v));
        for sub in self.nodes.iter_mut().flat_map(Node::subgraphs_mut) {
            sub.read_instead(replaced);
        }
    }

    /// Sorts the nodes so that each comes after its inputs' producers; keeps the present order where possible.
    ///
    /// # Errors
    /// [`GraphError::Graph`] if there is a cycle.
    pub fn sort(&mut self, values: &Values) -> Result<(), GraphError> {
        let mut makers: HashMap<ValueId, usize> = HashMap::new();
        for (i, n) in self.nodes.iter().enumerate() {
            for v in n.outputs.iter().flatten() {
                makers.insert(*v, i);
            }
        }
        let reads = |n: &Node| {
            let mut r: Vec<ValueId> = n.inputs.iter().flatten().copied().collect();
            for g in n.subgraphs() {
                r.extend(g.use_counts().into_keys());
            }
            r
        };
        let mut waiting: Vec<usize> = vec![0; self.nodes.len()];
        let mut readers: Vec<Vec<usize>> = vec![vec![]; self.nodes.len()];
        for (i, n) in self.nodes.iter().enumerate() {
            let from: HashSet<usize> = reads(n).iter().filter_map(|v| makers.get(v).copied()).collect();
            waiting[i] = from.len();
            for f in from {
                readers[f].push(i);
            }
        }
        let mut ready: std::collections::BTreeSet<usize> = (0..self.nodes.len()).filter(|i| waiting[*i] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(i) = ready.pop_first() {
            order.push(i);
            for r in &readers[i] {
                waiting[*r] -= 1;
                if waiting[*r] == 0 {
                    ready.insert(*r);
                }
            }
        }
        if order.len() < self.nodes.len() {
            let stuck: Vec<String> =
                (0..self.nodes.len()).filter(|i| waiting[*i] > 0).take(5).map(|i| self.nodes[i].label(values)).collect();
            return Err(GraphError::Graph { graph: self.name.clone(), what: format!("has a cycle through {}", stuck.join(", ")) });
        }
        let mut slots: Vec<Option<Node>> = std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        self.nodes = order.into_iter().filter_map(|i| slots[i].take()).collect();
        Ok(())
    }
}

/// Names in use, for code that needs many new ones. See [`Model::names`].
#[derive(Clone, Debug, Default)]
pub struct Names {
    taken: HashSet<String>,
    /// The last number tried for each base name.
    tried: HashMap<String, u64>,
}

impl Names {
    /// Names of a table's values.
    pub fn of(values: &Values) -> Names {
        Names { taken: values.iter().map(|(_, v)| v.name.clone()).collect(), tried: HashMap::new() }
    }

    /// Names of a graph's nodes, also in subgraphs.
    pub fn of_nodes(graph: &Graph) -> Names {
        let mut names = Names::default();
        graph.visit(&mut |node| {
            names.taken.insert(node.name.clone());
        });
        names
    }

    /// A name not in use yet, which is reserved: `base`, or `base_1`, `base_2`, ...
    pub fn fresh(&mut self, base: &str) -> String {
        if self.taken.insert(base.to_string()) {
            return base.to_string();
        }
        let mut number = self.tried.get(base).copied().unwrap_or(0);
        let name = loop {
            number += 1;
            let name = format!("{base}_{number}");
            if self.taken.insert(name.clone()) {
                break name;
            }
        };
        self.tried.insert(base.to_string(), number);
        name
    }

    /// Releases a name.
    pub fn release(&mut self, name: &str) {
        self.taken.remove(name);
    }
}

impl Model {
    /// The names of its values.
    pub fn names(&self) -> Names {
        Names::of(&self.values)
    }

    /// A name that no value of the model has yet: `base`, or `base_1`, `base_2`, ... Searches all values: for many names use
    /// [`Model::names`].
    pub fn fresh_name(&self, base: &str) -> String {
        self.names().fresh(base)
    }

    /// Removes nodes of the main graph without effect on its outputs, and constants without readers. Returns how many nodes were
    /// removed.
    pub fn remove_dead(&mut self) -> usize {
        let before = self.graph.nodes.len();
        let mut uses = self.graph.use_counts();
        // Readers come after producers, so one pass from the back finds all; a graph that is not sorted takes more.
        loop {
            let (mut kept, all) = (vec![], self.graph.nodes.len());
            for node in std::mem::take(&mut self.graph.nodes).into_iter().rev() {
                if node.outputs.iter().flatten().any(|v| uses.contains_key(v)) {
                    kept.push(node);
                    continue;
                }
                let inner = node.subgraphs().map(Graph::use_counts).flat_map(HashMap::into_iter);
                for (v, n) in node.inputs.iter().flatten().map(|v| (*v, 1)).chain(inner) {
                    if let Some(count) = uses.get_mut(&v) {
                        *count = count.saturating_sub(n);
                        if *count == 0 {
                            uses.remove(&v);
                        }
                    }
                }
            }
            kept.reverse();
            self.graph.nodes = kept;
            if self.graph.nodes.len() == all {
                break;
            }
        }
        let inputs: HashSet<ValueId> = self.graph.inputs.iter().copied().collect();
        self.graph.constants.retain(|v| uses.contains_key(v) || inputs.contains(v));
        let made: HashSet<ValueId> = self.graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        self.graph.value_info.retain(|v| made.contains(v));
        before - self.graph.nodes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AttributeValue;
    use tensor::Tensor;

    /// `x → Relu → … → Relu`, `n` of them, the last without readers; and a constant that the first one also reads in a branch.
    fn chain(n: usize) -> Model {
        let mut m = Model::new(17);
        let x = m.values.add_named("x");
        m.graph.inputs.push(x);
        let mut last = x;
        for i in 0..n {
            let out = m.values.add_named(format!("v{i}"));
            m.graph.nodes.push(Node::new("Relu", "", &[last], &[out]));
            last = out;
        }
        m
    }

    #[test]
    fn what_only_the_dead_read_is_dead_whatever_its_depth() {
        let mut m = chain(100_000);
        let c = m.values.add_constant("c", Tensor::scalar(1f32));
        m.graph.constants.push(c);
        let branch = Graph { outputs: vec![c], ..Graph::default() };
        m.graph.nodes[99_999] = m.graph.nodes[99_999].clone().with("branch", AttributeValue::Graph(Box::new(branch)));
        let y = m.values.add_named("y");
        m.graph.nodes.push(Node::new("Relu", "", &[m.graph.inputs[0]], &[y]));
        m.graph.outputs.push(y);
        assert_eq!(m.remove_dead(), 100_000);
        assert!(m.graph.nodes.len() == 1 && m.graph.constants.is_empty());
    }

    #[test]
    fn many_values_are_replaced_at_once_and_through_each_other() {
        let mut m = chain(4);
        let made: Vec<ValueId> = m.graph.nodes.iter().map(|n| n.output(0).unwrap()).collect();
        m.graph.outputs.push(made[3]);
        let x = m.graph.inputs[0];
        m.graph.replace_all_uses(&HashMap::from([(made[0], x), (made[1], made[0])]));
        assert_eq!((m.graph.nodes[1].input(0), m.graph.nodes[2].input(0), m.graph.nodes[3].input(0)), (Some(x), Some(x), Some(made[2])));
        m.graph.replace_all_uses(&HashMap::from([(made[2], made[3]), (made[3], made[2])]));
        assert_eq!(m.graph.outputs, [made[3]]);
    }

    #[test]
    fn names_stay_apart() {
        let m = chain(3);
        let mut names = m.names();
        assert_eq!(["v1", "v1", "w", "w", "v1_2"].map(|base| names.fresh(base)), ["v1_1", "v1_2", "w", "w_1", "v1_2_1"]);
        assert_eq!(m.fresh_name("v1"), "v1_1");
    }

    #[test]
    fn names_of_nodes_in_subgraphs_are_taken() {
        let body = Graph { nodes: vec![Node::new("Relu", "inner", &[], &[])], ..Graph::default() };
        let outer = Node::new("If", "outer", &[], &[]).with("then_branch", crate::AttributeValue::Graph(Box::new(body)));
        let mut names = Names::of_nodes(&Graph { nodes: vec![outer], ..Graph::default() });
        assert_eq!([names.fresh("inner"), names.fresh("outer"), names.fresh("other")], ["inner_1", "outer_1", "other"]);
    }
}
