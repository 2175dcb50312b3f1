//! Edits that keep a graph well formed.
use crate::{Graph, GraphError, Model, Node, ValueId, Values};
use std::collections::{HashMap, HashSet};

impl Graph {
    /// How often each value is read in this graph and its subgraphs (a graph output counts as one reading).
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

    /// Index of the node that makes a value.
    pub fn producer(&self, id: ValueId) -> Option<usize> {
        self.nodes.iter().position(|n| n.outputs.contains(&Some(id)))
    }

    /// Indices of the nodes of this graph that read a value directly.
    pub fn consumers(&self, id: ValueId) -> Vec<usize> {
        self.nodes.iter().enumerate().filter(|(_, n)| n.inputs.contains(&Some(id))).map(|(i, _)| i).collect()
    }

    /// Makes every reader of `from` (nodes here and in subgraphs, outputs) read `to`.
    pub fn replace_uses(&mut self, from: ValueId, to: ValueId) {
        for node in &mut self.nodes {
            for v in node.inputs.iter_mut().flatten().filter(|v| **v == from) {
                *v = to;
            }
            for sub in node.subgraphs_mut() {
                sub.replace_uses(from, to);
            }
        }
        for v in self.outputs.iter_mut().filter(|v| **v == from) {
            *v = to;
        }
    }

    /// Sorts the nodes so that each comes after what it reads; keeps the present order where it may.
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

impl Model {
    /// Inserts a node before position `at` of the main graph.
    pub fn insert_node(&mut self, at: usize, node: Node) {
        self.graph.nodes.insert(at.min(self.graph.nodes.len()), node);
    }

    /// A name that no value of the model has yet: `base`, or `base_1`, `base_2`, ...
    pub fn fresh_name(&self, base: &str) -> String {
        let taken: HashSet<&str> = self.values.iter().map(|(_, v)| v.name.as_str()).collect();
        if !taken.contains(base) {
            return base.to_string();
        }
        (1..).map(|i| format!("{base}_{i}")).find(|n| !taken.contains(n.as_str())).unwrap_or_default()
    }

    /// Removes nodes of the main graph nothing depends on, and constants nobody reads. Returns how many nodes went.
    pub fn remove_dead(&mut self) -> usize {
        let before = self.graph.nodes.len();
        loop {
            let uses = self.graph.use_counts();
            let n = self.graph.nodes.len();
            self.graph.nodes.retain(|node| node.outputs.iter().flatten().any(|v| uses.contains_key(v)));
            if self.graph.nodes.len() == n {
                self.graph.constants.retain(|v| uses.contains_key(v) || self.graph.inputs.contains(v));
                break;
            }
        }
        let made: HashSet<ValueId> = self.graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        self.graph.value_info.retain(|v| made.contains(v));
        before - self.graph.nodes.len()
    }
}
