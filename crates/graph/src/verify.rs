//! Checks that a model is well formed.
use crate::{Graph, GraphError, Model, ValueId};
use std::collections::HashSet;

impl Model {
    /// Checks that every id belongs to this model, every value is computed once and before it is read, names are unique within
    /// their scope, and every annotation has the shape of its value.
    ///
    /// # Errors
    /// The first violation, by name.
    pub fn verify(&self) -> Result<(), GraphError> {
        self.verify_graph(&self.graph, &mut HashSet::new())?;
        for (id, a) in self.annotations.iter() {
            let value = self.value(id)?;
            if let (Some(mask), Some(c)) = (&a.mask, &value.constant)
                && mask.shape() != c.tensor.shape()
            {
                return Err(GraphError::Value {
                    value: value.name.clone(),
                    what: format!("has shape {:?}, its mask {:?}", c.tensor.shape(), mask.shape()),
                });
            }
        }
        Ok(())
    }

    /// `known` are the values that the graph may read: the same before and after.
    fn verify_graph(&self, g: &Graph, known: &mut HashSet<ValueId>) -> Result<(), GraphError> {
        let mut names: HashSet<&str> = HashSet::new();
        let (inputs, mut own): (HashSet<ValueId>, Vec<ValueId>) = (g.inputs.iter().copied().collect(), vec![]);
        let mut learn = |known: &mut HashSet<ValueId>, v: ValueId| {
            let new = known.insert(v);
            if new {
                own.push(v);
            }
            new
        };
        for v in &g.inputs {
            let value = self.value(*v)?;
            if !learn(known, *v) || !names.insert(&value.name) {
                return Err(GraphError::Value { value: value.name.clone(), what: format!("is an input of graph '{}' twice", g.name) });
            }
        }
        for v in &g.constants {
            let value = self.value(*v)?;
            if value.constant.is_none() {
                return Err(GraphError::Value { value: value.name.clone(), what: "is listed as a constant but has no elements".into() });
            }
            if !learn(known, *v) && !inputs.contains(v) {
                return Err(GraphError::Value { value: value.name.clone(), what: "is a constant twice".into() });
            }
            if !inputs.contains(v) && !names.insert(&value.name) {
                return Err(GraphError::Value { value: value.name.clone(), what: "is the name of two values".into() });
            }
        }
        for node in &g.nodes {
            for v in node.inputs.iter().flatten() {
                let value = self.value(*v)?;
                if !known.contains(v) {
                    return Err(node.error(format!("reads '{}', which no node before it computes", value.name)));
                }
            }
            for sub in node.subgraphs() {
                self.verify_graph(sub, known)?;
            }
            for v in node.outputs.iter().flatten() {
                let value = self.value(*v)?;
                if !learn(known, *v) || !names.insert(&value.name) {
                    return Err(node.error(format!("computes '{}', which exists already", value.name)));
                }
            }
        }
        for v in &g.outputs {
            let value = self.value(*v)?;
            if !known.contains(v) {
                return Err(GraphError::Value {
                    value: value.name.clone(),
                    what: format!("is an output of graph '{}' that no node computes", g.name),
                });
            }
        }
        for v in &own {
            known.remove(v);
        }
        Ok(())
    }
}
