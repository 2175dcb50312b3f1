//! Producer and readers of each value of a graph, found once.
use crate::{Graph, Node, ValueId};
use std::collections::HashMap;

impl Graph {
    /// The graph with the producer and the readers of each of its values.
    pub fn linked(&self) -> Linked<'_> {
        Linked { graph: self, links: self.links() }
    }

    /// Producer and readers by the indices of the nodes, for code that edits the graph and updates the links: see [`Links`].
    pub fn links(&self) -> Links {
        let mut links = Links::default();
        for (i, node) in self.nodes.iter().enumerate() {
            for v in node.outputs.iter().flatten() {
                links.makers.entry(*v).or_insert(i);
            }
            for v in node.inputs.iter().flatten() {
                links.read_by(*v, i);
            }
        }
        links
    }
}

/// A graph with the producer and the readers of each of its values. It borrows the graph, so no edit can make it wrong. Nodes of
/// subgraphs are not included: each graph has links of its own.
#[derive(Clone, Debug)]
pub struct Linked<'g> {
    graph: &'g Graph,
    links: Links,
}

impl<'g> Linked<'g> {
    /// The graph that the links were built from.
    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// The node that computes a value.
    pub fn maker(&self, id: ValueId) -> Option<&'g Node> {
        self.links.producer(id).map(|at| &self.graph.nodes[at])
    }

    /// The nodes that read a value, in the graph's order, each once.
    pub fn readers(&self, id: ValueId) -> impl Iterator<Item = &'g Node> + use<'g, '_> {
        self.links.consumers(id).iter().map(|at| &self.graph.nodes[*at])
    }

    /// As [`Linked::readers`], as indices.
    pub fn links(&self) -> &Links {
        &self.links
    }
}

/// Producer and readers of each value of a graph, by the indices of its nodes. An edit of the graph does not update them: the
/// editing code does ([`Links::made_by`], [`Links::unmade`], [`Links::read_by`]) and keeps the nodes in place until the end. Code
/// that only reads uses [`Graph::linked`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Links {
    makers: HashMap<ValueId, usize>,
    readers: HashMap<ValueId, Vec<usize>>,
}

impl Links {
    /// As [`Graph::producer`].
    pub fn producer(&self, id: ValueId) -> Option<usize> {
        self.makers.get(&id).copied()
    }

    /// Sets the producer of a value.
    pub fn made_by(&mut self, id: ValueId, node: usize) {
        self.makers.insert(id, node);
    }

    /// Removes the producer of a value and returns its index.
    pub fn unmade(&mut self, id: ValueId) -> Option<usize> {
        self.makers.remove(&id)
    }

    /// Adds a reader of a value.
    pub fn read_by(&mut self, id: ValueId, node: usize) {
        let readers = self.readers.entry(id).or_default();
        if readers.last() != Some(&node) {
            readers.push(node);
        }
    }

    /// As [`Graph::consumers`].
    pub fn consumers(&self, id: ValueId) -> &[usize] {
        self.readers.get(&id).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALUES: u32 = 12;

    /// Nodes with up to four inputs and two outputs among few values: values without a producer, with several readers, read twice
    /// by one node, and omitted ones.
    fn nodes() -> impl Strategy<Value = Vec<Node>> {
        let slot = || prop_oneof![1 => Just(None), 5 => (0..VALUES).prop_map(|v| Some(ValueId(v)))];
        let node = (proptest::collection::vec(slot(), 0..4), proptest::collection::vec(slot(), 0..2));
        let node = node.prop_map(|(inputs, outputs)| Node { inputs, outputs, ..Node::default() });
        proptest::collection::vec(node, 0..20)
    }

    fn agrees(graph: &Graph, links: &Links) {
        for id in (0..VALUES).map(ValueId) {
            assert_eq!(links.producer(id), graph.producer(id), "{id:?}");
            assert_eq!(links.consumers(id), graph.consumers(id), "{id:?}");
        }
    }

    proptest! {
        #[test]
        fn links_say_what_looking_through_all_nodes_says(nodes in nodes()) {
            let graph = Graph { nodes, ..Graph::default() };
            agrees(&graph, &graph.links());
            let linked = graph.linked();
            for id in (0..VALUES).map(ValueId) {
                prop_assert_eq!(linked.maker(id), graph.producer(id).map(|i| &graph.nodes[i]));
                let readers: Vec<&Node> = graph.consumers(id).into_iter().map(|i| &graph.nodes[i]).collect();
                prop_assert_eq!(linked.readers(id).collect::<Vec<_>>(), readers);
            }
        }

        #[test]
        fn links_that_are_told_of_edits_stay_right(nodes in nodes(), more in nodes()) {
            let mut graph = Graph { nodes, ..Graph::default() };
            let mut links = graph.links();
            for node in more {
                let at = graph.nodes.len();
                // A value has one producer: the new node replaces the one before.
                for v in node.outputs.iter().flatten() {
                    let made = |output: &mut Option<ValueId>| *output == Some(*v);
                    graph.nodes.iter_mut().flat_map(|n| &mut n.outputs).filter_map(|o| made(o).then_some(o)).for_each(|o| *o = None);
                    links.unmade(*v);
                    links.made_by(*v, at);
                }
                node.inputs.iter().flatten().for_each(|v| links.read_by(*v, at));
                graph.nodes.push(node);
            }
            agrees(&graph, &links);
        }
    }
}
